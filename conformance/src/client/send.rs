// SPDX-License-Identifier: MIT OR Apache-2.0

//! SEND, well-formed or not.

use bus1_ioctl::{RawVec, SendArgs};
use bus1_uapi as abi;

use super::Peer;
use crate::host::Result;

/// Contents of the error array before the call; a host that does not write leaves it.
pub const UNWRITTEN: i32 = -12345;

type Edit<'a> = Box<dyn FnOnce(&mut abi::CmdSend) + 'a>;

/// A SEND to be filled in.
pub struct Send<'a> {
    peer: &'a Peer,
    flags: u64,
    to: Vec<u64>,
    vectors: Vec<RawVec>,
    handles: Vec<u64>,
    fds: Vec<i32>,
    edits: Vec<Edit<'a>>,
}

/// The outcome of a SEND.
#[derive(Debug)]
pub struct Outcome {
    /// The result of the command.
    pub result: Result,
    /// The error array, one for each destination.
    pub errors: Vec<i32>,
}

impl<'a> Send<'a> {
    pub(super) fn new(peer: &'a Peer) -> Self {
        Self {
            peer,
            flags: 0,
            to: Vec::new(),
            vectors: Vec::new(),
            handles: Vec::new(),
            fds: Vec::new(),
            edits: Vec::new(),
        }
    }

    /// Adds destinations.
    pub fn to(mut self, ids: &[u64]) -> Self {
        self.to.extend_from_slice(ids);
        self
    }

    /// Adds a vector.
    pub fn bytes(mut self, bytes: &'a [u8]) -> Self {
        let base = bytes.as_ptr().expose_provenance() as u64;
        self.vectors.push(RawVec {
            base,
            len: bytes.len() as u64,
        });
        self
    }

    /// Adds a vector of any address and length.
    pub fn vector(mut self, base: u64, len: u64) -> Self {
        self.vectors.push(RawVec { base, len });
        self
    }

    /// Adds handles.
    pub fn handles(mut self, ids: &[u64]) -> Self {
        self.handles.extend_from_slice(ids);
        self
    }

    /// Adds descriptors.
    pub fn fds(mut self, fds: &[i32]) -> Self {
        self.fds.extend_from_slice(fds);
        self
    }

    /// Adds flags.
    pub fn flags(mut self, flags: u64) -> Self {
        self.flags |= flags;
        self
    }

    /// Adds SEND_FLAG_CONTINUE.
    pub fn proceed(self) -> Self {
        self.flags(abi::SEND_FLAG_CONTINUE)
    }

    /// Adds SEND_FLAG_SEED.
    pub fn seed(self) -> Self {
        self.flags(abi::SEND_FLAG_SEED)
    }

    /// Adds SEND_FLAG_ROOM.
    pub fn room(self) -> Self {
        self.flags(abi::SEND_FLAG_ROOM)
    }

    /// Changes the finished structure at will.
    pub fn edit(mut self, edit: impl FnOnce(&mut abi::CmdSend) + 'a) -> Self {
        self.edits.push(Box::new(edit));
        self
    }

    /// Sends, without an error array unless CONTINUE needs one.
    pub fn send(self) -> Result {
        let wanted = self.wants_errors();
        self.run(wanted).result
    }

    /// Returns whether it is one that must have an error array.
    pub(super) fn wants_errors(&self) -> bool {
        self.flags & abi::SEND_FLAG_CONTINUE != 0
    }

    /// Sends, with an error array.
    pub fn outcome(self) -> Outcome {
        self.run(true)
    }

    /// Returns the structure. It points into this value and, if there are any, to `errors`.
    pub(super) fn command(&mut self, errors: &mut [i32]) -> abi::CmdSend {
        let args = SendArgs::new()
            .flags(self.flags)
            .destinations(&self.to)
            .results(errors)
            .handles(&self.handles);
        // SAFETY: the structure goes to hosts that check every address and every number, and the
        // suite names no descriptor that must not travel.
        let args = unsafe { args.raw_payload(&self.vectors).raw_fds(&self.fds) };
        let mut arg = *args.command();
        for edit in self.edits.drain(..) {
            edit(&mut arg);
        }
        arg
    }

    /// Returns room for the error of each destination.
    pub(super) fn errors(&self) -> Vec<i32> {
        vec![UNWRITTEN; self.to.len()]
    }

    fn run(mut self, with_errors: bool) -> Outcome {
        let mut errors = self.errors();
        let wanted = if with_errors {
            &mut errors[..]
        } else {
            &mut []
        };
        let mut arg = self.command(wanted);
        let result = self.peer.command(abi::CMD_SEND, &mut arg);
        Outcome { result, errors }
    }
}
