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

use super::few::Few;
use super::handle::{Handle, Linked};
use super::host::{Host, Payload, Pool};
use super::inbox::Denied;
use super::message::{charges, clear, Cargo, Files, Handles, Layout, Message};
use super::peer::Peer;
use super::queue::{Body, Key, Queue, Seat};
use super::sort::sort;
use super::table::Import;
use super::transaction::{message_after, Transaction};
use super::user::SentFds;
use super::GFP_KEPT;

/// What to send.
///
/// What it names has to be bounded by whoever makes it: at most 0x7ffff000 bytes, and no more
/// destinations or handles than [`Peer::user_limits`] allows handles.
pub struct Outgoing<'a, H: Host, P: Payload<H>> {
    /// IDs of the handles to send to, each at most once.
    pub destinations: &'a [u64],
    /// IDs of the handles to pass on.
    pub handles: &'a [u64],
    /// Gets the descriptors to pass on, if any; called once, after the handles were found.
    pub files: Option<&'a mut dyn FnMut() -> Result<Arc<Files<H>>>>,
    /// The bytes.
    pub payload: P,
    /// A destination that fails does not stop the others.
    pub partial: bool,
}

/// The handles and the files of a message.
pub(super) type Found<H> = (Few<Arc<Handle<H>>>, Option<Arc<Files<H>>>);

impl<H: Host, P: Payload<H>> Outgoing<'_, H, P> {
    /// Finds what is to be passed on: the handles, then the files.
    pub(super) fn find(&mut self, import: &mut Import<'_, H>) -> Result<Found<H>> {
        let mut handles = Few::with_capacity(self.handles.len(), GFP_KERNEL)?;
        for &id in self.handles {
            handles.push(import.get(id)?, GFP_KERNEL)?;
        }
        let files = match &mut self.files {
            Some(files) => Some(files()?),
            None => None,
        };
        Ok((handles, files))
    }
}

/// A message on its way to one destination, which dropping turns back.
///
/// It is empty at first, once it was sent, and after it failed.
pub(super) struct Parcel<'p, H: Host> {
    from: &'p Arc<Peer<H>>,
    /// The destination; None for a seed, which the peer sends to itself.
    handle: Option<Arc<Handle<H>>>,
    pool: Option<H::Pool>,
    pinned: bool,
    cargo: Option<Cargo<H>>,
    seat: Option<Seat<H>>,
    /// The timestamp that it is staged at, or 0.
    staged: u64,
    /// Handles whose references have to be made good once it is sent.
    linked: Few<Linked<H>>,
    /// Why it is not sent, as a positive errno, or 0.
    error: i32,
}

impl<'p, H: Host> Parcel<'p, H> {
    /// An empty one.
    pub(super) fn new(from: &'p Arc<Peer<H>>) -> Self {
        Self {
            from,
            handle: None,
            pool: None,
            pinned: false,
            cargo: None,
            seat: None,
            staged: 0,
            linked: Few::NONE,
            error: 0,
        }
    }

    /// The receiver.
    fn to(&self) -> &Arc<Peer<H>> {
        let handle = self.handle.as_ref();
        handle.map_or(self.from, |handle| handle.node.owner())
    }

    /// Whether the destination is there no more. Exact under its inbox.
    fn is_gone(&self) -> bool {
        let dead = |handle: &Arc<Handle<H>>| handle.node.dead() != 0;
        self.to().check_open().is_err() || self.handle.as_ref().is_some_and(dead)
    }

