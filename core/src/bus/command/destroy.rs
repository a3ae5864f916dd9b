// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The end of nodes, at one point of the order.
//!
//! NODES_DESTROY, the flush of a reset, and disconnect all come here. The steps:
//!
//! 1. all nodes are doomed, or none if another call destroys one of them; then each becomes a part of
//!    the transaction whose commit is its death. If the owner releases its handles, it drops the
//!    pins;
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

use crate::bus::allocation::GFP_CALL;
use crate::bus::host::{Host, KillCheck};
use crate::bus::object::{
    check, ensure, Detached, Distinct, Handle, Holders, Inbox, Notice, NoticeState, Peer, Resolver,
    Step,
};
use crate::bus::order::{destruction_after, Transaction};
#[cfg(test)]
use crate::bus::planted;
use crate::errno::{EREMOTE, ESTALE};

/// Nodes to destroy together, in the order of the parts. They are in the owner's inbox.
pub(crate) struct Doomed {
    n_parts: u32,
    /// The transaction that they die in: that of the first of them, unless it was given.
    transaction: Option<Arc<Transaction>>,
}

impl Doomed {
    /// Makes an empty list of nodes to destroy.
    pub(crate) fn new() -> Self {
        Self {
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

    /// Begins the destruction of a node that the caller doomed, as the next part.
    pub(crate) fn add<H: Host>(&mut self, inbox: &mut Inbox<H>, anchor: &Arc<Handle<H>>) {
        let Some(reservation) = anchor.node.take_death(inbox) else {
            debug_assert!(false, "a node dies once");
            return;
        };
        let transaction = self.transaction.get_or_insert(reservation.transaction);
        let key = anchor.node.die_in(inbox, transaction, self.n_parts);
        inbox.dying.add(key, anchor, reservation.entry);
        self.n_parts += 1;
    }
}

impl<H: Host> Inbox<H> {
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
    /// Destroys all of `doomed`, which this peer owns. If there are none, only a disconnect does
    /// anything. Returns the contents of the inbox of a peer that disconnects.
    pub(crate) fn execute(&self, doomed: &Doomed, also: Also) -> Option<Inbox<H>> {
        let transaction = doomed.transaction.as_ref()?;
        // 2 and 3
        let remains = self.tell_holders(transaction, also);
        while let Some(told) = self.next_told(transaction) {
            for handle in told.values() {
                handle.withdraw_notice();
                handle.holder.wake();
            }
        }
        remains
    }

    /// Carries out steps 2 and 3 of the module's head.
    fn tell_holders(&self, transaction: &Arc<Transaction>, also: Also) -> Option<Inbox<H>> {
        let mut top = 0;
        loop {
            let mut guard = self.inbox.lock();
            let inbox = &mut *guard;
            match inbox.step_of_death(transaction.number.count) {
                Step::Notify(part, handle) => {
                    drop(guard);
                    let staged = Handle::stage_notice(&handle, transaction, part);
                    top = top.max(staged.unwrap_or_default());
                }
                Step::Passed => (),
                Step::Done => {
                    inbox.die(transaction, top, also);
                    return (also == Also::Close).then(|| {
                        self.closed.store(true, Relaxed);
                        inbox.close()
                    });
                }
            }
        }
    }

    /// Takes the holders of a node that died in this transaction.
    fn next_told(&self, transaction: &Transaction) -> Option<Holders<H>> {
        let mut inbox = self.inbox.lock();
        inbox.take_told(transaction.number.count)
    }

    /// Drops the pin of a node that is dying, unless a flush or a disconnect was faster.
    fn drop_pin(&self, anchor: &Arc<Handle<H>>) {
        let mut table = self.table.lock();
        let local = anchor.local.access_mut(&mut table);
        if !local.pinned {
            return;
        }
        let detached = if local.refs == 1 {
            table.detach(&mut self.inbox.lock(), anchor)
        } else {
            local.pinned = false;
            local.refs -= 1;
            Detached {
                with_pin: true,
                ..Detached::ONE
            }
        };
        drop(table);
        anchor.unlink(detached);
    }

    /// Destroys own nodes. One node that exists is destroyed without an allocation.
    ///
    /// # Errors
    ///
    /// Per ID, in this order: ENXIO, ENOTUNIQ if named before, EREMOTE if not an own node, ESTALE
    /// if destroyed before. ESHUTDOWN; ENOMEM; EINTR if the caller is killed before step 1.
    pub(crate) fn destroy_nodes(this: &Arc<Self>, ids: &[u64], also: Also) -> Result {
        let mut resolver = Resolver::new(this);
        let mut distinct = Distinct::new(ids);
        // One node alone needs no memory.
        let mut first = None;
        let mut others = KVVec::with_capacity(ids.len().saturating_sub(1), GFP_CALL)?;
        let mut kill_check = KillCheck::default();
        for &id in ids {
            kill_check.step::<H>(1)?;
            let handle = distinct.find(&mut resolver, id)?;
            ensure(handle.is_anchor(), EREMOTE)?;
            ensure(!handle.node.is_dead(), ESTALE)?;
            match &first {
                None => first = Some(handle),
                Some(_) => others.push(handle, GFP_CALL)?,
            }
        }
        let anchors = Iterator::chain(first.iter(), others.iter());
        // 1
        this.doom(anchors.clone())?;
        // From here on it does not fail.
        resolver.finish();
        #[cfg(test)]
        if planted::planted(planted::Fault::PinsDroppedLate) {
            this.destroy_and_drop_pins(anchors, also);
            return Ok(());
        }
        let mut doomed = Doomed::new();
        for anchor in anchors {
            doomed.add(&mut this.inbox.lock(), anchor);
            if also == Also::Release {
                this.drop_pin(anchor);
            }
        }
        this.execute(&doomed, also);
        if also == Also::Release {
            this.purge(0);
        }
        Ok(())
    }

    /// Dooms all these nodes, or none. One critical section, in which each node costs a look and no
    /// more: 32,768 of them take it for a millisecond or two.
    ///
    /// # Errors
    ///
    /// ESTALE if another call destroys one of them; ESHUTDOWN.
    fn doom<'a>(&self, anchors: impl Iterator<Item = &'a Arc<Handle<H>>> + Clone) -> Result {
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        check(inbox.open)?;
        for (n, anchor) in anchors.clone().enumerate() {
            if anchor.node.doom(inbox) {
                continue;
            }
            for anchor in anchors.take(n) {
                anchor.node.spare(inbox);
            }
            return Err(ESTALE);
        }
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
