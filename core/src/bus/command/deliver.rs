// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The last steps of a receipt: the head is taken, handles get their IDs, the slice is completed
//! and becomes the user's. Nothing of this fails.
//!
//! A plain message is taken and given in one critical section. Handles get their IDs after the
//! message was taken, [`CHUNK`] at a time, so that no sender waits for a long list.
//!
//! # Locks
//!
//! The receiver's inbox; under its table, if handles or notices of destruction have to do with it.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::{Msg, HANDLE_INVALID, MSG_DATA};
use crate::bus::command::recv::handle_of;
use crate::bus::host::{Host, Pool};
use crate::bus::object::{
    charges, clear, slice_charges, BlankMessage, EntryReservation, Gained, Handle, Inbox, Message,
    Notice, NoticeState, Peer, Removed, Table,
};
use crate::bus::order::Key;
use crate::bus::pool::{Layout, Slice};
use crate::bus::quota::{subtract, HANDLES};

/// Most handles that get their IDs in one critical section.
const CHUNK: usize = 64;

/// Remains of a received entry, to be ended without locks.
enum Leftover<H: Host> {
    /// Memory that is not kept for the next message.
    Blank(Option<BlankMessage<H>>),
    /// A message with handles or files, which is to be given to the user.
    Message(KBox<Message<H>>),
    /// A notice with the handle or node that it refers to, and its memory unless its node keeps
    /// that.
    Notice(Notice<H>, Option<EntryReservation<H>>),
}

impl<H: Host> Peer<H> {
    /// Takes the head if it is still `key` and still makes `msg`; false if not.
    #[inline]
    pub(crate) fn take_head(&self, key: &Key, msg: &Msg, fds: &[i32]) -> bool {
        // A notice may be for a handle, whose ID is in the table.
        let by_table = msg.kind != MSG_DATA;
        let table = by_table.then(|| self.table.lock());
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        if !inbox.head_makes(key, msg, table.as_deref()) {
            return false;
        }
        let Some(removed) = inbox.pop(key) else {
            return false;
        };
        let leftover = match removed {
            Removed::Message(message) if message.is_plain() => inbox.deliver(message),
            Removed::Message(message) => Leftover::Message(message),
            Removed::Notice(Notice::Released(node), reservation) => {
                node.shared.access_mut(inbox).release = NoticeState::Idle(reservation);
                Leftover::Notice(Notice::Released(node), None)
            }
            Removed::Notice(notice, reservation) => Leftover::Notice(notice, Some(reservation)),
        };
        drop(guard);
        drop(table);
        match leftover {
            Leftover::Blank(memory) => drop(memory),
            Leftover::Message(message) => self.deliver_handles(message, key.timestamp, fds),
            Leftover::Notice(notice, memory) => drop((notice, memory)),
        }
        true
    }

    /// Makes a message with handles or files the user's.
    #[cold]
    fn deliver_handles(&self, mut message: KBox<Message<H>>, timestamp: u64, fds: &[i32]) {
        let (size, slice) = (message.size(), message.slice);
        let mut back = charges(&size);
        subtract(&mut back, &slice_charges(&slice));
        let Message { pool, handles, .. } = &mut *message;
        let receipt = Receipt {
            slice: &slice,
            layout: size.layout(),
            slots: handles,
            pool: pool.as_ref(),
            timestamp,
            fds,
        };
        let mut due = false;
        let given = self.give(receipt, |inbox, kept| {
            back[HANDLES] -= kept;
            inbox.ledger.release(slice.payer, &back);
            due = inbox.ledger.take_due();
        });
        if due {
            self.look_at_waits();
        }
        if given {
            // Those that got INVALID.
            message.unlink_handles();
        } else {
            message.discard(self);
        }
    }

