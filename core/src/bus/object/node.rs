// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Nodes: the objects that messages are sent to.
//!
//! # Invariants
//!
//! - A node belongs to one peer and keeps its ID for life.
//! - `holders` has the handle of every peer that holds a reference of any kind, until the node's
//!   destruction notifies that peer and moves the handle to `told`, the notified handles. Both are
//!   empty once the destruction has woken all holders.
//! - `strong` counts all references of all handles except the owner's pin.
//! - A node is dead once the transaction in `death`, its destruction, is committed. So all nodes of
//!   one destruction die, and all its notices appear, by one addition.
//! - A release notice is queued only while `strong` is 0 on a live node. `release_owed` says that
//!   one is owed when `strong` falls to 0: a reference was confirmed since the last notice was
//!   queued, or that notice was withdrawn.
//!
//! # Locks and memory order
//!
//! `shared` is guarded by the owner's inbox. `death` is set, and its transaction committed, under
//! that lock as well, but read without. A task that finds the node alive may be notified of the
//! destruction later, through its own queue.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::{Arc, LockedBy, SetOnce};

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::Host;
use crate::bus::object::{
    DeathKey, DyingReservation, EntryReservation, Handle, Inbox, Notice, NoticeState, Peer, Removed,
};
use crate::bus::order::Transaction;

/// Handles of a node, by the ID of the peer that holds each.
pub(crate) type Holders<H> = RBTree<u64, Arc<Handle<H>>>;
/// Memory for an entry among a node's holders.
pub(crate) type HolderReservation<H> = RBTreeNodeReservation<u64, Arc<Handle<H>>>;

/// Memory that a destruction needs, set aside while the node lives: so it never fails for lack of
/// memory.
pub(crate) struct DeathReservation<H: Host> {
    /// Used for the first of the nodes that die together.
    pub(super) transaction: Arc<Transaction>,
    /// Memory for the node's entry among those that die together.
    pub(super) entry: DyingReservation<H>,
}

/// State of a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// A call is about to destroy it, and nothing else does.
    Doomed,
    /// A destruction is under way, or was; the key that the node had at first.
    Dying(DeathKey),
}

/// The part of a node that the owner's inbox guards.
pub(crate) struct Shared<H: Host> {
    pub(crate) holders: Holders<H>,
    /// Handles whose holders the destruction has notified. They stay known until all holders are
    /// woken, so that a peer that is given the node again meanwhile gets the handle that it has.
    pub(crate) told: Holders<H>,
    pub(crate) strong: u64,
    /// The notice that nobody else holds the node any more.
    pub(crate) release: NoticeState<H>,
    /// A release notice is owed when `strong` falls to 0.
    pub(crate) release_owed: bool,
    /// Number of release notices that were queued.
    n_releases: u64,
    pub(super) life: Life,
    /// Taken when a destruction begins.
    pub(super) death: Option<DeathReservation<H>>,
    /// The owner dropped its last reference: entries that are queued for the node vanish.
    pub(crate) anchor_released: bool,
}

/// An object that belongs to one peer.
pub(crate) struct Node<H: Host> {
    /// The owner's ID of it.
    pub(crate) id: u64,
    /// The peer that it belongs to.
    pub(crate) owner: Arc<Peer<H>>,
    /// Its destruction, from the moment that it begins.
    pub(crate) death: SetOnce<Arc<Transaction>>,
    pub(crate) shared: LockedBy<Shared<H>, Inbox<H>>,
}

