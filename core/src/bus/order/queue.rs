// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A queue: committed entries in their order, and staged ones that may still come between.
//!
//! The first committed entry may be received if no staged one stands before it: a staged entry can
//! only move back when it commits, and one that is staged later gets a key above the clock, which
//! is above every committed key.
//!
//! # Invariants
//!
//! - The clock is even, never goes back, and is at least every committed key's timestamp.
//! - Staged keys are odd and above the clock of the moment they were staged at.
//! - Messages to one destination are in the ring, all other entries in trees; except that a part
//!   may be in the ring, too, if all others of its transaction that are in this queue come after
//!   it.
//! - Staged entries are in a tree; except that a message is `lone` if nothing else was there when
//!   it was staged. It comes before all in the tree, since the clock was raised above its key.
//! - A key names one entry: at one timestamp, a transaction's number and the part in it.
//!
//! # Locks
//!
//! None of its own; a queue lies in the peer's inbox.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::Arc;

use crate::bus::order::entry::{
    committed_at, put, take, Entry, EntryRef, EntryReservation, Queued, Removed, Tree,
};
use crate::bus::order::key::{message_after, Key};
use crate::bus::order::ring::Ring;
use crate::bus::order::transaction::Transaction;

/// The first committed entry, once it is settled.
pub(crate) struct Head<'q, M: Queued> {
    pub(crate) key: Key,
    pub(crate) entry: EntryRef<'q, M>,
}

impl<'q, M: Queued> Head<'q, M> {
    /// Returns the entry of a message of the ring.
    fn of_message(message: &'q M) -> Self {
        let (key, entry) = (message.links().key, EntryRef::Message(message));
        Self { key, entry }
    }
}

/// The place that a part was staged at.
pub(crate) struct Staged {
    /// Its present key.
    pub(crate) key: Key,
    /// The timestamp at which this queue is prepared to see its transaction committed.
    pub(crate) commit_at: u64,
}

/// A place in a queue that is kept while the lock is free.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cursor {
    /// A position in the ring.
    Ring(u32),
    /// A key in the tree of committed entries.
    Tree(Key),
    End,
}

/// A message that is staged and not in the tree. It has its key.
struct Lone<M: Queued> {
    transaction: Arc<Transaction>,
    message: KBox<M>,
}

/// The queue of one peer.
pub(crate) struct Queue<M: Queued> {
    clock: u64,
    /// Messages that were committed with no other part, and first parts.
    ring: Ring<M>,
    /// Other parts that were committed, and notices.
    committed: Tree<M>,
    lone: Option<Lone<M>>,
    staged: Tree<M>,
}

impl<M: Queued> Queue<M> {
    /// Makes an empty queue.
    pub(crate) fn new(ring: Ring<M>) -> Self {
        Self {
            clock: 0,
            ring,
            committed: RBTree::new(),
            lone: None,
            staged: RBTree::new(),
        }
    }

    /// Returns the latest timestamp that this queue knows of.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// Raises the clock, so that nothing is ordered at or before `timestamp` from now on, except
    /// what is staged already.
    pub(crate) fn raise(&mut self, timestamp: u64) {
        self.clock = self.clock.max(timestamp);
    }

    /// Moves the ring into more memory. Returns the old one, to be freed without locks.
    pub(crate) fn grow(&mut self, memory: Ring<M>) -> Ring<M> {
        self.ring.grow(memory)
    }

    /// Takes a timestamp for an entry that is committed now, after everything here and after
    /// `floor`.
    fn tick(&mut self, floor: u64) -> Key {
        self.clock = message_after(self.clock.max(floor));
        Key::alone(self.clock)
    }

    /// Commits a message that has no other parts.
    #[inline]
    pub(crate) fn push(&mut self, floor: u64, mut message: KBox<M>) {
        message.links_mut().key = self.tick(floor);
        self.ring.push(message);
    }

    /// Commits a notice that has no other parts.
    pub(crate) fn push_notice(
        &mut self,
        notice: M::Notice,
        reservation: EntryReservation<M>,
    ) -> Key {
        let key = self.tick(0);
        let notice = Removed::Notice(notice, reservation);
        put(&mut self.committed, key, None, notice);
        key
    }

    /// Chooses where a part is staged.
    fn staged_key(&mut self, transaction: &Transaction, part: u32) -> Key {
        let key = Key {
            timestamp: self.clock + 1,
            number: transaction.number,
            part,
        };
        // Each queue uses its own clock: two transactions that meet in two queues are received as
        // they came to each.
        #[cfg(feature = "broken-order")]
        self.raise(key.timestamp + 1);
        key
    }

