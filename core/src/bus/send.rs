// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! SEND: from the caller's memory into one or many queues.
//!
//! All that can fail or sleep comes first and is undone by dropping a [`Parcel`]: reserve at every
//! destination, copy the payload, report errors, link the handles. Then the parts are
//! staged and committed in a few bounded steps, between which nothing can block:
//!
//! 1. each part is staged at its queue, where its node is checked once more, and the clock is raised
//!    to the timestamp that all parts so far could be committed at;
//! 2. the last of these, which is above all their keys, is chosen;
//! 3. the clocks of queues that are behind it are raised to it;
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

use super::account::{Amounts, FDS, HANDLES};
use super::handle::{Handle, Linked};
use super::host::{Host, Payload, Pool, Waker};
use super::inbox::Denied;
use super::message::{charges, Files, Handles, Layout, Message};
use super::peer::Peer;
use super::queue::{Body, Key, Queue, Seat};
use super::table::{Import, Named};
use super::transaction::{message_after, Transaction};
use super::user::SentFds;
use super::GFP_KEPT;
use crate::errno::{EHOSTUNREACH, ESHUTDOWN};

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
pub(super) type Found<H> = (KVVec<Arc<Handle<H>>>, Option<Arc<Files<H>>>);

impl<H: Host, P: Payload<H>> Outgoing<'_, H, P> {
    /// Finds what is to be passed on: the handles, then the files.
    pub(super) fn find(&mut self, import: &mut Import<'_, H>) -> Result<Found<H>> {
        let mut handles = KVVec::with_capacity(self.handles.len(), GFP_KERNEL)?;
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
    message: Option<KBox<Message<H>>>,
    /// The timestamp that it is staged at, or 0.
    staged: u64,
    /// Handles whose references have to be made good once it is sent.
    linked: Option<KVVec<Linked<H>>>,
    /// Why it is not sent, as a positive errno, or 0.
    error: i32,
}

impl<'p, H: Host> Parcel<'p, H> {
    /// An empty one.
    pub(super) fn new(from: &'p Arc<Peer<H>>, handle: Option<Arc<Handle<H>>>) -> Self {
        Self {
            from,
            handle,
            message: None,
            staged: 0,
            linked: None,
            error: 0,
        }
    }

    /// The receiver.
    fn to(&self) -> &Arc<Peer<H>> {
        let handle = self.handle.as_ref();
        handle.map_or(self.from, |handle| handle.node.owner())
    }

    /// Whether the destination is there no more, if its peer is `open`. Exact under its inbox.
    #[inline]
    fn is_gone(&self, open: bool) -> bool {
        !open
            || self
                .handle
                .as_ref()
                .is_some_and(|handle| handle.node.dead() != 0)
    }

    /// Charges and reserves at the receiver. EDQUOT, EMSGSIZE, EXFULL, EHOSTUNREACH, ENOMEM.
    pub(super) fn reserve(
        &mut self,
        (n_bytes, n_handles): (u64, usize),
        files: Option<&Arc<Files<H>>>,
        several: bool,
    ) -> Result {
        let n_fds = files.map_or(0, |files| files.len());
        if n_fds != 0 && self.is_gone(self.to().check_open().is_ok()) {
            return Err(self.gone());
        }
        let sent_fds = match n_fds {
            0 => None,
            n => Some(SentFds::charge(&self.from.user, n)?),
        };
        let mut handles = None;
        if n_handles != 0 {
            let slots = handles.insert(Handles::with_capacity(n_handles, GFP_KEPT)?);
            for _ in 0..n_handles {
                slots.push(None, GFP_KEPT)?;
            }
        }
        self.book(n_bytes, charges(n_bytes, n_handles, n_fds))?;
        let Some(message) = &mut self.message else {
            return Ok(());
        };
        // What comes from the stock has neither handles nor files.
        if let Some(handles) = handles {
            message.cargo.handles = handles;
        }
        if files.is_some() {
            message.cargo.files = files.cloned();
            message.cargo._sent_fds = sent_fds;
        }
        if several && message.seat.is_none() {
            message.seat = Some(Seat::<H>::new(GFP_KEPT)?);
        }
        Ok(())
    }

