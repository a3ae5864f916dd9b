// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The end of nodes, at one point of the order.
//!
//! NODES_DESTROY, the flush of a reset, and disconnect all come here. The steps:
//!
//! 1. the nodes are marked dying, each with its part, and point to the transaction whose commit is
//!    their death. If the owner releases its handles, it drops the pins;
//! 2. one holder after the other is moved to the notified ones (`told`), and a notice is staged in
//!    its queue. A peer that is linked meanwhile joins the holders, and is notified in turn;
//! 3. when there is none left, still in the same critical section: messages that are staged for the
//!    nodes and undecided are killed, and the transaction is committed, after all notices' places
//!    and all that is committed here. So all nodes die, and all notices appear, by one exchange.
//!
//! No memory is allocated: it was set aside when the nodes and the handles were made.
//!
//! A message committed before 3 for one of the nodes is in the owner's clock, so its timestamp is
//! lower; one that comes after 3 finds the node dead. A sender that was killed takes the owner's
//! inbox before it reports, so nobody hears of the death before 3 is over. A handle that is linked
//! before 3 belongs to a holder that is notified; after 3 none is linked.
//!
//! # Locks
//!
//! The owner's inbox for 1 and 3, and for each turn of 2; each holder's for its stage.

use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

use crate::bus::few::Few;
use crate::bus::host::Host;
use crate::bus::object::{
    check, ensure, ByNumber, Detached, Distinct, Handle, Holders, Inbox, Notice, NoticeState, Peer,
    Resolver,
};
use crate::bus::order::{destruction_after, Transaction};
#[cfg(test)]
use crate::bus::planted;
use crate::errno::{EREMOTE, ESTALE};

/// Number of nodes that are destroyed without an allocation.
const FEW: usize = 16;

/// Nodes to destroy, by their anchors, in the order of the parts.
pub(crate) struct Doomed<H: Host> {
    anchors: ByNumber<H>,
    n_parts: u64,
    /// The transaction that they die in: that of the first of them, unless it was given.
    transaction: Option<Arc<Transaction>>,
}

impl<H: Host> Doomed<H> {
    /// Makes an empty list of nodes to destroy.
    pub(crate) fn new() -> Self {
        Self {
            anchors: ByNumber::<H>::new(),
            n_parts: 0,
            transaction: None,
        }
    }

    /// Makes an empty list of nodes to destroy in this transaction.
    pub(crate) fn in_transaction(transaction: &Arc<Transaction>) -> Self {
        Self {
            transaction: Some(transaction.clone()),
            ..Self::new()
        }
    }

    /// Marks a node dying, as the next part. False if another call destroys it.
    pub(crate) fn add(&mut self, inbox: &mut Inbox<H>, anchor: &Arc<Handle<H>>) -> bool {
        let Some(reservation) = anchor.node.mark_dying(inbox) else {
            return false;
        };
        let transaction = self.transaction.get_or_insert(reservation.transaction);
        anchor.node.die_in(transaction);
        let node = reservation.entry.into_node(self.n_parts, anchor.clone());
        self.anchors.insert(node);
        self.n_parts += 1;
        true
    }
}

impl<H: Host> Inbox<H> {
    /// Moves one holder to the notified ones: a holder of the first node at or after `from` that
    /// has any. Returns it, with the part of the transaction that its notice is.
    fn next_holder(&mut self, doomed: &Doomed<H>, from: &mut u64) -> Option<(u32, Arc<Handle<H>>)> {
        while let Some(here) = doomed.anchors.cursor_lower_bound(from) {
            let (&part, anchor) = here.current();
            let shared = anchor.node.shared.access_mut(self);
            if let Some(holder) = shared.holders.cursor_front_mut() {
                let handle = holder.current().1.clone();
                let (_, entry) = holder.remove_current();
                shared.told.insert(entry);
                handle.share.access_mut(self).linked = false;
                return Some((part as u32, handle));
            }
            *from = part + 1;
        }
        None
    }

    /// Commits the destruction after `top` and all that is ordered here. Messages that are staged
    /// for its nodes, and undecided, are killed; all that are staged if the owner is disconnected.
    fn die(&mut self, transaction: &Arc<Transaction>, top: u64, also: Also) {
        #[cfg(test)]
        let top = planted::unless(planted::Fault::DeathBelowNotices, top);
        #[cfg(test)]
        if planted::planted(planted::Fault::KilledAfterDeath) {
            return self.die_and_kill(transaction, top, also);
        }
        self.queue.kill_staged(|message| {
            let node = message.node.as_ref();
            also == Also::Close || node.is_some_and(|node| node.dies_in(transaction))
        });
        // A message that was committed before it could be killed is in the clock after this.
        self.queue.pull();
        let at = destruction_after(self.queue.clock().max(top));
        // Nobody kills a transaction without messages.
        let died = transaction.commit(at);
        debug_assert!(died.is_some());
        self.queue.raise(died.unwrap_or(at));
    }
}

/// The effects on the owner in the instant of a destruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Also {
    Nothing,
    /// The owner drops its pins, so it is not notified.
    Release,
    /// The owner is disconnected.
    Close,
}

