// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The last steps of a receipt: takes the head, gives handles their IDs, completes the slice, and
//! makes it the user's. Nothing of this fails.
//!
//! A plain message is taken and given in one critical section. Handles get their IDs after the
//! message was taken, [`CHUNK`] at a time, so that no sender waits for a long list.
//!
//! # Locks
//!
//! The receiver's inbox; under its table while handles get their IDs.

use kernel::prelude::*;

use crate::abi::{Msg, HANDLE_INVALID};
use crate::bus::command::recv::Following;
use crate::bus::host::{Host, Pool};
use crate::bus::object::{clear, EntryRef, Inbox, Message, Notice, Peer, Removed};
use crate::bus::order::Key;
use crate::bus::quota::HANDLES;

/// Most handles that get their IDs in one critical section.
const CHUNK: usize = 64;

impl<H: Host> Peer<H> {
    /// Takes the head if it is still the entry at `key` and is still described by `msg`; false if
    /// not.
    #[inline]
    pub(crate) fn take_head(&self, key: &Key, msg: &Msg, fds: &[i32]) -> bool {
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        if !inbox.head_makes(key, msg) {
            return false;
        }
        let Some(removed) = inbox.pop(key) else {
            return false;
        };
        match removed {
            Removed::Message(message) if message.is_plain() => {
                inbox.slices.give(&message.slice);
                // Memory for a message that the peer has enough of is freed without the lock.
                let unused = inbox.keep(message);
                drop(guard);
                drop(unused);
            }
            Removed::Message(message) => {
                drop(guard);
                self.deliver_handles(message, key.timestamp, fds);
            }
            notice => {
                drop(guard);
                self.drop_removed(notice);
            }
        }
        true
    }

    /// Makes a message with handles or files the user's, with these descriptors. Nodes that died
    /// before `timestamp` give INVALID.
    #[cold]
    pub(crate) fn deliver_handles(
        &self,
        mut message: KBox<Message<H>>,
        timestamp: u64,
        fds: &[i32],
    ) {
        message.write_fds(fds);
        let slice = message.slice;
        let mut at = message.handles_offset();
        let n_files = message.size().n_fds as u64;
        let Message { pool, handles, .. } = &mut *message;
        // A handle that is new to the peer keeps its charge, and the slice that of its bytes.
        let mut back = [0, handles.len() as u64, 0, n_files];
        for chunk in handles.chunks_mut(CHUNK) {
            let mut table = self.table.lock();
            let mut inbox = self.inbox.lock();
            for slot in chunk {
                let gained = match slot {
                    Some(handle) if !handle.node.is_dead_before(timestamp) => {
                        table.gain(&mut inbox, handle, slice.payer, None)
                    }
                    _ => None,
                };
                if let Some(gained) = gained {
                    back[HANDLES] -= u64::from(gained.keeps_charge);
                    // The table has a reference now, so this is not the last one.
                    *slot = None;
                }
                let id = gained.map_or(HANDLE_INVALID, |gained| gained.id);
                pool.write(at, &id.to_ne_bytes());
                at += 8;
            }
        }
        let mut inbox = self.inbox.lock();
        if !inbox.open {
            // The peer was disconnected.
            drop(inbox);
            return message.discard(self);
        }
        inbox.slices.give(&slice);
        inbox.ledger.release(slice.payer, &back);
        self.unlock(inbox);
        // Those that got INVALID.
        message.unlink_handles();
    }
}

impl<H: Host> Inbox<H> {
    /// Returns whether the head is still the entry at `key`, and `msg` still describes it: the peer
    /// still wants the entry, knows a destroyed node by the same ID, and the flag CONTINUE is
    /// right.
    ///
    /// Needs no settle: no entry gets before one that was the head after a settle, since undecided
    /// groups have moved behind that.
    #[inline(always)]
    fn head_makes(&self, key: &Key, msg: &Msg) -> bool {
        let Some(head) = self.queue.head() else {
            return false;
        };
        if head.key != *key || !self.wants(head.entry) {
            return false;
        }
        if let EntryRef::Notice(Notice::Destroyed(handle) | Notice::Room(handle)) = head.entry {
            if handle.notice.access(self).id != msg.destination {
                return false;
            }
        }
        let expected = match msg.flags {
            0 => Following::Nothing,
            _ => Following::Wanted,
        };
        self.following(key) == expected
    }
}

impl<H: Host> Message<H> {
    /// Writes the descriptors behind the handle IDs. Those that are not wanted leave zeros.
    fn write_fds(&self, fds: &[i32]) {
        let mut at = self.handles_offset() + 8 * self.handles.len() as u64;
        for fd in fds {
            self.pool.write(at, &fd.to_ne_bytes());
            at += 4;
        }
        let end = self.slice.end();
        while at < end {
            let next = end.min(at + 16);
            clear(&self.pool, at, next);
            at = next;
        }
    }
}
