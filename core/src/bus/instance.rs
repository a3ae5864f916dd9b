// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One bus: its users, and the way to become a peer.
//!
//! # Locks
//!
//! `users` (rank 3) is taken by open and when a peer goes, never on the way of a message.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock, Arc, SpinLock};

use super::account::{Amounts, Limits, NOTHING};
use super::host::Host;
use super::peer::Peer;
use super::user::User;

struct Registered {
    user: Arc<User>,
    peers: u64,
}

// The user is behind a pointer.
impl Unpin for Registered {}

/// A bus, on which peers can reach each other.
#[pin_data]
pub struct Bus {
    limits: Limits,
    last_peer: Atomic<u64>,
    #[pin]
    users: SpinLock<RBTree<u32, Registered>>,
}

/// What is in use on a bus, over all users. All zero when no peer is left.
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

impl Bus {
    /// A bus of its own, on which every user has these limits.
    pub fn new(limits: Limits) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                limits,
                last_peer: Atomic::new(0),
                users <- new_spinlock!(RBTree::new(), "bus1::users"),
            }),
            GFP_KERNEL,
        )
    }

    /// Makes a peer that belongs to user `uid`. ENOMEM.
    pub fn open<H: Host, E>(
        this: &Arc<Self>,
        uid: u32,
        pool: H::Pool,
        waker: impl PinInit<H::Waker, E>,
    ) -> Result<Arc<Peer<H>>>
    where
        Error: From<E>,
    {
        let id = this.last_peer.fetch_add(1, Relaxed) + 1;
        let user = this.enter(uid)?;
        Peer::new(this, id, &user, pool, waker).inspect_err(|_| this.leave(&user))
    }

    /// Counts one more peer of the user.
    fn enter(&self, uid: u32) -> Result<Arc<User>> {
        let slot = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let fresh = User::new(uid, self.limits)?;
        let mut users = self.users.lock();
        if let Some(known) = users.get_mut(&uid) {
            known.peers += 1;
            let user = known.user.clone();
            drop(users);
            return Ok(user);
        }
        let user = fresh.clone();
        users.insert(slot.into_node(
            uid,
            Registered {
                user: fresh,
                peers: 1,
            },
        ));
        Ok(user)
    }

    /// Counts one peer fewer, and forgets the users that have none and nothing in flight.
    pub(super) fn leave(&self, user: &Arc<User>) {
        let mut gone = RBTree::new();
        let mut users = self.users.lock();
        if let Some(known) = users.get_mut(&user.uid()) {
            known.peers -= 1;
        }
        let mut cursor = users.cursor_front_mut();
        while let Some(here) = cursor {
            let known = here.current().1;
            // Descriptors in flight outlive the peer that sent them, and their account with them:
            // else closing and opening again would wipe the slate clean.
            cursor = if known.peers == 0 && is_idle(&known.user) {
                let last = here.peek_next().is_none();
                let (next, node) = here.remove_current();
                gone.insert(node);
                next.filter(|_| !last)
            } else {
                here.move_next()
            };
        }
        drop(users);
        drop(gone);
    }

    /// What is in use.
    pub fn usage(&self) -> Usage {
        let users = self.users.lock();
        let mut usage = Usage::default();
        for known in users.values() {
            let books = known.user.account.lock();
            if known.peers == 0 && books.sent_fds == 0 && *books.account.granted() == NOTHING {
                continue;
            }
            usage.users += 1;
            usage.peers += known.peers;
            usage.sent_fds += books.sent_fds;
            for (sum, used) in usage.charged.iter_mut().zip(books.account.used()) {
                *sum += used;
            }
        }
        usage
    }
}

fn is_idle(user: &User) -> bool {
    user.account.lock().sent_fds == 0
}
