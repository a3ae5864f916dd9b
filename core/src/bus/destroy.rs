// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The end of nodes, at one point of the order.
//!
//! NODES_DESTROY, the flush of a reset, and disconnect all come here. The steps:
//!
//! 1. the nodes are marked dying, each with its place in the list;
//! 2. one holder after the other is moved to those told, and a notice is staged in its queue. Who links
//!    meanwhile joins the holders, and is told in turn;
//! 3. when there is none left, still in the same critical section: the clock of the owner ticks
//!    to the timestamp of the destruction, the nodes are marked dead with it, and all messages that
//!    are staged for them and not committed yet are killed;
//! 4. the holders' clocks are raised to the timestamp;
//! 5. the transaction's word is set, which makes all notices appear at once.
//!
//! No memory is allocated: the tree nodes of the holders move from one tree to the next.
//!
//! A message committed before 3 for one of the nodes has raised the owner's clock before its word
//! was set, so its timestamp is lower; one that comes after 3 finds the node dead. A handle that is
//! linked before 3 belongs to a holder that is told; after 3 none is linked.
//!
//! # Locks
//!
//! The owner's inbox for 1 and 3, and for each turn of 2; each holder's for its stage and raise.

use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

use super::account::Books;
use super::fifo::Fifo;
use super::handle::Handle;
use super::host::Host;
use super::inbox::{Inbox, Stock};
use super::node::Holders;
use super::peer::{check, Peer};
use super::queue::{Body, Tree};
use super::release::strip;
use super::seed::Seed;
use super::sieve::sieve;
use super::slices::Slices;
use super::table::{ById, Import, Named};
use super::transaction::{destruction_after, Transaction};
use crate::errno::{EREMOTE, ESTALE};

/// Nodes to destroy, by their anchors, in the order of the parts.
pub(super) type Doomed<H> = ById<H>;

/// What a disconnected peer leaves behind, to be dropped without locks.
pub(super) struct Remains<H: Host> {
    pub(super) list: Fifo<H>,
    pub(super) others: [Tree<H>; 2],
    pub(super) seed: Option<(Arc<Seed<H>>, bool)>,
    pub(super) pool: Option<H::Pool>,
    /// Memory, held for being dropped.
    pub(super) _memory: (Slices, Books, Stock<H>),
}

impl<H: Host> Inbox<H> {
    /// Marks all dying, or none: then ESTALE.
    fn condemn(&mut self, doomed: &Doomed<H>) -> Result {
        if !doomed.values().all(|anchor| anchor.node.can_die(self)) {
            return Err(ESTALE);
        }
        for (part, anchor) in (0..).zip(doomed.values()) {
            anchor.node.shared.access_mut(self).dying = Some(part);
        }
        Ok(())
    }

    /// Marks those dying that can be, and leaves the others, which are in other hands, out.
    pub(super) fn condemn_able(&mut self, doomed: &mut Doomed<H>, out: &mut Doomed<H>) {
        let mut part = 0;
        let able = |anchor: &mut Arc<Handle<H>>| {
            let able = anchor.node.can_die(self);
            if able {
                anchor.node.shared.access_mut(self).dying = Some(part);
                part += 1;
            }
            able
        };
        sieve(doomed, able, |node| drop(out.insert(node)));
    }

    /// Moves a holder of the first of the nodes at or after `from` that has any to those told. Returns
    /// it, with the part that it will be told.
    fn next_holder(&mut self, doomed: &Doomed<H>, from: &mut u64) -> Option<(u32, Arc<Handle<H>>)> {
        while let Some(here) = doomed.cursor_lower_bound(from) {
            let (_, anchor) = here.current();
            let shared = anchor.node.shared.access_mut(self);
            let part = shared.dying.unwrap_or_default();
            if let Some(holder) = shared.holders.cursor_front_mut() {
                let handle = holder.current().1.clone();
                let (_, place) = holder.remove_current();
                shared.told.insert(place);
                handle.share.access_mut(self).linked = false;
                return Some((part, handle));
            }
            *from = *here.peek_next()?.0;
        }
        None
    }

    /// Step 3.
    fn bury(&mut self, doomed: &Doomed<H>, top: u64) -> u64 {
        let timestamp = destruction_after(self.queue.clock.max(top));
        self.queue.raise(timestamp);
        for handle in doomed.values() {
            handle.node.die(timestamp);
        }
        self.queue.kill_staged(|node| node.dead() == timestamp);
        timestamp
    }

    /// Closes it, in the step in which its nodes die.
    fn close(&mut self) -> Remains<H> {
        self.open = false;
        self.queue.kill_staged(|_| true);
        let seed = self.swap_seed(None);
        let cooled = self.slices.cool();
        self.unpin(cooled);
        let stock = core::mem::replace(&mut self.stock, KVec::new());
        let slices = core::mem::replace(&mut self.slices, Slices::EMPTY);
        let memory = (slices, self.ledger.close(), stock);
        Remains {
            // From here on it has no memory. Nothing is put in: what settles last goes to the tree.
            list: core::mem::replace(&mut self.queue.list, Fifo::EMPTY),
            others: self.queue.drain(),
            seed,
            pool: self.pool.take(),
            _memory: memory,
        }
    }
}

