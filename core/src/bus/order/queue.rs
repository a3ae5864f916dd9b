// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A queue: committed entries in their order, and staged groups that may still come between.
//!
//! # Pull
//!
//! Every step that puts something in or looks for the head begins with a pull: groups that were
//! committed meanwhile move to their place, and the clock rises to them. So a maker that commits
//! enters no queue, and the next task that does finds the clock at or above all that was committed
//! before.
//!
//! # Settle
//!
//! The first committed entry can be received at any time: to settle the queue is to move undecided
//! groups that stand before that entry behind it, by their transactions' floors. No group gets
//! before it later: a part that is staged, or that joins its group, gets a place above the clock,
//! which is at or above every committed key's timestamp.
//!
//! # Invariants
//!
//! - The clock is even, never goes back, and after a pull is at least every committed key's
//!   timestamp.
//! - A message without other parts in this queue is in the ring, unless it was staged and, when it
//!   was pulled, stood before a message of the ring or found the ring's last slot a hole; all other
//!   committed entries are in a tree.
//! - Staged groups are in a tree by staged key: by the user and the number of the transaction. The
//!   only staged group may be `lone` instead, outside of the tree.
//! - A key names one entry: at one timestamp, a transaction's number and the part in it.
//!
//! # Bounds
//!
//! A step looks once at each staged group, and a receipt may move each. [`Queue::crowd`] counts
//! the groups that a user has, for the caller to bound them.
//!
//! [`cursor`](super::cursor) walks over all entries with the lock free between the steps.
//!
//! # Locks
//!
//! None of its own; a queue lies in the peer's inbox.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::atomic::{Atomic, Full};
use kernel::sync::Arc;

use crate::bus::order::group::{
    take, Entry, EntryRef, EntryReservation, Group, Queued, Removed, Staged, Tree,
};
use crate::bus::order::key::{message_after, Key};
use crate::bus::order::ring::Ring;
use crate::bus::order::transaction::Transaction;
use crate::bus::tree::take_out;

/// Latest clock at which messages are put in. The timestamps above are left to destructions, which
/// must not fail.
const CLOCK_MAX: u64 = 1 << 63;

/// A committed entry with its key, mostly the first one.
pub(crate) struct Head<'q, M: Queued> {
    pub(crate) key: Key,
    pub(crate) entry: EntryRef<'q, M>,
}

impl<'q, M: Queued> Head<'q, M> {
    /// Makes the entry of a message in the ring.
    pub(super) fn of_message(message: &'q M) -> Self {
        Self {
            key: message.links().key,
            entry: EntryRef::Message(message),
        }
    }
}

/// The only staged group, with the memory to stand in the tree. Mostly no other comes.
struct Lone<M: Queued> {
    group: Group<M>,
    memory: EntryReservation<M>,
}

/// Numbers of undecided transactions in a queue. Each of these costs every step at the queue a look,
/// so the queue's caller bounds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// Transactions of one user.
    pub(crate) of_user: u64,
    /// Transactions of all users.
    pub(crate) of_all: u64,
    /// Number of users that have some.
    pub(crate) users: u32,
}

