// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A peer's queue: committed entries in their order, and staged ones that may still come between.
//!
//! The first committed entry may be received if no staged one stands before it: a staged entry can
//! only move back when it commits, and one that is staged later gets a key above the clock, which is
//! above every committed key. The argument for the order as a whole is in `docs/ordering.md`.
//!
//! # Invariants
//!
//! - The clock is even, never goes back, and is at least every committed key's timestamp.
//! - Staged keys are odd and above the clock of the moment they were staged at.
//! - Messages to one destination alone are in a list, all else is in trees; but a part may be in the
//!   list, too, if all others of its transaction that are in this queue come after it.
//! - What is staged is in a tree; but a message is `lone` if nothing else was there when it was staged.
//!   It comes before all in the tree, since the clock was raised above its key.
//! - A key names one entry: at one timestamp, a transaction's number and the part in it.
//!
//! # Locks
//!
//! Lies in the peer's inbox.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use super::fifo::{Fifo, Ring};
use super::handle::Handle;
use super::host::Host;
use super::message::Message;
use super::node::Node;
use super::transaction::{message_after, Number, Transaction, ALONE};

/// Where an entry stands: timestamp, transaction number, part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u64, pub(super) Number, pub(super) u32);

impl Key {
    /// Before all keys.
    pub(super) const FIRST: Self = Self(0, ALONE, 0);
    /// Behind all keys.
    const LAST: Self = Self(u64::MAX, ALONE, 0);

    /// What is behind this one is here or behind.
    pub(super) fn behind(&self) -> Self {
        Self(self.0, self.1, self.2 + 1)
    }
}

/// What an entry is about.
pub(super) enum Body<H: Host> {
    /// A message for a node of this peer.
    Data(KBox<Message<H>>),
    /// The node of this handle, which the peer holds, was destroyed.
    Destroy(Arc<Handle<H>>),
    /// Nobody else holds this node of the peer any more.
    Release(Arc<Node<H>>),
}

/// One entry of a tree, with the transaction that it is a part of.
pub(super) struct Entry<H: Host> {
    transaction: Option<Arc<Transaction>>,
    pub(super) body: Body<H>,
}

// An option, since an entry is taken out of its tree node before the node gets another key.
pub(super) type Tree<H> = RBTree<Key, Option<Entry<H>>>;
/// Memory for one entry of a tree.
pub(super) type Seat<H> = RBTreeNodeReservation<Key, Option<Entry<H>>>;

/// What was taken out, with the memory it sat in; a message keeps that itself.
pub(super) type Taken<H> = (Body<H>, Option<Seat<H>>);

/// Takes the entry of `key` out, with the memory it sat in.
fn take<H: Host>(tree: &mut Tree<H>, key: &Key) -> Option<Taken<H>> {
    let mut found = tree.find_mut(key)?;
    let body = found.get_mut().take()?.body;
    let seat = found.remove_node().into_reservation();
    match body {
        Body::Data(mut message) => {
            message.seat = Some(seat);
            Some((Body::Data(message), None))
        }
        notice => Some((notice, Some(seat))),
    }
}

/// Puts an entry in, which has to bring memory along as [`take`] returns it.
fn put<H: Host>(
    tree: &mut Tree<H>,
    key: Key,
    transaction: Option<Arc<Transaction>>,
    (mut body, mut seat): Taken<H>,
) {
    if let Body::Data(message) = &mut body {
        message.key = key;
        seat = message.seat.take();
    }
    debug_assert!(seat.is_some());
    if let Some(seat) = seat {
        tree.insert(seat.into_node(key, Some(Entry { transaction, body })));
    }
}

/// Takes the first entry out, with the memory it sat in.
pub(super) fn take_first<H: Host>(tree: &mut Tree<H>) -> Option<Taken<H>> {
    let key = *tree.cursor_front()?.current().0;
    take(tree, &key)
}

/// When the transaction of a staged entry was committed, if it was.
fn committed_at<H: Host>(entry: &Option<Entry<H>>) -> Option<u64> {
    entry.as_ref()?.transaction.as_ref()?.committed_at()
}

/// See the module.
pub(super) struct Queue<H: Host> {
    pub(super) clock: u64,
    /// Messages that were committed alone, and first parts.
    pub(super) list: Fifo<H>,
    /// Other parts that were committed, and notices.
    committed: Tree<H>,
    /// What is staged, and not in the tree. Its key is in the message.
    lone: Option<(Arc<Transaction>, KBox<Message<H>>)>,
    staged: Tree<H>,
}

