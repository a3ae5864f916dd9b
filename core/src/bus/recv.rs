// SPDX-License-Identifier: GPL-2.0-only OR MIT

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

use super::account::{BYTES, HANDLES, SLICES};
use super::handle::Handle;
use super::host::{Caller, Host, Installed, Pool};
use super::inbox::Inbox;
use super::message::{clear, Cargo, Files, Layout, Message, Slice};
use super::node::Node;
use super::peer::{check, Peer};
use super::queue::{Body, Key, Taken};
use super::table::Table;
use super::transaction::ALONE;
use crate::abi::{
    Msg, HANDLE_INVALID, MSG_DATA, MSG_FLAG_CONTINUE, MSG_NODE_DESTROY, MSG_NODE_RELEASE,
    OFFSET_INVALID,
};

/// How a caller wants to receive, and where the result goes.
pub struct Receiver<'c, C> {
    /// Whose memory and descriptors these are.
    pub caller: &'c C,
    /// Where the message is told.
    pub msg_addr: u64,
    /// Where to tell how many messages there are with this one, and that number.
    pub count: Option<(u64, u64)>,
    /// The slice has to end at or before this offset.
    pub max_offset: u64,
    /// Whether it wants descriptors.
    pub wants_files: bool,
}

/// What was seen at the head, beside what is told of it.
struct Found<H: Host> {
    key: Key,
    /// Where its slice ends, 0 if it has none.
    end: u64,
    /// The files, if the caller wants them.
    files: Option<Arc<Files<H>>>,
}

impl<H: Host> Inbox<H> {
    /// Looks at the head, and describes it in `msg`. What nobody wants any more is taken out and
    /// returned as the error.
    fn head(&mut self, wants_files: bool, msg: &mut Msg) -> Result<Found<H>, Option<Taken<H>>> {
        if !self.queue.settle() {
            return Err(None);
        }
        let (key, body) = self.queue.head().ok_or(None)?;
        if !self.wants(body) {
            let stale = self.queue.pop(&key);
            if let Some((body, _)) = &stale {
                self.spend(body);
            }
            return Err(stale);
        }
        let (mut files, mut end) = (None, 0);
        match body {
            Body::Data(message) => {
                msg.kind = MSG_DATA;
                msg.destination = message
                    .node
                    .as_ref()
                    .map_or(HANDLE_INVALID, |node| node.id());
                end = message.cargo.slice.end();
                files = describe(&message.cargo, wants_files, msg);
            }
            Body::Release(node) => {
                msg.kind = MSG_NODE_RELEASE;
                msg.destination = node.id();
            }
            // The ID is the table's to tell; see `Peer::recv`.
            Body::Destroy(_) => msg.kind = MSG_NODE_DESTROY,
        }
        if key.1 != ALONE && self.more(key) {
            msg.flags = MSG_FLAG_CONTINUE;
        }
        Ok(Found { key, end, files })
    }

    /// Whether another part of the same transaction will be received.
    #[inline]
    fn more(&self, mut key: Key) -> bool {
        // The others were staged before this timestamp, so they were settled before this one came up.
        while let Some(next) = self.queue.following(&key) {
            if self.queue.get(&next).is_some_and(|body| self.wants(body)) {
                return true;
            }
            key = next;
        }
        false
    }

