// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A peer's handles by ID.
//!
//! # Invariants
//!
//! - A handle is in the table if it has user references, and only then.
//! - IDs that the bus chose come from a counter and are never used again.
//!
//! # Locks
//!
//! The table lock guards all of this, with the `local` part of each handle of the peer.

use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::{Arc, SpinLock};

use crate::abi::{HANDLE_FLAG_MANAGED, HANDLE_FLAG_REMOTE, HANDLE_INVALID};
use crate::bus::host::Host;
use crate::bus::object::{Creation, Detached, Handle, Inbox, NoticeState};

/// Handles by number.
pub(crate) type ByNumber<H> = RBTree<u64, Arc<Handle<H>>>;
/// Memory for an entry of a table.
pub(crate) type TableReservation<H> = RBTreeNodeReservation<u64, Arc<Handle<H>>>;

/// The part of a peer that the table lock guards.
pub(crate) struct Table<H: Host> {
    pub(crate) by_id: ByNumber<H>,
    /// The peer is connected.
    pub(crate) open: bool,
    last: u64,
}

// Pinned data is behind pointers; nothing in the table itself minds being moved.
impl<H: Host> Unpin for Table<H> {}

/// Returns whether an ID that is not known names a node to be made.
pub(crate) fn creates(id: u64) -> bool {
    id & (HANDLE_FLAG_MANAGED | HANDLE_FLAG_REMOTE) == 0
}

/// A user reference that a handle gained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gained {
    pub(crate) id: u64,
    /// The handle is new in the table, and the charge for it stays with it.
    pub(crate) keeps_charge: bool,
}

impl<H: Host> Table<H> {
    /// Makes an empty table.
    pub(crate) fn new() -> Self {
        Self {
            by_id: RBTree::new(),
            open: true,
            last: 0,
        }
    }

    /// Chooses the ID that a handle gets which is not in the table: for an own node the one it
    /// always had, unless the user gave that to another node meanwhile; otherwise one that was
    /// never used before.
    pub(crate) fn choose_id(&mut self, handle: &Handle<H>) -> u64 {
        let (own, anchor) = (handle.node.id, handle.is_anchor());
        if anchor && self.by_id.get(&own).is_none() {
            return own;
        }
        let remote = if anchor { 0 } else { HANDLE_FLAG_REMOTE };
        self.last += 1;
        self.last << 3 | HANDLE_FLAG_MANAGED | remote
    }

    /// Puts a handle that has no user references yet into the table, with one. The charge of
    /// `payer` stays with it. False, with nothing changed, if the ID is in use.
    pub(crate) fn insert(
        &mut self,
        inbox: &mut Inbox<H>,
        handle: &Arc<Handle<H>>,
        payer: u64,
        id: u64,
    ) -> bool {
        if self.by_id.get(&id).is_some() {
            return false;
        }
        let local = handle.local.access_mut(self);
        let Some(reservation) = local.reservation.take() else {
            return false;
        };
        local.refs = 1;
        local.payer = payer;
        self.by_id.insert(reservation.into_node(id, handle.clone()));
        handle.notice.access_mut(inbox).id = id;
        true
    }

    /// Turns a reference that was on its way into one of the user's: the handle gets `id` or one
    /// that is chosen, or keeps the one it has. None, with nothing changed, if the table is closed,
    /// if `id` is in use, or if the holder was to be notified of the node's end before it got here.
    /// The charge of `payer` stays with a handle that is new in the table.
    pub(crate) fn gain(
        &mut self,
        inbox: &mut Inbox<H>,
        handle: &Arc<Handle<H>>,
        payer: u64,
        id: Option<u64>,
    ) -> Option<Gained> {
        if !self.open {
            return None;
        }
        let local = handle.local.access_mut(self);
        let is_new = local.refs == 0;
        if is_new {
            if matches!(handle.notice.access(inbox).destroy, NoticeState::Removed) {
                return None;
            }
            let id = id.unwrap_or_else(|| self.choose_id(handle));
            if !self.insert(inbox, handle, payer, id) {
                return None;
            }
            handle.local.access_mut(self).creation = Creation::Done;
        } else {
            local.refs += 1;
        }
        Some(Gained {
            id: handle.notice.access(inbox).id,
            keeps_charge: is_new,
        })
    }

    /// Takes one user reference from a handle: the pin, or another one. With the last one the handle
    /// leaves the table. The caller has a reference to it, and unlinks the returned ones.
    pub(crate) fn detach_one(
        &mut self,
        inbox: &SpinLock<Inbox<H>>,
        handle: &Arc<Handle<H>>,
        with_pin: bool,
    ) -> Detached {
        let local = handle.local.access_mut(self);
        if local.refs == 1 {
            return self.detach(&mut inbox.lock(), handle);
        }
        local.refs -= 1;
        local.pinned &= !with_pin;
        Detached {
            with_pin,
            ..Detached::ONE
        }
    }

    /// Takes a handle out of the table, with all its user references. The caller has a reference to
    /// it, and unlinks the returned references.
    pub(crate) fn detach(&mut self, inbox: &mut Inbox<H>, handle: &Arc<Handle<H>>) -> Detached {
        let local = handle.local.access_mut(self);
        let refs = core::mem::take(&mut local.refs);
        let with_pin = core::mem::take(&mut local.pinned);
        inbox.discharge_handles(local.payer, 1);
        let notice = handle.notice.access_mut(inbox);
        let id = core::mem::replace(&mut notice.id, HANDLE_INVALID);
        // The caller has a reference of its own, so the one in the tree is not the last.
        let entry = self.by_id.remove_node(&id);
        handle.local.access_mut(self).reservation = entry.map(|node| node.into_reservation());
        let waited = handle.withdraw_room(inbox);
        if handle.is_anchor() {
            handle.node.shared.access_mut(inbox).anchor_released = true;
        }
        Detached {
            refs,
            with_pin,
            ends_waits: waited | inbox.ledger.take_due(),
        }
    }
}
