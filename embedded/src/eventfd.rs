// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system's side of a peer's descriptor: an eventfd that is 0 or 1.
//!
//! [`event`](crate::event) decides when it is 0 and when 1. It takes the eventfd and its lock from
//! here, so that `tests/event_model.rs` can put stand-ins in their place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{eventfd, EventfdFlags};
use rustix::io::Errno;

pub(crate) use parking_lot::Mutex;

/// An eventfd.
pub(crate) struct Eventfd(OwnedFd);

impl Eventfd {
    /// Makes an eventfd that is not readable.
    ///
    /// # Errors
    ///
    /// EMFILE, ENFILE, ENOMEM.
    pub(crate) fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    /// Makes it readable, from 0 to 1: an edge for a waiter that waits for one.
    pub(crate) fn set(&self) {
        // It cannot fail: the counter is 0.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it unreadable, from 1 to 0.
    pub(crate) fn clear(&self) {
        // It cannot fail: the counter is 1.
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
