// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! All that others may touch of a peer.
//!
//! # Locks
//!
//! This is what the inbox lock guards, with the `shared` part of the nodes that the peer owns, the
//! `share` part of all handles to these, and the `notice` part of the peer's own handles.

use core::ops::Range;

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::{only, Amounts, Claimant, Limits, Room, HANDLES};
use super::fifo::{Fifo, Ring};
use super::host::{Host, Pool};
use super::ledger::{Ledger, Rooms};
use super::message::{Message, Slice};
use super::peer::{check, Peer};
use super::queue::{Body, Key, Queue, Taken};
use super::seed::Seed;
use super::slices::{Array, Slices, UNIT};
use super::user::User;
use super::GFP_KEPT;
use crate::errno::EDQUOT;

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
    /// Memory for the next messages: a peer that keeps up with its senders needs no new one.
    pub(super) stock: Stock<H>,
}

// What is pinned is behind pointers; nothing in the inbox itself minds being moved.
impl<H: Host> Unpin for Inbox<H> {}

/// Memory for messages.
pub(super) type Stock<H> = KVec<KBox<Message<H>>>;
/// How many of these a peer keeps.
const STOCK: usize = 4;
/// Up to how many bytes of memory a peer keeps for the next message.
const WARM: u64 = 4096;
/// How many entries are looked at in one go, at most.
const PURGE: usize = 64;

/// Memory that a reservation may turn out to need.
pub(super) struct Spare<H: Host> {
    rooms: Rooms,
    array: Option<(Array, Ring<H>)>,
    message: Option<KBox<Message<H>>>,
}

impl<H: Host> Spare<H> {
    const NONE: Self = Self {
        rooms: [None, None],
        array: None,
        message: None,
    };

    /// Gets what was lacking, without locks; or says why not.
    fn get(&mut self, denied: Denied) -> Result {
        match denied {
            Denied::Error(error) => return Err(error),
            Denied::Quota | Denied::Recall => return Err(EDQUOT),
            Denied::Rooms => self.rooms = [Some(Room::new()?), Some(Room::new()?)],
            Denied::Array(n) => self.array = Some(space(n)?),
            Denied::Message => self.message = Some(Message::blank()?),
        }
        Ok(())
    }
}

/// Memory for `n` extents, and for a queue of as many messages. ENOMEM.
fn space<H: Host>(n: usize) -> Result<(Array, Ring<H>)> {
    let array = Slices::array(n)?;
    let ring = Fifo::ring(array.len())?;
    Ok((array, ring))
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
    /// for a message.
    Message,
}

impl<H: Host> Inbox<H> {
    pub(super) fn new(user: Arc<User>, limits: Limits, pool: H::Pool) -> Result<Self> {
        let (array, ring) = space(8)?;
        Ok(Self {
            open: true,
            queue: Queue::new(ring),
            // A bit less than a power of two, which a small slice cuts out of without leaving its bin.
            slices: Slices::new(H::Pool::SIZE - UNIT, array)?,
            ledger: Ledger::new(user, limits),
            pool: Some(pool),
            seed: None,
            stock: KVec::with_capacity(STOCK, GFP_KEPT)?,
        })
    }

    /// Charges `charges` to `claimant` and reserves `size` bytes and memory for the message.
    #[inline]
    pub(super) fn reserve(
        &mut self,
        claimant: Claimant,
        charges: &Amounts,
        size: u64,
        spare: &mut Option<Spare<H>>,
    ) -> Result<KBox<Message<H>>, Denied> {
        if let Some(spare) = spare {
            self.stow(spare);
        }
        if self.stock.is_empty() {
            return Err(Denied::Message);
        }
        let rooms = spare.as_mut().map(|spare| &mut spare.rooms);
        self.ledger.claim(claimant, charges, rooms)?;
        let warm = self.slices.reserve_warm(size);
        let number = match warm {
            Some(number) => Ok(number),
            None => self.reserve_slice(size),
        };
        let number = number.inspect_err(|_| self.ledger.release(claimant.peer, charges))?;
        let mut message = self.stock.pop().ok_or(Denied::Message)?;
        message.pinned = warm.is_some();
        let offset = self.slices.offset(number);
        message.cargo.slice = Slice {
            number,
            offset,
            size,
            payer: claimant.peer,
        };
        Ok(message)
    }

