// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A peer's handles by ID.
//!
//! # Invariants
//!
//! - A handle is in the table if it has user references, and only then.
//! - IDs that the bus chose come from a counter and are never used again.
//!
//! # Locks
//!
//! This is what the table lock guards, with the `local` part of each handle of the peer.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use super::account::Claimant;
use super::few::Few;
use super::handle::{Fresh, Handle};
use super::host::Host;
use super::inbox::Inbox;
use super::message::Handles;
use super::node::Node;
use super::peer::{check, Peer};
use crate::abi::{HANDLE_FLAG_MANAGED, HANDLE_FLAG_REMOTE, HANDLE_INVALID};

/// Handles by ID.
pub(super) type ById<H> = RBTree<u64, Arc<Handle<H>>>;
/// Memory for an entry of a table.
pub(super) type Slot<H> = RBTreeNodeReservation<u64, Arc<Handle<H>>>;

/// See the module.
pub(super) struct Table<H: Host> {
    pub(super) by_id: ById<H>,
    /// The peer is connected.
    pub(super) open: bool,
    last: u64,
    serials: u64,
}

// What is pinned is behind pointers; nothing in the table itself minds being moved.
impl<H: Host> Unpin for Table<H> {}

/// Whether an ID that is not known names a node to be made.
pub(super) fn creates(id: u64) -> bool {
    id & (HANDLE_FLAG_MANAGED | HANDLE_FLAG_REMOTE) == 0
}

impl<H: Host> Table<H> {
    pub(super) fn new() -> Self {
        Self {
            by_id: RBTree::new(),
            open: true,
            last: 0,
            serials: 0,
        }
    }

    /// The ID that a handle gets which is not in the table: for an own node the one it always had,
    /// unless the user gave that to another node meanwhile; else one that was never used before.
    pub(super) fn id_for(&mut self, handle: &Handle<H>) -> u64 {
        let remote = if handle.is_anchor() {
            let id = handle.node.id();
            if self.by_id.get(&id).is_none() {
                return id;
            }
            0
        } else {
            HANDLE_FLAG_REMOTE
        };
        self.last += 1;
        self.last << 3 | HANDLE_FLAG_MANAGED | remote
    }

    /// The first handle of this ID or a higher one.
    pub(super) fn at_or_after(&self, id: u64) -> Option<(u64, Arc<Handle<H>>)> {
        let cursor = self.by_id.cursor_lower_bound(&id)?;
        let (&id, handle) = cursor.current();
        Some((id, handle.clone()))
    }

    /// A number that no node of this peer had before.
    pub(super) fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// Puts a handle that has no user references yet into the table. False, with nothing changed, if
    /// the ID is in use.
    pub(super) fn insert(&mut self, handle: &Arc<Handle<H>>, id: u64) -> bool {
        if self.by_id.get(&id).is_some() {
            return false;
        }
        let local = handle.local.access_mut(self);
        let Some(slot) = local.slot.take() else {
            return false;
        };
        local.id = id;
        self.by_id.insert(slot.into_node(id, handle.clone()));
        true
    }

    /// Takes a handle out that has lost its last user reference. Returns who was charged for it.
    pub(super) fn remove(&mut self, handle: &Arc<Handle<H>>) -> Option<Claimant> {
        let id = handle.local.access_mut(self).id;
        // The caller has a reference of its own, so the one in the tree is not the last.
        let slot = self.by_id.remove_node(&id).map(|n| n.into_reservation());
        let local = handle.local.access_mut(self);
        local.id = HANDLE_INVALID;
        local.slot = slot;
        local.charge.take()
    }

    /// Turns a reference that was on its way into one of the user's: the handle gets its ID, or
    /// keeps the one it has. Returns INVALID, and takes nothing, if the holder was to be told of the
    /// node's end before it got here. `charge` stays with a handle that is new in the table.
    pub(super) fn gain(
        &mut self,
        inbox: &mut Inbox<H>,
        handle: &Arc<Handle<H>>,
        charge: &mut Option<Claimant>,
        id: Option<u64>,
    ) -> u64 {
        let local = handle.local.access_mut(self);
        if local.refs != 0 {
            local.refs += 1;
            return local.id;
        }
        if handle.notice.access_mut(inbox).spent {
            return HANDLE_INVALID;
        }
        let id = id.unwrap_or_else(|| self.id_for(handle));
        if !self.insert(handle, id) {
            return HANDLE_INVALID;
        }
        let local = handle.local.access_mut(self);
        local.refs = 1;
        local.finished = true;
        local.charge = charge.take();
        handle.notice.access_mut(inbox).held = true;
        id
    }
}

/// References for a peer, and charges for them, that it is about to gain. What is left of them is
/// given back when this is dropped.
pub(super) struct Gains<'p, H: Host> {
    peer: &'p Arc<Peer<H>>,
    pub(super) claimant: Claimant,
    pub(super) slots: Handles<H>,
    pub(super) charged: usize,
}