impl<H: Host> Queue<H> {
    pub(super) fn new(ring: Ring<H>) -> Self {
        let mut list = Fifo::EMPTY;
        drop(list.grow(ring));
        Self {
            clock: 0,
            list,
            committed: RBTree::new(),
            lone: None,
            staged: RBTree::new(),
        }
    }

    /// The timestamp of what is committed now, after everything here and after `floor`.
    fn tick(&mut self, floor: u64) -> u64 {
        self.clock = message_after(self.clock.max(floor));
        self.clock
    }

    /// Commits a message that has no other parts.
    #[inline]
    pub(super) fn push(&mut self, floor: u64, mut message: KBox<Message<H>>) {
        message.key = Key(self.tick(floor), ALONE, 0);
        self.list.push(message);
    }

    /// Commits a notice that has no other parts.
    pub(super) fn push_notice(&mut self, node: &Arc<Node<H>>, seat: Seat<H>) -> Key {
        let key = Key(self.tick(0), ALONE, 0);
        put(
            &mut self.committed,
            key,
            None,
            (Body::Release(node.clone()), Some(seat)),
        );
        key
    }

    /// Stages a message that is one part of a transaction, which has to have memory for its place in a
    /// tree. Returns its timestamp, and that at which this queue is prepared to see the transaction
    /// committed, not before `floor`: the clock.
    pub(super) fn stage_message(
        &mut self,
        transaction: &Arc<Transaction>,
        part: u32,
        floor: u64,
        mut message: KBox<Message<H>>,
    ) -> (u64, u64) {
        let key = self.staged_key(transaction, part);
        self.raise(floor.max(message_after(key.0)));
        let transaction = transaction.clone();
        if self.lone.is_none() && self.staged.is_empty() {
            message.key = key;
            self.lone = Some((transaction, message));
        } else {
            put(
                &mut self.staged,
                key,
                Some(transaction),
                (Body::Data(message), None),
            );
        }
        (key.0, self.clock)
    }

    /// Where a part is staged now.
    fn staged_key(&mut self, transaction: &Transaction, part: u32) -> Key {
        let key = Key(self.clock + 1, transaction.number, part);
        // Each queue by its own clock: what meets in two of them is received as it came to each.
        #[cfg(feature = "broken-order")]
        self.raise(key.0 + 1);
        key
    }

    /// Stages one part of a transaction that is a notice.
    pub(super) fn stage(
        &mut self,
        transaction: &Arc<Transaction>,
        part: u32,
        body: Body<H>,
        seat: Seat<H>,
    ) -> Key {
        let key = self.staged_key(transaction, part);
        put(
            &mut self.staged,
            key,
            Some(transaction.clone()),
            (body, Some(seat)),
        );
        key
    }

    /// Takes a staged part out; None if it is not there any more.
    pub(super) fn unstage(&mut self, key: &Key) -> Option<Taken<H>> {
        match self.lone.take_if(|(_, message)| message.key == *key) {
            Some((_, message)) => Some((Body::Data(message), None)),
            None => take(&mut self.staged, key),
        }
    }

    /// Puts the lone one into the tree.
    fn unlone(&mut self) {
        if let Some((transaction, message)) = self.lone.take() {
            put(
                &mut self.staged,
                message.key,
                Some(transaction),
                (Body::Data(message), None),
            );
        }
    }

    /// Raises the clock, so that nothing is ordered at or before `timestamp` from now on but what is
    /// staged already.
    pub(super) fn raise(&mut self, timestamp: u64) {
        self.clock = self.clock.max(timestamp);
    }

    /// Moves what was committed meanwhile to its place, as far as the head depends on it. Whether the
    /// head may be received, if there is one.
    #[inline]
    pub(super) fn settle(&mut self) -> bool {
        // Mostly nothing is staged.
        (self.lone.is_none() && self.staged.is_empty()) || self.settle_head()
    }

    fn settle_head(&mut self) -> bool {
        while let Some((key, timestamp)) = self.first_staged() {
            let head = self.first().unwrap_or(Key::LAST);
            if head < key {
                break;
            }
            // A killed one blocks until its maker takes it back, which it is about to do.
            let Some(timestamp) = timestamp else {
                return false;
            };
            // Parts are staged in their order, so others of its transaction come after it.
            self.commit(&key, timestamp, head);
        }
        true
    }

