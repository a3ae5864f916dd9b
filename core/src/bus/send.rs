// SPDX-License-Identifier: GPL-2.0 OR MIT

//! SEND: from the caller's memory into one or many queues.
//!
//! All that can fail or sleep comes first and is undone by dropping a [`Parcel`]: reserve at every
//! destination, copy the payload, report errors, link the handles. Then the parts are
//! staged and committed in a few bounded steps, between which nothing can block:
//!
//! 1. each part is staged at its queue, where its node is checked once more;
//! 2. a timestamp above all their keys is chosen;
//! 3. each queue's clock is raised to it;
//! 4. the transaction's word is set.
//!
//! A destruction that finds a part staged for its node kills the transaction; then the parts are
//! taken back, and either the call fails or, if it may be partial, the rest is sent anew. One part
//! alone is stamped and queued in one critical section.
//!
//! # Locks
//!
//! One inbox at a time, for each step.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::handle::{Handle, Linked};
use super::host::{Host, Payload, Pool};
use super::inbox::Denied;
use super::message::{charges, clear, Cargo, Files, Handles, Layout, Message};
use super::node::Node;
use super::peer::Peer;
use super::queue::{Body, Key, Seat};
use super::sort::sort;
use super::table::Import;
use super::transaction::{message_after, Transaction};
use super::user::SentFds;
use super::GFP_KEPT;

/// What to send.
pub struct Outgoing<'a, H: Host, P: Payload<H>> {
    /// How many destinations there are.
    pub n_destinations: usize,
    /// Gets the IDs of the handles to send to, each at most once; called once, if at all, and last.
    pub destinations: &'a mut dyn FnMut() -> Result<KVVec<u64>>,
    /// IDs of the handles to pass on.
    pub handles: &'a [u64],
    /// Gets the descriptors to pass on; called once, after the handles were found.
    pub files: &'a mut dyn FnMut() -> Result<KVec<H::File>>,
    /// The bytes.
    pub payload: P,
    /// A destination that fails does not stop the others.
    pub partial: bool,
}

/// The handles and the files of a message.
pub(super) type Found<H> = (KVVec<Arc<Handle<H>>>, Option<Arc<Files<H>>>);

impl<H: Host, P: Payload<H>> Outgoing<'_, H, P> {
    /// Finds what is to be passed on: the handles, then the files.
    pub(super) fn find(&mut self, import: &mut Import<H>) -> Result<Found<H>> {
        let mut handles = KVVec::with_capacity(self.handles.len(), GFP_KERNEL)?;
        for &id in self.handles {
            handles.push(import.get(id)?, GFP_KERNEL)?;
        }
        let files = (self.files)()?;
        let files = match files.len() {
            0 => None,
            _ => Some(Arc::new(Files::new(files), GFP_KEPT)?),
        };
        Ok((handles, files))
    }
}

/// A message on its way to one destination, which dropping turns back.
pub(super) struct Parcel<H: Host> {
    to: Arc<Peer<H>>,
    node: Option<Arc<Node<H>>>,
    pool: H::Pool,
    part: u32,
    layout: Layout,
    pinned: bool,
    cargo: Option<Cargo<H>>,
    seat: Option<Seat<H>>,
    staged: Option<Key>,
    /// Handles whose references have to be made good once it is sent.
    linked: KVVec<Linked<H>>,
}