    fn reserve_slice(&mut self, size: u64) -> Result<u32, Denied> {
        if size >= H::Pool::SIZE {
            return Err(Denied::Error(EMSGSIZE));
        }
        let cooled = self.slices.cool();
        self.unpin(cooled);
        self.slices.reserve(size)
    }

    /// Frees a slice. True if it is still to be unpinned: a small one that was is kept as it is.
    #[inline]
    pub(super) fn free(&mut self, slice: &Slice, pinned: bool) -> bool {
        if !pinned || slice.size > WARM {
            self.slices.free(slice.number);
            return pinned;
        }
        let cooled = self.slices.keep_warm(slice.number);
        self.unpin(cooled);
        false
    }

    /// Unpins a slice that was kept.
    #[inline]
    pub(super) fn unpin(&self, cooled: Option<Range<u64>>) {
        if let (Some(range), Some(pool)) = (cooled, &self.pool) {
            pool.unpin(range.start, range.end - range.start);
        }
    }

    /// Takes over what was got for it. What is left in `spare` is freed without the lock.
    #[cold]
    fn stow(&mut self, spare: &mut Spare<H>) {
        if let Some((array, ring)) = spare.array.take() {
            spare.array = Some((self.slices.grow(array), self.queue.list.grow(ring)));
        }
        if let Some(mut message) = spare.message.take() {
            message.pool = self.pool.clone();
            spare.message = self.keep(message);
        }
    }

    /// Keeps a plain message's memory for the next, or returns it, to be freed without locks. What belongs to
    /// its handles and files would be kept with it.
    #[inline]
    pub(super) fn keep(&mut self, message: KBox<Message<H>>) -> Option<KBox<Message<H>>> {
        self.stock
            .push_within_capacity(message)
            .err()
            .map(|full| full.0)
    }

    /// Gives back what peer `payer` was charged for `n` handles.
    pub(super) fn discharge_handles(&mut self, payer: u64, n: usize) {
        if self.open && n != 0 {
            self.ledger.release_one(payer, HANDLES, n as u64);
        }
    }

    /// Takes the next message out of the list that stands at or before `until` or is for a node that is
    /// gone, among the next few from the position `from` on. Moves `from` behind what was looked at, to
    /// None at the end.
    pub(super) fn purge_list(&mut self, until: u64, from: &mut Option<u32>) -> Option<Taken<H>> {
        for _ in 0..PURGE {
            let at = self.queue.list.seek((*from)?);
            *from = at.map(|at| at.wrapping_add(1));
            if let Some(Body::Data(message)) = self.queue.list.get(at?) {
                if message.key.0 <= until || message.is_stale(self) {
                    return Some((self.queue.list.remove(at?)?, None));
                }
            }
        }
        None
    }

    /// The same for other parts and notices, with the key of each.
    pub(super) fn purge_others(&mut self, until: u64, from: &mut Option<Key>) -> Option<Taken<H>> {
        for _ in 0..PURGE {
            let key = self.queue.next(&(*from)?);
            *from = key.map(|key| key.behind());
            let body = self.queue.get(&key?)?;
            // A notice of destruction is the holder's to drop.
            let stale = !matches!(body, Body::Destroy(_)) && !self.wants(body);
            if key?.0 <= until || stale {
                let taken = self.queue.remove(&key?)?;
                self.spend(&taken.0);
                return Some(taken);
            }
        }
        None
    }

    /// Whether an entry is still of interest to the user.
    #[inline]
    pub(super) fn wants(&self, body: &Body<H>) -> bool {
        match body {
            Body::Data(message) => !message.is_stale(self),
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
        mut book: impl FnMut(&mut Inbox<H>, &mut Option<Spare<H>>) -> Result<T, Denied>,
    ) -> Result<T> {
        let mut spare = None;
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
                spare.get_or_insert(Spare::NONE).get(denied)?;
            }
        }
    }

    /// Charges `n` handles. ESHUTDOWN, EDQUOT, ENOMEM.
    pub(super) fn charge_handles(&self, claimant: Claimant, n: usize) -> Result {
        let charges = only(HANDLES, n as u64);
        self.book(|inbox, spare| {
            check(inbox.open).map_err(Denied::Error)?;
            let rooms = spare.as_mut().map(|spare| &mut spare.rooms);
            inbox.ledger.claim(claimant, &charges, rooms)
        })
    }
}
