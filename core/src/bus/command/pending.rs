// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A pending message: a message on its way to one destination. Its drop undoes all steps so far.
//!
//! It is reserved, pinned, filled and linked, which may fail or sleep. Then it is delivered, or
//! staged as one part of a transaction: both may be refused, and neither sleeps.
//!
//! # Locks
//!
//! The receiver's inbox, for one step at a time.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::allocation::{GFP_CALL, GFP_KEPT};
use crate::bus::host::{Host, KillCheck, Payload};
use crate::bus::object::{
    charges, check, ensure, EntryReservation, Handle, Handles, Inbox, Linked, Message, Peer,
    Removed, SentFds,
};
use crate::bus::order::{message_after, Key, Queue, Transaction};
use crate::bus::pool::Size;
use crate::bus::quota::Amounts;
use crate::errno::{EDQUOT, EHOSTUNREACH};

/// The handles and files that a message passes on.
pub(crate) struct Resolved<H: Host> {
    pub(crate) handles: Handles<H>,
    pub(crate) files: Option<H::Files>,
    pub(crate) size: Size,
}

/// A message on its way to one destination.
///
/// It is empty at first, while the message is staged or was sent, and after it failed.
pub(crate) struct Pending<'p, H: Host> {
    pub(crate) from: &'p Arc<Peer<H>>,
    /// The destination; None for a seed, which the peer sends to itself.
    pub(crate) handle: Option<Arc<Handle<H>>>,
    pub(crate) message: Option<KBox<Message<H>>>,
    /// References that have to be confirmed once it is sent.
    linked: Option<KVVec<Linked<H>>>,
    /// The latest destruction of a node that it was to carry a handle of, or 0. The message is
    /// ordered after it, since it carries INVALID instead.
    floor: u64,
    /// The reason why the message is not sent.
    pub(crate) error: Option<Error>,
}

impl<'p, H: Host> Pending<'p, H> {
    /// Makes an empty pending message.
    pub(crate) fn new(from: &'p Arc<Peer<H>>, handle: Option<Arc<Handle<H>>>) -> Self {
        Self {
            from,
            handle,
            message: None,
            linked: None,
            floor: 0,
            error: None,
        }
    }

    /// Returns the receiver.
    pub(crate) fn to(&self) -> &Arc<Peer<H>> {
        let handle = self.handle.as_ref();
        handle.map_or(self.from, |handle| &handle.node.owner)
    }

    /// Checks that the destination is there, if its peer is `open`. Exact under its inbox.
    ///
    /// # Errors
    ///
    /// EHOSTUNREACH; ESHUTDOWN for a seed.
    #[inline]
    fn check_destination(&self, open: bool) -> Result {
        match &self.handle {
            Some(handle) => ensure(open && !handle.node.is_dead(), EHOSTUNREACH),
            None => check(open),
        }
    }

    /// Checks that the destination is there. May be a moment late.
    ///
    /// # Errors
    ///
    /// EHOSTUNREACH; ESHUTDOWN for a seed.
    pub(crate) fn check_early(&self) -> Result {
        self.check_destination(self.to().check_open().is_ok())
    }

    /// Charges and reserves at the receiver. A message that is one of several parts gets memory for
    /// an entry in a tree, too.
    ///
    /// # Errors
    ///
    /// EDQUOT, EMSGSIZE, EXFULL, EHOSTUNREACH, ENOMEM.
    pub(crate) fn reserve(&mut self, resolved: &Resolved<H>, is_part: bool) -> Result {
        let size = &resolved.size;
        let sent_fds = match size.n_fds {
            0 => None,
            n => {
                self.check_early()?;
                Some(SentFds::charge(self.from, self.to(), n)?)
            }
        };
        let message = self.book(size, &charges(size))?;
        // A blank message has neither handles nor files.
        if sent_fds.is_some() {
            message.files = resolved.files.clone();
            message.sent_fds = sent_fds;
        }
        // Not even an empty list is replaced for nothing, which costs a hundred instructions in the
        // kernel.
        if size.n_handles != 0 {
            message.reserve_slots(size.n_handles)?;
        }
        if is_part && message.links.reservation.is_none() {
            message.links.reservation = Some(EntryReservation::<H>::new(GFP_KEPT)?);
        }
        Ok(())
    }

    /// Charges `charges` and reserves a slice for a message of this size. Returns the message.
    ///
    /// # Errors
    ///
    /// EDQUOT, also for a size that can never be granted; EMSGSIZE if no pool can hold it; EXFULL,
    /// EHOSTUNREACH, ENOMEM.
    #[inline(always)]
    pub(crate) fn book(&mut self, size: &Size, charges: &Amounts) -> Result<&mut Message<H>> {
        let slice_size = size.slice_size();
        let mut message = self.to().book(|inbox, reservations| {
            self.check_destination(inbox.open)?;
            inbox.reserve(self.from.claimant(), charges, slice_size, reservations)
        })?;
        message.address(self.handle.as_ref().map(|handle| &handle.node));
        message.n_bytes = size.n_bytes;
        Ok(self.message.insert(message))
    }

    /// Gets memory behind the slice.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    #[inline]
    pub(crate) fn pin(&mut self) -> Result {
        let message = self.message.as_mut();
        message.map_or(Ok(()), |message| message.pin())
    }

    /// Copies the payload in, once it is pinned.
    ///
    /// # Errors
    ///
    /// EFAULT.
    #[inline]
    pub(crate) fn fill<P: Payload<H>>(&self, payload: &mut P) -> Result {
        match &self.message {
            Some(message) if !payload.is_empty() => {
                payload.copy_to(&message.pool, message.slice.offset)
            }
            _ => Ok(()),
        }
    }