    /// Charges and reserves at the receiver. EDQUOT, EMSGSIZE, EXFULL, EHOSTUNREACH, ENOMEM.
    pub(super) fn reserve(
        &mut self,
        handle: Option<Arc<Handle<H>>>,
        (n_bytes, n_handles): (u64, usize),
        files: Option<&Arc<Files<H>>>,
    ) -> Result {
        let gone = match &handle {
            Some(_) => EHOSTUNREACH,
            None => ESHUTDOWN,
        };
        self.handle = handle;
        if self.is_gone() {
            return Err(gone);
        }
        let n_fds = files.map_or(0, |files| files.len());
        let size = Layout::new(n_bytes, n_handles, n_fds).size;
        let charges = charges(n_bytes, n_handles, n_fds);
        let mut handles = Handles::with_capacity(n_handles, GFP_KEPT)?;
        for _ in 0..n_handles {
            handles.push(None, GFP_KEPT)?;
        }
        let sent_fds = match n_fds {
            0 => None,
            n => Some(SentFds::charge(&self.from.user, n)?),
        };
        let (slice, seat, pool) = self.to().book(|inbox, spare| {
            if self.is_gone() {
                return Err(Denied::Error(gone));
            }
            let (slice, seat) = inbox.reserve(self.from.claimant(), &charges, size, spare)?;
            Ok((slice, seat, inbox.pool.clone()))
        })?;
        self.pool = pool;
        self.seat = Some(seat);
        self.cargo = Some(Cargo {
            slice,
            n_bytes,
            handles,
            files: files.cloned(),
            _sent_fds: sent_fds,
        });
        Ok(())
    }

    /// Gets memory behind the slice and clears the padding of the payload. ENOMEM.
    pub(super) fn pin(&mut self) -> Result {
        let (Some(cargo), Some(pool)) = (&self.cargo, &self.pool) else {
            return Ok(());
        };
        let (offset, size) = (cargo.slice.offset, cargo.slice.size);
        pool.pin(offset, size)?;
        self.pinned = true;
        // An empty slice is all padding; else it ends where the handles start, or earlier.
        let padded = cargo.n_bytes.next_multiple_of(8).max(8).min(size);
        clear(pool, offset + cargo.n_bytes, offset + padded);
        Ok(())
    }

    /// Pins, and moves the payload in. EFAULT, ENOMEM.
    pub(super) fn fill<P: Payload<H>>(&mut self, payload: &mut P) -> Result {
        copy(core::slice::from_mut(self), payload)
    }

    /// Links each handle for the receiver. Returns the latest destruction that was found, which the
    /// message has to be ordered after, since it carries INVALID for it.
    pub(super) fn link(&mut self, handles: &[Arc<Handle<H>>]) -> Result<u64> {
        let mut floor = 0;
        if self.cargo.is_none() {
            return Ok(floor);
        }
        self.linked = Few::with_capacity(handles.len(), GFP_KERNEL)?;
        for (i, handle) in handles.iter().enumerate() {
            let linked = Handle::link(&handle.node, self.to())?;
            if let Some(linked) = &linked {
                // For nodes that nobody holds yet; there is room.
                if linked.1.is_some() {
                    self.linked.push(linked.clone(), GFP_KERNEL)?;
                }
            } else {
                floor = floor.max(handle.node.dead());
            }
            if let Some(slot) = self
                .cargo
                .as_mut()
                .and_then(|cargo| cargo.handles.get_mut(i))
            {
                *slot = linked.map(|linked| linked.0);
            }
        }
        Ok(floor)
    }

    /// Makes the references good that it carries, if it was sent.
    pub(super) fn rise(&self) {
        if self.error == 0 {
            for (handle, owed) in self.linked.iter() {
                handle.rise(*owed);
            }
        }
    }

    /// The cargo and the memory for its entry, to be queued.
    pub(super) fn take(&mut self) -> Option<(Cargo<H>, Seat<H>)> {
        Some((self.cargo.take()?, self.seat.take()?))
    }

    /// Hands it to the receiver's queue, unless it is empty. EHOSTUNREACH.
    fn hand_in(&mut self, put: impl FnOnce(&mut Queue<H>, Body<H>, Seat<H>)) -> Result {
        let Some((cargo, seat)) = self.take() else {
            return Ok(());
        };
        let Some(handle) = &self.handle else {
            return Ok(());
        };
        let mut inbox = handle.node.owner().inbox.lock();
        if self.is_gone() {
            drop(inbox);
            (self.cargo, self.seat) = (Some(cargo), Some(seat));
            return Err(EHOSTUNREACH);
        }
        let node = handle.node.clone();
        put(&mut inbox.queue, Body::Data(Message { node, cargo }), seat);
        Ok(())
    }

