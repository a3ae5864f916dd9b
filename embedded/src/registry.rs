// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which descriptors of this process stand for peers.
//!
//! A peer's descriptor is an eventfd. It is recognized by the ID that the system gave to the
//! eventfd behind it, so a duplicate under another number is the same peer, and a number that was
//! closed and given out again is not.
//!
//! Lock: `PEERS` alone; nothing else is locked, and no peer dropped, under it.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{LazyLock, Weak};

use bus1_core::bus::peer::Peer;
use kernel::error::{code::*, Result};
use kernel::sync::Arc;
use parking_lot::RwLock;

use crate::bus::Bus;
use crate::file;
use crate::host::Embedded;
use crate::peer::Shared;

/// The peers of all buses that have a descriptor, by the ID of their eventfd.
///
/// A peer leaves before its eventfd is closed, so the system does not give an ID out again while
/// it stands here.
static PEERS: LazyLock<RwLock<HashMap<u64, Weak<Shared>>>> = LazyLock::new(Default::default);

/// The ID of the eventfd behind a descriptor; nothing if it is something else, or if there is no
/// procfs to tell.
fn event_id(fd: BorrowedFd<'_>) -> Option<u64> {
    let path = format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("eventfd-id:"))
        .and_then(|id| id.trim().parse().ok())
}

/// A peer's place among [`PEERS`], given up when it is dropped.
pub(crate) struct Entry(u64);

impl Entry {
    /// Enters a peer under its eventfd; nothing if there is no procfs to recognize it by.
    pub(crate) fn new(event: BorrowedFd<'_>, peer: Weak<Shared>) -> Option<Self> {
        let id = event_id(event)?;
        PEERS.write().insert(id, peer);
        Some(Self(id))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        PEERS.write().remove(&self.0);
    }
}

/// Whether an open descriptor stands for a peer.
pub(crate) fn is_peer(fd: BorrowedFd<'_>) -> bool {
    event_id(fd).is_some_and(|id| PEERS.read().contains_key(&id))
}

/// Finds the peer behind a number. EBADF if it is not open, or is a mere path; EOPNOTSUPP if it is
/// no peer, or one of another bus.
pub(crate) fn find(bus: &Bus, fd: i32) -> Result<Arc<Peer<Embedded>>> {
    // SAFETY: it is only asked for its flags and its name, which fails if it is not open.
    let fd = unsafe { file::borrow(fd) }?;
    if file::is_path(fd)? {
        return Err(EBADF);
    }
    let id = event_id(fd).ok_or(EOPNOTSUPP)?;
    let peer = PEERS.read().get(&id).and_then(Weak::upgrade);
    match peer {
        Some(peer) if peer.is_on(bus) => Ok(peer.core().clone()),
        _ => Err(EOPNOTSUPP),
    }
}