    /// Links each handle for the receiver.
    ///
    /// # Errors
    ///
    /// ENOMEM; EINTR if the caller was killed.
    pub(crate) fn link(
        &mut self,
        handles: &[Option<Arc<Handle<H>>>],
        kill_check: &mut KillCheck,
    ) -> Result {
        let to = self.to().clone();
        let mut unconfirmed = KVVec::new();
        let Some(message) = &mut self.message else {
            return Ok(());
        };
        for (slot, handle) in message.handles.iter_mut().zip(handles) {
            kill_check.step::<H>(1)?;
            let Some(handle) = handle else {
                continue;
            };
            let Some(linked) = Handle::link(&handle.node, &to)? else {
                let dead_at = handle.node.dead_at().unwrap_or_default();
                self.floor = self.floor.max(dead_at);
                continue;
            };
            *slot = Some(linked.handle.clone());
            // Only a reference to a node for which no release notice is owed has to be confirmed.
            if linked.unconfirmed.is_some() {
                unconfirmed.push(linked, GFP_CALL)?;
            }
        }
        self.linked = Some(unconfirmed);
        Ok(())
    }

    /// Confirms the references that it carries, once it was sent.
    pub(crate) fn confirm(&self) {
        self.linked.iter().flatten().for_each(Linked::confirm);
    }

    /// Hands the message to the receiver's queue, if the inbox admits it. Does nothing if it is
    /// empty.
    ///
    /// # Errors
    ///
    /// EHOSTUNREACH; EDQUOT if it is not admitted.
    #[inline]
    fn hand_in<T: Default>(
        &mut self,
        admits: impl FnOnce(&mut Inbox<H>) -> bool,
        put: impl FnOnce(&mut Queue<Message<H>>, KBox<Message<H>>) -> T,
    ) -> Result<T> {
        let Some(message) = self.message.take() else {
            return Ok(T::default());
        };
        let mut inbox = self.to().inbox.lock();
        let admitted = self
            .check_destination(inbox.open && !inbox.queue.is_exhausted())
            .and_then(|()| ensure(admits(&mut inbox), EDQUOT));
        if admitted.is_err() {
            drop(inbox);
            self.message = Some(message);
            return admitted.map(|()| T::default());
        }
        Ok(put(&mut inbox.queue, message))
    }

    /// Queues a message without other parts. The caller wakes the receiver.
    ///
    /// # Errors
    ///
    /// EHOSTUNREACH.
    #[inline]
    pub(crate) fn deliver(&mut self) -> Result {
        let floor = self.floor;
        self.hand_in(|_| true, |queue, message| queue.push(floor, message))
    }

    /// Stages this part, unless it is empty. Returns the lowest timestamp to commit at.
    ///
    /// # Errors
    ///
    /// EHOSTUNREACH; EDQUOT if the user has too many undecided transactions there.
    pub(crate) fn stage(&mut self, transaction: &Arc<Transaction>, part: u32) -> Result<u64> {
        let place = transaction.staged_key(part);
        let staged = self.hand_in(
            |inbox| inbox.admits(&place, transaction.uid),
            |queue, message| queue.stage(transaction, part, Removed::Message(message)),
        )?;
        Ok(staged.max(message_after(self.floor)))
    }

    /// Takes the message back if it was staged, under the staged key `place`.
    pub(crate) fn unstage(&mut self, place: &Key) {
        if self.message.is_some() || self.error.is_some() {
            return;
        }
        #[cfg(test)]
        let place = &crate::bus::planted::Fault::StagedKeyStale.unless(*place);
        let back: Option<Removed<H>> = self.to().inbox.lock().queue.unstage(place);
        #[cfg(test)]
        let back = crate::bus::planted::Fault::ResendEmpty.unless(back);
        if let Some(Removed::Message(message)) = back {
            self.message = Some(message);
        }
    }

    /// Ends the message with an error, and gives back everything that it has.
    pub(crate) fn fail(&mut self, error: Error) {
        self.error = Some(error);
        self.discard();
    }

    /// Gives back everything that the message has. Nothing of that sleeps on user memory.
    fn discard(&mut self) {
        if let Some(mut message) = self.message.take() {
            // While the slice is still this message's.
            message.abandon_memory();
            message.discard(self.to());
        }
    }
}

impl<H: Host> Drop for Pending<'_, H> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Copies the payload into the first slice, and from there into the others: so all receivers get
/// the same bytes, whatever the sender's memory does meanwhile.
///
/// # Errors
///
/// EFAULT, ENOMEM; EINTR if the caller was killed.
pub(crate) fn fill_all<H: Host, P: Payload<H>>(
    all: &mut [Pending<'_, H>],
    payload: &mut P,
) -> Result {
    let mut kill_check = KillCheck::default();
    let steps = 1 + payload.len() / 4096;
    for pending in all.iter_mut() {
        kill_check.step::<H>(steps)?;
        pending.pin()?;
    }
    if payload.is_empty() {
        return Ok(());
    }
    let mut messages = all.iter().filter_map(|pending| pending.message.as_ref());
    let Some(first) = messages.next() else {
        return Ok(());
    };
    payload.copy_to(&first.pool, first.slice.offset)?;
    for message in messages {
        kill_check.step::<H>(steps)?;
        message.copy_payload(first);
    }
    Ok(())
}
