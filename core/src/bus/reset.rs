// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Disconnect and reset: a peer lets go of what it has.
//!
//! # Locks
//!
//! Table, and table with inbox, for one handle or one list at a time; no two peers' together.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::RESOURCES;
use super::destroy::{Also, Doomed, Remains};
use super::handle::Handle;
use super::host::Host;
use super::peer::{check, Peer};
use super::queue::take_first;
use super::release::strip;
use super::seed::Seed;
use super::table::Table;

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
            self.put_seed(None, None)?;
        }
        if !flush.all {
            return Ok(());
        }
        let seed = self.inbox.lock().seed.clone();
        let doomed = self.unroot(seed.as_deref(), false)?;
        self.execute(&doomed, &transaction, Also::Nothing);
        // In this order: a handle that is received in between is released after.
        let until = self.inbox.lock().queue.clock;
        self.purge(until);
        self.release_slices();
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
        self.each_handle(|table, handle| {
            if handle.is_anchor() && !seed.is_some_and(|seed| seed.pins(handle)) {
                let id = handle.local.access(table).id;
                strip(table, &mut self.inbox.lock(), handle);
                // The memory of its entry in the table is the memory of its entry here: nobody
                // will put this handle back into the table.
                if let Some(slot) = handle.local.access_mut(table).slot.take() {
                    doomed.insert(slot.into_node(id, handle.clone()));
                }
            }
            (0, false)
        });
        let mut others = Doomed::new();
        self.inbox.lock().condemn_able(&mut doomed, &mut others);
        Ok(doomed)
    }

    /// Releases all handles, but for the pins of nodes that live: the seed carries them, or they
    /// were made since.
    fn release_all(&self) {
        self.each_handle(|table, handle| {
            if handle.is_anchor() && handle.node.dead() == 0 {
                let refs = &mut handle.local.access_mut(table).refs;
                return (core::mem::replace(refs, 1) - 1, false);
            }
            strip(table, &mut self.inbox.lock(), handle)
        });
    }

    /// Shows `take` each handle of the table, locked anew for each. What it returns is unlinked: how
    /// many references, and whether one of them was the pin.
    fn each_handle(&self, mut take: impl FnMut(&mut Table<H>, &Arc<Handle<H>>) -> (u64, bool)) {
        let mut next = Some(0);
        while let Some(from) = next {
            let mut table = self.table.lock();
            let Some(here) = table.by_id.cursor_lower_bound(&from) else {
                break;
            };
            let (id, handle) = (*here.current().0, here.current().1.clone());
            next = id.checked_add(1);
            let (refs, pin) = take(&mut table, &handle);
            drop(table);
            if refs != 0 {
                handle.unlink(refs, pin);
            }
        }
    }

    fn bury_remains(&self, remains: Remains<H>) {
        let Remains {
            mut list,
            others,
            seed,
            pool,
            ..
        } = remains;
        // What the user was given stays pinned: it can be read as long as it is mapped. Nothing else
        // keeps memory but references of those who still copy into the pool.
        while let Some(body) = list.pop() {
            self.drop_taken((body, None));
        }
        for mut tree in others {
            while let Some(taken) = take_first(&mut tree) {
                self.drop_taken(taken);
            }
        }
        self.bury_seed(seed, pool.as_ref());
    }
}
