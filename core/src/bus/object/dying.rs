// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Nodes of one peer that are being destroyed: each step of a destruction finds the next holder
//! that is to be notified at once.
//!
//! # Invariants
//!
//! - A node is here from the moment that it becomes a part of a destruction until its holders were
//!   woken.
//! - A node that has holders which are not notified yet is in `waiting`.
//!
//! # Locks
//!
//! Lies in the peer's inbox.

use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use crate::bus::host::Host;
use crate::bus::object::{Handle, Holders, Inbox};

/// A part of a destruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeathKey {
    /// The number of the transaction among those of the owner.
    pub(crate) count: u64,
    pub(crate) part: u32,
}

/// Nodes, as their anchors, by part.
type ByPart<H> = RBTree<DeathKey, Arc<Handle<H>>>;
/// Memory for a node among those that are being destroyed.
pub(crate) type DyingReservation<H> = RBTreeNodeReservation<DeathKey, Arc<Handle<H>>>;

/// Nodes that are being destroyed.
pub(crate) struct Dying<H: Host> {
    /// Nodes that may have holders to be notified.
    waiting: ByPart<H>,
    /// Nodes whose holders were all notified.
    notified: ByPart<H>,
}

/// A step of a destruction.
pub(crate) enum Step<H: Host> {
    /// A holder to be notified, of the node that is this part.
    Notify(u32, Arc<Handle<H>>),
    /// A node had none.
    Passed,
    /// No node has any.
    Done,
}

impl<H: Host> Dying<H> {
    /// Makes an empty list.
    pub(crate) fn new() -> Self {
        Self {
            waiting: RBTree::new(),
            notified: RBTree::new(),
        }
    }

    /// Adds a node.
    pub(crate) fn add(
        &mut self,
        key: DeathKey,
        anchor: &Arc<Handle<H>>,
        memory: DyingReservation<H>,
    ) {
        self.waiting.insert(memory.into_node(key, anchor.clone()));
    }

    /// Notes that a node has a new holder.
    pub(crate) fn return_to_waiting(&mut self, key: &DeathKey) {
        if let Some(node) = self.notified.remove_node(key) {
            self.waiting.insert(node);
        }
    }
}

impl<H: Host> Inbox<H> {
    /// Takes the next step of the destruction of this number: moves one handle of one node from the
    /// holders to the notified handles, `told`.
    pub(crate) fn step_of_death(&mut self, count: u64) -> Step<H> {
        let first = DeathKey { count, part: 0 };
        let here = self.dying.waiting.cursor_lower_bound(&first);
        let here = here.map(|here| (*here.current().0, here.current().1.clone()));
        let Some((key, anchor)) = here.filter(|(key, _)| key.count == count) else {
            return Step::Done;
        };
        let shared = anchor.node.shared.access_mut(self);
        let Some(holder) = shared.holders.cursor_front_mut() else {
            if let Some(node) = self.dying.waiting.remove_node(&key) {
                self.dying.notified.insert(node);
            }
            return Step::Passed;
        };
        let handle = holder.current().1.clone();
        shared.told.insert(holder.remove_current().1);
        Step::Notify(key.part, handle)
    }

    /// Takes the notified handles of a node that died in the destruction of this number. None if
    /// there is no more such node.
    pub(crate) fn take_told(&mut self, count: u64) -> Option<Holders<H>> {
        let first = DeathKey { count, part: 0 };
        let here = self.dying.notified.cursor_lower_bound(&first)?;
        let key = *here.current().0;
        if key.count != count {
            return None;
        }
        let anchor = self.dying.notified.remove(&key)?;
        Some(core::mem::take(
            &mut anchor.node.shared.access_mut(self).told,
        ))
    }
}
