// SPDX-License-Identifier: MIT OR Apache-2.0

//! Receipts that fail the case unless they bring the expected message.

use bus1_uapi as abi;

use super::{Message, Peer};
use crate::host::Errno;

/// Describes a message in a failure.
fn name(msg: &abi::Msg) -> String {
    let kind = match msg.kind {
        abi::MSG_NONE => "NONE",
        abi::MSG_DATA => "DATA",
        abi::MSG_NODE_DESTROY => "NODE_DESTROY",
        abi::MSG_NODE_RELEASE => "NODE_RELEASE",
        abi::MSG_ROOM => "ROOM",
        _ => "an unknown type",
    };
    format!(
        "{kind} for {:#x} with flags {:#x}, {} bytes",
        msg.destination, msg.flags, msg.n_bytes
    )
}

impl Peer {
    /// Receives the next message, which has to be DATA.
    #[track_caller]
    pub fn expect_data(&self) -> Message {
        let message = self.expect_message();
        let kind = message.msg.kind;
        assert_eq!(
            kind,
            abi::MSG_DATA,
            "expected DATA, got {}",
            name(&message.msg)
        );
        message
    }

    /// Receives the next message, which has to be DATA with exactly this payload.
    #[track_caller]
    pub fn expect_text(&self, bytes: &[u8]) -> Message {
        let message = self.expect_data();
        let (got, wanted) = (message.bytes.escape_ascii(), bytes.escape_ascii());
        assert!(
            message.bytes == bytes,
            "expected the payload \"{wanted}\", got \"{got}\""
        );
        message
    }

    /// Receives the next message or notification; there has to be one.
    #[track_caller]
    pub fn expect_message(&self) -> Message {
        match self.recv() {
            Ok(message) => message,
            Err(errno) => panic!("expected a message, RECV says {errno:?}"),
        }
    }

    /// Receives the next message, which has to be this notification.
    #[track_caller]
    fn expect_notice(&self, kind: u64, id: u64) -> Message {
        let message = self.expect_message();
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

    /// Receives the next message, which has to be NODE_RELEASE for the own node `id`.
    #[track_caller]
    pub fn expect_node_release(&self, id: u64) -> Message {
        self.expect_notice(abi::MSG_NODE_RELEASE, id)
    }

    /// Receives the next message, which has to be NODE_DESTROY for the handle `id`.
    #[track_caller]
    pub fn expect_node_destroy(&self, id: u64) -> Message {
        self.expect_notice(abi::MSG_NODE_DESTROY, id)
    }

    /// Receives the next message, which has to be ROOM for the handle `id`.
    #[track_caller]
    pub fn expect_room(&self, id: u64) -> Message {
        self.expect_notice(abi::MSG_ROOM, id)
    }

    /// Calls RECV, which has to fail with EAGAIN.
    #[track_caller]
    pub fn expect_nothing(&self) {
        match self.recv() {
            Ok(message) => panic!("expected no message, got {}", name(&message.msg)),
            Err(errno) => assert_eq!(errno, Errno::AGAIN, "expected EAGAIN of RECV"),
        }
    }

    /// Receives until RECV fails with EAGAIN, and releases the slices. Any other error fails the
    /// case.
    #[track_caller]
    pub fn expect_all(&self) -> Vec<Message> {
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
