// SPDX-License-Identifier: GPL-2.0 OR MIT

//! RECV: from the head of the queue into the caller's hands.
//!
//! 1. look at the head, without taking it;
//! 2. write the result to the caller and, if asked to, give it the descriptors (no lock is held, so
//!    a fault or a full descriptor table leaves the message where it is);
//! 3. take the head, if it is still the same; else start again;
//! 4. give handles their IDs, complete the slice, and make it the user's.
//!
//! Whether more parts follow is not stored: it is seen from the next entry, and one that the peer
//! no longer wants does not count.
//!
//! # Locks
//!
//! The inbox for 1; table and inbox for 3 and 4.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::{Claimant, HANDLES, SLICES};
use super::handle::Handle;
use super::host::{Host, Installed, Pool};
use super::inbox::Inbox;
use super::message::{clear, Cargo, Files, Layout, Message, Slice};
use super::node::Node;
use super::peer::Peer;
use super::queue::{Body, Entry, Key, Seat};
use super::table::Table;
use super::transaction::ALONE;
use crate::abi::{
    Msg, HANDLE_INVALID, MSG_DATA, MSG_FLAG_CONTINUE, MSG_NODE_DESTROY, MSG_NODE_RELEASE,
    OFFSET_INVALID,
};

pub(super) use super::seed::Seed;

/// How a caller wants to receive, and where the result goes.
pub trait Receive<H: Host> {
    /// Descriptors that the caller got.
    type Installed: Installed;

    /// The slice has to end at or before this offset.
    fn max_offset(&self) -> u64;

    /// Takes the result; what happens next depends on it, so it may be told another one afterwards.
    /// May sleep. An error leaves everything as it was.
    fn result(&mut self, msg: &Msg) -> Result;

    /// Gives the caller these descriptors; None if it does not want any, and they are dropped.
    fn install(&mut self, files: &Files<H>) -> Result<Option<Self::Installed>>;

    /// Whether it wants descriptors.
    fn wants_files(&self) -> bool;
}

/// What is at the head.
enum Head<H: Host> {
    /// Nothing.
    Empty,
    /// Something that nobody wants any more, taken out.
    Stale(Entry<H>, Seat<H>),
    /// An entry.
    Entry(Found<H>),
}

/// What was seen at the head.
struct Found<H: Host> {
    key: Key,
    msg: Msg,
    layout: Option<Layout>,
    /// The files, if the caller wants them.
    files: Option<Arc<Files<H>>>,
}

impl<H: Host> Inbox<H> {
    fn head(&mut self, wants_files: bool) -> Head<H> {
        let Some(key) = self.queue.settle() else {
            return Head::Empty;
        };
        let Some(entry) = self.queue.get(&key) else {
            return Head::Empty;
        };
        if !self.wants(entry) {
            return match self.queue.remove(&key) {
                Some((entry, seat)) => {
                    self.spend(&entry);
                    Head::Stale(entry, seat)
                }
                None => Head::Empty,
            };
        }
        let mut msg = Msg {
            kind: MSG_DATA,
            flags: 0,
            destination: HANDLE_INVALID,
            offset: OFFSET_INVALID,
            ..Msg::default()
        };
        let (mut files, mut layout) = (None, None);
        match &entry.body {
            Body::Data(message) => {
                layout = Some(message.cargo.layout());
                msg.destination = message.node.id();
                let carried = message.cargo.files.as_ref();
                files = describe(&message.cargo, carried, wants_files, &mut msg);
            }
            Body::Release(node) => {
                msg.kind = MSG_NODE_RELEASE;
                msg.destination = node.id();
            }
            // The ID is the table's to tell; see `Peer::recv`.
            _ => msg.kind = MSG_NODE_DESTROY,
        }
        if key.1 != ALONE && self.more(key) {
            msg.flags = MSG_FLAG_CONTINUE;
        }
        Head::Entry(Found {
            key,
            msg,
            layout,
            files,
        })
    }

    /// Whether another part of the same transaction will be received.
    fn more(&self, mut key: Key) -> bool {
        // The others were staged before this timestamp, so they were settled before this one came up.
        while let Some(next) = self.queue.following(&key) {
            if self.queue.get(&next).is_some_and(|entry| self.wants(entry)) {
                return true;
            }
            key = next;
        }
        false
    }

    /// Notes that a notice left the queue.
    pub(super) fn spend(&mut self, entry: &Entry<H>) {
        match &entry.body {
            Body::Destroy(handle) => {
                let notice = handle.notice.access_mut(self);
                notice.spent = true;
                notice.at = None;
            }
            Body::Release(node) => node.shared.access_mut(self).queued = None,
            _ => (),
        }
    }
}

/// Fills the counts and the place of a message; returns its files if they are to be installed.
pub(super) fn describe<H: Host>(
    cargo: &Cargo<H>,
    files: Option<&Arc<Files<H>>>,
    wants_files: bool,
    msg: &mut Msg,
) -> Option<Arc<Files<H>>> {
    msg.offset = cargo.slice.offset;
    msg.n_bytes = cargo.n_bytes;
    msg.n_handles = cargo.handles.len() as u64;
    let files = files.filter(|_| wants_files)?;
    msg.n_fds = files.len() as u64;
    Some(files.clone())
}

/// Whether a slice ends beyond what the caller can read.
pub(super) fn check_end(layout: Layout, offset: u64, max_offset: u64) -> Result {
    if offset
        .checked_add(layout.size)
        .is_none_or(|end| end > max_offset)
    {
        return Err(ERANGE);
    }
    Ok(())
}

