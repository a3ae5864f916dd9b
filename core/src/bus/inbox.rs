// SPDX-License-Identifier: GPL-2.0 OR MIT

//! All that others may touch of a peer.
//!
//! # Locks
//!
//! This is what the inbox lock guards, with the `shared` part of the nodes that the peer owns, the
//! `share` part of all handles to these, and the `notice` part of the peer's own handles.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::Arc;

use super::account::{only, Amounts, Claimant, Limits, Refusal, HANDLES};
use super::host::{Host, Pool};
use super::ledger::{Ledger, Rooms};
use super::message::Slice;
use super::peer::Peer;
use super::queue::{take, Body, Entry, Key, Queue, Seat, Tree};
use super::recv::Seed;
use super::slices::{Array, Full, Slices};
use super::transaction::ALONE;
use super::user::User;

/// See the module.
pub(super) struct Inbox<H: Host> {
    /// The peer is connected.
    pub(super) open: bool,
    pub(super) queue: Queue<H>,
    pub(super) slices: Slices,
    /// Slices that the user was given, by offset.
    pub(super) received: Tree<H>,
    pub(super) ledger: Ledger,
    /// None once the peer is disconnected.
    pub(super) pool: Option<H::Pool>,
    pub(super) seed: Option<Arc<Seed<H>>>,
}

// What is pinned is behind pointers; nothing in the inbox itself minds being moved.
impl<H: Host> Unpin for Inbox<H> {}

/// How many entries are looked at in one go, at most.
const PURGE: usize = 64;

/// Memory that a reservation may turn out to need.
pub(super) struct Spare {
    pub(super) rooms: Rooms,
    pub(super) array: Option<Array>,
}

impl Spare {
    pub(super) const NONE: Spare = Spare {
        rooms: Rooms::NONE,
        array: None,
    };

    /// Gets what was lacking. Without locks.
    fn get(&mut self, lack: Lack) -> Result {
        match lack {
            Lack::Rooms => self.rooms = Rooms::new()?,
            Lack::Array(n) => self.array = Some(Slices::array(n)?),
        }
        Ok(())
    }
}

/// What a reservation lacks.
pub(super) enum Lack {
    Rooms,
    Array(usize),
}

/// A reservation was refused, or has to be tried again with more memory.
pub(super) enum Denied {
    Error(Error),
    /// It would go over the user's limits, unless some of that lies idle.
    Recall,
    Lack(Lack),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Quota => Denied::Error(EDQUOT),
            Refusal::Shared => Denied::Recall,
            Refusal::Room => Denied::Lack(Lack::Rooms),
        }
    }
}

impl<H: Host> Inbox<H> {
    pub(super) fn new(user: Arc<User>, limits: Limits, pool: H::Pool) -> Result<Self> {
        Ok(Self {
            open: true,
            queue: Queue::new(),
            slices: Slices::new(H::Pool::SIZE)?,
            received: RBTree::new(),
            ledger: Ledger::new(user, limits),
            pool: Some(pool),
            seed: None,
        })
    }

    /// ESHUTDOWN if the peer was disconnected.
    pub(super) fn check_open(&self) -> Result {
        if self.open {
            Ok(())
        } else {
            Err(ESHUTDOWN)
        }
    }

    /// Charges `charges` to `claimant` and reserves `size` bytes.
    pub(super) fn reserve(
        &mut self,
        claimant: Claimant,
        charges: &Amounts,
        size: u64,
        spare: &mut Spare,
    ) -> Result<Slice, Denied> {
        if let Some(array) = spare.array.take() {
            // Freed by the caller, without the lock.
            spare.array = Some(self.slices.grow(array));
        }
        self.ledger.claim(claimant, charges, &mut spare.rooms)?;
        let denied = if size > H::Pool::SIZE {
            Denied::Error(EMSGSIZE)
        } else {
            match self.slices.reserve(size) {
                Ok(number) => {
                    return Ok(Slice {
                        number,
                        offset: self.slices.offset(number),
                        size,
                        claimant,
                    })
                }
                Err(Full::Space) => Denied::Error(EXFULL),
                Err(Full::Array(n)) => Denied::Lack(Lack::Array(n)),
            }
        };
        self.ledger.release(claimant, charges);
        Err(denied)
    }

    /// Charges `n` handles.
    pub(super) fn charge_handles(
        &mut self,
        claimant: Claimant,
        n: usize,
        spare: &mut Spare,
    ) -> Result<(), Denied> {
        let charges = only(HANDLES, n as u64);
        Ok(self.ledger.claim(claimant, &charges, &mut spare.rooms)?)
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
            Body::Slice(_) | Body::Seed(_) => false,
        }
    }

    /// Makes the slice at `offset` the user's.
    pub(super) fn publish(&mut self, offset: u64, body: Body<H>, seat: Seat<H>) {
        let entry = Entry {
            transaction: None,
            body,
        };
        let node = seat.into_node(Key(offset, ALONE, 0), Some(entry));
        self.received.insert(node);
    }

    /// Takes the slice at `offset` from the user.
    pub(super) fn unpublish(&mut self, offset: u64) -> Option<(Entry<H>, Seat<H>)> {
        take(&mut self.received, &Key(offset, ALONE, 0))
    }
}

impl<H: Host> Peer<H> {
    /// Books something in the inbox: gets the memory that it turns out to need, and recalls idle
    /// credit before it takes a refusal of the user's account for an answer.
    pub(super) fn book<T>(
        &self,
        mut book: impl FnMut(&mut Inbox<H>, &mut Spare) -> Result<T, Denied>,
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
            match denied {
                Denied::Lack(lack) => spare.get(lack)?,
                Denied::Recall if !recalled && self.user().has_lent() => {
                    recalled = true;
                    self.bus().recall(self.uid());
                }
                Denied::Recall => return Err(EDQUOT),
                Denied::Error(error) => return Err(error),
            }
        }
    }

    /// Charges `n` handles. ESHUTDOWN, EDQUOT, ENOMEM.
    pub(super) fn charge_handles(&self, claimant: Claimant, n: usize) -> Result {
        self.book(|inbox, spare| {
            inbox.check_open().map_err(Denied::Error)?;
            inbox.charge_handles(claimant, n, spare)
        })
    }
}