/// The queue of one peer.
pub(crate) struct Queue<M: Queued> {
    clock: u64,
    /// Committed messages without other parts in this queue.
    pub(super) ring: Ring<M>,
    /// All other committed entries.
    pub(super) committed: Tree<M>,
    /// If there is one, `staged` is empty.
    lone: Option<Lone<M>>,
    staged: Tree<M>,
    /// Does nothing except order accesses; not every kernel has the same function for that.
    barrier: Atomic<u32>,
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
            barrier: Atomic::new(0),
        }
    }

    /// Returns the clock: the latest timestamp that this queue knows of.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// Returns whether the clock has run out, so that no message may follow.
    #[inline]
    pub(crate) fn is_exhausted(&self) -> bool {
        self.clock > CLOCK_MAX
    }

    /// Raises the clock to `timestamp`, at which a destruction by this queue's peer was committed.
    /// Raises no floor: [`Transaction::raise`] does.
    pub(crate) fn raise(&mut self, timestamp: u64) {
        self.clock = self.clock.max(timestamp);
    }

    /// Moves the ring into more memory. Returns the old one, to be freed without locks.
    pub(crate) fn grow(&mut self, memory: Ring<M>) -> Ring<M> {
        self.ring.grow(memory)
    }

    /// Takes a key for an entry that is committed now, after everything here and after `floor`.
    fn tick(&mut self, floor: u64) -> Key {
        self.clock = message_after(self.clock.max(floor));
        Key::alone(self.clock)
    }

    /// Commits a message that has no other parts, after everything here and after the timestamp
    /// `floor`.
    #[inline]
    pub(crate) fn push(&mut self, floor: u64, mut message: KBox<M>) {
        #[cfg(test)]
        crate::bus::planted::Fault::PushWithoutPull.skip_pull();
        self.pull();
        message.links_mut().key = self.tick(floor);
        self.ring.push(message);
    }

    /// Commits a notice that has no other parts, after everything here. Returns its key.
    pub(crate) fn push_notice(
        &mut self,
        notice: M::Notice,
        reservation: EntryReservation<M>,
    ) -> Key {
        self.pull();
        let key = self.tick(0);
        let group = Group::new(key.part, Entry::Notice(notice), None);
        self.committed
            .insert(reservation.into_node(key, Some(group)));
        key
    }

    /// Returns whether anything is staged.
    #[inline]
    pub(crate) fn has_staged(&self) -> bool {
        self.lone.is_some() || !self.staged.is_empty()
    }

    /// Returns the staged groups.
    fn staged(&self) -> impl Iterator<Item = &Group<M>> {
        let lone = self.lone.iter().map(|lone| &lone.group);
        Iterator::chain(lone, self.staged.values().flatten())
    }

    /// Returns the staged group of the part with this staged key.
    fn staged_mut(&mut self, place: &Key) -> Option<&mut Group<M>> {
        self.put_lone_into_tree();
        self.staged.get_mut(&place.of_group())?.as_mut()
    }

    /// Stages one part of a transaction, if it has memory for an entry in a tree. A part that joins
    /// its group moves the group behind the clock. Returns the lowest timestamp that the
    /// transaction may be committed at, as far as this queue goes.
    pub(crate) fn stage(
        &mut self,
        transaction: &Arc<Transaction>,
        part: u32,
        entry: Removed<M>,
    ) -> u64 {
        #[cfg(test)]
        crate::bus::planted::Fault::StageWithoutPull.skip_pull();
        self.pull();
        let place = transaction.staged_key(part);
        let after = self.clock + 1;
        self.clock = message_after(after);
        let Some((entry, memory)) = entry.split() else {
            return self.clock;
        };
        #[cfg(test)]
        let place = crate::bus::planted::apart(place);
        let staged = Some(Staged {
            transaction: transaction.clone(),
            after,
        });
        if !self.has_staged() {
            let group = Group::new(part, entry, staged);
            self.lone = Some(Lone { group, memory });
        } else if let Some(group) = self.staged_mut(&place) {
            group.join(part, entry, memory);
            group.staged = staged;
        } else {
            let group = Group::new(part, entry, staged);
            let node = memory.into_node(place.of_group(), Some(group));
            self.staged.insert(node);
        }
        self.clock
    }

    /// Takes out the part with this staged key; None if it is not staged here any more.
    pub(crate) fn unstage(&mut self, place: &Key) -> Option<Removed<M>> {
        self.put_lone_into_tree();
        take(&mut self.staged, &place.of_group(), place.part)
    }

    /// Puts the lone group into the tree.
    fn put_lone_into_tree(&mut self) {
        if let Some(Lone { group, memory }) = self.lone.take() {
            if let Some(staged) = &group.staged {
                let key = staged.transaction.staged_key(0);
                self.staged.insert(memory.into_node(key, Some(group)));
            }
        }
    }

    /// Pulls: moves each group that was committed meanwhile to its place, and raises the clock to
    /// its timestamp.
    #[inline]
    pub(crate) fn pull(&mut self) {
        #[cfg(test)]
        if crate::bus::planted::skips_pull() {
            return;
        }
        // Mostly nothing is staged.
        if self.has_staged() {
            self.pull_staged();
        }
    }

    fn pull_staged(&mut self) {
        // A commit takes no lock of this queue. The barrier keeps each look at a word behind the
        // step by which this task came to know that the maker's call returned; see `transaction`.
        self.barrier.fetch_add(0u32, Full);
        let committed = self
            .lone
            .as_ref()
            .and_then(|lone| lone.group.committed_at());
        if let Some(timestamp) = committed {
            if let Some(Lone { group, memory }) = self.lone.take() {
                self.commit(group, timestamp, memory);
            }
        }
        if self.staged.is_empty() {
            return;
        }
        let mut staged = core::mem::replace(&mut self.staged, RBTree::new());
        let take_committed = |group: &mut Option<Group<M>>| {
            let timestamp = group.as_ref()?.committed_at()?;
            Some((group.take()?, timestamp))
        };
        take_out(&mut staged, take_committed, |(group, timestamp), memory| {
            self.commit(group, timestamp, memory);
        });
        self.staged = staged;
    }

    /// Moves a group to its place, since its transaction was committed at `timestamp`.
    fn commit(&mut self, mut group: Group<M>, timestamp: u64, memory: EntryReservation<M>) {
        let Some(staged) = group.staged.take() else {
            return;
        };
        #[cfg(feature = "broken-order")]
        let timestamp = timestamp.min(staged.after + 1);
        self.clock = self.clock.max(timestamp);
        let key = Key {
            timestamp,
            ..staged.transaction.staged_key(group.part)
        };
        match group.first {
            Entry::Message(mut message) if group.rest.is_empty() && self.is_last(&key) => {
                let links = message.links_mut();
                links.key = key;
                links.reservation = Some(memory);
                self.ring.push(message);
            }
            first => {
                group.first = first;
                let node = memory.into_node(key.of_group(), Some(group));
                self.committed.insert(node);
            }
        }
    }

    /// Returns whether `key` is known to be behind all messages of the ring.
    fn is_last(&self, key: &Key) -> bool {
        let is_behind = |last: &M| *key > last.links().key;
        self.ring.first().is_none() || self.ring.last().is_some_and(is_behind)
    }

    /// Settles the queue: makes the first committed entry the next to be received. Undecided groups
    /// that stand before it move behind it.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.has_staged() {
            self.settle_staged();
        }
    }

    fn settle_staged(&mut self) {
        // Each turn except the last finds one more that was committed.
        loop {
            self.pull_staged();
            let Some(head) = self.head().map(|head| head.key) else {
                return;
            };
            let lone = self.lone.iter_mut().map(|lone| &mut lone.group);
            let groups = Iterator::chain(lone, self.staged.values_mut().flatten());
            let mut undecided = groups.filter_map(|group| group.staged.as_mut());
            if undecided.all(|staged| staged.move_behind(head.timestamp)) {
                return;
            }
        }
    }

    /// Returns the first committed entry. It is the next to be received only if the queue was
    /// settled in the same critical section, or if this entry was the head after an earlier settle.
    #[inline(always)]
    pub(crate) fn head(&self) -> Option<Head<'_, M>> {
        let listed = self.ring.first().map(Head::of_message);
        if self.committed.is_empty() {
            return listed;
        }
        let grouped = self.first_grouped();
        match (listed, grouped) {
            (Some(listed), Some(grouped)) if listed.key < grouped.key => Some(listed),
            (listed, None) => listed,
            (_, grouped) => grouped,
        }
    }

    /// Returns the first entry of the tree.
    fn first_grouped(&self) -> Option<Head<'_, M>> {
        let (key, group) = self.committed.iter().next()?;
        let group = group.as_ref()?;
        Some(Head {
            key: Key {
                part: group.part,
                ..*key
            },
            entry: group.first.as_ref(),
        })
    }

    /// Takes out the entry at `key`: the first committed one, or the part that follows it.
    #[inline]
    pub(crate) fn pop(&mut self, key: &Key) -> Option<Removed<M>> {
        let is_listed = |first: &M| first.links().key == *key;
        if self.committed.is_empty() || self.ring.first().is_some_and(is_listed) {
            return self.ring.pop().map(Removed::Message);
        }
        self.remove(key)
    }

    /// Returns the part or notice that is committed at `key`.
    pub(super) fn get(&self, key: Key) -> Option<Head<'_, M>> {
        let group = self.committed.get(&key.of_group())?.as_ref()?;
        let entry = group.get(key.part)?;
        Some(Head { key, entry })
    }

    /// Returns the entry that follows the head, at `key`, in the same transaction.
    #[inline]
    pub(crate) fn following(&self, key: &Key) -> Option<Head<'_, M>> {
        // Mostly all is in the ring, where each is the only one of its transaction.
        if self.committed.is_empty() {
            return None;
        }
        #[cfg(test)]
        let key = &crate::bus::planted::Fault::FollowingMissed.unless(*key);
        self.following_grouped(key)
    }

    #[inline(never)]
    fn following_grouped(&self, key: &Key) -> Option<Head<'_, M>> {
        let group = self.committed.get(&key.of_group())?.as_ref()?;
        let part = group.rest.cursor_front()?.current().0.part;
        self.get(Key { part, ..*key })
    }

    /// Takes out the part or notice that is committed at `key`.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Removed<M>> {
        take(&mut self.committed, &key.of_group(), key.part)
    }

    /// Takes all entries out, to be dropped without locks. The clock stays, the memory does not:
    /// nothing may be put in afterwards.
    pub(crate) fn drain(&mut self) -> Self {
        let mut empty = Self::new(Ring::EMPTY);
        empty.clock = self.clock;
        core::mem::replace(self, empty)
    }

    /// Takes an entry out of the queue that [`Queue::drain`] returned, the committed ones first.
    pub(crate) fn pop_drained(&mut self) -> Option<Removed<M>> {
        self.put_lone_into_tree();
        if let Some(message) = self.ring.pop() {
            return Some(Removed::Message(message));
        }
        let mut trees = [&mut self.committed, &mut self.staged].into_iter();
        trees.find_map(|tree| {
            let first = tree.cursor_front()?;
            let (&key, group) = first.current();
            let part = group.as_ref()?.part;
            take(tree, &key, part)
        })
    }

    /// Kills the transactions of all groups that have a message for which `doomed` holds.
    pub(crate) fn kill_staged(&self, doomed: impl Fn(&M) -> bool) {
        for group in self.staged() {
            // All parts of a transaction are of one kind.
            let (Some(staged), Entry::Message(_)) = (&group.staged, &group.first) else {
                continue;
            };
            if group
                .entries()
                .any(|entry| matches!(entry, Entry::Message(message) if doomed(message)))
            {
                staged.transaction.kill();
            }
        }
    }

    /// Counts the undecided transactions of messages here: those of the user `uid`, those of all, and
    /// the users. Groups that were committed since the last pull are counted too.
    #[cold]
    pub(crate) fn crowd(&mut self, uid: u32) -> Crowd {
        // The tree is in the order of users.
        self.put_lone_into_tree();
        let mut crowd = Crowd::default();
        let mut last = None;
        for group in self.staged() {
            // Destructions cannot be refused, so they take nobody's room.
            let (Some(staged), Entry::Message(_)) = (&group.staged, &group.first) else {
                continue;
            };
            let user = staged.transaction.uid;
            crowd.of_all += 1;
            crowd.of_user += u64::from(user == uid);
            crowd.users += u32::from(last != Some(user));
            last = Some(user);
        }
        crowd
    }

    /// Returns whether the transaction of the part with the staged key `place` has a part here that
    /// is staged.
    pub(crate) fn is_staged(&mut self, place: &Key) -> bool {
        self.staged_mut(place).is_some()
    }

    /// Counts the entries that are staged.
    pub(crate) fn n_staged(&self) -> usize {
        self.staged().map(|group| group.len).sum()
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