impl<'p, H: Host> Gains<'p, H> {
    /// Charges `n` handles, and has room for as many. EDQUOT, ESHUTDOWN, ENOMEM.
    pub(super) fn new(peer: &'p Arc<Peer<H>>, claimant: Claimant, n: usize) -> Result<Self> {
        let slots = Handles::with_capacity(n, GFP_KERNEL)?;
        if n != 0 {
            peer.charge_handles(claimant, n)?;
        }
        Ok(Self {
            peer,
            claimant,
            slots,
            charged: n,
        })
    }
}

impl<H: Host> Drop for Gains<'_, H> {
    fn drop(&mut self) {
        let mut inbox = self.peer.inbox.lock();
        inbox.discharge_handles(self.claimant, self.charged);
        drop(inbox);
        for handle in self.slots.iter().flatten() {
            handle.unlink(1, false);
        }
    }
}

/// The handles that one call names.
///
/// Nodes that are named for the first time are made on the way, but unfinished: if no call that used
/// them succeeds, they vanish again when the last of these ends.
pub(super) struct Import<'p, H: Host> {
    peer: &'p Arc<Peer<H>>,
    unfinished: Few<Arc<Handle<H>>>,
}

impl<'p, H: Host> Import<'p, H> {
    pub(super) fn new(peer: &'p Arc<Peer<H>>) -> Self {
        Self {
            peer,
            unfinished: Few::NONE,
        }
    }

    /// The handle of this ID. ENXIO if it is not known and cannot be made; EDQUOT, ENOMEM, ESHUTDOWN.
    pub(super) fn get(&mut self, id: u64) -> Result<Arc<Handle<H>>> {
        let Self { peer, unfinished } = self;
        let mut fresh = None;
        let mut reserved = false;
        loop {
            let mut guard = peer.table.lock();
            let table = &mut *guard;
            check(table.open)?;
            let found = table.by_id.get(&id).cloned();
            let finished = found
                .as_ref()
                .is_some_and(|handle| handle.local.access(table).finished);
            if !finished && !reserved {
                // Room to note that it is unfinished.
                drop(guard);
                unfinished.reserve_one(GFP_KERNEL)?;
                reserved = true;
                continue;
            }
            if let Some(handle) = found {
                if !finished {
                    handle.local.access_mut(table).unfinished += 1;
                    note(unfinished, &handle);
                }
                drop(guard);
                // Another thread made it first.
                if let Some(fresh) = fresh {
                    discharge(peer, fresh);
                }
                return Ok(handle);
            }
            if !creates(id) {
                return Err(ENXIO);
            }
            let Some((new, charge)) = fresh.take() else {
                let serial = table.serial();
                drop(guard);
                fresh = Some(make(peer, id, serial)?);
                continue;
            };
            let handle = new.handle.clone();
            table.insert(&handle, id);
            let local = handle.local.access_mut(table);
            local.refs = 1;
            local.unfinished = 1;
            local.charge = Some(charge);
            let mut inbox = peer.inbox.lock();
            handle.notice.access_mut(&mut inbox).held = true;
            new.link(&mut inbox);
            drop(inbox);
            note(unfinished, &handle);
            return Ok(handle);
        }
    }

    /// The call succeeded: the nodes that it made stay.
    pub(super) fn finish(self) {
        for handle in self.unfinished.iter() {
            let mut table = self.peer.table.lock();
            handle.local.access_mut(&mut table).finished = true;
        }
    }
}

/// Notes a handle as unfinished; room was reserved.
fn note<H: Host>(unfinished: &mut Few<Arc<Handle<H>>>, handle: &Arc<Handle<H>>) {
    let noted = unfinished.push(handle.clone(), GFP_KERNEL);
    debug_assert!(noted.is_ok());
}

/// A node and its anchor, charged to the peer itself.
fn make<H: Host>(peer: &Arc<Peer<H>>, id: u64, serial: u64) -> Result<(Fresh<H>, Claimant)> {
    let node = Node::new(id, serial, peer)?;
    let fresh = Fresh::new(&node, peer)?;
    peer.charge_handles(peer.claimant(), 1)?;
    Ok((fresh, peer.claimant()))
}

fn discharge<H: Host>(peer: &Peer<H>, (fresh, charge): (Fresh<H>, Claimant)) {
    peer.inbox.lock().discharge_handles(charge, 1);
    drop(fresh);
}

impl<H: Host> Drop for Import<'_, H> {
    fn drop(&mut self) {
        for handle in self.unfinished.iter() {
            let mut guard = self.peer.table.lock();
            let table = &mut *guard;
            let local = handle.local.access_mut(table);
            local.unfinished -= 1;
            // A disconnect or a flush may have emptied the table meanwhile.
            if local.finished || local.unfinished != 0 || local.refs == 0 {
                continue;
            }
            local.refs = 0;
            let charge = table.remove(handle);
            let mut inbox = self.peer.inbox.lock();
            if let Some(charge) = charge {
                inbox.discharge_handles(charge, 1);
            }
            drop(inbox);
            drop(guard);
            handle.unlink(1, true);
        }
    }
}
