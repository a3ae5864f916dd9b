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
use crate::bus::host::Host;
use crate::bus::object::{check, Detached, Handle, Peer, Resolver};
use crate::bus::quota::Claimant;

/// The ID that the destination will know a handle by.
#[derive(Clone, Copy)]
struct Promise {
    id: u64,
    /// The ID that the destination knows the handle by already, INVALID if it is not in its table.
    known: u64,
}

/// The outcome of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Given,
    /// The node died before.
    Dead,
    /// The destination knows the node by another ID now, or uses the promised ID for another node.
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
        let Some(linked) = Handle::link(&source.node, to)? else {
            write(HANDLE_INVALID)?;
            return Ok(true);
        };
        let given = to.accept(&linked.handle, this.claimant(), write);
        if given == Ok(Kept::Given) {
            linked.confirm();
        } else {
            linked.handle.unlink(Detached::ONE);
        }
        match given? {
            Kept::Given => (),
            Kept::Dead => write(HANDLE_INVALID)?,
            Kept::Stale => return Ok(false),
        }
        Ok(true)
    }

    /// Carries out steps 2 to 4 for the destination. The charge for a handle that is new there stays
    /// with it.
    fn accept(
        &self,
        handle: &Arc<Handle<H>>,
        claimant: Claimant,
        write: &mut dyn FnMut(u64) -> Result,
    ) -> Result<Kept> {
        // 2
        let promise = self.promise_id(handle)?;
        let is_new = promise.known == HANDLE_INVALID;
        if is_new {
            self.charge_handle(claimant)?;
        }
        // 3 and 4
        let kept =
            write(promise.id).and_then(|()| self.keep_promise(handle, promise, claimant.peer));
        if is_new && kept != Ok(Kept::Given) {
            self.discharge_handles(claimant.peer, 1);
        }
        kept
    }

    /// Returns the ID of a handle of this peer, or chooses one for it. A chosen one is used up in
    /// any case.
    fn promise_id(&self, handle: &Handle<H>) -> Result<Promise> {
        let mut table = self.table.lock();
        check(table.open)?;
        let known = handle.notice.access(&self.inbox.lock()).id;
        let id = match known {
            HANDLE_INVALID => table.choose_id(handle),
            known => known,
        };
        Ok(Promise { id, known })
    }

    /// Makes the reference this peer's, by the ID that was promised. Stale if the peer knows the
    /// handle by another ID now, or uses the promised ID for another one.
    fn keep_promise(&self, handle: &Arc<Handle<H>>, promise: Promise, payer: u64) -> Result<Kept> {
        let mut table = self.table.lock();
        check(table.open)?;
        let mut inbox = self.inbox.lock();
        let known = handle.notice.access(&inbox).id;
        let is_taken = known == HANDLE_INVALID && table.by_id.get(&promise.id).is_some();
        if known != promise.known || is_taken {
            return Ok(Kept::Stale);
        }
        // If it is dead, the peer may have been notified of other nodes of that destruction
        // already, without the promise that more follows.
        if promise.known == HANDLE_INVALID && handle.node.is_dead() {
            return Ok(Kept::Dead);
        }
        let gained = table.gain(&mut inbox, handle, payer, Some(promise.id));
        Ok(gained.map_or(Kept::Dead, |_| Kept::Given))
    }
}