    /// Queues the only part of a transaction.
    fn deliver(&mut self, floor: u64) -> Result {
        let mut sent = false;
        self.hand_in(|queue, body, seat| {
            queue.push(floor, body, seat);
            sent = true;
        })?;
        if sent {
            self.to().wake();
        }
        Ok(())
    }

    /// Stages this part; returns its key's timestamp, 0 if it is empty.
    fn stage(&mut self, transaction: &Arc<Transaction>, part: u32) -> Result<u64> {
        let mut staged = 0;
        self.hand_in(|queue, body, seat| staged = queue.stage(transaction, part, body, seat).0)?;
        self.staged = staged;
        Ok(staged)
    }

    /// Takes it back if it was staged.
    fn unstage(&mut self, transaction: &Arc<Transaction>, part: u32) {
        let key = Key(core::mem::take(&mut self.staged), transaction.number, part);
        let back = match key.0 {
            0 => None,
            _ => self.to().inbox.lock().queue.unstage(&key),
        };
        if let Some((entry, seat)) = back {
            self.seat = Some(seat);
            if let Body::Data(message) = entry.body {
                self.cargo = Some(message.cargo);
            }
            // It kept back what was committed behind it.
            self.to().wake();
        }
    }

    /// Gives back what it has. Nothing of that sleeps on a user.
    fn discard(&mut self) {
        if let Some(cargo) = self.cargo.take() {
            let pool = self.pool.as_ref().filter(|_| self.pinned);
            cargo.discard(self.to(), pool);
        }
    }
}

impl<H: Host> Drop for Parcel<'_, H> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// How the errors of the destinations are made known.
struct Report<'r> {
    write: &'r mut dyn FnMut(&mut dyn Iterator<Item = i32>) -> Result,
    partial: bool,
}

