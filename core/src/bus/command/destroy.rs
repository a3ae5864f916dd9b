// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The end of nodes, at one point of the order: a death is the commit of a transaction.
//!
//! NODES_DESTROY, the flush of a reset, and disconnect all come here. The steps:
//!
//! 1. with a permit, for which the task may sleep, each node is doomed, which reserves its
//!    destruction for this call, and becomes a part of the transaction. NODES_DESTROY dooms all its
//!    nodes in one critical section, or none if another call destroys one of them. If the owner
//!    releases its handles, it drops the pins;
//! 2. one holder's handle after the other moves from the node's holders to the notified handles
//!    (`told`), and a notice is staged in that holder's queue. A peer that is linked meanwhile
//!    joins the holders, and is notified in turn;
//! 3. in the critical section that finds no holder left: the transactions of messages that are
//!    staged for the nodes are killed, unless they are decided; the queue is pulled; and the
//!    transaction is committed above the places of all notices and above the owner's clock. So all
//!    nodes die, and all notices appear, by one addition;
//! 4. the notified holders are woken, and notices that no holder can want are taken out.
//!
//! No memory is allocated from 1 on: it was set aside when the nodes and the handles were made.
//!
//! A message for one of the nodes that was committed before 3 is below the owner's clock after the
//! pull, so its timestamp is lower than that of the death. A message that comes after 3 finds the
//! node dead. A sender that was killed takes the owner's inbox before it reports, so nobody hears
//! of the death before 3 is over. A handle that is linked before 3 belongs to a holder that is
//! notified; after 3 none is linked.
//!
//! # Locks
//!
//! A permit for 1 to 4. The owner's inbox for 1 and 3, and for each turn of 2 and 4; its table around
//! that to drop a pin; each holder's inbox to stage its notice.

use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_CALL;
use crate::bus::host::{Host, KillCheck};
use crate::bus::object::{
    check, ensure, Distinct, Doomed, Handle, Inbox, Notice, NoticeState, Peer, Remains, Removed,
    Resolver, Step,
};
use crate::bus::order::{destruction_after, Transaction};
use crate::errno::{EREMOTE, ESTALE};

impl<H: Host> Inbox<H> {
    /// Carries out step 3 of the file header: kills the undecided messages that are staged for
    /// the nodes, or all that are staged if the owner is disconnected; then commits the destruction
    /// above `top` and above the clock.
    fn die(&mut self, transaction: &Arc<Transaction>, top: u64, also: Also) {
        #[cfg(test)]
        if self.dies_wrongly(transaction, top, also) {
            return;
        }
        self.queue.kill_staged(|message| {
            let node = message.node.as_ref();
            also == Also::Close || node.is_some_and(|node| node.dies_in(transaction))
        });
        // A message that was committed before it could be killed is at or below the clock after
        // this.
        self.queue.pull();
        let at = destruction_after(self.queue.clock().max(top));
        // A transaction without messages is never killed.
        let died = transaction.commit(at);
        debug_assert!(died.is_some());
        self.queue.raise(died.unwrap_or(at));
    }
}

/// The effects of a destruction on its owner.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Also {
    Nothing,
    /// The owner drops its pins, so it is not notified.
    Release,
    /// The owner is disconnected.
    Close,
}

impl<H: Host> Peer<H> {
    /// Destroys all of `doomed`, which this peer owns, with a permit that the caller got before it
    /// doomed them; unless the peer is disconnected. If there are none, only a disconnect does
    /// anything. Returns the contents of the inbox of a peer that disconnects.
    pub(crate) fn execute(&self, doomed: &Doomed, also: Also) -> Option<Remains<H>> {
        let Some(transaction) = &doomed.transaction else {
            return (also == Also::Close).then(|| self.close(&mut self.inbox.lock()));
        };
        // 2 to 4
        let remains = self.tell_holders(transaction, also);
        loop {
            let told = self.inbox.lock().take_told(transaction.number.count);
            let Some(told) = told else {
                return remains;
            };
            for handle in told.values() {
                handle.withdraw_notice();
                handle.holder.wake();
            }
        }
    }

    /// Closes the inbox. Returns its contents.
    fn close(&self, inbox: &mut Inbox<H>) -> Remains<H> {
        self.closed.store(true, Relaxed);
        inbox.close()
    }

    /// Carries out steps 2 and 3 of the file header.
    fn tell_holders(&self, transaction: &Arc<Transaction>, also: Also) -> Option<Remains<H>> {
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
                    return (also == Also::Close).then(|| self.close(inbox));
                }
            }
        }
    }

    /// Drops the pin of a node that is dying, unless a flush or a disconnect was faster.
    fn drop_pin(&self, anchor: &Arc<Handle<H>>) {
        let mut table = self.table.lock();
        if !anchor.local.access(&table).pinned {
            return;
        }
        let detached = table.detach_one(&self.inbox, anchor, true);
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
        // A single node needs no memory.
        let mut last = None;
        let mut others = KVVec::with_capacity(ids.len().saturating_sub(1), GFP_CALL)?;
        let mut kill_check = KillCheck::default();
        for &id in ids {
            kill_check.step::<H>(1)?;
            let handle = distinct.find(&mut resolver, id)?;
            ensure(handle.is_anchor(), EREMOTE)?;
            ensure(!handle.node.is_dead(), ESTALE)?;
            if let Some(before) = last.replace(handle) {
                others.push(before, GFP_CALL)?;
            }
        }
        let anchors = Iterator::chain(others.iter(), last.iter());
        // 1
        let permit = this.permit();
        this.doom(anchors.clone())?;
        // From here on it does not fail.
        resolver.finish();
        #[cfg(test)]
        if crate::bus::planted::Fault::PinsDroppedLate.is_planted() {
            this.destroy_and_drop_pins(anchors, also);
            return Ok(());
        }
        let mut doomed = Doomed::default();
        for anchor in anchors {
            doomed.add(&mut this.inbox.lock(), anchor);
            if also == Also::Release {
                this.drop_pin(anchor);
            }
        }
        this.execute(&doomed, also);
        drop(permit);
        if also == Also::Release {
            this.purge(0);
        }
        Ok(())
    }

    /// Dooms all these nodes, or none. One critical section, in which each node costs a look and no
    /// more. A peer has at most 32,768 nodes at the default limits, for which it takes a millisecond
    /// or two, and 262,144 if it raised its own.
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
    /// Stages the notice of the node's end at the holder. Returns a timestamp above its place; None
    /// if the holder is disconnected.
    fn stage_notice(this: &Arc<Self>, transaction: &Arc<Transaction>, part: u32) -> Option<u64> {
        let mut guard = this.holder.inbox.lock();
        let inbox = &mut *guard;
        if !inbox.open {
            return None;
        }
        let reservation = this.notice.access_mut(inbox).destroy.take()?;
        let notice = Removed::Notice(Notice::Destroyed(this.clone()), reservation);
        let behind = inbox.queue.stage(transaction, part, notice);
        let place = transaction.staged_key(part);
        this.notice.access_mut(inbox).destroy = NoticeState::Queued(place);
        Some(behind)
    }
}

#[cfg(test)]
#[path = "destroy_tests.rs"]
mod tests;
