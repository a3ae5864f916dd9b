// SPDX-License-Identifier: GPL-2.0 OR MIT

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
//! `state` is guarded by the peer's inbox. The cargo does not change.

use kernel::prelude::*;
use kernel::sync::{Arc, LockedBy, UniqueArc};

use super::account::{only, Claimant, SLICES};
use super::handle::Handle;
use super::host::{Host, Installed, Payload, Pool};
use super::inbox::Inbox;
use super::message::{charges, Cargo, Files, Layout};
use super::peer::Peer;
use super::queue::{Body, Seat};
use super::recv::{check_end, complete, describe, gain, Receive};
use super::send::{Outgoing, Parcel};
use super::sort::sort;
use super::table::Import;
use super::user::SentFds;
use super::GFP_KEPT;
use crate::abi::{Msg, HANDLE_INVALID, MSG_DATA};

pub(super) struct State<H: Host> {
    /// Memory for the slice's entry, while the user does not have it.
    seat: Option<Seat<H>>,
    /// It is the peer's seed, and owns what seeds own.
    current: bool,
    /// Its descriptors and the charge for them, while it is current.
    files: Option<(Arc<Files<H>>, Option<SentFds>)>,
}

/// See the module.
pub(super) struct Seed<H: Host> {
    /// All but the files.
    cargo: Cargo<H>,
    n_fds: usize,
    /// The own nodes that it carries, by serial number, in order.
    own: KVVec<u64>,
    state: LockedBy<State<H>, Inbox<H>>,
}

impl<H: Host> Seed<H> {
    /// Whether it carries the node of this anchor.
    pub(super) fn pins(&self, anchor: &Handle<H>) -> bool {
        self.own.binary_search(&anchor.node.serial()).is_ok()
    }

    /// The user gave the slice back. True if that was the last that needed it.
    pub(super) fn released(&self, inbox: &mut Inbox<H>, seat: Seat<H>) -> bool {
        let state = self.state.access_mut(inbox);
        state.seat = Some(seat);
        if state.current {
            return false;
        }
        let slice = &self.cargo.slice;
        inbox.slices.free(slice.number);
        inbox.ledger.release(slice.claimant, &only(SLICES, 1));
        true
    }

    /// Where its slice is, for unpinning.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.cargo.slice.offset, self.cargo.slice.size)
    }

    fn layout(&self) -> Layout {
        Layout::new(self.cargo.n_bytes, self.cargo.handles.len(), self.n_fds)
    }
}

/// The serial numbers of the peer's own nodes among these.
fn own_nodes<H: Host>(handles: &[Arc<Handle<H>>]) -> Result<KVVec<u64>> {
    let mut own = KVVec::new();
    for handle in handles.iter().filter(|handle| handle.is_anchor()) {
        own.push(handle.node.serial(), GFP_KEPT)?;
    }
    sort(&mut own);
    Ok(own)
}

impl<H: Host> Peer<H> {
    /// Makes a message the peer's seed, in place of the one before.
    pub fn send_seed<P: Payload<H>>(this: &Arc<Self>, mut out: Outgoing<'_, H, P>) -> Result {
        let mut import = Import::new(this);
        let (handles, files) = out.find(&mut import)?;
        if out.partial || out.n_destinations != 0 {
            return Err(EINVAL);
        }
        let size = (out.payload.len(), handles.len());
        let mut parcel = Parcel::reserve(this, this, None, 0, size, files.as_ref())?;
        parcel.fill(&mut out.payload)?;
        parcel.link(&handles)?;
        let own = own_nodes(&handles)?;
        let memory = UniqueArc::<Seed<H>>::new_uninit(GFP_KEPT)?;

        let Some((mut cargo, seat)) = parcel.take() else {
            return Err(ESHUTDOWN);
        };
        let n_fds = cargo.n_fds();
        let sent_fds = cargo.sent_fds.take();
        let state = State {
            seat: Some(seat),
            current: true,
            files: cargo.files.take().map(|files| (files, sent_fds)),
        };
        let seed = Seed {
            cargo,
            n_fds,
            own,
            state: LockedBy::new(&this.inbox, state),
        };
        let seed: Arc<Seed<H>> = memory.write(seed).into();
        let mut inbox = this.inbox.lock();
        let open = inbox.open;
        let old = if open {
            inbox.seed.replace(seed)
        } else {
            Some(seed)
        };
        let pool = inbox.pool.clone();
        drop(inbox);
        if let Some(old) = old {
            this.drop_seed(&old, pool.as_ref());
        }
        if !open {
            return Err(ESHUTDOWN);
        }
        parcel.rise();
        import.finish();
        Ok(())
    }

    /// Drops the current seed.
    pub(super) fn clear_seed(&self) {
        let mut inbox = self.inbox.lock();
        let old = inbox.seed.take();
        let pool = inbox.pool.clone();
        drop(inbox);
        if let Some(old) = old {
            self.drop_seed(&old, pool.as_ref());
        }
    }