impl<H: Host> Peer<H> {
    /// Receives what is at the head of the queue. EAGAIN if nothing is ready, ERANGE, or what the
    /// receiver says; then nothing happened.
    pub fn recv<R: Receive<H>>(&self, receiver: &mut R) -> Result {
        loop {
            let mut inbox = self.inbox.lock();
            inbox.check_open()?;
            let head = inbox.head(receiver.wants_files());
            drop(inbox);
            let Found {
                key,
                mut msg,
                layout,
                files,
            } = match head {
                Head::Empty => return Err(EAGAIN),
                Head::Stale(entry, seat) => {
                    self.drop_entry(entry, seat, self.pool().ok().as_ref());
                    continue;
                }
                Head::Entry(found) => found,
            };
            if msg.kind == MSG_NODE_DESTROY {
                match self.destroyed_id(&key) {
                    Some(id) => msg.destination = id,
                    None => continue,
                }
            }
            if let Some(layout) = layout {
                check_end(layout, msg.offset, receiver.max_offset())?;
            }
            receiver.result(&msg)?;
            let installed = match files {
                Some(files) => receiver.install(&files)?,
                None => None,
            };
            let numbers = installed.as_ref().map_or(&[][..], |i| i.numbers());
            if self.take_head(&key, &msg, numbers) {
                if let Some(installed) = installed {
                    installed.keep();
                }
                return Ok(());
            }
        }
    }

    /// The ID that the peer knows a destroyed node by; None if the notice at `key` is gone.
    fn destroyed_id(&self, key: &Key) -> Option<u64> {
        let table = self.table.lock();
        let inbox = self.inbox.lock();
        match &inbox.queue.get(key)?.body {
            Body::Destroy(handle) => Some(handle.local.access(&table).id),
            _ => None,
        }
    }

    /// Takes the head if it is still `key` and still makes `msg`; false if not.
    fn take_head(&self, key: &Key, msg: &Msg, fds: &[i32]) -> bool {
        // Only handles and notices of destruction have to do with the table.
        let by_table = msg.n_handles != 0 || msg.kind == MSG_NODE_DESTROY;
        let mut table = by_table.then(|| self.table.lock());
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        let head = inbox.queue.settle() == Some(*key);
        let same = match inbox.queue.get(key).filter(|_| head) {
            Some(entry) if inbox.wants(entry) => match &entry.body {
                Body::Destroy(handle) => table
                    .as_ref()
                    .is_some_and(|t| handle.local.access(t).id == msg.destination),
                _ => true,
            },
            _ => false,
        };
        if !same || (msg.flags != 0) != (key.1 != ALONE && inbox.more(*key)) {
            return false;
        }
        let Some((entry, seat)) = inbox.queue.remove(key) else {
            return false;
        };
        inbox.spend(&entry);
        let mut lost = KVVec::new();
        let mut files = None;
        match entry.body {
            Body::Data(Message { node, mut cargo }) => {
                let (slice, layout) = (cargo.slice, cargo.layout());
                let pool = inbox.pool.clone();
                let mut kept = 0;
                if let Some(table) = &mut table {
                    for (i, slot) in cargo.handles.iter_mut().enumerate() {
                        let id = gain(table, inbox, key.0, slot, slice.claimant, &mut kept);
                        if let Some(pool) = &pool {
                            let offset = slice.offset + layout.handles + 8 * i as u64;
                            pool.write(offset, &id.to_ne_bytes());
                        }
                    }
                }
                if let Some(pool) = &pool {
                    complete(pool, &slice, layout, fds);
                }
                let mut back = cargo.charges();
                back[SLICES] = 0;
                back[HANDLES] -= kept;
                inbox.ledger.release(slice.claimant, &back);
                inbox.publish(slice.offset, Body::Slice(slice), seat);
                drop(guard);
                drop(table);
                files = Some((cargo.files, cargo.sent_fds));
                lost = cargo.handles;
                drop((node, pool));
            }
            Body::Release(node) => {
                node.shared.access_mut(inbox).seat = Some(seat);
                drop(guard);
                drop(table);
            }
            other => {
                drop(guard);
                drop(table);
                drop((other, seat));
            }
        }
        // What got INVALID was not gained, so its reference ends here.
        for handle in lost.iter().flatten() {
            handle.unlink(1, false);
        }
        drop(files);
        true
    }

    /// Ends an entry that was taken out of the queue and is not received.
    pub(super) fn drop_entry(&self, entry: Entry<H>, seat: Seat<H>, pool: Option<&H::Pool>) {
        match entry.body {
            Body::Data(message) => message.cargo.discard(self, pool),
            Body::Release(node) => {
                let wake = Node::reseat(&node, &mut self.inbox.lock(), seat);
                if wake {
                    self.wake();
                }
            }
            _ => (),
        }
    }
}

/// Turns a slot's reference into the user's. Returns the ID, and leaves the slot empty if the
/// reference was used up.
pub(super) fn gain<H: Host>(
    table: &mut Table<H>,
    inbox: &mut Inbox<H>,
    timestamp: u64,
    slot: &mut Option<Arc<Handle<H>>>,
    charge: Claimant,
    kept: &mut u64,
) -> u64 {
    let Some(handle) = slot else {
        return HANDLE_INVALID;
    };
    if handle.node.dead_before(timestamp) {
        return HANDLE_INVALID;
    }
    let mut charge = Some(charge);
    let id = table.gain(inbox, handle, &mut charge, None);
    if id != HANDLE_INVALID {
        *kept += u64::from(charge.is_none());
        // Others hold it too: the table does now, if nobody else.
        *slot = None;
    }
    id
}

/// Writes what follows the handles.
pub(super) fn complete<P: Pool>(pool: &P, slice: &Slice, layout: Layout, fds: &[i32]) {
    let mut at = slice.offset + layout.fds;
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
}
