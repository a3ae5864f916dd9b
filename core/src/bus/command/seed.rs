// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! SEND and RECV of a seed.
//!
//! A receipt stands for itself: the seed is copied into a message of its own, which is charged to
//! the peer itself, and given to the user as any other. So a service can be restarted on a
//! kept descriptor again and again, whatever its predecessors released.
//!
//! # Locks
//!
//! Table and inbox of the peer.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::command::pending::Pending;
use crate::bus::command::recv::{hand_over, Description};
use crate::bus::command::{Caller, Outgoing, Receiver};
use crate::bus::host::{Host, KillCheck, Payload};
use crate::bus::object::{charges, check, ensure, Peer, Resolver, Seed};
use crate::bus::quota::FDS;
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
        let seed = Seed::new(this, &mut pending.message)?;
        this.replace_seed(Some(seed))?;
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
        drop(seed);
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
            let seed = current.ok_or(EAGAIN)?;

            let mut copy = copy_of(this, &seed)?;
            let slice = copy.message.as_ref().ok_or(ESHUTDOWN)?.slice;
            let mut told = Description::of_message(&seed.message, receiver.wants_files);
            told.msg.offset = slice.offset;
            ensure(slice.end() <= receiver.max_offset, ERANGE)?;
            let take = |fds: &[i32]| this.take_copy(&seed, &mut copy, fds);
            if hand_over(receiver, &told.msg, told.files, take)? {
                return Ok(());
            }
        }
    }

    /// Makes a copy of a seed the user's if `seed` still is the current one; false if not.
    fn take_copy(&self, seed: &Arc<Seed<H>>, copy: &mut Pending<'_, H>, fds: &[i32]) -> bool {
        let inbox = self.inbox.lock();
        match &inbox.seed {
            Some(current) if Arc::ptr_eq(current, seed) => (),
            _ => return false,
        }
        // The seed is ordered after everything that was received, so only nodes that died since
        // count.
        let now = inbox.queue.clock() + 1;
        drop(inbox);
        if let Some(message) = copy.message.take() {
            self.deliver_handles(message, now, fds);
        }
        true
    }
}

/// Makes a message of a seed: with a slice and references of its own, and room for descriptors. The
/// files stay with the seed.
///
/// # Errors
///
/// EDQUOT, EXFULL, ENOMEM, ESHUTDOWN; EINTR if the caller was killed.
fn copy_of<'p, H: Host>(peer: &'p Arc<Peer<H>>, seed: &Seed<H>) -> Result<Pending<'p, H>> {
    let original = &seed.message;
    let size = original.size();
    let mut charges = charges(&size);
    charges[FDS] = 0;
    let mut copy = Pending::new(peer, None);
    let message = copy.book(&size, &charges)?;
    message.reserve_slots(size.n_handles)?;
    copy.pin()?;
    if let Some(message) = copy.message.as_ref().filter(|_| size.n_bytes != 0) {
        message.copy_payload(original);
    }
    // The copy's references need no confirmation: those of the seed are confirmed.
    copy.link(&original.handles, &mut KillCheck::default())?;
    Ok(copy)
}
