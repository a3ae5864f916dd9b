// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages of the demo.
//!
//! [`Control`] messages go between a worker and the directory. A publication is a [`Header`] and a
//! piece of the text behind it; the bus does not know of either.

use std::fmt;

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::pieces::Block;

/// The part that a worker plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Publisher,
    Subscriber,
}

/// A worker of a demo. The directory makes these, one for each worker that it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId {
    pub role: Role,
    /// Its number among those of its role, from 0.
    pub index: u32,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscriber => "subscriber",
        }
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role.name(), self.index)
    }
}

/// Messages between workers and the directory.
///
/// A worker does not name itself: the directory knows it by the node that the message was sent to.
#[derive(Debug, Serialize, Deserialize)]
pub enum Control {
    /// A worker is there. Comes with a handle to its node.
    Hello,
    /// To subscribers: so many publishers will end.
    Expect { publishers: u32 },
    /// To publishers: begin. Comes with handles to all subscribers and a descriptor of the text.
    Publish {
        publishers: u32,
        rounds: u64,
        block: Block,
    },
    /// From a subscriber: what it received, from position `first` of its sequence on.
    Received { first: u64, entries: Vec<u64> },
    /// From a subscriber, after all publishers ended.
    Summary(Summary),
    /// From a publisher, after its last message.
    Done(Done),
    /// From a worker that gives up, and why.
    Failed { reason: String },
}

/// The last report of a subscriber. Times are nanoseconds of the system's monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Publications that were received.
    pub messages: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
    /// Of them: those whose sum or length was wrong.
    pub damaged: u64,
    /// Of them: those that were not the next of their publisher.
    pub misplaced: u64,
    /// Digest of the sequence.
    pub digest: u64,
    /// Time at which the last one was received.
    pub end: u64,
}

/// The last report of a publisher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Multicasts.
    pub messages: u64,
    /// Attempts that were refused because of a quota, and tried again.
    pub over_quota: u64,
    /// Attempts that were refused because of a full pool, and tried again.
    pub pool_full: u64,
    /// Time at which it began.
    pub start: u64,
}

impl Control {
    pub fn encode(&self) -> Result<Vec<u8>> {
        postcard::to_stdvec(self).context("cannot encode a message")
    }

    pub fn decode(payload: &[u8]) -> Result<Self> {
        postcard::from_bytes(payload).context("a message that is not of the demo")
    }
}

/// The kind of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A piece of the text.
    Piece,
    /// The last one of its publisher.
    End,
}

/// The header before a piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Index of its publisher.
    pub publisher: u32,
    /// Its number among those of its publisher, from 0.
    pub sequence: u64,
    /// Length of the piece in bytes.
    pub len: u64,
    /// Sum of the piece.
    pub sum: u64,
}

impl Header {
    pub const SIZE: usize = 32;

    /// Makes the header of a piece.
    pub fn new(kind: Kind, publisher: u32, sequence: u64, piece: &[u8]) -> Self {
        Self {
            kind,
            publisher,
            sequence,
            len: piece.len() as u64,
            sum: xxh3_64(piece),
        }
    }

    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let kind = match self.kind {
            Kind::Piece => 1u64,
            Kind::End => 2,
        };
        let mut bytes = [0; Self::SIZE];
        let words = [
            kind << 32 | u64::from(self.publisher),
            self.sequence,
            self.len,
            self.sum,
        ];
        for (at, word) in bytes.chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Splits a payload into its header and the piece. The sum is not looked at.
    pub fn split(payload: &[u8]) -> Result<(Self, &[u8])> {
        let (header, piece) = payload
            .split_first_chunk::<{ Self::SIZE }>()
            .context("a publication without a header")?;
        let mut words = [0; Self::SIZE / 8];
        for (word, bytes) in words.iter_mut().zip(header.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into()?);
        }
        let [first, sequence, len, sum] = words;
        let kind = match first >> 32 {
            1 => Kind::Piece,
            2 => Kind::End,
            other => anyhow::bail!("a publication of the unknown kind {other}"),
        };
        ensure!(sequence >> 48 == 0, "a sequence number out of range");
        let header = Self {
            kind,
            publisher: first as u32,
            sequence,
            len,
            sum,
        };
        Ok((header, piece))
    }

    /// Returns whether this is the piece that was sent.
    pub fn fits(&self, piece: &[u8]) -> bool {
        self.len == piece.len() as u64 && self.sum == xxh3_64(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_notices_damage() {
        let header = Header::new(Kind::Piece, 7, 1 << 40, b"a line\n");
        let payload = [&header.to_bytes()[..], b"a line\n"].concat();
        let (found, piece) = Header::split(&payload).unwrap();
        assert_eq!((found, piece), (header, &b"a line\n"[..]));
        assert!(found.fits(piece));
        assert!(!found.fits(b"a lime\n"));
        assert!(!found.fits(b"a line"));
        assert!(Header::split(&payload[..31]).is_err());
    }

    #[test]
    fn control_messages_come_back() {
        let sent = Control::Received {
            first: 9,
            entries: vec![1, u64::MAX],
        };
        let found = Control::decode(&sent.encode().unwrap()).unwrap();
        assert!(matches!(
            found,
            Control::Received { first: 9, entries } if entries == [1, u64::MAX]
        ));
        assert!(Control::decode(b"\xff\xff").is_err());
    }
}
