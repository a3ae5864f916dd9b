// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE, well-formed or not, as often as a case likes.

use bus1_uapi as abi;

use super::{Message, Peer, Send};
use crate::host::{Errno, Result};

/// An EXCHANGE to be filled in, and what it left.
pub struct Exchange<'a> {
    peer: &'a Peer,
    /// The argument: as it was filled in, then as the last call left it.
    pub arg: abi::CmdExchange,
    /// The error array of the message, if it is one with CONTINUE.
    pub errors: Vec<i32>,
    slices: Vec<u64>,
    msgs: Vec<abi::Msg>,
    // It holds the arrays that the argument points to.
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

    /// Sets what to send.
    pub fn send(mut self, mut message: Send<'a>) -> Self {
        if message.wants_errors() {
            self.errors = message.errors();
        }
        self.arg.send = message.command(&mut self.errors);
        self.arg.flags |= abi::EXCHANGE_FLAG_SEND;
        self.outgoing = Some(message);
        self
    }

    /// Sets how many messages there is room for.
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

    /// Waits for as long as it takes.
    pub fn patient(self) -> Self {
        self.until(abi::DEADLINE_NEVER)
    }

    /// Sets the end of the mapping; without it, all that the suite has mapped.
    pub fn max_offset(mut self, max_offset: u64) -> Self {
        self.arg.max_offset = max_offset;
        self
    }

    /// Changes the structure at will.
    pub fn edit(mut self, edit: impl FnOnce(&mut abi::CmdExchange)) -> Self {
        edit(&mut self.arg);
        self
    }

    /// One call, with the argument as the one before left it.
    pub fn call(&mut self) -> Result {
        self.peer.command(abi::CMD_EXCHANGE, &mut self.arg)
    }

    /// What the last call, which succeeded, has brought. To be asked for once.
    pub fn messages(&mut self) -> Vec<Message> {
        let n = std::mem::take(&mut self.arg.n_msgs) as usize;
        assert!(
            n <= self.msgs.len(),
            "more messages than there was room for"
        );
        let msgs = self.msgs[..n].iter();
        msgs.map(|&msg| Message::read(self.peer, msg)).collect()
    }

    /// One call, which has to succeed, and what it brings.
    #[track_caller]
    pub fn get(&mut self) -> Vec<Message> {
        match self.call() {
            Ok(()) => self.messages(),
            Err(errno) => panic!("EXCHANGE says {errno:?}"),
        }
    }

    /// One call, which has to bring one message.
    #[track_caller]
    pub fn one(mut self) -> Message {
        let mut messages = self.get();
        assert_eq!(messages.len(), 1, "EXCHANGE brought other than one message");
        messages.remove(0)
    }

    /// The errno of one call, when a case expects one.
    #[track_caller]
    pub fn refused(mut self) -> Errno {
        match self.call() {
            Ok(()) => panic!("EXCHANGE succeeded with {} messages", self.arg.n_msgs),
            Err(errno) => errno,
        }
    }
}
