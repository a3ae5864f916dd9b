// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! SEND and RECV of a seed.
//!
//! A receipt stands for itself: the payload is copied into a slice of its own, which is charged to
//! the peer itself, and handles and descriptors are given anew. So a service can be restarted on a
//! kept descriptor again and again, whatever its predecessors released.
//!
//! # Locks
//!
//! Table and inbox of the peer.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_CALL;
use crate::bus::command::deliver::Receipt;
use crate::bus::command::pending::Pending;
use crate::bus::command::pending_handles::PendingHandles;
use crate::bus::command::recv::{hand_over, Description};
use crate::bus::command::{Caller, Outgoing, Receiver};
use crate::bus::host::{Host, KillCheck, Payload};
use crate::bus::object::{
    charges, check, ensure, Handle, Peer, Resolver, Seed, SeedRef, SeedReservation,
};
use crate::bus::pool::Slice;
use crate::bus::quota::{FDS, HANDLES};
use crate::errno::ESHUTDOWN;

impl<H: Host> Peer<H> {
    /// Makes a message the peer's seed, in place of the one before.
    ///
    /// # Errors
    ///
    /// EINVAL, after handles and files, if it has other destinations (`alone` is false) or is
    /// partial. Others as [`Peer::send`] to a node of one's own.
    pub fn send_seed<P: Payload<H>>(
        this: &Arc<Self>,
        mut out: Outgoing<'_, H, P>,
        alone: bool,
    ) -> Result {
        let mut resolver = Resolver::new(this);
        let resolved = out.resolve(&mut resolver)?;
        ensure(alone && !out.partial, EINVAL)?;
        let mut pending = Pending::new(this, None);
        let reserved = pending.reserve(&resolved, false);
        reserved.map_err(|error| pending.refused(&resolved.size, error))?;
        pending.pin()?;
        pending.fill(&mut out.payload)?;
        pending.link(&resolved.handles, &mut KillCheck::default())?;
        let reservation = SeedReservation::new(&resolved.handles)?;

        let message = pending.message.take().ok_or(ESHUTDOWN)?;
        this.replace_seed(Some(reservation.into_seed(message)))?;
        pending.confirm();
        resolver.finish();
        Ok(())
    }

    /// Puts a seed, or none, in place of the current one.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN.
    pub(crate) fn replace_seed(&self, mut seed: Option<Arc<Seed<H>>>) -> Result {
        let mut inbox = self.inbox.lock();
        let open = check(inbox.open);
        if open.is_ok() {
            core::mem::swap(&mut inbox.seed, &mut seed);
        }
        drop(inbox);
        drop(SeedRef::new(self, seed));
        open
    }

    /// Receives the seed, which stays.
    ///
    /// # Errors
    ///
    /// EAGAIN if there is none; EDQUOT, EXFULL if the receipt is too much for the peer itself;
    /// others as [`Peer::recv`].
    pub fn recv_seed<C: Caller<H>>(this: &Arc<Self>, receiver: &Receiver<'_, C>) -> Result {
        loop {
            let inbox = this.inbox.lock();
            check(inbox.open)?;
            let current = inbox.seed.clone();
            drop(inbox);
            let current = SeedRef::new(this, current);
            let seed = current.get().ok_or(EAGAIN)?;

            let mut handles = link_again(this, seed)?;
            let mut receipt = copy_payload(this, seed)?;
            let slice = receipt.slice().ok_or(ESHUTDOWN)?;
            let mut told = Description::of_message(&seed.message, receiver.wants_files);
            told.msg.offset = slice.offset;
            ensure(slice.end() <= receiver.max_offset, ERANGE)?;
            let give = |fds: &[i32]| this.give_receipt(seed, &slice, &mut handles, fds);
            if hand_over(receiver, &told.msg, told.files, give)? {
                // The slice is the user's.
                drop(receipt.message.take());
                return Ok(());
            }
        }
    }

    /// Makes a receipt the user's if `seed` still is the current one; false if not.
    fn give_receipt(
        &self,
        seed: &Arc<Seed<H>>,
        slice: &Slice,
        handles: &mut PendingHandles<'_, H>,
        fds: &[i32],
    ) -> bool {
        let inbox = self.inbox.lock();
        match &inbox.seed {
            Some(current) if Arc::ptr_eq(current, seed) => (),
            _ => return false,
        }
        // The seed is ordered after everything that was received, so only nodes that died since
        // count.
        let now = inbox.queue.clock() + 1;
        drop(inbox);
        let message = &seed.message;
        let PendingHandles {
            slots, n_charged, ..
        } = handles;
        let receipt = Receipt {
            slice,
            layout: message.size().layout(),
            slots,
            pool: Some(&message.pool),
            timestamp: now,
            fds,
        };
        self.give(receipt, |_, kept| *n_charged -= kept as usize)
    }
}

/// Links the handles of a seed once more.
///
/// # Errors
///
/// EDQUOT, ENOMEM, ESHUTDOWN; EINTR if the caller was killed.
fn link_again<'p, H: Host>(
    peer: &'p Arc<Peer<H>>,
    seed: &Seed<H>,
) -> Result<PendingHandles<'p, H>> {
    let from = &seed.message.handles;
    let mut handles = PendingHandles::new(peer, peer.claimant(), from.len())?;
    let mut kill_check = KillCheck::default();
    for handle in from.iter() {
        kill_check.step::<H>(1)?;
        // The references were confirmed when the seed was made, which holds them.
        let linked = match handle {
            Some(handle) => Handle::link(&handle.node, peer)?,
            None => None,
        };
        let slot = linked.map(|linked| linked.handle);
        handles.slots.push(slot, GFP_CALL)?;
    }
    Ok(handles)
}

/// Copies the payload of a seed into a slice of its own, which has room for handles and
/// descriptors.
///
/// # Errors
///
/// EDQUOT, EXFULL, ENOMEM, ESHUTDOWN.
fn copy_payload<'p, H: Host>(peer: &'p Arc<Peer<H>>, seed: &Seed<H>) -> Result<Pending<'p, H>> {
    let size = seed.message.size();
    let mut charges = charges(&size);
    // Handles are charged one by one as they are linked, and files stay with the seed.
    (charges[HANDLES], charges[FDS]) = (0, 0);
    let mut copy = Pending::new(peer, None);
    copy.book(&size, &charges)?;
    copy.pin()?;
    if let Some(message) = copy.message.as_ref().filter(|_| size.n_bytes != 0) {
        message.copy_payload(&seed.message);
    }
    Ok(copy)
}
