// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A bus: its users and peers, and the way to become a peer.
//!
//! # Locks
//!
//! `users` (rank 3) is taken by open, when a peer goes, to recall idle credit for a SEND that would
//! be refused, and to sum up a user's charges; never to send a message that is granted. It is held
//! for a few steps, except by [`Bus::usage`], which walks all users and peers.

use kernel::prelude::*;
use kernel::rbtree::{Entry, RBTree, RBTreeNodeReservation};
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock, Arc, SpinLock};

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::Host;
use crate::bus::object::{Peer, UserWaits};
use crate::bus::quota::{Limits, User, NOTHING};
use crate::bus::tree::{find_unused, FOUND};

/// A user with its peers.
pub(super) struct Registered<H: Host> {
    pub(super) waits: Arc<UserWaits<H>>,
    pub(super) peers: RBTree<u64, Arc<Peer<H>>>,
    /// Peers that are being made.
    opening: u64,
}

// The user and the peers are behind pointers.
impl<H: Host> Unpin for Registered<H> {}

/// A bus, on which peers can reach each other.
#[pin_data]
pub struct Bus<H: Host> {
    limits: Limits,
    last_peer: Atomic<u64>,
    #[pin]
    pub(super) users: SpinLock<Users<H>>,
}

/// The users of a bus.
pub(super) struct Users<H: Host> {
    pub(super) by_id: RBTree<u32, Registered<H>>,
    /// Where the search for users goes on that are not needed any more.
    hand: Option<u32>,
}

// The users are behind pointers.
impl<H: Host> Unpin for Users<H> {}

impl<H: Host> Bus<H> {
    /// Makes an empty bus, on which every user has these limits.
    pub fn new(limits: Limits) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                limits,
                last_peer: Atomic::new(0),
                users <- new_spinlock!(Users { by_id: RBTree::new(), hand: None }, "bus1::users"),
            }),
            GFP_KEPT,
        )
    }

    /// Makes a peer that belongs to user `uid`. Fails with ENOMEM.
    pub fn open(
        this: &Arc<Self>,
        uid: u32,
        pool: H::Pool,
        waker: impl PinInit<H::Waker>,
    ) -> Result<Arc<Peer<H>>> {
        let id = this.last_peer.fetch_add(1, Relaxed) + 1;
        let reservation = RBTreeNodeReservation::new(GFP_KEPT)?;
        let user = this.enter(uid)?;
        let peer = Peer::new(this, id, &user, pool, waker);
        let mut users = this.users.lock();
        if let Some(known) = users.by_id.get_mut(&uid) {
            known.opening -= 1;
            if let Ok(peer) = &peer {
                known.peers.insert(reservation.into_node(id, peer.clone()));
            }
        }
        drop(users);
        peer
    }

    /// Returns the user of this ID, for a peer that is being opened.
    fn enter(&self, uid: u32) -> Result<Arc<UserWaits<H>>> {
        let reservation = RBTreeNodeReservation::new(GFP_KEPT)?;
        let fresh = UserWaits::new(User::new(uid, self.limits)?)?;
        let mut users = self.users.lock();
        let known = match users.by_id.entry(uid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let known = Registered {
                    waits: fresh.clone(),
                    peers: RBTree::new(),
                    opening: 0,
                };
                vacant.insert(known, reservation)
            }
        };
        known.opening += 1;
        Ok(known.waits.clone())
    }

    /// Forgets a peer, and a few users that have none and nothing in flight.
    pub(crate) fn leave(&self, peer: &Peer<H>) {
        let mut gone = [const { None }; FOUND];
        let mut guard = self.users.lock();
        let users = &mut *guard;
        let known = users.by_id.get_mut(&peer.uid());
        let left = known.and_then(|known| known.peers.remove_node(&peer.id()));
        // Descriptors in flight outlive the peer that sent them, and their account with them:
        // otherwise closing and opening again would wipe the slate clean.
        let unused = |known: &mut Registered<H>| {
            let busy = known.opening != 0 || !known.peers.is_empty();
            let busy = busy || known.waits.is_destroying();
            let user = &known.waits.user;
            let books = user.account.lock();
            let is_whole = books.account.limits == user.limits.map(u64::from);
            !busy && is_whole && books.retained == 0 && books.sent.used == NOTHING
        };
        let found = find_unused(&mut users.by_id, &mut users.hand, unused);
        for (gone, uid) in gone.iter_mut().zip(&found) {
            *gone = uid.and_then(|uid| users.by_id.remove_node(&uid));
        }
        drop(guard);
        drop((left, gone));
    }

    /// Returns the first peer of a user, from ID `from` on, where a claimant may have credit.
    pub(crate) fn peer_with_credit(&self, user: &User, from: u64) -> Option<Arc<Peer<H>>> {
        let users = self.users.lock();
        let books = user.account.lock();
        let id = *books.with_credit.cursor_lower_bound(&from)?.current().0;
        users.by_id.get(&user.uid)?.peers.get(&id).cloned()
    }
}