    /// Stages a message that is one part of a transaction. The message has to have memory for its
    /// entry in a tree. The clock rises to the time to commit at, which is not before `floor`.
    pub(crate) fn stage_message(
        &mut self,
        transaction: &Arc<Transaction>,
        part: u32,
        floor: u64,
        mut message: KBox<M>,
    ) -> Staged {
        let key = self.staged_key(transaction, part);
        self.raise(floor.max(message_after(key.timestamp)));
        let transaction = transaction.clone();
        if self.lone.is_none() && self.staged.is_empty() {
            message.links_mut().key = key;
            self.lone = Some(Lone {
                transaction,
                message,
            });
        } else {
            let message = Removed::Message(message);
            put(&mut self.staged, key, Some(transaction), message);
        }
        Staged {
            key,
            commit_at: self.clock,
        }
    }

    /// Stages a notice that is one part of a transaction. Returns its place.
    pub(crate) fn stage_notice(
        &mut self,
        transaction: &Arc<Transaction>,
        part: u32,
        notice: M::Notice,
        reservation: EntryReservation<M>,
    ) -> Key {
        let key = self.staged_key(transaction, part);
        let notice = Removed::Notice(notice, reservation);
        put(&mut self.staged, key, Some(transaction.clone()), notice);
        key
    }

    /// Takes a staged part out; None if it is not there any more.
    pub(crate) fn unstage(&mut self, key: &Key) -> Option<Removed<M>> {
        let lone = self.lone.take_if(|lone| lone.message.links().key == *key);
        match lone {
            Some(lone) => Some(Removed::Message(lone.message)),
            None => take(&mut self.staged, key),
        }
    }

    /// Puts the lone message into the tree.
    fn put_lone_into_tree(&mut self) {
        if let Some(lone) = self.lone.take() {
            let key = lone.message.links().key;
            let message = Removed::Message(lone.message);
            put(&mut self.staged, key, Some(lone.transaction), message);
        }
    }

    /// Moves entries that were committed meanwhile to their place, as far as the head depends on
    /// them. Returns whether the head, if there is one, may be received.
    #[inline]
    pub(crate) fn settle(&mut self) -> bool {
        // Mostly nothing is staged.
        (self.lone.is_none() && self.staged.is_empty()) || self.settle_staged()
    }

    /// Settles until the first staged entry stands behind the head. False if one that is not
    /// decided stands before it.
    fn settle_staged(&mut self) -> bool {
        while let Some((key, timestamp)) = self.first_staged() {
            let head = self.first_key().unwrap_or(Key::LAST);
            if head < key {
                break;
            }
            // A killed part blocks until its maker takes it back, which it is about to do.
            let Some(timestamp) = timestamp else {
                return false;
            };
            // Parts are staged in their order, so others of its transaction come after it.
            self.commit(&key, timestamp, head);
        }
        true
    }

    /// Returns the first key that is staged, and the timestamp that it was committed at, if it was.
    fn first_staged(&self) -> Option<(Key, Option<u64>)> {
        if let Some(lone) = &self.lone {
            let key = lone.message.links().key;
            return Some((key, lone.transaction.committed_at()));
        }
        let first = self.staged.cursor_front()?;
        let (key, entry) = first.current();
        Some((*key, committed_at(entry)))
    }

