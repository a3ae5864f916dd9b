// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The last steps of a receipt: the head is taken, handles get their IDs, the slice is completed
//! and becomes the user's. One critical section, in which nothing fails.
//!
//! # Locks
//!
//! The receiver's table, if handles or notices of destruction have to do with it, and its inbox.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::{Msg, HANDLE_INVALID, MSG_NODE_DESTROY};
use crate::bus::host::{Host, Pool};
use crate::bus::object::{
    charges, clear, slice_charges, BlankMessage, EntryRef, EntryReservation, Gained, Handle, Inbox,
    Message, Notice, NoticeState, Peer, Removed, Table,
};
use crate::bus::order::Key;
use crate::bus::pool::{Layout, Slice};
use crate::bus::quota::{subtract, HANDLES};

/// Remains of a received entry, to be ended without locks.
enum Leftover<H: Host> {
    /// Memory that is not kept for the next message.
    Blank(Option<BlankMessage<H>>),
    /// A message whose handles were gained, except those that got INVALID.
    Message(KBox<Message<H>>),
    /// A notice with the handle or node that it refers to, and its memory unless its node keeps
    /// that.
    Notice(Notice<H>, Option<EntryReservation<H>>),
}

impl<H: Host> Leftover<H> {
    /// Gives back the references that were not gained, and the memory.
    #[inline]
    fn end(self) {
        match self {
            Self::Blank(memory) => drop(memory),
            Self::Message(message) => message.unlink_handles(),
            Self::Notice(notice, memory) => drop((notice, memory)),
        }
    }
}

impl<H: Host> Peer<H> {
    /// Takes the head if it is still `key` and still makes `msg`; false if not.
    #[inline]
    pub(crate) fn take_head(&self, key: &Key, msg: &Msg, fds: &[i32]) -> bool {
        // Only handles and notices of destruction have to do with the table.
        let by_table = msg.n_handles != 0 || msg.kind == MSG_NODE_DESTROY;
        let mut table = by_table.then(|| self.table.lock());
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        if !inbox.head_makes(key, msg, table.as_deref()) {
            return false;
        }
        let Some(removed) = inbox.pop(key) else {
            return false;
        };
        let leftover = match removed {
            Removed::Message(message) => {
                inbox.deliver(message, key.timestamp, table.as_deref_mut(), fds)
            }
            Removed::Notice(Notice::Released(node), reservation) => {
                node.shared.access_mut(inbox).release = NoticeState::Idle(reservation);
                Leftover::Notice(Notice::Released(node), None)
            }
            Removed::Notice(notice, reservation) => Leftover::Notice(notice, Some(reservation)),
        };
        drop(guard);
        drop(table);
        leftover.end();
        true
    }
}

impl<H: Host> Inbox<H> {
    /// Returns whether the head is still `key` and still makes `msg`.
    #[inline(always)]
    fn head_makes(&mut self, key: &Key, msg: &Msg, table: Option<&Table<H>>) -> bool {
        if !self.queue.settle() {
            return false;
        }
        let Some(head) = self.queue.head() else {
            return false;
        };
        if head.key != *key || !self.wants(head.entry) {
            return false;
        }
        if let (EntryRef::Notice(Notice::Destroyed(handle)), Some(table)) = (head.entry, table) {
            if handle.local.access(table).id != msg.destination {
                return false;
            }
        }
        (msg.flags != 0) == self.more_follows(key)
    }

    /// Makes a message the user's.
    #[inline(always)]
    fn deliver(
        &mut self,
        mut message: KBox<Message<H>>,
        timestamp: u64,
        table: Option<&mut Table<H>>,
        fds: &[i32],
    ) -> Leftover<H> {
        self.given.give(&message.slice);
        if message.is_plain() {
            return Leftover::Blank(self.keep(BlankMessage::recycle(message)));
        }
        self.deliver_handles(&mut message, timestamp, table, fds);
        Leftover::Message(message)
    }

    /// Completes the slice of a message with handles or files, and gives back the charges that end
    /// with the receipt.
    #[cold]
    fn deliver_handles(
        &mut self,
        message: &mut Message<H>,
        timestamp: u64,
        mut table: Option<&mut Table<H>>,
        fds: &[i32],
    ) {
        let size = message.size();
        let slice = message.slice;
        let mut back = charges(&size);
        subtract(&mut back, &slice_charges(&slice));
        if let Some(pool) = &message.pool {
            let slots = &mut message.handles;
            back[HANDLES] -= complete(&slice, size.layout(), slots, pool, fds, |slot| {
                let table = table.as_deref_mut()?;
                gain(table, self, timestamp, slot, slice.payer)
            });
        }
        self.ledger.release(slice.payer, &back);
    }
}

/// Turns a slot's reference into the user's, and leaves the slot empty. None if the node died
/// before `timestamp`, or if its end was notified before: then the reference stays in the slot.
pub(crate) fn gain<H: Host>(
    table: &mut Table<H>,
    inbox: &mut Inbox<H>,
    timestamp: u64,
    slot: &mut Option<Arc<Handle<H>>>,
    payer: u64,
) -> Option<Gained> {
    let handle = slot.as_ref()?;
    if handle.node.is_dead_before(timestamp) {
        return None;
    }
    let gained = table.gain(inbox, handle, payer, None)?;
    // This is not the last reference to the handle: at least the table has one now.
    *slot = None;
    Some(gained)
}

/// Fills a slice up: the IDs of the handles, as `gain` finds them, then `fds`. Returns the number
/// of charges for handles that stay.
pub(crate) fn complete<H: Host>(
    slice: &Slice,
    layout: Layout,
    slots: &mut [Option<Arc<Handle<H>>>],
    pool: &H::Pool,
    fds: &[i32],
    mut gain: impl FnMut(&mut Option<Arc<Handle<H>>>) -> Option<Gained>,
) -> u64 {
    let mut kept = 0;
    let mut at = slice.offset + layout.handles;
    for slot in slots {
        let gained = gain(slot);
        let id = gained.map_or(HANDLE_INVALID, |gained| gained.id);
        pool.write(at, &id.to_ne_bytes());
        kept += u64::from(gained.is_some_and(|gained| gained.keeps_charge));
        at += 8;
    }
    for fd in fds {
        pool.write(at, &fd.to_ne_bytes());
        at += 4;
    }
    // Descriptors that were not wanted leave zeros.
    let end = slice.offset + layout.size;
    while at < end {
        let next = end.min(at + 16);
        clear(pool, at, next);
        at = next;
    }
    kept
}
