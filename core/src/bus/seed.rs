// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Seeds: a message that a peer keeps for whoever takes it over.
//!
//! # Invariants
//!
//! - A seed owns its cargo, charges included, until it is replaced or dropped, however often it is
//!   received. Each receipt adds references of its own.
//! - Its slice lives while the seed is the current one or the user has the slice.
//!
//! # Locks
//!
//! A seed does not change. Which one is current lies in the peer's inbox.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::{Arc, UniqueArc};

use super::account::SLICES;
use super::handle::Handle;
use super::host::{Caller, Host, Payload, Pool};
use super::inbox::Inbox;
use super::message::{Cargo, Message};
use super::peer::{check, Peer};
use super::recv::{complete, describe, gain, hand_over, Receiver};
use super::send::{Outgoing, Parcel};
use super::table::{Gains, Import};
use super::GFP_KEPT;
use crate::abi::{Msg, HANDLE_INVALID, MSG_DATA};
use crate::errno::ESHUTDOWN;

/// See the module.
pub(super) struct Seed<H: Host> {
    pub(super) cargo: Cargo<H>,
    /// The own nodes that it carries, by serial number.
    own: RBTree<u64, ()>,
}

impl<H: Host> Seed<H> {
    /// Whether it carries the node of this anchor.
    pub(super) fn pins(&self, anchor: &Handle<H>) -> bool {
        self.own.get(&anchor.node.serial).is_some()
    }
}

/// The serial numbers of the peer's own nodes among these.
fn own_nodes<H: Host>(handles: &[Arc<Handle<H>>]) -> Result<RBTree<u64, ()>> {
    let mut own = RBTree::new();
    for handle in handles.iter().filter(|handle| handle.is_anchor()) {
        own.try_create_and_insert(handle.node.serial, (), GFP_KEPT)?;
    }
    Ok(own)
}

impl<H: Host> Inbox<H> {
    /// Puts a seed, or none, in place of the current one. That one's charges end in this very step:
    /// from now on its slice, if the user has it, is like any other. Returns it, and whether nobody
    /// needs its slice any more.
    pub(super) fn swap_seed(&mut self, seed: Option<Arc<Seed<H>>>) -> Option<(Arc<Seed<H>>, bool)> {
        let old = core::mem::replace(&mut self.seed, seed)?;
        let slice = &old.cargo.slice;
        let with_user = self.slices.is_given(slice.number);
        let mut back = old.cargo.charges();
        if with_user {
            back[SLICES] = 0;
        } else {
            self.slices.free(slice.number);
        }
        self.ledger.release(slice.payer, &back);
        Some((old, !with_user))
    }
}

impl<H: Host> Peer<H> {
    /// Makes a message the peer's seed, in place of the one before.
    /// EINVAL, after handles and files, if it is to go anywhere else: `alone` is false, or it is partial.
    pub fn send_seed<P: Payload<H>>(
        this: &Arc<Self>,
        mut out: Outgoing<'_, H, P>,
        alone: bool,
    ) -> Result {
        let mut import = Import::new(this);
        let (handles, files) = out.find(&mut import)?;
        if out.partial || !alone {
            return Err(EINVAL);
        }
        let size = (out.payload.len(), handles.len());
        let mut parcel = Parcel::new(this, None);
        parcel.reserve(size, files.as_ref(), false)?;
        parcel.pin()?;
        parcel.fill(&mut out.payload)?;
        parcel.link(&handles)?;
        let own = own_nodes(&handles)?;
        let memory = UniqueArc::<Seed<H>>::new_uninit(GFP_KEPT)?;

        let message = parcel.take().ok_or(ESHUTDOWN)?;
        let Message { cargo, pool, .. } = KBox::into_inner(message);
        this.put_seed(Some(memory.write(Seed { cargo, own }).into()), pool)?;
        parcel.rise();
        import.finish();
        Ok(())
    }

    /// Puts a seed, pinned in `pool`, or none, in place of the current one. ESHUTDOWN.
    pub(super) fn put_seed(&self, seed: Option<Arc<Seed<H>>>, pool: Option<H::Pool>) -> Result {
        let mut inbox = self.inbox.lock();
        let open = check(inbox.open);
        let old = match open {
            Ok(()) => inbox.swap_seed(seed),
            // The disconnect gave back what the seed was charged, and did not know of its memory.
            Err(_) => seed.map(|seed| (seed, true)),
        };
        let pool = inbox.pool.clone().or(pool);
        drop(inbox);
        self.bury_seed(old, pool.as_ref());
        open
    }

    /// Ends what [`Inbox::swap_seed`] returned.
    pub(super) fn bury_seed(&self, old: Option<(Arc<Seed<H>>, bool)>, pool: Option<&H::Pool>) {
        let Some((seed, unpin)) = old else { return };
        let cargo = &seed.cargo;
        if let Some(pool) = pool.filter(|_| unpin) {
            pool.unpin(cargo.slice.offset, cargo.slice.size);
        }
        for handle in cargo.handles.iter().flatten() {
            handle.unlink(1, false);
        }
    }

    /// Receives the seed, which stays. EAGAIN if there is none; EDQUOT if handles that it brings
    /// back are too many; else as [`Peer::recv`].
    pub fn recv_seed<C: Caller<H>>(this: &Arc<Self>, receiver: &Receiver<'_, C>) -> Result {
        loop {
            let inbox = this.inbox.lock();
            check(inbox.open)?;
            let seed = inbox.seed.clone().ok_or(EAGAIN)?;
            drop(inbox);

            let cargo = &seed.cargo;
            let mut msg = Msg {
                kind: MSG_DATA,
                destination: HANDLE_INVALID,
                ..Msg::default()
            };
            let files = describe(cargo, receiver.wants_files, &mut msg);
            if cargo.slice.end() > receiver.max_offset {
                return Err(ERANGE);
            }
            let mut gains = Gains::new(this, this.claimant(), cargo.handles.len())?;
            for handle in cargo.handles.iter() {
                // They rose when the seed was made, which holds them.
                let linked = handle
                    .as_ref()
                    .map(|handle| Handle::link(&handle.node, this));
                let linked = linked.transpose()?.flatten();
                gains
                    .slots
                    .push(linked.map(|linked| linked.0), GFP_KERNEL)?;
            }
            if hand_over(receiver, &msg, files, |fds| {
                this.take_seed(&seed, &mut gains, fds)
            })? {
                return Ok(());
            }
        }
    }

    /// Hands the seed to the user if it still is the current one; false if not.
    fn take_seed(&self, seed: &Arc<Seed<H>>, gains: &mut Gains<'_, H>, fds: &[i32]) -> bool {
        let mut table = self.table.lock();
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        if !inbox
            .seed
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, seed))
        {
            return false;
        }
        let (cargo, layout) = (&seed.cargo, seed.cargo.layout());
        // The seed is ordered after everything that was received, so only what died since counts.
        let now = inbox.queue.clock + 1;
        if let Some(pool) = inbox.pool.take() {
            let (slots, payer) = (&mut gains.slots, gains.claimant.peer);
            let kept = complete(&cargo.slice, layout, slots, &pool, fds, |slot| {
                gain(&mut table, inbox, now, slot, payer)
            });
            gains.charged -= kept as usize;
            inbox.pool = Some(pool);
        }
        // The user may still have it from the time before.
        if !inbox.slices.is_given(seed.cargo.slice.number) {
            inbox.slices.give(&cargo.slice);
        }
        true
    }
}
