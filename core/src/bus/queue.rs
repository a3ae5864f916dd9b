// SPDX-License-Identifier: GPL-2.0 OR MIT

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
//! - A key names one entry: at one timestamp, a transaction's number and the part in it.
//!
//! # Locks
//!
//! Lies in the peer's inbox.

use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use super::handle::Handle;
use super::host::Host;
use super::message::Message;
use super::node::Node;
use super::transaction::{message_after, Number, Transaction, ALONE};

/// Where an entry stands: timestamp, transaction number, part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u64, pub(super) Number, pub(super) u32);

/// What an entry is about.
pub(super) enum Body<H: Host> {
    /// A message for a node of this peer.
    Data(Message<H>),
    /// The node of this handle, which the peer holds, was destroyed.
    Destroy(Arc<Handle<H>>),
    /// Nobody else holds this node of the peer any more.
    Release(Arc<Node<H>>),
}

/// One entry, with the transaction that it is a part of.
pub(super) struct Entry<H: Host> {
    pub(super) transaction: Option<Arc<Transaction>>,
    pub(super) body: Body<H>,
}

// An option, since an entry is taken out of its tree node before the node gets another key.
pub(super) type Tree<H> = RBTree<Key, Option<Entry<H>>>;
/// Memory for one entry.
pub(super) type Seat<H> = RBTreeNodeReservation<Key, Option<Entry<H>>>;

/// An entry that was taken out, with the memory it sat in.
pub(super) type Taken<H> = (Entry<H>, Seat<H>);

/// Takes the entry of `key` out, with the memory it sat in.
pub(super) fn take<H: Host>(tree: &mut Tree<H>, key: &Key) -> Option<Taken<H>> {
    let mut found = tree.find_mut(key)?;
    let entry = found.get_mut().take()?;
    Some((entry, found.remove_node().into_reservation()))
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
    committed: Tree<H>,
    staged: Tree<H>,
}

impl<H: Host> Queue<H> {
    pub(super) fn new() -> Self {
        Self {
            clock: 0,
            committed: RBTree::new(),
            staged: RBTree::new(),
        }
    }

    /// Commits an entry that has no other parts, after everything here and after `floor`.
    pub(super) fn push(&mut self, floor: u64, body: Body<H>, seat: Seat<H>) -> Key {
        self.clock = message_after(self.clock.max(floor));
        let key = Key(self.clock, ALONE, 0);
        let entry = Entry {
            transaction: None,
            body,
        };
        self.committed.insert(seat.into_node(key, Some(entry)));
        key
    }

    /// Stages one part of a transaction.
    pub(super) fn stage(
        &mut self,
        transaction: &Arc<Transaction>,
        part: u32,
        body: Body<H>,
        seat: Seat<H>,
    ) -> Key {
        let key = Key(self.clock + 1, transaction.number, part);
        // Each queue by its own clock: what meets in two of them is received as it came to each.
        #[cfg(feature = "broken-order")]
        self.raise(key.0 + 1);
        let entry = Entry {
            transaction: Some(transaction.clone()),
            body,
        };
        self.staged.insert(seat.into_node(key, Some(entry)));
        key
    }

    /// Takes a staged part back; None if it is not there any more.
    pub(super) fn unstage(&mut self, key: &Key) -> Option<Taken<H>> {
        take(&mut self.staged, key)
    }

    /// Raises the clock, so that nothing is ordered at or before `timestamp` from now on but what is
    /// staged already.
    pub(super) fn raise(&mut self, timestamp: u64) {
        self.clock = self.clock.max(timestamp);
    }

    /// Moves what was committed meanwhile to its place, as far as the head depends on it, and
    /// returns the head's key if it may be received.
    pub(super) fn settle(&mut self) -> Option<Key> {
        // Mostly nothing is staged.
        while !self.staged.is_empty() {
            let staged = self.staged.cursor_front()?;
            let (&key, entry) = staged.current();
            if self.first().is_some_and(|head| head < key) {
                break;
            }
            // A killed one blocks until its maker takes it back, which it is about to do.
            let timestamp = committed_at(entry)?;
            self.commit(&key, timestamp);
        }
        self.first()
    }

    /// The first committed entry.
    fn first(&self) -> Option<Key> {
        Some(*self.committed.cursor_front()?.current().0)
    }

    fn commit(&mut self, staged: &Key, timestamp: u64) {
        #[cfg(feature = "broken-order")]
        let timestamp = timestamp.min(staged.0 + 1);
        if let Some((entry, seat)) = take(&mut self.staged, staged) {
            let key = Key(timestamp, staged.1, staged.2);
            self.committed.insert(seat.into_node(key, Some(entry)));
        }
    }

    /// The committed entry of `key`.
    pub(super) fn get(&self, key: &Key) -> Option<&Entry<H>> {
        self.committed.get(key)?.as_ref()
    }

    /// The first committed entry at or after `from`.
    pub(super) fn next(&self, from: &Key) -> Option<Key> {
        Some(*self.committed.cursor_lower_bound(from)?.current().0)
    }

    /// The committed entry that follows `key` in the same transaction.
    pub(super) fn following(&self, key: &Key) -> Option<Key> {
        let next = self.next(&Key(key.0, key.1, key.2 + 1))?;
        (next.0 == key.0 && next.1 == key.1).then_some(next)
    }

    /// Takes a committed entry out.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Taken<H>> {
        take(&mut self.committed, key)
    }

    /// Takes all out that was committed, whether or not something staged stands before it.
    pub(super) fn drain_committed(&mut self) -> Tree<H> {
        self.settle_all();
        core::mem::take(&mut self.committed)
    }

    /// Moves all that was committed meanwhile to its place.
    pub(super) fn settle_all(&mut self) {
        // Until a pass finds nothing: else it could see one part of a transaction before it commits
        // and another after.
        while self.settle_pass() {}
    }

    fn settle_pass(&mut self) -> bool {
        let mut moved = false;
        let mut from = Key(0, ALONE, 0);
        while let Some(staged) = self.staged.cursor_lower_bound(&from) {
            let (&key, entry) = staged.current();
            if let Some(timestamp) = committed_at(entry) {
                self.commit(&key, timestamp);
                moved = true;
            }
            from = Key(key.0, key.1, key.2 + 1);
        }
        moved
    }

    /// Takes all out that is staged.
    pub(super) fn drain_staged(&mut self) -> Tree<H> {
        core::mem::take(&mut self.staged)
    }

    /// Kills all staged messages for which `doomed` holds.
    pub(super) fn kill_staged(&self, mut doomed: impl FnMut(&Node<H>) -> bool) {
        for entry in self.staged.values().flatten() {
            if let (Some(transaction), Body::Data(message)) = (&entry.transaction, &entry.body) {
                if doomed(&message.node) {
                    transaction.kill();
                }
            }
        }
    }

    /// Number of committed and of staged entries; takes time in proportion.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.committed.iter().count(), self.staged.iter().count())
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