impl<H: Host> Parcel<H> {
    /// Charges and reserves at the receiver. EDQUOT, EMSGSIZE, EXFULL, EHOSTUNREACH, ENOMEM.
    pub(super) fn reserve(
        from: &Peer<H>,
        to: &Arc<Peer<H>>,
        node: Option<&Arc<Node<H>>>,
        part: usize,
        (n_bytes, n_handles): (u64, usize),
        files: Option<&Arc<Files<H>>>,
    ) -> Result<Self> {
        if node.is_some_and(|node| node.dead() != 0) {
            return Err(EHOSTUNREACH);
        }
        let n_fds = files.map_or(0, |files| files.len());
        let layout = Layout::new(n_bytes, n_handles, n_fds);
        let charges = charges(n_bytes, n_handles, n_fds);
        let seat = Seat::<H>::new(GFP_KEPT)?;
        let handles = Handles::from_elem(None, n_handles, GFP_KEPT)?;
        let sent_fds = match n_fds {
            0 => None,
            n => Some(SentFds::charge(from.user(), n)?),
        };
        let (slice, pool) = to.book(|inbox, spare| {
            if node.is_some_and(|node| node.dead() != 0) {
                return Err(Denied::Error(EHOSTUNREACH));
            }
            let gone = if node.is_some() {
                EHOSTUNREACH
            } else {
                ESHUTDOWN
            };
            let pool = inbox.pool.clone().ok_or(Denied::Error(gone))?;
            let slice = inbox.reserve(from.claimant(), &charges, layout.size, spare)?;
            Ok((slice, pool))
        })?;
        Ok(Self {
            to: to.clone(),
            node: node.cloned(),
            pool,
            part: part as u32,
            layout,
            pinned: false,
            cargo: Some(Cargo {
                slice,
                n_bytes,
                handles,
                files: files.cloned(),
                sent_fds,
            }),
            seat: Some(seat),
            staged: None,
            linked: KVVec::new(),
        })
    }

    fn offset(&self) -> u64 {
        self.cargo.as_ref().map_or(0, |cargo| cargo.slice.offset)
    }

    /// Gets memory behind the slice and clears the padding of the payload. ENOMEM.
    pub(super) fn pin(&mut self) -> Result {
        let offset = self.offset();
        self.pool.pin(offset, self.layout.size)?;
        self.pinned = true;
        let payload = self.cargo.as_ref().map_or(0, |cargo| cargo.n_bytes);
        // An empty slice is all padding.
        let padded = self
            .layout
            .handles
            .max(if self.layout.end == 0 { 8 } else { 0 });
        clear(&self.pool, offset + payload, offset + padded);
        Ok(())
    }

    /// Pins, and moves the payload in. EFAULT, ENOMEM.
    pub(super) fn fill<P: Payload<H>>(&mut self, payload: &mut P) -> Result {
        self.pin()?;
        if payload.is_empty() {
            return Ok(());
        }
        payload.copy_to(&self.pool, self.offset())
    }

    /// Links each handle for the receiver. Returns the latest destruction that was found, which the
    /// message has to be ordered after, since it carries INVALID for it.
    pub(super) fn link(&mut self, handles: &[Arc<Handle<H>>]) -> Result<u64> {
        let mut floor = 0;
        let Some(cargo) = self.cargo.as_mut() else {
            return Ok(0);
        };
        for (slot, handle) in cargo.handles.iter_mut().zip(handles) {
            self.linked.reserve(1, GFP_KERNEL)?;
            let linked = Handle::link(&handle.node, &self.to)?;
            if let Some(linked) = &linked {
                // For nodes that nobody holds yet; there is room.
                if linked.1.is_some() {
                    self.linked.push(linked.clone(), GFP_KERNEL)?;
                }
            } else {
                floor = floor.max(handle.node.dead());
            }
            *slot = linked.map(|linked| linked.0);
        }
        Ok(floor)
    }

    /// Makes the references good that it carries; it was sent.
    pub(super) fn rise(&self) {
        for (handle, owed) in self.linked.iter() {
            handle.rise(*owed);
        }
    }

    /// The cargo and the memory for its entry, to be queued.
    pub(super) fn take(&mut self) -> Option<(Cargo<H>, Seat<H>)> {
        Some((self.cargo.take()?, self.seat.take()?))
    }

    /// Whether the destination is there no more; to be asked under its inbox.
    fn is_gone(&self, open: bool) -> bool {
        !open || self.node.as_ref().is_none_or(|node| node.dead() != 0)
    }

