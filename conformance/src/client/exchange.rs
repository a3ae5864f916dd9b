// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE, well-formed or not, called any number of times.

use bus1_uapi as abi;

use super::{Message, Peer, Send};
use crate::host::{Errno, Result};

/// An EXCHANGE to be filled in, and its state after each call.
pub struct Exchange<'a> {
    peer: &'a Peer,
    /// The argument as it was filled in, or as the last call left it.
    pub arg: abi::CmdExchange,
    /// The error array of a message with CONTINUE.
    pub errors: Vec<i32>,
    slices: Vec<u64>,
    msgs: Vec<abi::Msg>,
    // The message holds the arrays that the argument points to.
    outgoing: Option<Send<'a>>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(peer: &'a Peer) -> Self {
        Self {
            peer,
            arg: abi::CmdExchange {
                size: abi::CmdExchange::SIZE as u64,
                flags: abi::EXCHANGE_FLAG_INSTALL_FDS,
                max_offset: peer.mapped(),
                deadline: abi::DEADLINE_NOW,
                ..Default::default()
            },
            errors: Vec::new(),
            slices: Vec::new(),
            msgs: Vec::new(),
            outgoing: None,
        }
    }

    /// Sets the slices to release.
    pub fn release(mut self, offsets: &[u64]) -> Self {
        self.slices = offsets.to_vec();
        self.arg.ptr_slices = self.slices.as_ptr().expose_provenance() as u64;
        self.arg.n_slices = offsets.len() as u64;
        self
    }

    /// Sets the message to send.
    pub fn send(mut self, mut message: Send<'a>) -> Self {
        if message.wants_errors() {
            self.errors = message.errors();
        }
        self.arg.send = message.command(&mut self.errors);
        self.arg.flags |= abi::EXCHANGE_FLAG_SEND;
        self.outgoing = Some(message);
        self
    }

    /// Sets the room for messages.
    pub fn room(mut self, n: usize) -> Self {
        self.msgs = vec![abi::Msg::default(); n];
        self.arg.ptr_msgs = self.msgs.as_mut_ptr().expose_provenance() as u64;
        self.arg.n_msgs = n as u64;
        self
    }

    /// Sets the deadline.
    pub fn until(mut self, deadline: u64) -> Self {
        self.arg.deadline = deadline;
        self
    }

    /// Sets the deadline NEVER.
    pub fn patient(self) -> Self {
        self.until(abi::DEADLINE_NEVER)
    }

    /// Sets the end of the mapping; by default the end of the mapping that the suite made.
    pub fn max_offset(mut self, max_offset: u64) -> Self {
        self.arg.max_offset = max_offset;
        self
    }

    /// Changes the structure at will.
    pub fn edit(mut self, edit: impl FnOnce(&mut abi::CmdExchange)) -> Self {
        edit(&mut self.arg);
        self
    }

    /// Calls once, with the argument as the call before left it.
    pub fn call(&mut self) -> Result {
        self.peer.command(abi::CMD_EXCHANGE, &mut self.arg)
    }

    /// Returns the messages that the last call, which succeeded, has received. A second call of
    /// this method returns none.
    pub fn messages(&mut self) -> Vec<Message> {
        let n = std::mem::take(&mut self.arg.n_msgs) as usize;
        assert!(
            n <= self.msgs.len(),
            "more messages than there was room for"
        );
        let msgs = self.msgs[..n].iter();
        msgs.map(|&msg| Message::read(self.peer, msg)).collect()
    }

    /// Calls once, which has to succeed, and returns the received messages.
    #[track_caller]
    pub fn expect_messages(&mut self) -> Vec<Message> {
        match self.call() {
            Ok(()) => self.messages(),
            Err(errno) => panic!("EXCHANGE says {errno:?}"),
        }
    }

    /// Calls once, which has to receive exactly one message.
    #[track_caller]
    pub fn expect_one(mut self) -> Message {
        let mut messages = self.expect_messages();
        assert_eq!(messages.len(), 1, "EXCHANGE brought other than one message");
        messages.remove(0)
    }

    /// Calls once, which has to fail, and returns the errno.
    #[track_caller]
    pub fn expect_errno(mut self) -> Errno {
        match self.call() {
            Ok(()) => panic!("EXCHANGE succeeded with {} messages", self.arg.n_msgs),
            Err(errno) => errno,
        }
    }
}
