// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! HANDLE_RELEASE and SLICE_RELEASE: a user gives handles and slices back.
//!
//! # Locks
//!
//! Table and inbox of the caller; then only the inbox of the node's owner.

use kernel::prelude::*;

use crate::bus::host::{Host, Pool};
use crate::bus::object::{
    check, creates, ensure, slice_charges, Inbox, Node, Notice, Peer, Removed,
};
use crate::bus::order::Cursor;
use crate::bus::pool::Slice;

impl<H: Host> Peer<H> {
    /// Drops one user reference of the handle `id`.
    ///
    /// # Errors
    ///
    /// ENXIO if there is none; EBUSY for the pin of a live node, or if `id` would make one.
    pub fn release_handle(&self, id: u64) -> Result {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        check(table.open)?;
        let Some(handle) = table.by_id.get(&id).cloned() else {
            return Err(if creates(id) { EBUSY } else { ENXIO });
        };
        let local = handle.local.access(table);
        let last = local.refs == 1;
        let is_pin = last && local.pinned;
        ensure(!is_pin || handle.node.is_dead(), EBUSY)?;
        let detached = table.detach_one(&self.inbox, &handle, false);
        drop(guard);
        handle.unlink(detached);
        if last && handle.is_anchor() {
            self.purge(0);
        }
        Ok(())
    }

    /// Drops the entries for nodes that are dead and released, and all entries at or before
    /// `until`.
    pub(crate) fn purge(&self, until: u64) {
        // Repeated until a pass finds nothing: entries may be committed meanwhile before the place
        // that a pass has come to.
        let mut found = true;
        while core::mem::take(&mut found) {
            let mut inbox = self.inbox.lock();
            inbox.queue.pull();
            let mut cursor = inbox.queue.cursor();
            drop(inbox);
            while !matches!(cursor, Cursor::End) {
                let removed = self.inbox.lock().purge(until, &mut cursor);
                if let Some(removed) = removed {
                    self.drop_removed(removed);
                    found = true;
                }
            }
        }
    }

    /// Ends a notice that was taken out of the queue, or a message that is not received.
    pub(crate) fn drop_removed(&self, removed: Removed<H>) {
        match removed {
            Removed::Message(message) => message.discard(self),
            Removed::Notice(Notice::Released(node), reservation) => {
                self.notify(|inbox| Node::return_notice(&node, inbox, reservation));
            }
            Removed::Notice(Notice::Room(handle), _) => self.pass_room_on(&handle.node.owner),
            Removed::Notice(Notice::Destroyed(_), _) => (),
        }
    }

    /// Frees the received slice at `offset`.
    ///
    /// # Errors
    ///
    /// ENXIO if none starts there.
    pub fn release_slice(&self, offset: u64) -> Result {
        self.free_slice(|inbox| inbox.slices.take_back(offset))
    }

    /// Frees all received slices.
    pub(crate) fn release_slices(&self) {
        // One extent at a time: most of many may be no slices of the user's.
        let n = self.inbox.lock().slices.n_extents();
        for number in 0..n {
            let _ = self.free_slice(|inbox| inbox.slices.take_back(inbox.slices.offset(number)));
        }
    }

    /// Frees the slice that `take` takes from the user.
    ///
    /// # Errors
    ///
    /// ENXIO if that is none.
    #[inline]
    fn free_slice(&self, take: impl FnOnce(&mut Inbox<H>) -> Option<Slice>) -> Result {
        let mut inbox = self.inbox.lock();
        check(inbox.open)?;
        let slice = take(&mut inbox).ok_or(ENXIO)?;
        let unpin = inbox.free(&slice, true, &slice_charges(&slice));
        // Mostly the slice is kept warm.
        let pool = if unpin { inbox.pool.clone() } else { None };
        self.unlock(inbox);
        if let Some(pool) = pool {
            pool.unpin(slice.offset, slice.size);
        }
        Ok(())
    }
}
