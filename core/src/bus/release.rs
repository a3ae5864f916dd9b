// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! HANDLE_RELEASE and SLICE_RELEASE: what a user gives back.
//!
//! # Locks
//!
//! Table and inbox of the caller, then the inbox of the node's owner alone.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::SLICES;
use super::handle::Handle;
use super::host::{Host, Pool};
use super::inbox::Inbox;
use super::message::Slice;
use super::peer::{check, Peer};
use super::queue::Key;
use super::slices::Slices;
use super::table::{creates, Table};
use crate::abi::HANDLE_INVALID;

/// Takes all of a handle's user references, as its last one goes. Under table and inbox.
///
/// The caller unlinks what is returned: the number of references, and whether one was the pin.
pub(super) fn strip<H: Host>(
    table: &mut Table<H>,
    inbox: &mut Inbox<H>,
    handle: &Arc<Handle<H>>,
) -> (u64, bool) {
    let local = handle.local.access_mut(table);
    let refs = core::mem::take(&mut local.refs);
    let id = core::mem::replace(&mut local.id, HANDLE_INVALID);
    if let Some(charge) = local.charge.take() {
        inbox.discharge_handles(charge, 1);
    }
    // The caller has a reference of its own, so the one in the tree is not the last.
    let slot = table
        .by_id
        .remove_node(&id)
        .map(|node| node.into_reservation());
    handle.local.access_mut(table).slot = slot;
    handle.notice.access_mut(inbox).held = false;
    let anchor = handle.is_anchor();
    if anchor {
        handle.node.shared.access_mut(inbox).gone = true;
    }
    (refs, anchor)
}

impl<H: Host> Peer<H> {
    /// Drops one user reference of the handle `id`. ENXIO if there is none; EBUSY for the pin of a
    /// live node, or if `id` would make one.
    pub fn release_handle(&self, id: u64) -> Result {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        check(table.open)?;
        let Some(handle) = table.by_id.get(&id).cloned() else {
            return Err(if creates(id) { EBUSY } else { ENXIO });
        };
        let last = handle.local.access(table).refs == 1;
        if last && handle.is_anchor() && handle.node.dead() == 0 {
            return Err(EBUSY);
        }
        let (refs, pin) = if last {
            strip(table, &mut self.inbox.lock(), &handle)
        } else {
            handle.local.access_mut(table).refs -= 1;
            (1, false)
        };
        drop(guard);
        handle.unlink(refs, pin);
        if pin {
            self.purge(0);
        }
        Ok(())
    }

    /// Drops what is queued for nodes that are dead and released, and all that stands at or before
    /// `until`.
    pub(super) fn purge(&self, until: u64) {
        // Until a pass finds nothing: of what settles meanwhile it may have seen one part and not another.
        while self.purge_pass(until) {}
    }

    fn purge_pass(&self, until: u64) -> bool {
        let mut inbox = self.inbox.lock();
        inbox.queue.settle_all();
        let (mut list, mut others) = (Some(inbox.queue.list.head), Some(Key::FIRST));
        drop(inbox);
        let mut found = false;
        while list.is_some() || others.is_some() {
            let mut inbox = self.inbox.lock();
            let taken = match list {
                Some(_) => inbox.purge_list(until, &mut list),
                None => inbox.purge_others(until, &mut others),
            };
            drop(inbox);
            if let Some(taken) = taken {
                self.drop_taken(taken);
                found = true;
            }
        }
        found
    }

    /// Frees the received slice at `offset`. ENXIO if none starts there.
    pub fn release_slice(&self, offset: u64) -> Result {
        self.free_slice(|slices| slices.take_back(offset))
    }

    /// Frees all received slices.
    pub(super) fn release_slices(&self) {
        let mut from = 0;
        let mut next = |slices: &mut Slices| slices.take_back_from(&mut from);
        while self.free_slice(&mut next).is_ok() {}
    }

    /// Frees the slice that `take` takes from the user. ENXIO if that is none.
    fn free_slice(&self, take: impl FnOnce(&mut Slices) -> Option<Slice>) -> Result {
        let mut inbox = self.inbox.lock();
        check(inbox.open)?;
        let slice = take(&mut inbox.slices).ok_or(ENXIO)?;
        let pool = inbox.end_slice(&slice);
        drop(inbox);
        if let Some(pool) = pool {
            pool.unpin(slice.offset, slice.size);
        }
        Ok(())
    }
}

impl<H: Host> Inbox<H> {
    /// Frees a slice that was taken from the user. Returns the pool to unpin it from, unless it is
    /// kept or the seed still needs it.
    fn end_slice(&mut self, slice: &Slice) -> Option<H::Pool> {
        let seed = self.seed.as_ref();
        if seed.is_some_and(|seed| seed.cargo.slice.number == slice.number) {
            return None;
        }
        let unpin = self.free(slice, true);
        self.ledger.release_one(slice.payer, SLICES, 1);
        if unpin {
            return self.pool.clone();
        }
        None
    }
}