/// What else happens in the instant of the destruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Also {
    /// Nothing.
    Nothing,
    /// The owner drops its pins, so it is not told.
    Release,
    /// The owner is disconnected.
    Close,
}

impl<H: Host> Peer<H> {
    /// Destroys all of `doomed`, which were condemned; this peer owns them.
    pub(super) fn execute(
        &self,
        doomed: &Doomed<H>,
        transaction: &Arc<Transaction>,
        also: Also,
    ) -> Option<Remains<H>> {
        let mut top = 0;
        let mut from = 0;
        let (timestamp, remains) = loop {
            let mut guard = self.inbox.lock();
            let inbox = &mut *guard;
            let next = inbox.next_holder(doomed, &mut from).or_else(|| {
                // Some may have joined those that were passed already.
                from = 0;
                inbox.next_holder(doomed, &mut from)
            });
            let Some((part, handle)) = next else {
                let timestamp = inbox.bury(doomed, top);
                let remains = (also == Also::Close).then(|| {
                    self.closed.store(true, Relaxed);
                    inbox.close()
                });
                break (timestamp, remains);
            };
            drop(guard);
            top = top.max(Handle::tell(&handle, transaction, part).unwrap_or_default());
        };
        let told = self.gather_told(doomed);
        for handle in told.values() {
            handle.holder.inbox.lock().queue.raise(timestamp);
        }
        if also == Also::Release {
            for anchor in doomed.values() {
                self.drop_pin(anchor);
            }
        }
        transaction.commit(timestamp);
        if also == Also::Release {
            self.purge(0);
        }
        for handle in told.values() {
            handle.forget();
            handle.holder.wake();
        }
        remains
    }

    /// All who were told, of all nodes.
    fn gather_told(&self, doomed: &Doomed<H>) -> Holders<H> {
        let mut all = Holders::<H>::new();
        for anchor in doomed.values() {
            let shared = &anchor.node.shared;
            let mut told = core::mem::take(&mut shared.access_mut(&mut self.inbox.lock()).told);
            while let Some(first) = told.cursor_front_mut() {
                all.insert(first.remove_current().1);
            }
        }
        all
    }

    /// Drops the pin of a node that is dead.
    fn drop_pin(&self, anchor: &Arc<Handle<H>>) {
        let mut table = self.table.lock();
        let pin = match &mut anchor.local.access_mut(&mut table).refs {
            // A flush or a disconnect was faster.
            0 => return,
            1 => strip(&mut table, &mut self.inbox.lock(), anchor).1,
            refs => {
                *refs -= 1;
                false
            }
        };
        drop(table);
        anchor.unlink(1, pin);
    }

    /// Destroys own nodes. Per ID, in this order: ENXIO, ENOTUNIQ if named before, EREMOTE if not an own
    /// node, ESTALE if destroyed before. With `release` the pins go too.
    pub fn destroy_nodes(this: &Arc<Self>, ids: &[u64], release: bool) -> Result {
        let mut import = Import::new(this);
        let mut doomed = Doomed::new();
        let mut named = Named::new(ids);
        for (place, &id) in ids.iter().enumerate() {
            let handle = named.find(&mut import, id)?;
            if !handle.is_anchor() {
                return Err(EREMOTE);
            }
            if handle.node.dead() != 0 {
                return Err(ESTALE);
            }
            doomed.try_create_and_insert(place as u64, handle, GFP_KERNEL)?;
        }
        if doomed.is_empty() {
            return Ok(());
        }
        let transaction = this.transaction()?;
        let mut inbox = this.inbox.lock();
        check(inbox.open)?;
        inbox.condemn(&doomed)?;
        drop(inbox);
        // From here on it does not fail.
        import.finish();
        let also = if release {
            Also::Release
        } else {
            Also::Nothing
        };
        this.execute(&doomed, &transaction, also);
        Ok(())
    }
}

impl<H: Host> Handle<H> {
    /// Stages the notice of the node's end at the holder. Returns where; None if it is disconnected.
    fn tell(this: &Arc<Self>, transaction: &Arc<Transaction>, part: u32) -> Option<u64> {
        let mut guard = this.holder.inbox.lock();
        let inbox = &mut *guard;
        if !inbox.open {
            return None;
        }
        let seat = this.notice.access_mut(inbox).seat.take()?;
        let body = Body::Destroy(this.clone());
        let key = inbox.queue.stage(transaction, part, body, seat);
        this.notice.access_mut(inbox).at = Some(key);
        Some(key.0)
    }
}

#[cfg(test)]
#[path = "destroy_tests.rs"]
mod tests;
