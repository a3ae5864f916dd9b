// SPDX-License-Identifier: MIT OR Apache-2.0

//! RECV, and received messages.

use std::os::fd::{FromRawFd, OwnedFd};

use bus1_uapi as abi;

use super::{align8, Peer};
use crate::host::{Errno, Result};

/// A RECV to be filled in.
pub struct Recv<'a> {
    peer: &'a Peer,
    flags: u64,
    max_offset: Option<u64>,
}

/// A received message, copied out of the pool. Its slice is still there.
#[derive(Debug)]
pub struct Message {
    /// The structure as it was filled in.
    pub msg: abi::Msg,
    /// The payload.
    pub bytes: Vec<u8>,
    /// The handle IDs.
    pub handles: Vec<u64>,
    /// The descriptors.
    pub fds: Vec<OwnedFd>,
    /// The whole slice, padding included.
    pub slice: Vec<u8>,
}

impl<'a> Recv<'a> {
    pub(super) fn new(peer: &'a Peer) -> Self {
        Self {
            peer,
            flags: abi::RECV_FLAG_INSTALL_FDS,
            max_offset: None,
        }
    }

    /// Sets the flags.
    pub fn flags(mut self, flags: u64) -> Self {
        self.flags = flags;
        self
    }

    /// Sets the end of the mapping; by default the end of the mapping that the suite made.
    pub fn max_offset(mut self, max_offset: u64) -> Self {
        self.max_offset = Some(max_offset);
        self
    }

    /// Calls RECV and returns only the structure. Descriptors stay numbers in the slice.
    pub fn header(self) -> Result<abi::Msg> {
        let max_offset = self.max_offset.unwrap_or_else(|| self.peer.mapped());
        let mut arg = abi::CmdRecv {
            flags: self.flags,
            max_offset,
            msg: abi::Msg::default(),
        };
        self.peer.command(abi::CMD_RECV, &mut arg)?;
        Ok(arg.msg)
    }

    /// Calls RECV and copies the message out of the pool.
    pub fn run(self) -> Result<Message> {
        let peer = self.peer;
        self.header().map(|msg| Message::read(peer, msg))
    }

    /// Calls RECV, which has to fail, and returns the errno.
    #[track_caller]
    pub fn expect_errno(self) -> Errno {
        match self.run() {
            Ok(message) => panic!("RECV succeeded: {:?}", message.msg),
            Err(errno) => errno,
        }
    }
}

impl Message {
    pub(super) fn read(peer: &Peer, msg: abi::Msg) -> Self {
        let mut message = Self {
            msg,
            bytes: vec![],
            handles: vec![],
            fds: vec![],
            slice: vec![],
        };
        if msg.offset == abi::OFFSET_INVALID {
            return message;
        }
        let handles_at = align8(msg.n_bytes);
        let fds_at = handles_at + 8 * msg.n_handles;
        let end = fds_at + align8(4 * msg.n_fds);
        message.slice = peer.read_pool(msg.offset, end.max(8));
        message.bytes = message.slice[..msg.n_bytes as usize].to_vec();
        message.handles = message.slice[handles_at as usize..fds_at as usize]
            .chunks_exact(8)
            .map(|id| u64::from_ne_bytes(id.try_into().expect("eight bytes")))
            .collect();
        message.fds = message.slice[fds_at as usize..(fds_at + 4 * msg.n_fds) as usize]
            .chunks_exact(4)
            .map(|fd| {
                let fd = i32::from_ne_bytes(fd.try_into().expect("four bytes"));
                assert!(fd >= 0, "the slice has the descriptor {fd}");
                // SAFETY: the bus has just installed it for us, and it is known only here.
                unsafe { OwnedFd::from_raw_fd(fd) }
            })
            .collect();
        message
    }

    /// Returns the handle of a message that has to have exactly one.
    #[track_caller]
    pub fn expect_handle(&self) -> u64 {
        assert_eq!(
            self.handles.len(),
            1,
            "the message has other than one handle"
        );
        self.handles[0]
    }

    /// Returns whether the next part of the same transaction follows.
    pub fn more(&self) -> bool {
        self.msg.flags & abi::MSG_FLAG_CONTINUE != 0
    }
}