    /// Gives back what a seed owned, once. If the user does not have the slice, it is unpinned from
    /// `pool`.
    pub(super) fn drop_seed(&self, seed: &Arc<Seed<H>>, pool: Option<&H::Pool>) {
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        let state = seed.state.access_mut(inbox);
        if !core::mem::take(&mut state.current) {
            return;
        }
        let with_user = state.seat.is_none();
        let files = state.files.take();
        if inbox.open {
            let cargo = &seed.cargo;
            let mut back = charges(cargo.n_bytes, cargo.handles.len(), seed.n_fds);
            if with_user {
                back[SLICES] = 0;
            } else {
                inbox.slices.free(cargo.slice.number);
            }
            inbox.ledger.release(cargo.slice.claimant, &back);
        }
        drop(guard);
        drop(files);
        if let Some(pool) = pool.filter(|_| !with_user) {
            let (offset, size) = seed.range();
            pool.unpin(offset, size);
        }
        for handle in seed.cargo.handles.iter().flatten() {
            handle.unlink(1, false);
        }
    }

    /// Receives the seed, which stays. EAGAIN if there is none; EDQUOT if handles that it brings
    /// back are too many; else as [`Peer::recv`].
    pub fn recv_seed<R: Receive<H>>(this: &Arc<Self>, receiver: &mut R) -> Result {
        loop {
            let inbox = this.inbox.lock();
            inbox.check_open()?;
            let seed = inbox.seed.clone().ok_or(EAGAIN)?;
            let files = seed.state.access(&inbox).files.as_ref();
            let files = files.map(|(files, _)| files.clone());
            drop(inbox);

            let cargo = &seed.cargo;
            let mut msg = Msg {
                kind: MSG_DATA,
                destination: HANDLE_INVALID,
                ..Msg::default()
            };
            let files = describe(cargo, files.as_ref(), receiver.wants_files(), &mut msg);
            check_end(seed.layout(), msg.offset, receiver.max_offset())?;
            let mut gains = Gains::new(this, cargo)?;
            receiver.result(&msg)?;
            let installed = match files {
                Some(files) => receiver.install(&files)?,
                None => None,
            };
            let numbers = installed.as_ref().map_or(&[][..], |i| i.numbers());
            if this.take_seed(&seed, &mut gains, numbers) {
                if let Some(installed) = installed {
                    installed.keep();
                }
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
        let (cargo, layout) = (&seed.cargo, seed.layout());
        let pool = inbox.pool.clone();
        // The seed is ordered after everything that was received, so only what died since counts.
        let now = inbox.queue.clock + 1;
        for (i, slot) in gains.slots.iter_mut().enumerate() {
            let mut kept = 0;
            let id = gain(&mut table, inbox, now, slot, gains.claimant, &mut kept);
            gains.charged -= kept as usize;
            if let Some(pool) = &pool {
                let offset = cargo.slice.offset + layout.handles + 8 * i as u64;
                pool.write(offset, &id.to_ne_bytes());
            }
        }
        if let Some(pool) = &pool {
            complete(pool, &cargo.slice, layout, fds);
        }
        // None if the user still has it from the time before.
        if let Some(seat) = seed.state.access_mut(inbox).seat.take() {
            inbox.publish(cargo.slice.offset, Body::Seed(seed.clone()), seat);
        }
        drop(guard);
        drop(table);
        true
    }
}

/// A reference and a charge for each handle of a seed that is about to be received. What is left of
/// them is given back when this is dropped.
struct Gains<'p, H: Host> {
    peer: &'p Arc<Peer<H>>,
    claimant: Claimant,
    slots: KVVec<Option<Arc<Handle<H>>>>,
    charged: usize,
}

impl<'p, H: Host> Gains<'p, H> {
    fn new(peer: &'p Arc<Peer<H>>, cargo: &Cargo<H>) -> Result<Self> {
        let n = cargo.handles.len();
        let mut gains = Self {
            peer,
            claimant: peer.claimant(),
            slots: KVVec::with_capacity(n, GFP_KERNEL)?,
            charged: 0,
        };
        if n == 0 {
            return Ok(gains);
        }
        peer.charge_handles(gains.claimant, n)?;
        gains.charged = n;
        for handle in cargo.handles.iter() {
            // They rose when the seed was made, which holds them.
            let linked = match handle {
                Some(handle) => Handle::link(&handle.node, peer)?.map(|linked| linked.0),
                None => None,
            };
            gains.slots.push(linked, GFP_KERNEL)?;
        }
        Ok(gains)
    }
}

impl<H: Host> Drop for Gains<'_, H> {
    fn drop(&mut self) {
        let mut inbox = self.peer.inbox.lock();
        inbox.discharge_handles(self.claimant, self.charged);
        drop(inbox);
        for handle in self.slots.iter().flatten() {
            handle.unlink(1, false);
        }
    }
}
