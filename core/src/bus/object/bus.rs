// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A bus: its users and peers, and the way to become a peer.
//!
//! # Locks
//!
//! `users` (rank 3) is taken by open, when a peer goes, to recall idle credit for a SEND that would
//! be refused, and to sum up a user's charges; never to send a message that is granted. It is held
//! for a few steps.

use kernel::prelude::*;
use kernel::rbtree::{Entry, RBTree, RBTreeNodeReservation};
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock, Arc, SpinLock};

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::Host;
use crate::bus::object::{Peer, UserWaits};
use crate::bus::quota::{add, Amounts, Limits, User, FDS, NOTHING};
use crate::bus::tree::{find_unused, FOUND};

/// A user with its peers.
struct Registered<H: Host> {
    user: Arc<User>,
    waits: Arc<UserWaits<H>>,
    peers: RBTree<u64, Arc<Peer<H>>>,
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
    users: SpinLock<Users<H>>,
}

/// The users of a bus.
struct Users<H: Host> {
    by_id: RBTree<u32, Registered<H>>,
    /// Where the search for users goes on that are not needed any more.
    hand: Option<u32>,
}

// The users are behind pointers.
impl<H: Host> Unpin for Users<H> {}

/// Amounts in use on a bus, over all users. All zero when no peer is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Users with a peer, or with something in flight.
    pub users: u64,
    /// Connected peers.
    pub peers: u64,
    /// Charged slices, handles, bytes and descriptors, as drawn from the users' accounts.
    pub charged: Amounts,
    /// Descriptors in flight, by the accounts of their senders.
    pub sent_fds: u64,
}

impl<H: Host> Bus<H> {
    /// Makes a bus of its own, on which every user has these limits.
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
    pub fn open<E>(
        this: &Arc<Self>,
        uid: u32,
        pool: H::Pool,
        waker: impl PinInit<H::Waker, E>,
    ) -> Result<Arc<Peer<H>>>
    where
        Error: From<E>,
    {
        let id = this.last_peer.fetch_add(1, Relaxed) + 1;
        let reservation = RBTreeNodeReservation::new(GFP_KEPT)?;
        let (user, waits) = this.enter(uid)?;
        let peer = Peer::new(this, id, &user, &waits, pool, waker);
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
    fn enter(&self, uid: u32) -> Result<(Arc<User>, Arc<UserWaits<H>>)> {
        let reservation = RBTreeNodeReservation::new(GFP_KEPT)?;
        let fresh = User::new(uid, self.limits)?;
        let waits = UserWaits::new()?;
        let mut users = self.users.lock();
        let known = match users.by_id.entry(uid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let known = Registered {
                    user: fresh.clone(),
                    waits: waits.clone(),
                    peers: RBTree::new(),
                    opening: 0,
                };
                vacant.insert(known, reservation)
            }
        };
        known.opening += 1;
        Ok((known.user.clone(), known.waits.clone()))
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
            let books = known.user.account.lock();
            let is_whole = books.account.limits == known.user.limits.map(u64::from);
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

    /// Sums up the amounts in use.
    pub fn usage(&self) -> Usage {
        let users = self.users.lock();
        let mut usage = Usage::default();
        for known in users.by_id.values() {
            let books = known.user.account.lock();
            let peers = known.peers.iter().count() as u64;
            let (charged, sent_fds) = (&books.account.used, books.sent.used[FDS]);
            if peers == 0 && sent_fds == 0 && *charged == NOTHING {
                continue;
            }
            usage.users += 1;
            usage.peers += peers;
            usage.sent_fds += sent_fds;
            add(&mut usage.charged, charged);
        }
        usage
    }
}
