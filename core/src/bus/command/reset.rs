// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! PEER_RESET and disconnect. A reset sets limits, and may destroy the peer's nodes, release its
//! handles and slices, and drop its queue and seed; a disconnect does all of that for good.
//!
//! # Locks
//!
//! Table, and table with inbox, for one handle or one list at a time; no two peers' together.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::command::destroy::Also;
use crate::bus::host::{Host, Pool};
use crate::bus::object::{check, Detached, Doomed, Handle, Peer, Remains, Seed, Table};
use crate::bus::quota::{KeptCharges, Level, BYTES, NOTHING, RESOURCES, SLICES};

/// The work of a reset beside setting limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// Destroy the nodes that the seed does not pin, release handles and slices, empty the queue.
    pub all: bool,
    /// Drop the seed, before all other steps.
    pub seed: bool,
}

impl<H: Host> Peer<H> {
    /// Leaves the bus: destroys all nodes at one point of the order and releases everything.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN for all calls except the first.
    pub fn disconnect(&self) -> Result {
        self.close_table()?;
        let doomed = self.detach_nodes(None);
        #[cfg(test)]
        let doomed = crate::bus::planted::Fault::DisconnectSilent.unless(doomed);
        let permit = self.permit();
        let remains = self.execute(&doomed, Also::Close);
        drop(permit);
        self.wake();
        self.release_handles();
        if let Some(remains) = remains {
            self.drop_remains(remains);
        }
        self.bus.leave(self);
        // What it held may be room for others of the user.
        self.look_at_waits();
        Ok(())
    }

    /// Sets the limits that are given, then flushes.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN.
    pub fn reset(&self, limits: [Option<u32>; RESOURCES], flush: Flush) -> Result {
        let mut inbox = self.inbox.lock();
        check(inbox.open)?;
        let mut keepers = 0;
        for (resource, limit) in limits.into_iter().enumerate() {
            if let Some(limit) = limit {
                keepers = inbox.ledger.set_limit(resource, limit);
            }
        }
        drop(inbox);
        // Credit that a killed caller leaves idle is recalled by those that need it.
        let _ = self.recall(Level::Peer, keepers);
        if flush.seed {
            self.replace_seed(None)?;
        }
        if flush.all {
            self.flush();
        }
        self.look_at_waits();
        Ok(())
    }

    /// Destroys the nodes that the seed does not pin, drops committed entries, and releases slices
    /// and handles.
    fn flush(&self) {
        let seed = self.inbox.lock().seed.clone();
        let permit = self.permit();
        let doomed = self.detach_nodes(seed.as_deref());
        self.execute(&doomed, Also::Nothing);
        drop(permit);
        // In this order: a handle that is received in between is released after. All transactions
        // of which a part is here, and that returned, are before the clock or at it.
        let mut inbox = self.inbox.lock();
        inbox.queue.pull();
        let until = inbox.queue.clock();
        #[cfg(test)]
        let until = crate::bus::planted::Fault::FlushKeepsQueue.unless(until);
        drop(inbox);
        self.purge(until);
        self.release_slices();
        self.release_handles();
    }

    /// Closes the table, so that nothing is added any more.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN if it is closed.
    fn close_table(&self) -> Result {
        let mut table = self.table.lock();
        check(table.open)?;
        table.open = false;
        Ok(())
    }

    /// Takes the peer's nodes out of its table, except those that `seed` pins, and marks them
    /// dying. Returns those that are to be destroyed: other calls destroy the others.
    fn detach_nodes(&self, seed: Option<&Seed<H>>) -> Doomed {
        let mut doomed = Doomed::default();
        self.each_handle(|table, handle| {
            if handle.is_anchor() && !seed.is_some_and(|seed| seed.pins(handle)) {
                let mut inbox = self.inbox.lock();
                table.detach(&mut inbox, handle);
                // The pin is not given back: the count of a node that dies does not matter.
                if handle.node.doom(&mut inbox) {
                    doomed.add(&mut inbox, handle);
                }
                drop(inbox);
                // Without this memory no receipt puts the handle back, which nobody would take out
                // again.
                handle.local.access_mut(table).reservation = None;
            }
            Detached::refs(0)
        });
        doomed
    }

    /// Releases all handles, except for the pins of nodes that live: the seed carries them, or they
    /// were made since.
    fn release_handles(&self) {
        self.each_handle(|table, handle| {
            let local = handle.local.access_mut(table);
            if local.pinned && !handle.node.is_dead() {
                return Detached::refs(core::mem::replace(&mut local.refs, 1) - 1);
            }
            table.detach(&mut self.inbox.lock(), handle)
        });
    }

    /// Shows `take` each handle of the table, locked anew for each. The references that `take`
    /// returns are unlinked.
    fn each_handle(&self, mut take: impl FnMut(&mut Table<H>, &Arc<Handle<H>>) -> Detached) {
        let mut next = Some(0);
        while let Some(from) = next {
            let mut table = self.table.lock();
            let Some(here) = table.by_id.cursor_lower_bound(&from) else {
                break;
            };
            let (id, handle) = (*here.current().0, here.current().1.clone());
            next = id.checked_add(1);
            let detached = take(&mut table, &handle);
            drop(table);
            if detached.refs != 0 {
                handle.unlink(detached);
            }
        }
    }

    /// Drops the contents of the inbox of a disconnected peer.
    fn drop_remains(&self, mut remains: Remains<H>) {
        // Received slices stay pinned: they can be read as long as they are mapped, and for as long
        // the user is charged. Nothing else keeps memory except references of senders that still
        // copy into the pool.
        let mut held = NOTHING;
        for n_bytes in remains.slices.given() {
            held[SLICES] += 1;
            held[BYTES] += n_bytes;
        }
        // No claimant draws credit any more, so this ends, also if the caller was killed.
        while self.recall_some() != 0 {}
        let kept = KeptCharges::new(&self.user, held, remains.retained);
        let ledger = self.inbox.lock().ledger.close();
        ledger.end();
        if let Some(pool) = &remains.pool {
            pool.keep(kept);
        }
        while let Some(removed) = remains.queue.pop_drained() {
            self.drop_removed(removed);
        }
        drop(remains.seed);
    }
}

#[cfg(test)]
#[path = "reset_tests.rs"]
mod tests;