    /// The first key that is staged, and when it was committed, if it was.
    fn first_staged(&self) -> Option<(Key, Option<u64>)> {
        if let Some((transaction, message)) = &self.lone {
            return Some((message.key, transaction.committed_at()));
        }
        let first = self.staged.cursor_front()?;
        let (key, entry) = first.current();
        Some((*key, committed_at(entry)))
    }

    /// The first committed entry and its key, once it is settled.
    #[inline(always)]
    pub(super) fn head(&self) -> Option<(Key, &Body<H>)> {
        let listed = self.list.first();
        if self.committed.is_empty() {
            return listed;
        }
        let key = self.first()?;
        listed
            .filter(|listed| listed.0 == key)
            .or_else(|| Some((key, self.get(&key)?)))
    }

    /// Takes the first committed entry out, whose key is `key`.
    #[inline]
    pub(super) fn pop(&mut self, key: &Key) -> Option<Taken<H>> {
        let listed = || self.list.first().is_some_and(|first| first.0 == *key);
        if self.committed.is_empty() || listed() {
            return Some((self.list.pop()?, None));
        }
        self.remove(key)
    }

    /// The key of the first committed entry, once it is settled.
    #[inline]
    fn first(&self) -> Option<Key> {
        let listed = self.list.first().map(|first| first.0);
        if self.committed.is_empty() {
            return listed;
        }
        let other = *self.committed.cursor_front()?.current().0;
        Some(listed.map_or(other, |listed| listed.min(other)))
    }

    /// Moves what is staged to where it was committed. A message goes to the front of the list if that is
    /// before `head`: then no other part of its transaction may come before it, nor anything else.
    fn commit(&mut self, staged: &Key, timestamp: u64, head: Key) {
        #[cfg(feature = "broken-order")]
        let timestamp = timestamp.min(staged.0 + 1);
        let key = Key(timestamp, staged.1, staged.2);
        match self.unstage(staged) {
            Some((Body::Data(mut message), _)) if key < head => {
                message.key = key;
                self.list.push_first(message);
            }
            Some(taken) => put(&mut self.committed, key, None, taken),
            None => (),
        }
    }

    /// The part or notice that is committed at `key`.
    pub(super) fn get(&self, key: &Key) -> Option<&Body<H>> {
        Some(&self.committed.get(key)?.as_ref()?.body)
    }

    /// The first committed part or notice at or after `from`.
    pub(super) fn next(&self, from: &Key) -> Option<Key> {
        Some(*self.committed.cursor_lower_bound(from)?.current().0)
    }

    /// The committed entry that follows `key` in the same transaction.
    #[inline]
    pub(super) fn following(&self, key: &Key) -> Option<Key> {
        if self.committed.is_empty() {
            return None;
        }
        let next = self.next(&key.behind())?;
        (next.0 == key.0 && next.1 == key.1).then_some(next)
    }

    /// Takes a committed part or notice out.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Taken<H>> {
        take(&mut self.committed, key)
    }

    /// Moves all that was committed meanwhile to its place.
    pub(super) fn settle_all(&mut self) {
        self.unlone();
        // Until a pass finds nothing: else it could see one part of a transaction before it commits
        // and another after.
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
            from = key.behind();
        }
        moved
    }

    /// Takes all out that is not in the list, and puts nothing there.
    pub(super) fn drain(&mut self) -> [Tree<H>; 2] {
        self.settle_all();
        [
            core::mem::take(&mut self.committed),
            core::mem::take(&mut self.staged),
        ]
    }

    /// Kills all staged messages for which `doomed` holds.
    pub(super) fn kill_staged(&mut self, mut doomed: impl FnMut(&Node<H>) -> bool) {
        self.unlone();
        for entry in self.staged.values().flatten() {
            if let (Some(transaction), Body::Data(message)) = (&entry.transaction, &entry.body) {
                if message.node.as_ref().is_some_and(|node| doomed(node)) {
                    transaction.kill();
                }
            }
        }
    }

    /// Number of committed and of staged entries; takes time in proportion.
    pub(super) fn count(&self) -> (usize, usize) {
        let committed = self.list.count() + self.committed.iter().count();
        (
            committed,
            usize::from(self.lone.is_some()) + self.staged.iter().count(),
        )
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