impl<H: Host> Node<H> {
    /// Makes a node without holders.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(id: u64, owner: &Arc<Peer<H>>) -> Result<Arc<Self>> {
        let death = DeathReservation {
            transaction: owner.transaction()?,
            entry: DyingReservation::<H>::new(GFP_KEPT)?,
        };
        let shared = Shared {
            holders: RBTree::new(),
            told: RBTree::new(),
            strong: 0,
            release: NoticeState::Idle(EntryReservation::<H>::new(GFP_KEPT)?),
            release_owed: false,
            n_releases: 0,
            life: Life::Alive,
            death: Some(death),
            anchor_released: false,
        };
        let new = Self {
            id,
            owner: owner.clone(),
            death: SetOnce::new(),
            shared: LockedBy::new(&owner.inbox, shared),
        };
        Ok(Arc::new(new, GFP_KEPT)?)
    }

    /// Returns the timestamp of its destruction, if it is dead. Exact under the owner's inbox.
    #[inline]
    pub(crate) fn dead_at(&self) -> Option<u64> {
        self.death.as_ref()?.committed_at()
    }

    /// Returns whether it is dead. Exact under the owner's inbox.
    #[inline]
    pub(crate) fn is_dead(&self) -> bool {
        self.dead_at().is_some()
    }

    /// Returns whether it dies, or died, in this transaction.
    pub(crate) fn dies_in(&self, transaction: &Arc<Transaction>) -> bool {
        let death = self.death.as_ref();
        death.is_some_and(|death| Arc::ptr_eq(death, transaction))
    }

    /// Returns whether the node was destroyed before an entry with this timestamp.
    pub(crate) fn is_dead_before(&self, timestamp: u64) -> bool {
        self.dead_at().is_some_and(|dead| dead < timestamp)
    }

    /// Reserves its destruction for the caller. False if another call destroys it. Under the
    /// owner's inbox.
    pub(crate) fn doom(&self, inbox: &mut Inbox<H>) -> bool {
        let shared = self.shared.access_mut(inbox);
        let is_alive = shared.life == Life::Alive;
        if is_alive {
            shared.life = Life::Doomed;
        }
        is_alive
    }

    /// Gives up its destruction, which the caller reserved. Under the owner's inbox.
    pub(crate) fn spare(&self, inbox: &mut Inbox<H>) {
        self.shared.access_mut(inbox).life = Life::Alive;
    }

    /// Returns whether the owner dropped its last reference. Under the owner's inbox.
    #[inline]
    pub(crate) fn is_released(&self, inbox: &Inbox<H>) -> bool {
        self.shared.access(inbox).anchor_released
    }
}

/// Changes of a node's counts. All take the owner's inbox, locked.
impl<H: Host> Node<H> {
    /// Counts one more reference, not known yet to be for good. Returns the number of release
    /// notices so far, for [`Node::confirm`]; None if there is no need to confirm it, since a notice
    /// is owed anyhow when the count falls.
    pub(crate) fn count_up(&self, inbox: &mut Inbox<H>) -> Option<u64> {
        let shared = self.shared.access_mut(inbox);
        shared.strong += 1;
        if let NoticeState::Queued(key) = shared.release {
            // Not received yet, so it is withdrawn, and owed again.
            shared.release_owed = true;
            #[cfg(test)]
            let key = crate::bus::planted::Fault::ReleaseNotWithdrawn.unless(key);
            let withdrawn = inbox.queue.remove(&key);
            if let Some(Removed::Notice(_, reservation)) = withdrawn {
                self.shared.access_mut(inbox).release = NoticeState::Idle(reservation);
            }
        }
        let shared = self.shared.access_mut(inbox);
        (!shared.release_owed).then_some(shared.n_releases)
    }

    /// Counts `n` fewer. True if the owner has to be woken.
    pub(crate) fn count_down(this: &Arc<Self>, inbox: &mut Inbox<H>, n: u64) -> bool {
        let shared = this.shared.access_mut(inbox);
        debug_assert!(shared.strong >= n);
        shared.strong -= n;
        Self::notify(this, inbox)
    }

    /// Notes that a reference is for good, which was counted after so many release notices. True if
    /// the owner has to be woken.
    pub(crate) fn confirm(this: &Arc<Self>, inbox: &mut Inbox<H>, n_releases: u64) -> bool {
        let shared = this.shared.access_mut(inbox);
        if shared.n_releases != n_releases {
            // Another reference was confirmed before, and its end notified since: that stands for
            // the end of this one as well, or of a later one.
            return false;
        }
        shared.release_owed = true;
        // The receiver may have dropped it already.
        Self::notify(this, inbox)
    }

    /// Gives the memory of a release notice back that was taken out of the queue. True if the owner
    /// has to be woken, for one that came due without it.
    pub(crate) fn return_notice(
        this: &Arc<Self>,
        inbox: &mut Inbox<H>,
        reservation: EntryReservation<H>,
    ) -> bool {
        this.shared.access_mut(inbox).release = NoticeState::Idle(reservation);
        Self::notify(this, inbox)
    }

    /// Queues the release notice if one is owed now.
    fn notify(this: &Arc<Self>, inbox: &mut Inbox<H>) -> bool {
        let shared = this.shared.access_mut(inbox);
        if shared.strong != 0 || !shared.release_owed || this.is_dead() || !inbox.open {
            return false;
        }
        let shared = this.shared.access_mut(inbox);
        let Some(reservation) = shared.release.take() else {
            return false;
        };
        shared.release_owed = false;
        shared.n_releases += 1;
        let notice = Notice::Released(this.clone());
        let key = inbox.queue.push_notice(notice, reservation);
        this.shared.access_mut(inbox).release = NoticeState::Queued(key);
        true
    }
}
