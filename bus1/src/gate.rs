// SPDX-License-Identifier: MIT OR Apache-2.0

//! The gate that keeps a flush away from objects in use.
//!
//! A flush releases all that a peer has at once, also what a message of this process borrows from
//! the pool. So it is refused as long as there are objects.
//!
//! Invariants:
//! - The count covers the nodes, handles and messages of the peer in this process. It falls only
//!   after what an object held was released.
//! - Between a receipt and the count of what it brought no flush runs: the receiver holds the gate
//!   open ([`Gate::enter`]), or, if it may sleep, has counted an object before
//!   ([`Gate::keep_busy`]).
//!
//! Lock: `lock` is held shared across commands that bring new objects, exclusively across a flush.
//! It comes before the lock of the registry. No thread sleeps for a message with it.
//!
//! Memory order: an object leaves with Release, a flush looks with Acquire, so what the object did
//! with the peer comes before the flush.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Result};

/// The gate of one peer.
#[derive(Default)]
pub(crate) struct Gate {
    objects: AtomicUsize,
    lock: RwLock<()>,
}

/// Keeps flushes waiting while it lives.
pub(crate) struct Entered<'a> {
    _shared: RwLockReadGuard<'a, ()>,
}

/// Has flushes refused while it lives.
pub(crate) struct Busy<'a>(&'a Gate);

/// Keeps new objects waiting while it lives; there are none.
pub(crate) struct Closed<'a> {
    _exclusive: RwLockWriteGuard<'a, ()>,
}

impl Gate {
    /// Keeps flushes waiting, for a command that does not sleep.
    pub(crate) fn enter(&self) -> Entered<'_> {
        Entered {
            _shared: self.lock.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Has flushes refused, for a command that may sleep.
    pub(crate) fn keep_busy(&self) -> Busy<'_> {
        let _entered = self.enter();
        self.object_made();
        Busy(self)
    }

    /// Counts a new object. The caller has entered, or keeps the peer busy.
    pub(crate) fn object_made(&self) {
        self.objects.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an object out, after all that it held is released.
    pub(crate) fn object_gone(&self) {
        self.objects.fetch_sub(1, Ordering::Release);
    }

    /// Waits for commands that bring objects, and keeps others from beginning.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if there are objects.
    pub(crate) fn close(&self) -> Result<Closed<'_>> {
        let closed = Closed {
            _exclusive: self.lock.write().unwrap_or_else(PoisonError::into_inner),
        };
        match self.objects.load(Ordering::Acquire) {
            0 => Ok(closed),
            _ => Err(Error::InUse),
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.object_gone();
    }
}
