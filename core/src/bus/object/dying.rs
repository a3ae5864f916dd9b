// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Nodes of one peer that are being destroyed: each step of a destruction finds the next holder
//! that is to be notified at once.
//!
//! # Invariants
//!
//! - A node is here from the moment that it becomes a part of a destruction until its holders were
//!   woken.
//! - A node that has holders which are not notified yet has a key that says so.
//!
//! # Locks
//!
//! Lies in the peer's inbox.

use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use crate::bus::host::Host;
use crate::bus::object::node::Life;
use crate::bus::object::{Handle, Holders, Inbox, Node};
use crate::bus::order::Transaction;

/// A part of a destruction. Those with holders that are not notified yet come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeathKey {
    /// All holders of the node were notified.
    is_notified: bool,
    /// The number of the transaction among those of the owner.
    count: u64,
    part: u32,
}

/// Nodes that are being destroyed, as their anchors, by part.
pub(crate) type Dying<H> = RBTree<DeathKey, Arc<Handle<H>>>;
/// Memory for a node among those that are being destroyed.
pub(crate) type DyingReservation<H> = RBTreeNodeReservation<DeathKey, Arc<Handle<H>>>;

/// Nodes to destroy together, in the order of the parts. They are in the owner's inbox.
#[derive(Default)]
pub(crate) struct Doomed {
    n_parts: u32,
    /// The transaction that they die in: that of the first of them.
    pub(crate) transaction: Option<Arc<Transaction>>,
}

impl Doomed {
    /// Begins the destruction of a node that the caller doomed, as the next part.
    pub(crate) fn add<H: Host>(&mut self, inbox: &mut Inbox<H>, anchor: &Arc<Handle<H>>) {
        let node = &anchor.node;
        let shared = node.shared.access_mut(inbox);
        let Some(reservation) = shared.death.take() else {
            debug_assert!(false, "a node dies once");
            return;
        };
        let transaction = self.transaction.get_or_insert(reservation.transaction);
        let key = DeathKey {
            is_notified: false,
            count: transaction.number.count,
            part: self.n_parts,
        };
        shared.life = Life::Dying(key);
        node.death.populate(transaction.clone());
        let entry = reservation.entry.into_node(key, anchor.clone());
        inbox.dying.insert(entry);
        self.n_parts += 1;
    }
}

/// A step of a destruction.
pub(crate) enum Step<H: Host> {
    /// A holder to be notified, of the node that is this part.
    Notify(u32, Arc<Handle<H>>),
    /// A node had no holder left to be notified, and was moved to the notified ones.
    Passed,
    /// No node of the destruction has a holder left to be notified.
    Done,
}

impl<H: Host> Inbox<H> {
    /// Notes that a node has a new holder.
    pub(crate) fn note_holder(&mut self, node: &Node<H>) {
        if let Life::Dying(key) = node.shared.access(self).life {
            self.set_notified(key, false);
        }
    }

    /// Moves a dying node to the notified ones, or back.
    fn set_notified(&mut self, key: DeathKey, is_notified: bool) {
        let from = DeathKey {
            is_notified: !is_notified,
            ..key
        };
        let Some(anchor) = self.dying.get(&from).cloned() else {
            return;
        };
        if let Some(node) = self.dying.remove_node(&from) {
            let to = DeathKey { is_notified, ..key };
            self.dying
                .insert(node.into_reservation().into_node(to, anchor));
        }
    }

    /// Returns the first node of the destruction of this number whose key has this `is_notified`.
    fn first_dying(&self, count: u64, is_notified: bool) -> Option<(DeathKey, Arc<Handle<H>>)> {
        let first = DeathKey {
            is_notified,
            count,
            part: 0,
        };
        let here = self.dying.cursor_lower_bound(&first)?;
        let (&key, anchor) = here.current();
        let found = (key.is_notified, key.count) == (is_notified, count);
        found.then(|| (key, anchor.clone()))
    }

    /// Takes the next step of the destruction of this number: moves one handle of one node from the
    /// holders to the notified handles, `told`.
    pub(crate) fn step_of_death(&mut self, count: u64) -> Step<H> {
        let Some((key, anchor)) = self.first_dying(count, false) else {
            return Step::Done;
        };
        let shared = anchor.node.shared.access_mut(self);
        let Some(holder) = shared.holders.cursor_front_mut() else {
            self.set_notified(key, true);
            return Step::Passed;
        };
        let handle = holder.current().1.clone();
        shared.told.insert(holder.remove_current().1);
        Step::Notify(key.part, handle)
    }

    /// Takes the notified handles of a node that died in the destruction of this number. None if
    /// there is no more such node.
    pub(crate) fn take_told(&mut self, count: u64) -> Option<Holders<H>> {
        let (key, anchor) = self.first_dying(count, true)?;
        self.dying.remove(&key);
        let shared = anchor.node.shared.access_mut(self);
        Some(core::mem::take(&mut shared.told))
    }
}
