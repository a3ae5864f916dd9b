// SPDX-License-Identifier: GPL-2.0 OR MIT

//! All that others may touch of a peer.
//!
//! # Locks
//!
//! This is what the inbox lock guards, with the `shared` part of the nodes that the peer owns, the
//! `share` part of all handles to these, and the `notice` part of the peer's own handles.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::{only, Amounts, Claimant, Limits, Room, HANDLES};
use super::host::{Host, Pool};
use super::ledger::{Ledger, Rooms};
use super::message::Slice;
use super::peer::{check, Peer};
use super::queue::{Body, Entry, Key, Queue, Seat, Tree};
use super::seed::Seed;
use super::slices::{Array, Slices, UNIT};
use super::user::User;
use super::GFP_KEPT;

/// See the module.
pub(super) struct Inbox<H: Host> {
    /// The peer is connected.
    pub(super) open: bool,
    pub(super) queue: Queue<H>,
    pub(super) slices: Slices,
    pub(super) ledger: Ledger,
    /// None once the peer is disconnected.
    pub(super) pool: Option<H::Pool>,
    pub(super) seed: Option<Arc<Seed<H>>>,
    /// Memory for the next entries: a peer that keeps up with its senders needs no new one.
    pub(super) stock: KVec<Seat<H>>,
}

// What is pinned is behind pointers; nothing in the inbox itself minds being moved.
impl<H: Host> Unpin for Inbox<H> {}

/// How many entries' memory a peer keeps.
const STOCK: usize = 4;
/// How many entries are looked at in one go, at most.
const PURGE: usize = 64;

/// Memory that a reservation may turn out to need.
pub(super) struct Spare<H: Host> {
    rooms: Rooms,
    array: Option<Array>,
    seat: Option<Seat<H>>,
}

impl<H: Host> Spare<H> {
    const NONE: Self = Self {
        rooms: [None, None],
        array: None,
        seat: None,
    };

    /// Gets what was lacking, without locks; or says why not.
    fn get(&mut self, denied: Denied) -> Result {
        match denied {
            Denied::Error(error) => return Err(error),
            Denied::Quota | Denied::Recall => return Err(EDQUOT),
            Denied::Rooms => self.rooms = [Some(Room::new()?), Some(Room::new()?)],
            Denied::Array(n) => self.array = Some(Slices::array(n)?),
            Denied::Seat => self.seat = Some(Seat::<H>::new(GFP_KEPT)?),
        }
        Ok(())
    }
}

/// Why something could not be booked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Error(Error),
    /// It would go over the limits.
    Quota,
    /// It would go over the user's limits, unless some of that lies idle.
    Recall,
    /// To be tried again with memory for entries in the accounts,
    Rooms,
    /// for so many extents,
    Array(usize),
    /// for a queue entry.
    Seat,
}

impl<H: Host> Inbox<H> {
    pub(super) fn new(user: Arc<User>, limits: Limits, pool: H::Pool) -> Result<Self> {
        Ok(Self {
            open: true,
            queue: Queue::new(),
            // A bit less than a power of two, which a small slice cuts out of without leaving its bin.
            slices: Slices::new(H::Pool::SIZE - UNIT)?,
            ledger: Ledger::new(user, limits),
            pool: Some(pool),
            seed: None,
            stock: KVec::with_capacity(STOCK, GFP_KEPT)?,
        })
    }

    /// Charges `charges` to `claimant` and reserves `size` bytes, and memory for an entry.
    pub(super) fn reserve(
        &mut self,
        claimant: Claimant,
        charges: &Amounts,
        size: u64,
        spare: &mut Spare<H>,
    ) -> Result<(Slice, Seat<H>), Denied> {
        if let Some(array) = spare.array.take() {
            // Freed by the caller, without the lock.
            spare.array = Some(self.slices.grow(array));
        }
        if spare.seat.is_none() {
            spare.seat = self.stock.pop();
        }
        if spare.seat.is_none() {
            return Err(Denied::Seat);
        }
        self.ledger.claim(claimant, charges, &mut spare.rooms)?;
        let fits = match size >= H::Pool::SIZE {
            true => Err(Denied::Error(EMSGSIZE)),
            false => self.slices.reserve(size),
        };
        let number = fits.inspect_err(|_| self.ledger.release(claimant, charges))?;
        let slice = Slice {
            number,
            offset: self.slices.offset(number),
            size,
            claimant,
        };
        let seat = spare.seat.take().ok_or(Denied::Seat)?;
        Ok((slice, seat))
    }

    /// Keeps the memory of an entry for the next one, or returns it, to be freed without locks.
    pub(super) fn keep(&mut self, seat: Seat<H>) -> Option<Seat<H>> {
        self.stock
            .push_within_capacity(seat)
            .err()
            .map(|full| full.0)
    }

    /// Gives back the charge of `n` handles.
    pub(super) fn discharge_handles(&mut self, claimant: Claimant, n: usize) {
        if self.open && n != 0 {
            self.ledger.release(claimant, &only(HANDLES, n as u64));
        }
    }

    /// Takes out of the queue what was for nodes that are gone, among the next few entries from `from`
    /// on. Moves `from` behind them, to None at the end.
    pub(super) fn purge(&mut self, from: &mut Option<Key>) -> Tree<H> {
        let mut out = Tree::<H>::new();
        self.queue.settle_all();
        *from = from.and_then(|from| self.queue.next(&from));
        for _ in 0..PURGE {
            let Some(key) = *from else {
                break;
            };
            let gone = match self.queue.get(&key).map(|entry| &entry.body) {
                Some(Body::Data(message)) => message.node.shared.access(self).gone,
                Some(Body::Release(node)) => node.shared.access(self).gone,
                _ => false,
            };
            if gone {
                if let Some((entry, seat)) = self.queue.remove(&key) {
                    self.spend(&entry);
                    out.insert(seat.into_node(key, Some(entry)));
                }
            }
            *from = self.queue.next(&Key(key.0, key.1, key.2 + 1));
        }
        out
    }

    /// Whether an entry is still of interest to the user.
    pub(super) fn wants(&self, entry: &Entry<H>) -> bool {
        match &entry.body {
            Body::Data(message) => !message.node.shared.access(self).gone,
            Body::Release(node) => !node.shared.access(self).gone,
            Body::Destroy(handle) => handle.notice.access(self).held,
        }
    }
}

impl<H: Host> Peer<H> {
    /// Books something in the inbox: gets the memory that it turns out to need, and recalls idle
    /// credit before it takes a refusal of the user's account for an answer.
    pub(super) fn book<T>(
        &self,
        mut book: impl FnMut(&mut Inbox<H>, &mut Spare<H>) -> Result<T, Denied>,
    ) -> Result<T> {
        let mut spare = Spare::NONE;
        let mut recalled = false;
        loop {
            let mut inbox = self.inbox.lock();
            let denied = match book(&mut inbox, &mut spare) {
                Ok(booked) => return Ok(booked),
                Err(denied) => denied,
            };
            drop(inbox);
            if denied == Denied::Recall
                && !recalled
                && self.user.account.lock().account.keepers != 0
            {
                recalled = true;
                self.bus.recall(self.uid());
            } else {
                spare.get(denied)?;
            }
        }
    }

    /// Charges `n` handles. ESHUTDOWN, EDQUOT, ENOMEM.
    pub(super) fn charge_handles(&self, claimant: Claimant, n: usize) -> Result {
        let charges = only(HANDLES, n as u64);
        self.book(|inbox, spare| {
            check(inbox.open).map_err(Denied::Error)?;
            inbox.ledger.claim(claimant, &charges, &mut spare.rooms)
        })
    }
}
