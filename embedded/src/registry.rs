// SPDX-License-Identifier: MIT OR Apache-2.0

//! The descriptors of this process that stand for peers.
//!
//! A peer's descriptor is an eventfd. The registry recognizes it by the ID that the system gave to
//! the eventfd behind it, so a duplicate under another number is the same peer, and a number that
//! was closed and given out again is not.
//!
//! Lock: `PEERS` only; no other lock is taken, and no peer dropped, under it.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{LazyLock, Weak};

use bus1_core::bus::{Bus, Peer};
use kernel::error::{code::*, Result};
use kernel::sync::Arc;
use parking_lot::RwLock;

use crate::descriptor;
use crate::host::Embedded;

/// A peer as the registry knows it.
pub(crate) trait Registered: Send + Sync {
    /// Returns the bus that it is on.
    fn bus(&self) -> &Arc<Bus<Embedded>>;

    /// Returns the core's part of it.
    fn core(&self) -> &Arc<Peer<Embedded>>;
}

/// The peers of all buses that have a descriptor, by the ID of their eventfd.
///
/// A peer leaves before its eventfd is closed, so the system does not give an ID out again while
/// it stands here.
static PEERS: LazyLock<RwLock<HashMap<u64, Weak<dyn Registered>>>> =
    LazyLock::new(Default::default);

/// A peer's place among [`PEERS`], which ends when it is dropped.
pub(crate) struct Entry(u64);

impl Entry {
    /// Enters a peer under its eventfd; `None` if there is no procfs to recognize it by.
    pub(crate) fn new(eventfd: BorrowedFd<'_>, peer: Weak<dyn Registered>) -> Option<Self> {
        let id = descriptor::eventfd_id(eventfd)?;
        PEERS.write().insert(id, peer);
        Some(Self(id))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        PEERS.write().remove(&self.0);
    }
}

/// Returns whether an open descriptor stands for a peer.
pub(crate) fn is_peer(fd: BorrowedFd<'_>) -> bool {
    descriptor::eventfd_id(fd).is_some_and(|id| PEERS.read().contains_key(&id))
}

/// Finds the peer behind a number.
///
/// # Errors
///
/// EBADF if it is not open, or is a mere path; EOPNOTSUPP if it is no peer, or one of another bus.
pub(crate) fn find(bus: &Arc<Bus<Embedded>>, fd: i32) -> Result<Arc<Peer<Embedded>>> {
    // SAFETY: it is only asked for its flags and its name, which fails if it is not open.
    let fd = unsafe { descriptor::borrow(fd) }?;
    if descriptor::is_path(fd)? {
        return Err(EBADF);
    }
    let id = descriptor::eventfd_id(fd).ok_or(EOPNOTSUPP)?;
    let peer = PEERS.read().get(&id).and_then(Weak::upgrade);
    match peer {
        Some(peer) if Arc::ptr_eq(peer.bus(), bus) => Ok(peer.core().clone()),
        _ => Err(EOPNOTSUPP),
    }
}
