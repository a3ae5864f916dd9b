// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Entries of a queue, and groups: the parts of one transaction that are in one queue.
//!
//! The parts of a transaction are consecutive in each queue. So they are staged, moved, committed
//! and looked at as one, however many they are. A group stands in the memory that its first part
//! brought along, and the other parts stand in their own: nothing is allocated to move a group.
//!
//! A notice without other parts is a group of its own. A message without other parts is in the
//! ring, or also a group of its own.
//!
//! # Invariants
//!
//! - `part` is below the number of every part in `rest`.
//! - A group is in a tree by a key whose part is 0, a part in `rest` by a key that only has a part.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use crate::bus::order::key::Key;
use crate::bus::order::transaction::{Fate, Transaction};

/// A message, as far as a queue has to do with it.
pub(crate) trait Queued: Sized {
    /// Any other entry that can stand in the queue.
    type Notice;

    /// Returns the part of the message that belongs to the queue.
    fn links(&self) -> &Links<Self>;

    /// Returns the part of the message that belongs to the queue, to be changed.
    fn links_mut(&mut self) -> &mut Links<Self>;
}

/// The part of a message that belongs to the queue.
pub(crate) struct Links<M: Queued> {
    /// Place of the message in the order, while it is in the ring.
    pub(crate) key: Key,
    /// Memory for its entry in a tree. A message that is one of several parts has it, except while
    /// it is in a group.
    pub(crate) reservation: Option<EntryReservation<M>>,
}

impl<M: Queued> Links<M> {
    /// Makes the links of a message that is in no queue, and was never one of several parts.
    pub(crate) const NONE: Self = Self {
        key: Key::FIRST,
        reservation: None,
    };
}

/// The kinds of entries.
pub(crate) enum Entry<M: Queued> {
    Message(KBox<M>),
    Notice(M::Notice),
}

/// A reference to an entry that stays in the queue.
pub(crate) enum EntryRef<'q, M: Queued> {
    Message(&'q M),
    Notice(&'q M::Notice),
}

impl<M: Queued> Clone for EntryRef<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Queued> Copy for EntryRef<'_, M> {}

impl<M: Queued> Entry<M> {
    /// Returns the kind of the entry, without taking it.
    pub(crate) fn as_ref(&self) -> EntryRef<'_, M> {
        match self {
            Entry::Message(message) => EntryRef::Message(message),
            Entry::Notice(notice) => EntryRef::Notice(notice),
        }
    }

    /// Joins the entry with the memory that it stood in.
    pub(crate) fn with(self, reservation: EntryReservation<M>) -> Removed<M> {
        match self {
            Entry::Message(mut message) => {
                message.links_mut().reservation = Some(reservation);
                Removed::Message(message)
            }
            Entry::Notice(notice) => Removed::Notice(notice, reservation),
        }
    }
}

/// An entry that is in no tree, with the memory to stand in one; a message keeps that itself.
pub(crate) enum Removed<M: Queued> {
    Message(KBox<M>),
    Notice(M::Notice, EntryReservation<M>),
}

impl<M: Queued> Removed<M> {
    /// Separates the entry from its memory. None, and the entry is dropped, for a message that was
    /// not made to be one of several parts.
    pub(crate) fn split(self) -> Option<(Entry<M>, EntryReservation<M>)> {
        match self {
            Removed::Message(mut message) => {
                let reservation = message.links_mut().reservation.take();
                debug_assert!(reservation.is_some(), "a part without memory for a tree");
                Some((Entry::Message(message), reservation?))
            }
            Removed::Notice(notice, reservation) => Some((Entry::Notice(notice), reservation)),
        }
    }
}

/// Groups by key.
///
/// An option, since a group is taken out of its tree node before the node gets another key.
pub(crate) type Tree<M> = RBTree<Key, Option<Group<M>>>;
/// Memory for one entry of a tree.
pub(crate) type EntryReservation<M> = RBTreeNodeReservation<Key, Option<Group<M>>>;