    /// Returns the first committed entry. It may be received only if [`Queue::settle`] said so
    /// under the same lock.
    #[inline(always)]
    pub(crate) fn head(&self) -> Option<Head<'_, M>> {
        let listed = self.ring.first().map(Head::of_message);
        if self.committed.is_empty() {
            return listed;
        }
        let key = self.first_key()?;
        let listed = listed.filter(|listed| listed.key == key);
        listed.or_else(|| self.head_at(key))
    }

    /// Returns the part or notice that is committed at `key`.
    fn head_at(&self, key: Key) -> Option<Head<'_, M>> {
        let entry = self.get(&key)?;
        Some(Head { key, entry })
    }

    /// Takes the first committed entry out, whose key is `key`.
    #[inline]
    pub(crate) fn pop(&mut self, key: &Key) -> Option<Removed<M>> {
        if self.committed.is_empty() || self.first_listed() == Some(*key) {
            return self.ring.pop().map(Removed::Message);
        }
        self.remove(key)
    }

    /// Returns the key of the first message in the ring.
    #[inline]
    fn first_listed(&self) -> Option<Key> {
        Some(self.ring.first()?.links().key)
    }

    /// Returns the key of the first committed entry.
    #[inline]
    fn first_key(&self) -> Option<Key> {
        let listed = self.first_listed();
        if self.committed.is_empty() {
            return listed;
        }
        let other = *self.committed.cursor_front()?.current().0;
        Some(listed.map_or(other, |listed| listed.min(other)))
    }

    /// Moves a staged entry to the place where it was committed. A message goes to the front of the
    /// ring if that is before `head`: then no other part of its transaction may come before it, nor
    /// anything else.
    fn commit(&mut self, staged: &Key, timestamp: u64, head: Key) {
        #[cfg(feature = "broken-order")]
        let timestamp = timestamp.min(staged.timestamp + 1);
        let key = Key {
            timestamp,
            ..*staged
        };
        match self.unstage(staged) {
            Some(Removed::Message(mut message)) if key < head => {
                message.links_mut().key = key;
                self.ring.push_first(message);
            }
            Some(removed) => put(&mut self.committed, key, None, removed),
            None => (),
        }
    }

    /// Returns the part or notice that is committed at `key`.
    pub(crate) fn get(&self, key: &Key) -> Option<EntryRef<'_, M>> {
        Some(self.committed.get(key)?.as_ref()?.entry.as_ref())
    }

    /// Returns the first committed part or notice at or after `from`.
    fn next(&self, from: &Key) -> Option<Key> {
        Some(*self.committed.cursor_lower_bound(from)?.current().0)
    }

    /// Returns the committed entry that follows `key` in the same transaction.
    #[inline]
    pub(crate) fn following(&self, key: &Key) -> Option<Key> {
        if self.committed.is_empty() {
            return None;
        }
        let next = self.next(&key.successor())?;
        next.is_sibling(key).then_some(next)
    }

    /// Takes a committed part or notice out.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Removed<M>> {
        take(&mut self.committed, key)
    }

    /// Returns the start of all that is committed.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor::Ring(self.ring.head())
    }

    /// Moves `cursor` behind the next committed entry. Returns its place, from which it may have
    /// been taken out already; None at the end.
    pub(crate) fn advance(&self, cursor: &mut Cursor) -> Option<Cursor> {
        if let Cursor::Ring(from) = *cursor {
            if let Some(at) = self.ring.seek(from) {
                *cursor = Cursor::Ring(at.wrapping_add(1));
                return Some(Cursor::Ring(at));
            }
            *cursor = Cursor::Tree(Key::FIRST);
        }
        let Cursor::Tree(from) = *cursor else {
            return None;
        };
        let next = self.next(&from);
        *cursor = next.map_or(Cursor::End, |key| Cursor::Tree(key.successor()));
        next.map(Cursor::Tree)
    }

    /// Returns the committed entry at this place.
    pub(crate) fn entry_at(&self, at: &Cursor) -> Option<Head<'_, M>> {
        match at {
            Cursor::Ring(at) => self.ring.get(*at).map(Head::of_message),
            Cursor::Tree(key) => self.head_at(*key),
            Cursor::End => None,
        }
    }

    /// Takes the committed entry at this place out.
    pub(crate) fn remove_at(&mut self, at: &Cursor) -> Option<Removed<M>> {
        match at {
            Cursor::Ring(at) => self.ring.remove(*at).map(Removed::Message),
            Cursor::Tree(key) => self.remove(key),
            Cursor::End => None,
        }
    }

    /// Moves all that was committed meanwhile to its place.
    pub(crate) fn settle_all(&mut self) {
        self.put_lone_into_tree();
        // Until a pass finds nothing: otherwise it could see one part of a transaction before it
        // commits and another after.
        while self.settle_pass() {}
    }

    fn settle_pass(&mut self) -> bool {
        let mut moved = false;
        let mut from = Key::FIRST;
        while let Some(staged) = self.staged.cursor_lower_bound(&from) {
            let (&key, entry) = staged.current();
            if let Some(timestamp) = committed_at(entry) {
                self.commit(&key, timestamp, Key::FIRST);
                moved = true;
            }
            from = key.successor();
        }
        moved
    }

    /// Takes all out, to be dropped without locks. The clock stays, the memory does not: nothing
    /// may be put in after.
    pub(crate) fn drain(&mut self) -> Self {
        let mut empty = Self::new(Ring::EMPTY);
        empty.clock = self.clock;
        let mut drained = core::mem::replace(self, empty);
        drained.settle_all();
        drained
    }

    /// Takes an entry out of the queue that [`Queue::drain`] returned, in which nothing is lone.
    pub(crate) fn pop_drained(&mut self) -> Option<Removed<M>> {
        if let Some(message) = self.ring.pop() {
            return Some(Removed::Message(message));
        }
        let mut trees = [&mut self.committed, &mut self.staged].into_iter();
        trees.find_map(|tree| {
            let key = *tree.cursor_front()?.current().0;
            take(tree, &key)
        })
    }

    /// Kills the transactions of all staged messages for which `doomed` holds.
    pub(crate) fn kill_staged(&mut self, mut doomed: impl FnMut(&M) -> bool) {
        self.put_lone_into_tree();
        for staged in self.staged.values().flatten() {
            let (transaction, entry) = (&staged.transaction, &staged.entry);
            if let (Some(transaction), Entry::Message(message)) = (transaction, entry) {
                if doomed(message) {
                    transaction.kill();
                }
            }
        }
    }

    /// Counts the entries; takes time in proportion.
    pub(crate) fn count(&self) -> Count {
        Count {
            committed: self.ring.count() + self.committed.iter().count(),
            staged: usize::from(self.lone.is_some()) + self.staged.iter().count(),
        }
    }
}

/// Numbers of entries in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) committed: usize,
    pub(crate) staged: usize,
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
