// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a case expects to receive next.

use bus1_uapi as abi;

use super::{Message, Peer};
use crate::host::Errno;

/// A message in a word, for failures.
fn name(msg: &abi::Msg) -> String {
    let kind = match msg.kind {
        abi::MSG_NONE => "NONE",
        abi::MSG_DATA => "DATA",
        abi::MSG_NODE_DESTROY => "NODE_DESTROY",
        abi::MSG_NODE_RELEASE => "NODE_RELEASE",
        _ => "an unknown type",
    };
    format!(
        "{kind} for {:#x} with flags {:#x}, {} bytes",
        msg.destination, msg.flags, msg.n_bytes
    )
}

impl Peer {
    /// The next message, which must be DATA.
    #[track_caller]
    pub fn data(&self) -> Message {
        let message = self.any();
        let kind = message.msg.kind;
        assert_eq!(
            kind,
            abi::MSG_DATA,
            "expected DATA, got {}",
            name(&message.msg)
        );
        message
    }

    /// The next message, which must be DATA with this payload and nothing else.
    #[track_caller]
    pub fn text(&self, bytes: &[u8]) -> Message {
        let message = self.data();
        let (got, wanted) = (message.bytes.escape_ascii(), bytes.escape_ascii());
        assert!(
            message.bytes == bytes,
            "expected the payload \"{wanted}\", got \"{got}\""
        );
        message
    }

    /// The next message.
    #[track_caller]
    pub fn any(&self) -> Message {
        match self.recv() {
            Ok(message) => message,
            Err(errno) => panic!("expected a message, RECV says {errno:?}"),
        }
    }

    #[track_caller]
    fn notice(&self, kind: u64, id: u64) -> Message {
        let message = self.any();
        let wanted = abi::Msg {
            kind,
            destination: id,
            ..Default::default()
        };
        let fits = message.msg.kind == kind && message.msg.destination == id;
        assert!(
            fits,
            "expected {}, got {}",
            name(&wanted),
            name(&message.msg)
        );
        message
    }

    /// The next message, which must be NODE_RELEASE for the own node `id`.
    #[track_caller]
    pub fn node_release(&self, id: u64) -> Message {
        self.notice(abi::MSG_NODE_RELEASE, id)
    }

    /// The next message, which must be NODE_DESTROY for the handle `id`.
    #[track_caller]
    pub fn node_destroy(&self, id: u64) -> Message {
        self.notice(abi::MSG_NODE_DESTROY, id)
    }

    /// Nothing is ready.
    #[track_caller]
    pub fn nothing(&self) {
        match self.recv() {
            Ok(message) => panic!("expected no message, got {}", name(&message.msg)),
            Err(errno) => assert_eq!(errno, Errno::AGAIN, "expected EAGAIN of RECV"),
        }
    }

    /// Receives all there is and gives the slices back.
    #[track_caller]
    pub fn drain(&self) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            match self.recv() {
                Ok(message) => {
                    if message.msg.offset != abi::OFFSET_INVALID {
                        self.release_slice(message.msg.offset)
                            .expect("SLICE_RELEASE failed");
                    }
                    all.push(message);
                }
                Err(Errno::AGAIN) => return all,
                Err(errno) => panic!("RECV says {errno:?}"),
            }
        }
    }
}
