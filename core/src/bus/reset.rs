// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Disconnect and reset: a peer lets go of what it has.
//!
//! # Locks
//!
//! Table, and table with inbox, for one handle or one list at a time; no two peers' together.

use kernel::prelude::*;

use super::account::RESOURCES;
use super::destroy::{Also, Doomed, Remains};
use super::host::Host;
use super::peer::{check, Peer};
use super::queue::{take_first, Tree};
use super::release::strip;
use super::seed::Seed;

/// What a reset does beside setting limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// Destroy the nodes that the seed does not pin, release handles and slices, drop the queue.
    pub all: bool,
    /// Drop the seed, before anything else.
    pub seed: bool,
}

impl<H: Host> Peer<H> {
    /// Leaves the bus: destroys all nodes at one point of the order and releases everything. The
    /// first call returns Ok, all others ESHUTDOWN.
    pub fn disconnect(&self) -> Result {
        let doomed = self.unroot(None, true)?;
        let remains = self.execute(&doomed, &self.last_transaction, Also::Close);
        self.wake();
        self.release_all();
        if let Some(remains) = remains {
            self.bury_remains(remains);
        }
        self.bus.leave(self);
        Ok(())
    }

    /// Sets the limits that are given, then flushes. ESHUTDOWN, ENOMEM.
    pub fn reset(&self, limits: [Option<u32>; RESOURCES], flush: Flush) -> Result {
        // The only thing that can fail comes first.
        let transaction = self.transaction()?;
        let mut inbox = self.inbox.lock();
        check(inbox.open)?;
        for (resource, limit) in limits.into_iter().enumerate() {
            if let Some(limit) = limit {
                inbox.ledger.set_limit(resource, limit);
            }
        }
        drop(inbox);
        if flush.seed {
            self.put_seed(None)?;
        }
        if !flush.all {
            return Ok(());
        }
        let seed = self.inbox.lock().seed.clone();
        let doomed = self.unroot(seed.as_deref(), false)?;
        self.execute(&doomed, &transaction, Also::Nothing);
        // In this order: a handle that is received in between is released after.
        self.flush_queue();
        self.release_all();
        Ok(())
    }

    /// Takes the peer's nodes out of its table, but for those that `seed` pins. Returns those that are
    /// to be destroyed: the others are in other hands already.
    fn unroot(&self, seed: Option<&Seed<H>>, close: bool) -> Result<Doomed<H>> {
        let mut guard = self.table.lock();
        check(guard.open)?;
        guard.open = !close;
        drop(guard);
        let mut doomed = Doomed::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let mut guard = self.table.lock();
            let table = &mut *guard;
            let Some((id, handle)) = table.at_or_after(from) else {
                break;
            };
            next = id.checked_add(1);
            if handle.is_anchor() && !seed.is_some_and(|seed| seed.pins(&handle)) {
                strip(table, &mut self.inbox.lock(), &handle);
                // The memory of its entry in the table is the memory of its entry here: nobody
                // will put this handle back into the table.
                if let Some(slot) = handle.local.access_mut(table).slot.take() {
                    doomed.insert(slot.into_node(id, handle));
                }
            }
        }
        let mut others = Doomed::new();
        self.inbox.lock().condemn_able(&mut doomed, &mut others);
        Ok(doomed)
    }

    /// Releases all handles, but for the pins of nodes that live: the seed carries them, or they
    /// were made since.
    fn release_all(&self) {
        let mut next = Some(0);
        while let Some(from) = next {
            let mut guard = self.table.lock();
            let table = &mut *guard;
            let Some((id, handle)) = table.at_or_after(from) else {
                break;
            };
            next = id.checked_add(1);
            let (refs, pin) = if handle.is_anchor() && handle.node.dead() == 0 {
                let refs = &mut handle.local.access_mut(table).refs;
                (core::mem::replace(refs, 1) - 1, false)
            } else {
                strip(table, &mut self.inbox.lock(), &handle)
            };
            drop(guard);
            if refs != 0 {
                handle.unlink(refs, pin);
            }
        }
    }

    /// Drops what was committed to the queue, and the slices that the user has.
    fn flush_queue(&self) {
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        let mut queued = inbox.queue.drain_committed();
        for entry in queued.values().flatten() {
            inbox.spend(entry);
        }
        let pool = inbox.pool.clone();
        drop(guard);
        self.bury_entries(&mut queued, pool.as_ref());
        self.release_slices();
    }

    fn bury_remains(&self, remains: Remains<H>) {
        let Remains {
            mut committed,
            mut staged,
            seed,
            pool,
            ..
        } = remains;
        // What the user was given stays pinned: it can be read as long as it is mapped. Nothing else
        // keeps memory but references of those who still copy into the pool.
        self.bury_entries(&mut committed, pool.as_ref());
        self.bury_entries(&mut staged, pool.as_ref());
        self.bury_seed(seed, pool.as_ref());
    }

    pub(super) fn bury_entries(&self, entries: &mut Tree<H>, pool: Option<&H::Pool>) {
        while let Some((entry, seat)) = take_first(entries) {
            self.drop_entry(entry, seat, pool);
        }
    }
}