    /// The same, once the destination is known, but for what goes with handles and files.
    #[inline(always)]
    fn book(&mut self, n_bytes: u64, charges: Amounts) -> Result {
        let size = Layout::new(n_bytes, charges[HANDLES] as usize, charges[FDS] as usize).size;
        let mut message = self.to().book(|inbox, spare| {
            if self.is_gone(inbox.open) {
                return Err(Denied::Error(self.gone()));
            }
            inbox.reserve(self.from.claimant(), &charges, size, spare)
        })?;
        message.address(self.handle.as_ref().map(|handle| &handle.node));
        message.cargo.n_bytes = n_bytes;
        self.message = Some(message);
        Ok(())
    }

    /// Why it fails if [`Parcel::is_gone`].
    fn gone(&self) -> Error {
        match &self.handle {
            Some(_) => EHOSTUNREACH,
            None => ESHUTDOWN,
        }
    }

    /// Gets memory behind the slice. ENOMEM.
    #[inline]
    pub(super) fn pin(&mut self) -> Result {
        self.message
            .as_mut()
            .map_or(Ok(()), |message| message.pin())
    }

    /// The pool and where in it the payload goes, unless it is empty.
    #[inline]
    fn place(&self) -> Option<(&H::Pool, u64)> {
        let message = self.message.as_ref()?;
        Some((message.pool.as_ref()?, message.cargo.slice.offset))
    }

    /// Moves the payload in, once it is pinned. EFAULT.
    #[inline]
    pub(super) fn fill<P: Payload<H>>(&self, payload: &mut P) -> Result {
        match self.place() {
            Some((pool, offset)) if !payload.is_empty() => payload.copy_to(pool, offset),
            _ => Ok(()),
        }
    }

    /// Links each handle for the receiver. Returns the latest destruction that was found, which the
    /// message has to be ordered after, since it carries INVALID for it.
    pub(super) fn link(&mut self, handles: &[Arc<Handle<H>>]) -> Result<u64> {
        let to = self.to().clone();
        let (mut floor, mut made) = (0, KVVec::new());
        let Some(message) = &mut self.message else {
            return Ok(floor);
        };
        for (slot, handle) in message.cargo.handles.iter_mut().zip(handles) {
            let Some(linked) = Handle::link(&handle.node, &to)? else {
                floor = floor.max(handle.node.dead());
                continue;
            };
            *slot = Some(linked.0.clone());
            // For nodes that nobody holds yet.
            if linked.1.is_some() {
                made.push(linked, GFP_KERNEL)?;
            }
        }
        self.linked = Some(made);
        Ok(floor)
    }

    /// Makes the references good that it carries, if it was sent.
    pub(super) fn rise(&self) {
        if self.error == 0 {
            for (handle, owed) in self.linked.iter().flatten() {
                handle.rise(*owed);
            }
        }
    }

    /// What is sent, unless it is empty.
    pub(super) fn take(&mut self) -> Option<KBox<Message<H>>> {
        self.message.take()
    }

    /// Hands it to the receiver's queue. None if it is empty. EHOSTUNREACH.
    #[inline]
    fn hand_in<T>(
        &mut self,
        put: impl FnOnce(&mut Queue<H>, KBox<Message<H>>) -> T,
    ) -> Result<Option<T>> {
        let Some(message) = self.message.take() else {
            return Ok(None);
        };
        let mut inbox = self.to().inbox.lock();
        if self.is_gone(inbox.open) {
            drop(inbox);
            self.message = Some(message);
            return Err(EHOSTUNREACH);
        }
        Ok(Some(put(&mut inbox.queue, message)))
    }

    /// Queues the only part of a transaction.
    #[inline]
    fn deliver(&mut self, floor: u64, yields: bool) -> Result {
        if self
            .hand_in(|queue, message| queue.push(floor, message))?
            .is_some()
        {
            self.to().waker().wake(yields);
        }
        Ok(())
    }

    /// Stages this part, unless it is empty. Returns the time to commit at, not before `floor`.
    fn stage(&mut self, transaction: &Arc<Transaction>, part: u32, floor: u64) -> Result<u64> {
        let staged =
            self.hand_in(|queue, message| queue.stage_message(transaction, part, floor, message))?;
        let (key, timestamp) = staged.unwrap_or((0, floor));
        self.staged = key;
        Ok(timestamp)
    }