/// The transaction of a staged group, and the group's place.
pub(crate) struct Staged {
    /// May be undecided, committed since the last pull, or killed.
    pub(crate) transaction: Arc<Transaction>,
    /// Place of the group: a timestamp that the transaction will be committed above. It is odd, and
    /// above the clock as it was when the last part was staged.
    pub(crate) after: u64,
}

impl Staged {
    /// Moves the group behind `timestamp`, if it stands before that, by its transaction's floor.
    /// False if the transaction was committed meanwhile.
    pub(crate) fn move_behind(&mut self, timestamp: u64) -> bool {
        if self.after > timestamp {
            return true;
        }
        match self.transaction.raise(timestamp) {
            Fate::Undecided { floor } => self.after = floor + 1,
            Fate::Committed(_) => return false,
            // Passed over until its maker takes it back.
            Fate::Killed => (),
        }
        true
    }
}

/// The parts of one transaction in one queue.
pub(crate) struct Group<M: Queued> {
    /// Number of the first part.
    pub(crate) part: u32,
    pub(crate) first: Entry<M>,
    pub(crate) rest: Tree<M>,
    /// Number of parts.
    pub(crate) len: usize,
    /// None once the group is at its committed place, and for each part in `rest`.
    pub(crate) staged: Option<Staged>,
}

impl<M: Queued> Group<M> {
    /// Makes a group of one part.
    pub(crate) fn new(part: u32, first: Entry<M>, staged: Option<Staged>) -> Self {
        Self {
            part,
            first,
            rest: RBTree::new(),
            len: 1,
            staged,
        }
    }

    /// Returns the timestamp that a staged group was committed at; None if its transaction is not
    /// committed, or the group is at its committed place already.
    pub(crate) fn committed_at(&self) -> Option<u64> {
        self.staged.as_ref()?.transaction.committed_at()
    }

    /// Adds a part.
    pub(crate) fn join(&mut self, mut part: u32, mut entry: Entry<M>, memory: EntryReservation<M>) {
        #[cfg(test)]
        crate::bus::planted::misplace(&mut part);
        if part < self.part {
            core::mem::swap(&mut part, &mut self.part);
            core::mem::swap(&mut entry, &mut self.first);
        }
        self.len += 1;
        let value = Some(Self::new(part, entry, None));
        self.rest
            .insert(memory.into_node(Key::of_part(part), value));
    }

    /// Returns the number of the first part at or after `part`.
    pub(crate) fn seek(&self, part: u32) -> Option<u32> {
        if part <= self.part {
            return Some(self.part);
        }
        let found = self.rest.cursor_lower_bound(&Key::of_part(part))?;
        Some(found.current().0.part)
    }

    /// Returns the part of this number.
    pub(crate) fn get(&self, part: u32) -> Option<EntryRef<'_, M>> {
        if part == self.part {
            return Some(self.first.as_ref());
        }
        let found = self.rest.get(&Key::of_part(part))?;
        Some(found.as_ref()?.first.as_ref())
    }

    /// Returns all parts.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry<M>> {
        let rest = self.rest.values().flatten().map(|part| &part.first);
        Iterator::chain(core::iter::once(&self.first), rest)
    }

    /// Takes out the part of this number, if others stay: the next one becomes the first.
    pub(crate) fn take(&mut self, part: u32) -> Option<Removed<M>> {
        let taken = match part == self.part {
            true => self.rest.cursor_front()?.current().0.part,
            false => part,
        };
        let mut found = self.rest.find_mut(&Key::of_part(taken))?;
        let mut entry = found.get_mut().take()?.first;
        let memory = found.remove_node().into_reservation();
        self.len -= 1;
        if part == self.part {
            self.part = taken;
            core::mem::swap(&mut self.first, &mut entry);
        }
        Some(entry.with(memory))
    }
}

/// Takes a part out of the group at `key`, and the group out of the tree if no part is left.
pub(crate) fn take<M: Queued>(tree: &mut Tree<M>, key: &Key, part: u32) -> Option<Removed<M>> {
    let mut found = tree.find_mut(key)?;
    let group = found.get_mut().as_mut()?;
    if group.part != part || !group.rest.is_empty() {
        return group.take(part);
    }
    let group = found.get_mut().take()?;
    Some(group.first.with(found.remove_node().into_reservation()))
}