    /// Queues the only part of a transaction.
    fn deliver(&mut self, floor: u64) -> Result {
        let to = self.to.clone();
        let mut inbox = to.inbox.lock();
        if self.is_gone(inbox.open) {
            return Err(EHOSTUNREACH);
        }
        if let (Some((cargo, seat)), Some(node)) = (self.take(), self.node.clone()) {
            inbox
                .queue
                .push(floor, Body::Data(Message { node, cargo }), seat);
        }
        drop(inbox);
        to.wake();
        Ok(())
    }

    /// Stages this part; returns its key's timestamp.
    fn stage(&mut self, transaction: &Arc<Transaction>) -> Result<u64> {
        let to = self.to.clone();
        let mut inbox = to.inbox.lock();
        if self.is_gone(inbox.open) {
            return Err(EHOSTUNREACH);
        }
        if let (Some((cargo, seat)), Some(node)) = (self.take(), self.node.clone()) {
            let body = Body::Data(Message { node, cargo });
            let key = inbox.queue.stage(transaction, self.part, body, seat);
            self.staged = Some(key);
        }
        Ok(self.staged.map_or(0, |key| key.0))
    }

    /// Takes a staged part back; an error if the destination is the reason.
    fn unstage(&mut self) -> Result {
        let to = self.to.clone();
        let mut inbox = to.inbox.lock();
        let gone = self.is_gone(inbox.open);
        let back = self.staged.take().and_then(|key| inbox.queue.unstage(&key));
        drop(inbox);
        if let Some((entry, seat)) = back {
            self.seat = Some(seat);
            if let Body::Data(message) = entry.body {
                self.cargo = Some(message.cargo);
            }
            // It kept back what was committed behind it.
            to.wake();
        }
        if gone {
            Err(EHOSTUNREACH)
        } else {
            Ok(())
        }
    }
}

impl<H: Host> Drop for Parcel<H> {
    fn drop(&mut self) {
        if let Some(cargo) = self.cargo.take() {
            cargo.discard(&self.to, self.pinned.then_some(&self.pool));
        }
    }
}

/// Errors of the destinations, and how they are made known.
struct Report<'r> {
    errors: KVVec<i32>,
    write: &'r mut dyn FnMut(&[i32]) -> Result,
    partial: bool,
}

impl Report<'_> {
    fn set(&mut self, part: usize, error: Error) {
        if let Some(slot) = self.errors.get_mut(part) {
            *slot = -error.to_errno();
        }
    }

    /// Notes that a destination failed: an error if that fails the whole.
    fn failed(&mut self, part: usize, error: Error) -> Result {
        self.set(part, error);
        if self.partial {
            return Ok(());
        }
        (self.write)(&self.errors)?;
        Err(error)
    }
}

impl<H: Host> Peer<H> {
    /// Sends one message to all destinations, as one transaction.
    ///
    /// `write` is told the errors of the destinations (0 or a positive errno, in their order): before
    /// anything is sent if the message is partial, and otherwise if one of them is why it fails. It
    /// may sleep, and may be called again if the errors change. An error of its own fails the call.
    pub fn send<P: Payload<H>>(
        this: &Arc<Self>,
        mut out: Outgoing<'_, H, P>,
        write: &mut dyn FnMut(&[i32]) -> Result,
    ) -> Result {
        let mut import = Import::new(this);
        let (handles, files) = out.find(&mut import)?;
        let size = (out.payload.len(), handles.len());

        let destinations = match out.n_destinations {
            0 => KVVec::new(),
            _ => (out.destinations)()?,
        };
        let n = destinations.len();
        let mut report = Report {
            errors: KVVec::from_elem(0, n, GFP_KERNEL)?,
            write,
            partial: out.partial,
        };
        let twice = twice(&destinations)?;
        let mut parcels = KVVec::with_capacity(n, GFP_KERNEL)?;
        for (part, &id) in destinations.iter().enumerate() {
            let reserved = import.get(id).and_then(|handle| {
                if twice.binary_search(&part).is_ok() {
                    return Err(ENOTUNIQ);
                }
                let node = &handle.node;
                Parcel::reserve(this, node.owner(), Some(node), part, size, files.as_ref())
            });
            match reserved {
                Ok(parcel) => parcels.push(parcel, GFP_KERNEL)?,
                // Not the destination's fault: the caller itself is gone, or memory is short.
                Err(error) if error == ESHUTDOWN || error == ENOMEM => return Err(error),
                Err(error) => report.failed(part, error)?,
            }
        }

        copy(&mut parcels, &mut out.payload)?;
        if report.partial {
            (report.write)(&report.errors)?;
        }
        let mut floor = 0;
        for parcel in parcels.iter_mut() {
            floor = floor.max(parcel.link(&handles)?);
        }
        commit(this, &mut parcels, floor, &mut report)?;
        import.finish();
        drop(parcels);
        Ok(())
    }
}