    /// Takes it back if it was staged.
    fn unstage(&mut self, transaction: &Arc<Transaction>, part: u32) {
        let key = Key(core::mem::take(&mut self.staged), transaction.number, part);
        if key.0 == 0 {
            return;
        }
        let back = self.to().inbox.lock().queue.unstage(&key);
        if let Some((Body::Data(message), _)) = back {
            self.message = Some(message);
            // It kept back what was committed behind it.
            self.to().wake();
        }
    }

    /// Gives back what it has. Nothing of that sleeps on a user.
    fn discard(&mut self) {
        if let Some(message) = self.message.take() {
            message.discard(self.to());
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
    /// How many destinations there are.
    n: usize,
}

impl Report<'_> {
    /// Tells the caller how it stands.
    fn tell<H: Host>(&mut self, parcels: &[Parcel<'_, H>]) -> Result {
        // Those that were not come to yet have not failed.
        let error = |part| {
            parcels
                .get(part)
                .map_or(0, |parcel: &Parcel<'_, H>| parcel.error)
        };
        (self.write)(&mut (0..self.n).map(error))
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
            n: out.destinations.len(),
        };

        let destinations = out.destinations;
        let several = destinations.len() > 1;
        let mut named = Named::new(destinations);
        let mut parcels = KVVec::with_capacity(destinations.len(), GFP_KERNEL)?;
        for (part, &id) in destinations.iter().enumerate() {
            parcels.push(Parcel::new(this, None), GFP_KERNEL)?;
            let reserved = named.find(&mut import, id).and_then(|handle| {
                parcels[part].handle = Some(handle);
                parcels[part].reserve(size, files.as_ref(), several)
            });
            match reserved {
                Ok(()) => (),
                // Not the destination's fault: the caller itself is gone, or memory is short.
                Err(error) if error == ESHUTDOWN || error == ENOMEM => return Err(error),
                Err(error) => report.failed(&mut parcels, part, error)?,
            }
        }
        let parcels = &mut parcels[..];

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

/// The way of most messages.
impl<H: Host> Peer<H> {
    /// Sends bytes, at most 0x7ffff000, to one destination. Errors are those of [`Peer::send`].
    /// `yields` is a hint: the caller is about to sleep.
    pub fn send_bytes<P: Payload<H>>(
        this: &Arc<Self>,
        id: u64,
        payload: &mut P,
        yields: bool,
    ) -> Result {
        let mut import = Import::new(this);
        let mut parcel = Parcel::new(this, Some(import.get(id)?));
        parcel.book(payload.len(), charges(payload.len(), 0, 0))?;
        parcel.pin()?;
        parcel.fill(payload)?;
        parcel.deliver(0, yields)?;
        import.finish();
        Ok(())
    }
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
    let mut slices = parcels.iter().filter_map(Parcel::place);
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
            [only] => only.deliver(floor, false),
            _ => commit_several(from, parcels, floor),
        };
        if done != Err(EHOSTUNREACH) {
            done?;
            break;
        }
        for part in 0..parcels.len() {
            let parcel = &parcels[part];
            if parcel.error == 0 && parcel.is_gone(parcel.to().check_open().is_ok()) {
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
    let done = match stage_several(parcels, &transaction, floor) {
        Ok(timestamp) if transaction.commit(timestamp) => Ok(()),
        Ok(_) => Err(EHOSTUNREACH),
        Err(error) => Err(error),
    };
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
    let (mut timestamp, mut n_behind) = (message_after(floor), 0);
    // In the order of the parts: `Queue::commit` relies on it.
    for (part, parcel) in parcels.iter_mut().enumerate() {
        let at = parcel.stage(transaction, part as u32, timestamp)?;
        // Those before may have a lower clock.
        if at != timestamp {
            (timestamp, n_behind) = (at, part);
        }
    }
    for parcel in parcels[..n_behind]
        .iter()
        .filter(|parcel| parcel.staged != 0)
    {
        parcel.to().inbox.lock().queue.raise(timestamp);
    }
    Ok(timestamp)
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
