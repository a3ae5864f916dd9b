// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! HANDLE_TRANSFER: gives a handle to another peer without a message.
//!
//! 1. the node is linked for the destination, whose handle says by which ID it knows the node;
//! 2. the ID is promised: the one that the destination knows the node by, or a new one;
//! 3. the promise is written to the caller;
//! 4. the reference becomes the user's, if the destination knows the node as it did in 2; where
//!    another thread changed that meanwhile, all of it is done again.
//!
//! # Locks
//!
//! The caller's table, the node's owner's inbox, the destination's table and inbox: one peer's at a
//! time.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::HANDLE_INVALID;
use crate::bus::allocation::GFP_CALL;
use crate::bus::command::pending_handles::PendingHandles;
use crate::bus::host::Host;
use crate::bus::object::{check, Gained, Handle, Peer, Resolver};

/// The ID that the destination will know a handle by.
#[derive(Clone, Copy)]
struct Promise {
    id: u64,
    /// The ID that the destination knows the handle by already, INVALID if it is not in its table.
    known: u64,
}

/// The outcome of a promise.
enum Kept {
    Given(Gained),
    /// The node died before.
    Dead,
    /// The destination knows the node by another ID now.
    Stale,
}

impl<H: Host> Peer<H> {
    /// Gives `to` a user reference on the node of handle `id`. `write` gets the ID that `to` knows
    /// it by, INVALID if the node is dead; it may be called again if that changes, and its error
    /// undoes all.
    ///
    /// # Errors
    ///
    /// ENXIO, ESHUTDOWN, EDQUOT, ENOMEM.
    pub fn transfer_handle(
        this: &Arc<Self>,
        id: u64,
        to: &Arc<Peer<H>>,
        write: &mut dyn FnMut(u64) -> Result,
    ) -> Result {
        let mut resolver = Resolver::new(this);
        let source = resolver.find(id)?;
        while !Self::try_transfer(this, &source, to, write)? {}
        resolver.finish();
        Ok(())
    }

    /// Carries out the numbered steps of the file header. False if they are to be done again.
    fn try_transfer(
        this: &Arc<Self>,
        source: &Handle<H>,
        to: &Arc<Peer<H>>,
        write: &mut dyn FnMut(u64) -> Result,
    ) -> Result<bool> {
        // 1
        let mut pending = PendingHandles::new(to, this.claimant(), 0)?;
        let Some(linked) = Handle::link(&source.node, to)? else {
            write(HANDLE_INVALID)?;
            return Ok(true);
        };
        let slot = Some(linked.handle.clone());
        pending.slots.push(slot, GFP_CALL)?;
        // 2
        let promise = to.promise_id(&linked.handle)?;
        if promise.known == HANDLE_INVALID {
            pending.charge(1)?;
        }
        // 3
        write(promise.id)?;
        // 4
        match to.keep_promise(&linked.handle, promise, this.id())? {
            Kept::Stale => return Ok(false),
            Kept::Dead => write(HANDLE_INVALID)?,
            Kept::Given(gained) => {
                pending.n_charged -= usize::from(gained.keeps_charge);
                pending.slots = KVVec::new();
                linked.confirm();
            }
        }
        Ok(true)
    }

    /// Returns the ID of a handle of this peer, or chooses one for it. A chosen one is used up in
    /// any case.
    fn promise_id(&self, handle: &Handle<H>) -> Result<Promise> {
        let mut table = self.table.lock();
        check(table.open)?;
        let known = handle.local.access(&table).id;
        let id = match known {
            HANDLE_INVALID => table.choose_id(handle),
            known => known,
        };
        Ok(Promise { id, known })
    }

    /// Makes the reference this peer's, by the ID that was promised.
    fn keep_promise(&self, handle: &Arc<Handle<H>>, promise: Promise, payer: u64) -> Result<Kept> {
        let mut table = self.table.lock();
        check(table.open)?;
        if handle.local.access(&table).id != promise.known {
            return Ok(Kept::Stale);
        }
        let mut inbox = self.inbox.lock();
        // If it is dead, the peer may have been notified of other nodes of that destruction
        // already, without the promise that more follows.
        if promise.known == HANDLE_INVALID && handle.node.is_dead() {
            return Ok(Kept::Dead);
        }
        let gained = table.gain(&mut inbox, handle, payer, Some(promise.id));
        Ok(gained.map_or(Kept::Dead, Kept::Given))
    }
}