impl<H: Host> Peer<H> {
    /// Destroys all of `doomed`, which this peer owns and which are dying. If there are none, only
    /// a disconnect does anything. Returns the contents of the inbox of a peer that disconnects.
    pub(crate) fn execute(&self, doomed: &Doomed<H>, also: Also) -> Option<Inbox<H>> {
        let transaction = doomed.transaction.as_ref()?;
        #[cfg(test)]
        if planted::planted(planted::Fault::PinsDroppedLate) && also == Also::Release {
            return self.execute_and_drop_pins(doomed, transaction);
        }
        if also == Also::Release {
            for anchor in doomed.anchors.values() {
                self.drop_pin(anchor);
            }
        }
        // 2 and 3
        let remains = self.tell_holders(doomed, transaction, also);
        if also == Also::Release {
            self.purge(0);
        }
        for handle in self.gather_told(doomed).values() {
            handle.withdraw_notice();
            handle.holder.wake();
        }
        remains
    }

    /// Carries out steps 2 and 3 of the module's head.
    fn tell_holders(
        &self,
        doomed: &Doomed<H>,
        transaction: &Arc<Transaction>,
        also: Also,
    ) -> Option<Inbox<H>> {
        let mut top = 0;
        let mut from = 0;
        loop {
            let mut guard = self.inbox.lock();
            let inbox = &mut *guard;
            let next = inbox.next_holder(doomed, &mut from).or_else(|| {
                // Holders may have joined nodes that were passed already.
                from = 0;
                inbox.next_holder(doomed, &mut from)
            });
            let Some((part, handle)) = next else {
                inbox.die(transaction, top, also);
                return (also == Also::Close).then(|| {
                    self.closed.store(true, Relaxed);
                    inbox.close()
                });
            };
            drop(guard);
            let staged = Handle::stage_notice(&handle, transaction, part);
            top = top.max(staged.unwrap_or_default());
        }
    }

    /// Takes all notified holders of all nodes.
    fn gather_told(&self, doomed: &Doomed<H>) -> Holders<H> {
        let mut all = Holders::<H>::new();
        for anchor in doomed.anchors.values() {
            let shared = &anchor.node.shared;
            let mut told = core::mem::take(&mut shared.access_mut(&mut self.inbox.lock()).told);
            while let Some(first) = told.cursor_front_mut() {
                all.insert(first.remove_current().1);
            }
        }
        all
    }

    /// Drops the pin of a node that is dying.
    fn drop_pin(&self, anchor: &Arc<Handle<H>>) {
        let mut table = self.table.lock();
        let local = anchor.local.access_mut(&mut table);
        let detached = match &mut local.refs {
            // A flush or a disconnect was faster.
            0 => return,
            1 => table.detach(&mut self.inbox.lock(), anchor),
            refs => {
                *refs -= 1;
                // The node is not dead yet, and its owner is not notified of this.
                Detached {
                    refs: 1,
                    with_pin: true,
                }
            }
        };
        drop(table);
        anchor.unlink(detached);
    }

    /// Destroys own nodes. Up to 16 nodes that exist, named in order, are destroyed without an
    /// allocation.
    ///
    /// # Errors
    ///
    /// Per ID, in this order: ENXIO, ENOTUNIQ if named before, EREMOTE if not an own node, ESTALE
    /// if destroyed before. ESHUTDOWN; ENOMEM.
    pub(crate) fn destroy_nodes(this: &Arc<Self>, ids: &[u64], also: Also) -> Result {
        let mut resolver = Resolver::new(this);
        let mut distinct = Distinct::new(ids);
        let mut anchors = Few::<Arc<Handle<H>>, FEW>::new();
        for &id in ids {
            let handle = distinct.find(&mut resolver, id)?;
            ensure(handle.is_anchor(), EREMOTE)?;
            ensure(!handle.node.is_dead(), ESTALE)?;
            anchors.push(handle)?;
        }
        // 1
        let mut doomed = Doomed::new();
        let mut guard = this.inbox.lock();
        let inbox = &mut *guard;
        check(inbox.open)?;
        let all_alive = anchors.iter().all(|anchor| anchor.node.is_alive(inbox));
        ensure(all_alive, ESTALE)?;
        for anchor in anchors.iter() {
            let added = doomed.add(inbox, anchor);
            debug_assert!(added);
        }
        drop(guard);
        // From here on it does not fail.
        resolver.finish();
        this.execute(&doomed, also);
        Ok(())
    }
}

impl<H: Host> Handle<H> {
    /// Stages the notice of the node's end at the holder. Returns a timestamp that it stands before;
    /// None if the holder is disconnected.
    fn stage_notice(this: &Arc<Self>, transaction: &Arc<Transaction>, part: u32) -> Option<u64> {
        let mut guard = this.holder.inbox.lock();
        let inbox = &mut *guard;
        if !inbox.open {
            return None;
        }
        let reservation = this.notice.access_mut(inbox).destroy.take()?;
        let (queue, notice) = (&mut inbox.queue, Notice::Destroyed(this.clone()));
        let behind = queue.stage_notice(transaction, part, notice, reservation);
        let place = transaction.place(part);
        this.notice.access_mut(inbox).destroy = NoticeState::Queued(place);
        Some(behind)
    }
}

#[cfg(test)]
#[path = "destroy_tests.rs"]
mod tests;