    /// Completes a slice, and makes it the user's. `end` gets the number of charges for handles
    /// that stay, under the inbox. False if the peer was disconnected.
    pub(crate) fn give(
        &self,
        receipt: Receipt<'_, H>,
        end: impl FnOnce(&mut Inbox<H>, u64),
    ) -> bool {
        receipt.write_end();
        let Receipt {
            slice,
            layout,
            slots,
            pool,
            timestamp,
            ..
        } = receipt;
        let mut at = slice.offset + layout.handles;
        let mut kept = 0;
        let mut chunks = slots.chunks_mut(CHUNK);
        loop {
            let chunk = chunks.next();
            let mut table = chunk.is_some().then(|| self.table.lock());
            let mut guard = self.inbox.lock();
            let inbox = &mut *guard;
            if !inbox.open {
                return false;
            }
            for slot in chunk.into_iter().flatten() {
                let table = table.as_deref_mut().filter(|table| table.open);
                let gained =
                    table.and_then(|table| gain(table, inbox, timestamp, slot, slice.payer));
                let id = gained.map_or(HANDLE_INVALID, |gained| gained.id);
                kept += u64::from(gained.is_some_and(|gained| gained.keeps_charge));
                if let Some(pool) = pool {
                    pool.write(at, &id.to_ne_bytes());
                }
                at += 8;
            }
            if chunks.len() == 0 {
                inbox.given.give(slice);
                end(inbox, kept);
                return true;
            }
        }
    }
}

impl<H: Host> Inbox<H> {
    /// Returns whether the head is still `key` and still makes `msg`.
    #[inline(always)]
    fn head_makes(&self, key: &Key, msg: &Msg, table: Option<&Table<H>>) -> bool {
        // Nothing gets before an entry that was the head once: what was undecided moved behind it.
        let Some(head) = self.queue.head() else {
            return false;
        };
        if head.key != *key || !self.wants(head.entry) {
            return false;
        }
        if let Some(table) = table {
            let handle = handle_of(head.entry);
            if handle.is_some_and(|handle| handle.local.access(table).id != msg.destination) {
                return false;
            }
        }
        // A part behind it that nobody wants any more is taken out first; see `look`.
        let follows = self.following(key).map(|next| self.wants(next.entry));
        match follows {
            Some(is_wanted) => is_wanted && msg.flags != 0,
            None => msg.flags == 0,
        }
    }

    /// Makes a plain message the user's.
    #[inline(always)]
    fn deliver(&mut self, message: KBox<Message<H>>) -> Leftover<H> {
        self.given.give(&message.slice);
        Leftover::Blank(self.keep(BlankMessage::recycle(message)))
    }
}

/// A slice that is to be completed: with the IDs of handles, and with descriptors.
pub(crate) struct Receipt<'m, H: Host> {
    pub(crate) slice: &'m Slice,
    pub(crate) layout: Layout,
    /// References that become the user's, and leave their slots empty.
    pub(crate) slots: &'m mut [Option<Arc<Handle<H>>>],
    pub(crate) pool: Option<&'m H::Pool>,
    /// The place of the message in the order: nodes that died before it get INVALID.
    pub(crate) timestamp: u64,
    pub(crate) fds: &'m [i32],
}

impl<H: Host> Receipt<'_, H> {
    /// Writes all that stands behind the IDs.
    fn write_end(&self) {
        let Some(pool) = self.pool else {
            return;
        };
        let mut at = self.slice.offset + self.layout.handles + 8 * self.slots.len() as u64;
        for fd in self.fds {
            pool.write(at, &fd.to_ne_bytes());
            at += 4;
        }
        // Descriptors that were not wanted leave zeros.
        let end = self.slice.offset + self.layout.size;
        while at < end {
            let next = end.min(at + 16);
            clear(pool, at, next);
            at = next;
        }
    }
}

/// Turns a slot's reference into the user's, and leaves the slot empty. None if the node died
/// before `timestamp`, or if its end was notified before: then the reference stays in the slot.
fn gain<H: Host>(
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
