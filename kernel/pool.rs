// SPDX-License-Identifier: GPL-2.0-only

//! One peer's pool: memory that senders fill and the owner maps.
//!
//! A pool is shared by its peer, by messages in flight to it, and by its mappings. Its memory is in
//! `memory.rs`, `shrinker.rs` takes unused pages back, and `mapping.rs` maps it.

use core::ops::Range;
use core::ptr;

use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, SetOnce};
use kernel::warn_on;

use crate::bus;
use crate::gfp::ACCOUNT_MAYFAIL;
use crate::memory::{Memory, N_PAGES, POOL_SIZE};
use crate::shrinker::Pools;

/// The pool of one peer.
///
/// Invariant: until a message is queued, its range is written by its sender only, which has it
/// pinned; afterwards by the task that took the message out of the queue. So no two tasks in the
/// kernel write the same byte at once; user space can only read.
pub(crate) struct Pool {
    pools: Arc<Pools>,
    /// The shrinker may hold it for a moment longer than the pool.
    pub(crate) memory: Arc<Memory>,
    /// Idle pages below this offset stay, for the next message.
    retained: Atomic<u64>,
    /// There may be idle pages from there on, since another task freed some when the owner tried to.
    missed: Atomic<bool>,
    /// Charges that outlive the peer, until the last reference is dropped.
    kept: SetOnce<bus::KeptCharges>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.pools.leave(&self.memory);
    }
}

/// Returns the numbers of the pages that a range touches.
fn pages_of(offset: u64, len: u64) -> Range<usize> {
    let size = PAGE_SIZE as u64;
    (offset / size) as usize..(offset + len).div_ceil(size) as usize
}

impl Pool {
    /// Makes an empty pool, whose memory the shrinker of `pools` can take back.
    pub(crate) fn new(pools: &Arc<Pools>) -> Result<Arc<Self>> {
        let new = Self {
            pools: pools.clone(),
            memory: Arc::pin_init(Memory::new(), ACCOUNT_MAYFAIL)?,
            retained: Atomic::new(0),
            missed: Atomic::new(false),
            kept: SetOnce::new(),
        };
        pools.enter(&new.memory)?;
        Ok(Arc::new(new, ACCOUNT_MAYFAIL)?)
    }

    /// Pins pages that could not be pinned for `error`: for want of memory once more, after idle
    /// pages of the pool were freed. On error none stays that was made.
    #[cold]
    fn pin_again(&self, pages: Range<usize>, error: Error) -> Result {
        let memory = &self.memory;
        let pinned = if error == ENOMEM {
            // Idle pages are charged to the senders that needed them first, and a limit on the
            // memory of a cgroup does not reach the shrinker.
            memory.trim(0..N_PAGES);
            memory.pin(pages.clone())
        } else {
            Err(error)
        };
        pinned.inspect_err(|_| memory.trim_unmapped(pages))
    }

    /// Frees the idle pages of a range that are not retained, and those that an earlier call could
    /// not free.
    #[cold]
    fn trim(&self, range: Range<u64>) {
        let retained = self.retained.load(Relaxed);
        let range = match self.missed.load(Relaxed) {
            true => retained..POOL_SIZE,
            false => retained.max(range.start)..range.end,
        };
        self.missed.store(false, Relaxed);
        let pages = pages_of(range.start, range.end - range.start);
        if !self.memory.trim(pages) {
            self.missed.store(true, Relaxed);
        }
    }

    /// Cuts a pinned range where its pages do not lie in a row: calls `f` with each piece, and with
    /// where the piece starts within the range.
    #[inline]
    pub(crate) fn pieces<F>(&self, offset: u64, len: u64, mut f: F) -> Result
    where
        F: FnMut(*mut [u8], u64) -> Result,
    {
        let mut done = 0;
        while done < len {
            let (at, left) = ((offset + done) as usize, (len - done) as usize);
            let piece = self.memory.piece(at, left);
            warn_on!(piece.is_none());
            let piece = piece.ok_or(EFAULT)?;
            f(piece, done)?;
            done += piece.len() as u64;
        }
        Ok(())
    }
}

impl bus::Pool for Arc<Pool> {
    const SIZE: u64 = POOL_SIZE;

    #[inline]
    fn pin(&self, offset: u64, len: u64) -> Result {
        let pages = pages_of(offset, len);
        let pinned = self.memory.pin(pages.clone());
        pinned.or_else(|error| self.pin_again(pages, error))
    }

    fn keep(&self, kept: bus::KeptCharges) {
        let is_first = self.kept.populate(kept);
        warn_on!(!is_first);
    }

    fn unpin(&self, offset: u64, len: u64) {
        self.memory.unpin(pages_of(offset, len));
        let end = offset + len;
        if end > self.retained.load(Relaxed) {
            self.trim(offset..end);
        }
    }

    fn abandon(&self, offset: u64, len: u64) {
        let pages = pages_of(offset, len);
        self.memory.unpin(pages.clone());
        // What the owner reads stays: to take it out would make every message dearer to it.
        self.memory.trim_unmapped(pages);
    }

    fn retain(&self, end: u64) {
        self.retained.store(end, Relaxed);
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let _ = self.pieces(offset, bytes.len() as u64, |piece, done| {
            let from = bytes.as_ptr().wrapping_add(done as usize);
            // SAFETY: The piece lies in pinned pages and, by the invariant of `Pool`, is ours to
            // write. The pieces together are as long as `bytes`.
            unsafe { ptr::copy_nonoverlapping(from, piece.cast(), piece.len()) };
            Ok(())
        });
    }

    fn copy(&self, offset: u64, len: u64, to: &Self, to_offset: u64) {
        let _ = self.pieces(offset, len, |from, done| {
            to.pieces(to_offset + done, from.len() as u64, |piece, done| {
                let from = from.cast::<u8>().wrapping_add(done as usize);
                // memmove(), since it copies words where both lie alike.
                // SAFETY: Both lie in pinned pages, of different slices. The one is not written any
                // more, the other is ours to write. The pieces together are as long as the range
                // that they are cut from.
                unsafe { ptr::copy(from, piece.cast(), piece.len()) };
                Ok(())
            })
        });
    }
}
