// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A queue of plain numbers, for the tests of this folder.

use std::vec::Vec;

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::order::cursor::Cursor;
use crate::bus::order::group::{EntryRef, EntryReservation, Links, Queued, Removed};
use crate::bus::order::key::{Key, Number};
use crate::bus::order::queue::Queue;
use crate::bus::order::ring::Ring;
use crate::bus::order::transaction::Transaction;

/// A message that is nothing except its ID.
pub(crate) struct Note {
    pub(crate) id: u64,
    pub(crate) links: Links<Note>,
}

/// A notice that is nothing except its ID; the simplest entry that can be staged.
pub(crate) struct Sign {
    pub(crate) id: u64,
}

impl Queued for Note {
    type Notice = Sign;

    fn links(&self) -> &Links<Self> {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

/// A queue to take steps on.
pub(crate) struct TestQueue {
    pub(crate) queue: Queue<Note>,
}

impl TestQueue {
    pub(crate) fn new() -> Self {
        Self {
            queue: Queue::new(Ring::new(64).unwrap()),
        }
    }

    /// Commits a message after `floor`. Returns its key.
    pub(crate) fn push_above(&mut self, floor: u64, id: u64) -> Key {
        self.queue.push(floor, message(id));
        Key::alone(self.queue.clock())
    }

    /// Commits a message of an even ID, or a notice of an odd one. Returns its key.
    pub(crate) fn push(&mut self, id: u64) -> Key {
        if id & 1 == 0 {
            return self.push_above(0, id);
        }
        self.queue.push_notice(Sign { id }, reservation())
    }

    /// Stages a notice. Returns the timestamp to commit at.
    pub(crate) fn stage(&mut self, transaction: &Arc<Transaction>, part: u32, id: u64) -> u64 {
        let notice = Sign { id };
        self.queue
            .stage(transaction, part, Removed::Notice(notice, reservation()))
    }

    /// Stages a message of an even ID, or a notice of an odd one. Returns the timestamp to commit
    /// at.
    pub(crate) fn stage_some(&mut self, transaction: &Arc<Transaction>, part: u32, id: u64) -> u64 {
        if id & 1 != 0 {
            return self.stage(transaction, part, id);
        }
        self.queue
            .stage(transaction, part, Removed::Message(part_message(id)))
    }

    /// Settles the queue. Returns the key of the entry that can be received.
    pub(crate) fn head(&mut self) -> Option<Key> {
        self.queue.settle();
        Some(self.queue.head()?.key)
    }

    /// Counts the entries that are committed and staged, a few at a time.
    pub(crate) fn count(&self) -> (usize, usize) {
        let (mut cursor, mut n) = (self.queue.cursor(), 0);
        while !matches!(cursor, Cursor::End) {
            let at = self.queue.advance(&mut cursor);
            let entry = at.and_then(|at| self.queue.entry_at(&at));
            n += usize::from(entry.is_some());
        }
        (n, self.queue.n_staged())
    }

    /// Returns the ID of the entry behind the head that is of the same transaction.
    pub(crate) fn following(&self, key: &Key) -> Option<u64> {
        self.queue.following(key).map(|next| id_of(&next.entry))
    }

    /// Receives the first entry. Returns its ID.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let key = self.head()?;
        Some(id(&self.queue.pop(&key).unwrap()))
    }

    pub(crate) fn take_all(&mut self) -> Vec<u64> {
        core::iter::from_fn(|| self.take()).collect()
    }
}

pub(crate) fn reservation() -> EntryReservation<Note> {
    EntryReservation::<Note>::new(GFP_KERNEL).unwrap()
}

pub(crate) fn message(id: u64) -> KBox<Note> {
    let links = Links::NONE;
    KBox::new(Note { id, links }, GFP_KERNEL).unwrap()
}

/// Makes a message that can be one of several parts.
pub(crate) fn part_message(id: u64) -> KBox<Note> {
    let mut message = message(id);
    message.links.reservation = Some(reservation());
    message
}

pub(crate) fn id(removed: &Removed<Note>) -> u64 {
    match removed {
        Removed::Message(message) => message.id,
        Removed::Notice(notice, _) => notice.id,
    }
}

pub(crate) fn id_of(entry: &EntryRef<'_, Note>) -> u64 {
    match entry {
        EntryRef::Message(message) => message.id,
        EntryRef::Notice(notice) => notice.id,
    }
}

/// Makes an undecided transaction, the `count`-th of peer 1.
pub(crate) fn transaction(count: u64) -> Arc<Transaction> {
    transaction_of(1, count)
}

pub(crate) fn transaction_of(maker: u64, count: u64) -> Arc<Transaction> {
    Transaction::new(Number { maker, count }, maker as u32).unwrap()
}

/// Numbers of entries that are committed and staged.
pub(crate) fn count(committed: usize, staged: usize) -> (usize, usize) {
    (committed, staged)
}
