// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Peers: the members of a bus. A process becomes one by opening the device.
//!
//! A peer has a table of handles, which only its own calls touch, and an inbox, which every sender
//! to it touches. A peer owns objects; no message is addressed to a peer itself.
//!
//! # Invariants
//!
//! - A disconnected peer has an empty table and queue, no pool, no seed and no charges, and its
//!   nodes are dead. The table closes first, so that nothing is added behind the destruction's
//!   back, and the inbox closes in the very step that the nodes die in.
//!
//! # Locks
//!
//! `table` (rank 1) and `inbox` (rank 2); those of two peers are never held together.

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock, Arc, SpinLock};

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::{Host, WakeHint, Waker};
use crate::bus::object::{Bus, Inbox, Table, UserWaits};
use crate::bus::order::{Number, Transaction};
use crate::bus::quota::{Amounts, Claimant, User};
use crate::errno::ESHUTDOWN;

/// A member of the bus.
#[pin_data]
pub struct Peer<H: Host> {
    id: u64,
    pub(crate) bus: Arc<Bus<H>>,
    pub(crate) user: Arc<User>,
    pub(crate) waits: Arc<UserWaits<H>>,
    transactions: Atomic<u64>,
    /// Set with the inbox's `open` cleared, for tasks that ask without its lock.
    pub(crate) closed: Atomic<bool>,
    #[pin]
    waker: H::Waker,
    #[pin]
    pub(crate) table: SpinLock<Table<H>>,
    #[pin]
    pub(crate) inbox: SpinLock<Inbox<H>>,
}

/// State of a peer that a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The peer was disconnected.
    pub hangup: bool,
    /// RECV would find something.
    pub readable: bool,
}

impl Ready {
    /// Returns whether there is anything to wake for.
    pub fn any(&self) -> bool {
        self.hangup || self.readable
    }
}

/// Returns ESHUTDOWN unless `open`.
pub(crate) fn check(open: bool) -> Result {
    ensure(open, ESHUTDOWN)
}

/// Returns `error` unless `holds`.
#[inline]
pub(crate) fn ensure(holds: bool, error: Error) -> Result {
    holds.then_some(()).ok_or(error)
}

impl<H: Host> Peer<H> {
    /// Makes a peer with this ID, which is not in the list of its user's peers yet.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(
        bus: &Arc<Bus<H>>,
        id: u64,
        waits: &Arc<UserWaits<H>>,
        pool: H::Pool,
        waker: impl PinInit<H::Waker>,
    ) -> Result<Arc<Self>> {
        let user = &waits.user;
        let inbox = Inbox::new(user, id, pool)?;
        Arc::pin_init::<Error>(
            try_pin_init!(Self {
                id,
                bus: bus.clone(),
                user: user.clone(),
                waits: waits.clone(),
                transactions: Atomic::new(0),
                closed: Atomic::new(false),
                waker <- waker,
                table <- new_spinlock!(Table::new(), "bus1::table"),
                inbox <- new_spinlock!(inbox, "bus1::inbox"),
            }? Error),
            GFP_KEPT,
        )
    }

    /// Returns its ID, which is unique on this bus and never used again.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the user that it belongs to.
    pub fn uid(&self) -> u32 {
        self.user.uid
    }

    /// Returns the host's part of this peer.
    pub fn waker(&self) -> &H::Waker {
        &self.waker
    }

    /// Returns the claimant that the peer is to quotas.
    pub(crate) fn claimant(&self) -> Claimant {
        Claimant {
            uid: self.uid(),
            peer: self.id,
        }
    }

    /// Makes a transaction of this peer.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn transaction(&self) -> Result<Arc<Transaction>> {
        let number = Number {
            maker: self.id,
            count: self.transactions.fetch_add(1, Relaxed) + 1,
        };
        Transaction::new(number, self.uid())
    }

    /// Changes its inbox, and wakes the waiters if `change` says that it queued something.
    pub(crate) fn notify(&self, change: impl FnOnce(&mut Inbox<H>) -> bool) {
        let queued = change(&mut self.inbox.lock());
        if queued {
            self.wake();
        }
    }

    /// Wakes the waiters.
    pub(crate) fn wake(&self) {
        self.waker.wake(WakeHint::Continues);
    }

    /// Checks that the peer is connected. Exact under the inbox; a moment late elsewhere.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN.
    pub fn check_open(&self) -> Result {
        check(!self.closed.load(Relaxed))
    }

    /// Returns the memory of its pool, for mapping.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN.
    pub fn pool(&self) -> Result<H::Pool> {
        self.inbox.lock().pool.clone().ok_or(ESHUTDOWN)
    }

    /// Returns whether there is something to receive. True may be wrong, if the next entry is of no
    /// interest any more; false is right at some moment during the call.
    pub fn ready(&self) -> Ready {
        let mut inbox = self.inbox.lock();
        inbox.queue.pull();
        Ready {
            hangup: !inbox.open,
            readable: inbox.queue.head().is_some(),
        }
    }

    /// Returns the peer's limits, which PEER_RESET sets.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN.
    pub fn limits(&self) -> Result<Amounts> {
        let inbox = self.inbox.lock();
        check(inbox.open)?;
        Ok(inbox.ledger.account.limits)
    }
}