    /// Notes that a notice left the queue.
    #[inline(always)]
    pub(super) fn spend(&mut self, body: &Body<H>) {
        match body {
            Body::Destroy(handle) => {
                let notice = handle.notice.access_mut(self);
                notice.spent = true;
                notice.at = None;
            }
            Body::Release(node) => node.shared.access_mut(self).queued = None,
            Body::Data(_) => (),
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
/// final. False if it was something else by then; so it may be shown something else afterwards.
pub(super) fn hand_over<H: Host, C: Caller<H>>(
    receiver: &Receiver<'_, C>,
    msg: &Msg,
    files: Option<Arc<Files<H>>>,
    take: impl FnOnce(&[i32]) -> bool,
) -> Result<bool> {
    let caller = receiver.caller;
    caller.write(receiver.msg_addr, &msg.to_bytes())?;
    if let Some((addr, n)) = receiver.count {
        caller.write(addr, &n.to_ne_bytes())?;
    }
    let Some(files) = files else {
        return Ok(take(&[]));
    };
    let installed = caller.install(&files)?;
    let taken = take(installed.numbers());
    if taken {
        installed.keep();
    }
    Ok(taken)
}

impl<H: Host> Peer<H> {
    /// Receives what is at the head of the queue. EAGAIN if nothing is ready, ERANGE, or what the
    /// receiver says; then nothing happened.
    pub fn recv<C: Caller<H>>(&self, receiver: &Receiver<'_, C>) -> Result {
        loop {
            let mut msg = Msg {
                destination: HANDLE_INVALID,
                offset: OFFSET_INVALID,
                ..Msg::default()
            };
            let mut inbox = self.inbox.lock();
            check(inbox.open)?;
            let Found { key, end, files } = match inbox.head(receiver.wants_files, &mut msg) {
                Ok(found) => found,
                Err(stale) => {
                    drop(inbox);
                    self.drop_taken(stale.ok_or(EAGAIN)?);
                    continue;
                }
            };
            drop(inbox);
            if msg.kind == MSG_NODE_DESTROY {
                match self.destroyed_id(&key) {
                    Some(id) => msg.destination = id,
                    None => continue,
                }
            }
            if end > receiver.max_offset {
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
        match inbox.queue.get(key)? {
            Body::Destroy(handle) => Some(handle.local.access(&table).id),
            _ => None,
        }
    }

    /// Takes the head if it is still `key` and still makes `msg`; false if not.
    #[inline]
    fn take_head(&self, key: &Key, msg: &Msg, fds: &[i32]) -> bool {
        // Only handles and notices of destruction have to do with the table.
        let by_table = msg.n_handles != 0 || msg.kind == MSG_NODE_DESTROY;
        let mut table = by_table.then(|| self.table.lock());
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        let settled = inbox.queue.settle();
        let same = match inbox.queue.head().filter(|_| settled) {
            Some((head, body)) if head == *key && inbox.wants(body) => match (body, &table) {
                (Body::Destroy(handle), Some(table)) => {
                    handle.local.access(table).id == msg.destination
                }
                _ => true,
            },
            _ => false,
        };
        if !same || (msg.flags != 0) != (key.1 != ALONE && inbox.more(*key)) {
            return false;
        }
        let Some((body, mut seat)) = inbox.queue.pop(key) else {
            return false;
        };
        inbox.spend(&body);
        // Dropped once the locks are, as is the seat.
        let (_blank, rest) = match body {
            Body::Data(mut message) => {
                let Message { pool, cargo, .. } = &mut *message;
                let slice = cargo.slice;
                inbox.slices.give(&slice);
                if cargo.is_plain() {
                    if cargo.n_bytes != 0 {
                        inbox.ledger.release_one(slice.payer, BYTES, cargo.n_bytes);
                    }
                    (inbox.keep(message), None)
                } else {
                    let mut back = cargo.charges();
                    back[SLICES] = 0;
                    if let Some(pool) = pool {
                        let (layout, slots) = (cargo.layout(), &mut cargo.handles);
                        back[HANDLES] -= complete(&slice, layout, slots, pool, fds, |slot| {
                            let table = table.as_deref_mut()?;
                            gain(table, inbox, key.0, slot, slice.payer)
                        });
                    }
                    inbox.ledger.release(slice.payer, &back);
                    (None, Some(Body::Data(message)))
                }
            }
            Body::Release(node) => {
                node.shared.access_mut(inbox).seat = seat.take();
                (None, Some(Body::Release(node)))
            }
            destroyed => (None, Some(destroyed)),
        };
        drop(guard);
        drop(table);
        if let Some(Body::Data(message)) = &rest {
            // What got INVALID was not gained, so its reference ends here.
            for handle in message.cargo.handles.iter().flatten() {
                handle.unlink(1, false);
            }
        }
        true
    }

    /// Ends what was taken out of the queue and is not received.
    pub(super) fn drop_taken(&self, (body, seat): Taken<H>) {
        match (body, seat) {
            (Body::Data(message), _) => message.discard(self),
            (Body::Release(node), Some(seat)) => {
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
    payer: u64,
) -> Option<(u64, bool)> {
    let handle = slot.as_ref()?;
    if handle.node.dead_before(timestamp) {
        return None;
    }
    let mut charge = Some(payer);
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
