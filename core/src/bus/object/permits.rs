// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Permits to destroy nodes, which bound the undecided destructions of one user.
//!
//! While a destruction is undecided, it costs each peer that it notified what an undecided multicast
//! costs: a look by every message and every receipt. It cannot be refused, as a multicast can. So a
//! task gets a permit of the peer's user before it stages the first notice, and returns it once the
//! destruction is committed. While all permits are taken, the task sleeps, and nothing of its
//! destruction is staged.
//!
//! The tasks of other users, which may close the peer, have permits of their own: they do not wait
//! for tasks of the peer's user.
//!
//! # Invariants
//!
//! - A permit that is taken is one of the user that the bus knows. For the bus knows the user while
//!   a permit is taken; and a task gets one before the peer leaves: before it reserves the destruction
//!   of a node, or before it closes the inbox.
//!
//! # Locks
//!
//! Each permit is a mutex (rank 0). A task holds at most one, and takes it while it holds no lock.
//! All locks that a destruction takes nest in it.

use kernel::sync::{Mutex, MutexGuard};

use crate::bus::host::Host;
use crate::bus::object::{Peer, UserWaits};

/// Most undecided destructions of one user's peers by its own tasks, and by those of all others.
const PERMITS: usize = 8;

/// Permits for the tasks of one kind.
pub(crate) type Permits = [Mutex<()>; PERMITS];

impl<H: Host> UserWaits<H> {
    /// Returns whether a permit is taken.
    pub(crate) fn is_destroying(&self) -> bool {
        let mut all = self.permits.iter().chain(&self.strangers);
        all.any(|permit| permit.try_lock().is_none())
    }
}

impl<H: Host> Peer<H> {
    /// Gets a permit until the guard is dropped. If none is free, the task sleeps, not to be killed,
    /// until the one that the ID of this peer chooses is returned.
    pub(crate) fn permit(&self) -> MutexGuard<'_, ()> {
        let permits = match H::uid() {
            Some(uid) if uid != self.uid() => &self.waits.strangers,
            _ => &self.waits.permits,
        };
        let free = permits.iter().find_map(|permit| permit.try_lock());
        free.unwrap_or_else(|| permits[self.id() as usize % PERMITS].lock())
    }
}
