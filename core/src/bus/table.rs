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
//! This is what the table lock guards, with the `local` part of each handle of the peer.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use super::account::Claimant;
use super::handle::{Fresh, Handle};
use super::host::Host;
use super::inbox::Inbox;
use super::message::Handles;
use super::node::Node;
use super::peer::{check, Peer};
use super::release::strip;
use crate::abi::{HANDLE_FLAG_MANAGED, HANDLE_FLAG_REMOTE, HANDLE_INVALID};
use crate::errno::ENOTUNIQ;

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
    /// How many numbers it gave to nodes, each once.
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
        let (own, anchor) = (handle.node.id(), handle.is_anchor());
        if anchor && self.by_id.get(&own).is_none() {
            return own;
        }
        let remote = if anchor { 0 } else { HANDLE_FLAG_REMOTE };
        self.last += 1;
        self.last << 3 | HANDLE_FLAG_MANAGED | remote
    }

    /// Puts a handle that has no user references yet into the table, with one. `charge` stays with
    /// it. False, with nothing changed, if the ID is in use.
    fn insert(
        &mut self,
        inbox: &mut Inbox<H>,
        handle: &Arc<Handle<H>>,
        charge: &mut Option<u64>,
        id: u64,
    ) -> bool {
        if self.by_id.get(&id).is_some() {
            return false;
        }
        let local = handle.local.access_mut(self);
        let Some(slot) = local.slot.take() else {
            return false;
        };
        (local.id, local.refs, local.charge) = (id, 1, charge.take());
        self.by_id.insert(slot.into_node(id, handle.clone()));
        handle.notice.access_mut(inbox).held = true;
        true
    }

    /// Turns a reference that was on its way into one of the user's: the handle gets its ID, or
    /// keeps the one it has. Returns INVALID, and takes nothing, if the holder was to be told of the
    /// node's end before it got here. `charge` stays with a handle that is new in the table.
    pub(super) fn gain(
        &mut self,
        inbox: &mut Inbox<H>,
        handle: &Arc<Handle<H>>,
        charge: &mut Option<u64>,
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
        if !self.insert(inbox, handle, charge, id) {
            return HANDLE_INVALID;
        }
        handle.local.access_mut(self).finished = true;
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
        // One may be charged later.
        let slots = Handles::with_capacity(n.max(1), GFP_KERNEL)?;
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
        self.peer
            .inbox
            .lock()
            .discharge_handles(self.claimant.peer, self.charged);
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
    unfinished: Option<KVVec<Arc<Handle<H>>>>,
    success: bool,
}

impl<'p, H: Host> Import<'p, H> {
    pub(super) fn new(peer: &'p Arc<Peer<H>>) -> Self {
        Self {
            peer,
            unfinished: None,
            success: false,
        }
    }

    /// The handle of this ID. ENXIO if it is not known and cannot be made; EDQUOT, ENOMEM, ESHUTDOWN.
    #[inline]
    pub(super) fn get(&mut self, id: u64) -> Result<Arc<Handle<H>>> {
        let table = self.peer.table.lock();
        check(table.open)?;
        match table.by_id.get(&id) {
            Some(handle) if handle.local.access(&table).finished => Ok(handle.clone()),
            _ => {
                drop(table);
                self.get_unfinished(id)
            }
        }
    }

    /// The same for a node that perhaps is to be made.
    #[cold]
    fn get_unfinished(&mut self, id: u64) -> Result<Arc<Handle<H>>> {
        let peer = self.peer;
        // Room to note that it is unfinished.
        let noted = self.unfinished.get_or_insert(KVVec::new());
        noted.reserve(1, GFP_KERNEL)?;
        let mut fresh = None;
        loop {
            let mut guard = peer.table.lock();
            let table = &mut *guard;
            check(table.open)?;
            let handle = match (table.by_id.get(&id).cloned(), fresh.take()) {
                (Some(handle), unused) => {
                    fresh = unused;
                    handle
                }
                (None, _) if !creates(id) => return Err(ENXIO),
                (None, Some(new)) => {
                    let mut inbox = peer.inbox.lock();
                    let handle = Fresh::link(new, &mut inbox);
                    table.insert(&mut inbox, &handle, &mut Some(peer.id()), id);
                    handle
                }
                (None, None) => {
                    table.serials += 1;
                    let serial = table.serials;
                    drop(guard);
                    let node = Node::new(id, serial, peer)?;
                    fresh = Some(Fresh::new(&node, peer)?);
                    peer.charge_handles(peer.claimant(), 1)?;
                    continue;
                }
            };
            let local = handle.local.access_mut(table);
            if !local.finished {
                local.unfinished += 1;
                let pushed = noted.push_within_capacity(handle.clone());
                debug_assert!(pushed.is_ok());
            }
            drop(guard);
            // Another thread made it first.
            if fresh.is_some() {
                peer.inbox.lock().discharge_handles(peer.id(), 1);
            }
            return Ok(handle);
        }
    }

    /// The call succeeded: the nodes that it made stay.
    #[inline(always)]
    pub(super) fn finish(mut self) {
        self.success = true;
    }

    /// Ends a call that used nodes which none finished before.
    #[cold]
    fn end(&self, made: &[Arc<Handle<H>>]) {
        for handle in made {
            let mut guard = self.peer.table.lock();
            let table = &mut *guard;
            let local = handle.local.access_mut(table);
            local.unfinished -= 1;
            local.finished |= self.success;
            // A disconnect or a flush may have emptied the table meanwhile.
            if local.finished || local.unfinished != 0 || local.refs == 0 {
                continue;
            }
            let (refs, pin) = strip(table, &mut self.peer.inbox.lock(), handle);
            drop(guard);
            handle.unlink(refs, pin);
        }
    }
}

impl<H: Host> Drop for Import<'_, H> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(made) = self.unfinished.take() {
            self.end(&made);
        }
    }
}

/// Handles of a list in which each may be named once.
pub(super) struct Named(Option<RBTree<u64, ()>>);

impl Named {
    pub(super) fn new(ids: &[u64]) -> Self {
        // In a list that is in order none comes again.
        Self((!ids.is_sorted_by(|a, b| a < b)).then(RBTree::new))
    }

    /// The same as [`Import::get`]; ENOTUNIQ if it was named before.
    #[inline]
    pub(super) fn find<H: Host>(
        &mut self,
        import: &mut Import<'_, H>,
        id: u64,
    ) -> Result<Arc<Handle<H>>> {
        let handle = import.get(id)?;
        if let Some(seen) = &mut self.0 {
            if seen.try_create_and_insert(id, (), GFP_KERNEL)?.is_some() {
                return Err(ENOTUNIQ);
            }
        }
        Ok(handle)
    }
}
