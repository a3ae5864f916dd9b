// SPDX-License-Identifier: MIT OR Apache-2.0

//! The logs of senders and receivers, in memory and as words that travel between processes.

use std::collections::BTreeMap;

/// A maker of transactions: senders first, then receivers, which send now and then as well.
pub type Actor = u8;

/// One part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The receiver that it goes to.
    pub receiver: u8,
    /// The target there.
    pub target: Target,
}

/// The target of a part at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A message to one of the receiver's own nodes.
    Slot(u8),
    /// The destruction of a node of which the receiver holds this handle.
    Handle(u64),
}

/// One transaction whose call succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Counts the attempts of this actor, from 1.
    pub serial: u32,
    /// The parts, in the order in which they were named.
    pub parts: Vec<Part>,
    /// For each actor, the last of its transactions that was known to have returned before this
    /// one began.
    pub seen: Vec<u32>,
    /// A message that its maker had received before.
    pub cause: Option<(Actor, u32)>,
}

/// One part as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// The content of the part.
    pub what: What,
    /// True if another part of the transaction was promised.
    pub more: bool,
    /// True if the payload was not as it was sent.
    pub corrupt: bool,
    /// True if it came to a node after the notice of the node's destruction.
    pub late: bool,
}

/// The content of a received part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A message.
    Data {
        /// The sender.
        actor: Actor,
        /// The number of the message at its sender.
        serial: u32,
        /// The node that it came to.
        slot: u8,
    },
    /// The destruction of the node behind this handle.
    Destroyed(u64),
}

impl Got {
    /// Returns the target of the part.
    pub fn target(&self) -> Target {
        match self.what {
            What::Data { slot, .. } => Target::Slot(slot),
            What::Destroyed(handle) => Target::Handle(handle),
        }
    }
}

/// The logs of all actors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// For each actor, its transactions as they were made.
    pub sent: Vec<Vec<Sent>>,
    /// For each receiver, the parts that it received, in order.
    pub got: Vec<Vec<Got>>,
    /// For each sender that was stopped for good, the last transaction whose call had returned by
    /// then. Later ones need not be received.
    pub stopped: BTreeMap<Actor, u32>,
}

const SLOT: u64 = 0;
const HANDLE: u64 = 1;

/// Appends transactions as words.
pub fn put_sent(words: &mut Vec<u64>, all: &[Sent]) {
    words.push(all.len() as u64);
    for sent in all {
        words.push(u64::from(sent.serial));
        words.push(sent.parts.len() as u64);
        for part in &sent.parts {
            let (kind, value) = match part.target {
                Target::Slot(slot) => (SLOT, u64::from(slot)),
                Target::Handle(id) => (HANDLE, id),
            };
            words.extend([u64::from(part.receiver), kind, value]);
        }
        words.push(sent.seen.len() as u64);
        words.extend(sent.seen.iter().map(|&serial| u64::from(serial)));
        match sent.cause {
            Some((actor, serial)) => words.extend([1, u64::from(actor), u64::from(serial)]),
            None => words.push(0),
        }
    }
}

/// Appends receptions as words.
pub fn put_got(words: &mut Vec<u64>, all: &[Got]) {
    words.push(all.len() as u64);
    for got in all {
        let flags = [got.more, got.corrupt, got.late];
        words.push(
            flags
                .iter()
                .rev()
                .fold(0, |word, &flag| word << 1 | u64::from(flag)),
        );
        match got.what {
            What::Data {
                actor,
                serial,
                slot,
            } => {
                words.extend([SLOT, u64::from(actor), u64::from(serial), u64::from(slot)]);
            }
            What::Destroyed(id) => words.extend([HANDLE, id]),
        }
    }
}

/// Reads words back. Panics at the end of the words: this program wrote them.
pub struct Words<'a>(pub &'a [u64]);

impl Words<'_> {
    fn next(&mut self) -> u64 {
        let (&first, rest) = self.0.split_first().expect("the log ends early");
        self.0 = rest;
        first
    }

    /// Reads the words of [`put_sent`].
    pub fn sent(&mut self) -> Vec<Sent> {
        (0..self.next())
            .map(|_| {
                let serial = self.next() as u32;
                let parts = (0..self.next()).map(|_| self.part()).collect();
                let seen = (0..self.next()).map(|_| self.next() as u32).collect();
                let cause = (self.next() == 1).then(|| (self.next() as Actor, self.next() as u32));
                Sent {
                    serial,
                    parts,
                    seen,
                    cause,
                }
            })
            .collect()
    }

    fn part(&mut self) -> Part {
        let receiver = self.next() as u8;
        let target = match self.next() {
            SLOT => Target::Slot(self.next() as u8),
            _ => Target::Handle(self.next()),
        };
        Part { receiver, target }
    }

    /// Reads the words of [`put_got`].
    pub fn got(&mut self) -> Vec<Got> {
        (0..self.next())
            .map(|_| {
                let flags = self.next();
                let what = match self.next() {
                    SLOT => What::Data {
                        actor: self.next() as Actor,
                        serial: self.next() as u32,
                        slot: self.next() as u8,
                    },
                    _ => What::Destroyed(self.next()),
                };
                let flag = |bit: u32| flags >> bit & 1 == 1;
                Got {
                    what,
                    more: flag(0),
                    corrupt: flag(1),
                    late: flag(2),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        let slot = Part {
            receiver: 3,
            target: Target::Slot(1),
        };
        let handle = Part {
            receiver: 0,
            target: Target::Handle(u64::MAX - 4),
        };
        let sent = vec![
            Sent {
                serial: 7,
                parts: vec![slot, handle],
                seen: vec![1, 0, 9],
                cause: None,
            },
            Sent {
                serial: 8,
                cause: Some((2, 77)),
                ..Sent::default()
            },
        ];
        let data = What::Data {
            actor: 1,
            serial: 70_000,
            slot: 2,
        };
        let got = vec![
            Got {
                what: data,
                more: true,
                corrupt: false,
                late: true,
            },
            Got {
                what: What::Destroyed(11),
                more: false,
                corrupt: true,
                late: false,
            },
        ];
        let mut words = Vec::new();
        put_sent(&mut words, &sent);
        put_got(&mut words, &got);
        let mut read = Words(&words);
        assert_eq!((read.sent(), read.got()), (sent, got));
        assert!(read.0.is_empty());
    }
}
