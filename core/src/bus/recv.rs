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
use super::message::{clear, Cargo, Files, Layout, Slice};
use super::node::Node;
use super::peer::{check, Peer};
use super::queue::{Body, Entry, Key, Seat, Taken};
use super::table::Table;
use super::transaction::ALONE;
use crate::abi::{
    Msg, HANDLE_INVALID, MSG_DATA, MSG_FLAG_CONTINUE, MSG_NODE_DESTROY, MSG_NODE_RELEASE,
    OFFSET_INVALID,
};

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

/// What was seen at the head.
struct Found<H: Host> {
    key: Key,
    msg: Msg,
    /// Where its slice ends, 0 if it has none.
    end: u64,
    /// The files, if the caller wants them.
    files: Option<Arc<Files<H>>>,
}

impl<H: Host> Inbox<H> {
    /// Looks at the head. What nobody wants any more is taken out and returned as the error.
    fn head(&mut self, wants_files: bool) -> Result<Found<H>, Option<Taken<H>>> {
        let key = self.queue.settle().ok_or(None)?;
        let entry = self.queue.get(&key).ok_or(None)?;
        if !self.wants(entry) {
            let stale = self.queue.remove(&key);
            if let Some((entry, _)) = &stale {
                self.spend(entry);
            }
            return Err(stale);
        }
        let mut msg = Msg {
            kind: MSG_DATA,
            flags: 0,
            destination: HANDLE_INVALID,
            offset: OFFSET_INVALID,
            ..Msg::default()
        };
        let (mut files, mut end) = (None, 0);
        match &entry.body {
            Body::Data(message) => {
                end = message.cargo.slice.end();
                msg.destination = message.node.id();
                files = describe(&message.cargo, wants_files, &mut msg);
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
        Ok(Found {
            key,
            msg,
            end,
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
    wants_files: bool,
    msg: &mut Msg,
) -> Option<Arc<Files<H>>> {
    msg.offset = cargo.slice.offset;
    msg.n_bytes = cargo.n_bytes;
    msg.n_handles = cargo.handles.len() as u64;
    let files = cargo.files.as_ref().filter(|_| wants_files)?;
    msg.n_fds = files.len() as u64;
    Some(files.clone())
}

/// Shows the receiver what it will get, and gives it the descriptors, before `take` makes that
/// final. False if it was something else by then.
pub(super) fn hand_over<H: Host, R: Receive<H>>(
    receiver: &mut R,
    msg: &Msg,
    files: Option<Arc<Files<H>>>,
    take: impl FnOnce(&[i32]) -> bool,
) -> Result<bool> {
    receiver.result(msg)?;
    let Some(files) = files else {
        return Ok(take(&[]));
    };
    let installed = receiver.install(&files)?;
    let taken = take(
        installed
            .as_ref()
            .map_or(&[], |installed| installed.numbers()),
    );
    if let Some(installed) = installed.filter(|_| taken) {
        installed.keep();
    }
    Ok(taken)
}

impl<H: Host> Peer<H> {
    /// Receives what is at the head of the queue. EAGAIN if nothing is ready, ERANGE, or what the
    /// receiver says; then nothing happened.
    pub fn recv<R: Receive<H>>(&self, receiver: &mut R) -> Result {
        loop {
            let mut inbox = self.inbox.lock();
            check(inbox.open)?;
            let head = inbox.head(receiver.wants_files());
            let pool = if head.is_err() {
                inbox.pool.clone()
            } else {
                None
            };
            drop(inbox);
            let Found {
                key,
                mut msg,
                end,
                files,
            } = match head {
                Ok(found) => found,
                Err(None) => return Err(EAGAIN),
                Err(Some((entry, seat))) => {
                    self.drop_entry(entry, seat, pool.as_ref());
                    continue;
                }
            };
            if msg.kind == MSG_NODE_DESTROY {
                match self.destroyed_id(&key) {
                    Some(id) => msg.destination = id,
                    None => continue,
                }
            }
            if end > receiver.max_offset() {
                return Err(ERANGE);
            }
            if hand_over(receiver, &msg, files, |fds| self.take_head(&key, &msg, fds))? {
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
        let Some((mut entry, seat)) = inbox.queue.remove(key) else {
            return false;
        };
        inbox.spend(&entry);
        // Dropped without the locks, as is the entry.
        let mut _unused = None;
        match &mut entry.body {
            Body::Data(message) => {
                let cargo = &mut message.cargo;
                let mut back = cargo.charges();
                back[SLICES] = 0;
                let slice = cargo.slice;
                let plain = cargo.handles.is_empty() && cargo.files.is_none();
                // Out of the inbox for as long as both are needed.
                let pool = if plain { None } else { inbox.pool.take() };
                if let Some(pool) = pool {
                    let (layout, slots) = (cargo.layout(), &mut cargo.handles);
                    back[HANDLES] -= complete(&slice, layout, slots, &pool, fds, |slot| {
                        let table = table.as_deref_mut()?;
                        gain(table, inbox, key.0, slot, slice.claimant)
                    });
                    inbox.pool = Some(pool);
                }
                if back.iter().any(|&back| back != 0) {
                    inbox.ledger.release(slice.claimant, &back);
                }
                inbox.slices.give(&slice);
                _unused = inbox.keep(seat);
            }
            Body::Release(node) => node.shared.access_mut(inbox).seat = Some(seat),
            _ => _unused = Some(seat),
        }
        drop(guard);
        drop(table);
        if let Body::Data(message) = &entry.body {
            // What got INVALID was not gained, so its reference ends here.
            for handle in message.cargo.handles.iter().flatten() {
                handle.unlink(1, false);
            }
        }
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

/// Turns a slot's reference into the user's, and leaves the slot empty, unless it gets INVALID.
/// Returns the ID, and whether the charge for it stays.
pub(super) fn gain<H: Host>(
    table: &mut Table<H>,
    inbox: &mut Inbox<H>,
    timestamp: u64,
    slot: &mut Option<Arc<Handle<H>>>,
    claimant: Claimant,
) -> Option<(u64, bool)> {
    let handle = slot.as_ref()?;
    if handle.node.dead_before(timestamp) {
        return None;
    }
    let mut charge = Some(claimant);
    let id = table.gain(inbox, handle, &mut charge, None);
    if id == HANDLE_INVALID {
        return None;
    }
    // Others hold it too: the table does now, if nobody else.
    *slot = None;
    Some((id, charge.is_none()))
}

/// Fills the slice of `cargo` up: the IDs of the handles, as `gain` tells them, then `fds`. Returns
/// how many charges stay.
pub(super) fn complete<H: Host>(
    slice: &Slice,
    layout: Layout,
    slots: &mut [Option<Arc<Handle<H>>>],
    pool: &H::Pool,
    fds: &[i32],
    mut gain: impl FnMut(&mut Option<Arc<Handle<H>>>) -> Option<(u64, bool)>,
) -> u64 {
    let mut kept = 0;
    let mut at = slice.offset + layout.handles;
    for slot in slots {
        let (id, keeps) = gain(slot).unwrap_or((HANDLE_INVALID, false));
        pool.write(at, &id.to_ne_bytes());
        kept += u64::from(keeps);
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