/// The positions at which a destination is named again, in order.
pub(super) fn twice(ids: &[u64]) -> Result<KVVec<usize>> {
    let mut twice = KVVec::new();
    if ids.len() < 2 {
        return Ok(twice);
    }
    let mut sorted = KVVec::with_capacity(ids.len(), GFP_KERNEL)?;
    for (part, &id) in ids.iter().enumerate() {
        sorted.push((id, part), GFP_KERNEL)?;
    }
    sort(&mut sorted);
    for pair in sorted.windows(2) {
        if pair[0].0 == pair[1].0 {
            twice.push(pair[1].1, GFP_KERNEL)?;
        }
    }
    sort(&mut twice);
    Ok(twice)
}

/// Moves the payload into the first slice, and from there into the others: so all receivers get
/// the same bytes, whatever the sender's memory does meanwhile.
fn copy<H: Host, P: Payload<H>>(parcels: &mut [Parcel<H>], payload: &mut P) -> Result {
    for parcel in parcels.iter_mut() {
        parcel.pin()?;
    }
    if payload.is_empty() {
        return Ok(());
    }
    let Some((first, others)) = parcels.split_first_mut() else {
        return Ok(());
    };
    payload.copy_to(&first.pool, first.offset())?;
    for other in others {
        first
            .pool
            .copy(first.offset(), payload.len(), &other.pool, other.offset());
    }
    Ok(())
}

/// Queues all parcels at one point of the order. Those that are queued are left empty.
fn commit<H: Host>(
    from: &Peer<H>,
    parcels: &mut KVVec<Parcel<H>>,
    floor: u64,
    report: &mut Report<'_>,
) -> Result {
    loop {
        let done = match &mut parcels[..] {
            [] => Ok(()),
            [only] => only.deliver(floor),
            several => {
                let transaction = from.transaction()?;
                commit_several(several, &transaction, floor)
            }
        };
        if done.is_ok() {
            break;
        }
        // Nothing was sent. All parts are taken back before anything can sleep.
        let mut first = None;
        parcels.retain(|parcel| match parcel.unstage() {
            Ok(()) => true,
            Err(error) => {
                let part = parcel.part as usize;
                report.set(part, error);
                first.get_or_insert((part, error));
                // What it owns is given back here; nothing of that sleeps on a user.
                false
            }
        });
        if let Some((part, error)) = first {
            report.failed(part, error)?;
        }
        (report.write)(&report.errors)?;
    }
    for parcel in parcels.iter() {
        parcel.rise();
    }
    Ok(())
}

/// The numbered steps of the module's head. On error the parts that were staged still are.
fn commit_several<H: Host>(
    parcels: &mut [Parcel<H>],
    transaction: &Arc<Transaction>,
    floor: u64,
) -> Result {
    let mut top = floor;
    for parcel in parcels.iter_mut() {
        top = top.max(parcel.stage(transaction)?);
    }
    let timestamp = message_after(top);
    for parcel in parcels.iter() {
        parcel.to.inbox.lock().queue.raise(timestamp);
    }
    if !transaction.commit(timestamp) {
        return Err(EHOSTUNREACH);
    }
    for parcel in parcels.iter() {
        parcel.to.wake();
    }
    Ok(())
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