impl Report<'_> {
    /// Tells the caller how it stands.
    fn tell<H: Host>(&mut self, parcels: &[Parcel<'_, H>]) -> Result {
        (self.write)(&mut parcels.iter().map(|parcel| parcel.error))
    }

    /// Ends a parcel whose destination failed: an error if that fails the whole.
    fn failed<H: Host>(
        &mut self,
        parcels: &mut [Parcel<'_, H>],
        part: usize,
        error: Error,
    ) -> Result {
        if let Some(parcel) = parcels.get_mut(part) {
            parcel.error = -error.to_errno();
            parcel.discard();
        }
        if self.partial {
            return Ok(());
        }
        self.tell(parcels)?;
        Err(error)
    }
}

impl<H: Host> Peer<H> {
    /// Sends one message to all destinations, as one transaction.
    ///
    /// `write` is told the errors of the destinations (0 or a positive errno, in their order): before
    /// anything is sent if the message is partial, and otherwise if one of them is why it fails. It
    /// may sleep, and may be called again if the errors change. An error of its own fails the call.
    ///
    /// Errors, in the order in which they are looked for: ENXIO, EDQUOT for a handle, what `files`
    /// returns; per destination ENXIO, ENOTUNIQ, EHOSTUNREACH, EDQUOT, EMSGSIZE,
    /// EXFULL; EFAULT for the payload. ENOMEM and ESHUTDOWN at any time.
    pub fn send<P: Payload<H>>(
        this: &Arc<Self>,
        mut out: Outgoing<'_, H, P>,
        write: &mut dyn FnMut(&mut dyn Iterator<Item = i32>) -> Result,
    ) -> Result {
        let mut import = Import::new(this);
        let (handles, files) = out.find(&mut import)?;
        let size = (out.payload.len(), handles.len());
        let mut report = Report {
            write,
            partial: out.partial,
        };

        let destinations = out.destinations;
        let twice = twice(destinations)?;
        let (mut one, mut many) = (Parcel::new(this), None);
        let parcels = match destinations.len() {
            1 => core::slice::from_mut(&mut one),
            n => {
                let mut parcels = KVVec::with_capacity(n, GFP_KERNEL)?;
                for _ in 0..n {
                    parcels.push(Parcel::new(this), GFP_KERNEL)?;
                }
                &mut many.insert(parcels)[..]
            }
        };
        for (part, &id) in destinations.iter().enumerate() {
            let reserved = import.get(id).and_then(|handle| {
                if twice.binary_search(&part).is_ok() {
                    return Err(ENOTUNIQ);
                }
                parcels[part].reserve(Some(handle), size, files.as_ref())
            });
            match reserved {
                Ok(()) => (),
                // Not the destination's fault: the caller itself is gone, or memory is short.
                Err(error) if error == ESHUTDOWN || error == ENOMEM => return Err(error),
                Err(error) => report.failed(parcels, part, error)?,
            }
        }

        copy(parcels, &mut out.payload)?;
        if report.partial {
            report.tell(parcels)?;
        }
        let mut floor = 0;
        if !handles.is_empty() {
            for parcel in parcels.iter_mut() {
                floor = floor.max(parcel.link(&handles)?);
            }
        }
        commit(this, parcels, floor, &mut report)?;
        import.finish();
        Ok(())
    }
}

/// The positions at which a destination is named again, in order.
pub(super) fn twice(ids: &[u64]) -> Result<Few<usize>> {
    let mut twice = Few::NONE;
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
fn copy<H: Host, P: Payload<H>>(parcels: &mut [Parcel<'_, H>], payload: &mut P) -> Result {
    for parcel in parcels.iter_mut() {
        parcel.pin()?;
    }
    if payload.is_empty() {
        return Ok(());
    }
    let mut slices = parcels
        .iter()
        .filter_map(|parcel| Some((parcel.pool.as_ref()?, parcel.cargo.as_ref()?.slice.offset)));
    let Some((first, from)) = slices.next() else {
        return Ok(());
    };
    payload.copy_to(first, from)?;
    for (pool, offset) in slices {
        first.copy(from, payload.len(), pool, offset);
    }
    Ok(())
}

/// Queues all parcels at one point of the order. Those that are queued are left empty.
fn commit<H: Host>(
    from: &Peer<H>,
    parcels: &mut [Parcel<'_, H>],
    floor: u64,
    report: &mut Report<'_>,
) -> Result {
    loop {
        let done = match &mut parcels[..] {
            [] => Ok(()),
            [only] => only.deliver(floor),
            _ => commit_several(from, parcels, floor),
        };
        match done {
            Ok(()) => break,
            Err(error) if error == EHOSTUNREACH => (),
            Err(error) => return Err(error),
        }
        for part in 0..parcels.len() {
            if parcels[part].error == 0 && parcels[part].is_gone() {
                report.failed(parcels, part, EHOSTUNREACH)?;
            }
        }
        report.tell(parcels)?;
    }
    for parcel in parcels.iter() {
        parcel.rise();
    }
    Ok(())
}

/// The numbered steps of the module's head. On error nothing was sent, and nothing is staged.
fn commit_several<H: Host>(from: &Peer<H>, parcels: &mut [Parcel<'_, H>], floor: u64) -> Result {
    let transaction = from.transaction()?;
    let staged = stage_several(parcels, &transaction, floor);
    let done = staged.and_then(|timestamp| {
        if transaction.commit(timestamp) {
            Ok(())
        } else {
            Err(EHOSTUNREACH)
        }
    });
    for (part, parcel) in (0..).zip(parcels.iter_mut()) {
        if done.is_err() {
            parcel.unstage(&transaction, part);
        } else if parcel.staged != 0 {
            parcel.to().wake();
        }
    }
    done
}

/// Steps 1 to 3. Returns the timestamp to commit at.
fn stage_several<H: Host>(
    parcels: &mut [Parcel<'_, H>],
    transaction: &Arc<Transaction>,
    floor: u64,
) -> Result<u64> {
    let mut top = floor;
    for (part, parcel) in (0..).zip(parcels.iter_mut()) {
        top = top.max(parcel.stage(transaction, part)?);
    }
    let timestamp = message_after(top);
    for parcel in parcels.iter().filter(|parcel| parcel.staged != 0) {
        parcel.to().inbox.lock().queue.raise(timestamp);
    }
    Ok(timestamp)
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
