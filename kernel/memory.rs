// SPDX-License-Identifier: GPL-2.0-only

//! The memory of one pool: a table from page number to [`Entry`], and the way from a page to the
//! page tables that have it.
//!
//! The table has three levels. Its lower two are made as they are needed and stay until the pool
//! goes, so the table is walked without any lock. It is charged like the pages.
//!
//! # Locks
//!
//! `bus1::hand`, a mutex of each pool, is held by the one task that takes pages out of the table.
//! The shrinker only tries to lock it, for it is also called by allocations under any lock. A SEND
//! that has no memory waits for it. No other call does: neither one that opens or closes a peer,
//! nor one that uses another pool. Below it come page locks, which are tried as well, and the locks
//! of unmapping, which may be taken in reclaim.
//!
//! `bus1::mapped`, a spin lock, guards the pointer to the pool's file, which is no reference: the
//! file clears it when it is released. Nothing is locked under it.

use core::ops::Range;
use core::ptr::{self, NonNull};

use kernel::bindings;
use kernel::fs::file::Offset;
use kernel::fs::File;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::{new_mutex, new_spinlock, Mutex, SpinLock};
use pin_init::init_zeroed;

use crate::entry::Entry;
use crate::gfp::ACCOUNT_MAYFAIL;

/// Bytes of address space of a pool.
pub(crate) const POOL_SIZE: u64 = 1 << 32;
/// Pages of address space of a pool.
pub(crate) const N_PAGES: usize = (POOL_SIZE / PAGE_SIZE as u64) as usize;

const PER_LEAF: usize = 128;
const PER_BRANCH: usize = 128 * PER_LEAF;
const N_BRANCHES: usize = N_PAGES.div_ceil(PER_BRANCH);

/// Most pages that are made at once: enough for a slice of 64 KiB.
const ROW: usize = 16;
/// Most pages that leave the page tables in one walk over all mappings.
const RUN: usize = 32;
/// Most mappings of a pool, except for those that children inherit. The pages that are in page
/// tables are not taken back while there are more.
pub(crate) const MAPPINGS_MAX: usize = 1024;

/// A part of the table: none at first, then one that stays.
struct Part<T>(Atomic<*mut T>);

// SAFETY: A null pointer stands for none.
unsafe impl<T> Zeroable for Part<T> {}

impl<T: Zeroable> Part<T> {
    fn get(&self) -> Option<&T> {
        // SAFETY: Null, or published by `get_or_new` below with all its content, and freed with
        // `self` only.
        unsafe { self.0.load(Acquire).as_ref() }
    }

    fn get_or_new(&self) -> Result<&T> {
        if self.get().is_none() {
            let new = KBox::into_raw(KBox::init(init_zeroed(), ACCOUNT_MAYFAIL)?);
            if self.0.cmpxchg(ptr::null_mut(), new, Full).is_err() {
                // SAFETY: From `into_raw` above and not shared with anybody.
                drop(unsafe { KBox::from_raw(new) });
            }
        }
        // Ours, or that of a faster thread.
        self.get().ok_or(ENOMEM)
    }
}

impl<T> Drop for Part<T> {
    fn drop(&mut self) {
        let part = *self.0.get_mut();
        if !part.is_null() {
            // SAFETY: From `into_raw` in `get_or_new`; `self` is not shared any more.
            drop(unsafe { KBox::from_raw(part) });
        }
    }
}

type Leaf = [Entry; PER_LEAF];
type Branch = [Part<Leaf>; PER_BRANCH / PER_LEAF];

/// The file that stands for a pool in mappings, or null. `mapping.rs` makes it.
///
/// Invariant: the file is valid memory as long as the pointer is here; its last reference may be
/// gone.
pub(crate) struct Mapped(*mut bindings::file);

// SAFETY: A file may be used from any thread.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Returns a reference to the file, if there is one that is not about to be released.
    pub(crate) fn file(&mut self) -> Option<ARef<File>> {
        // SAFETY: Null or valid memory by the invariant, and the pointer cannot change meanwhile.
        let file = NonNull::new(unsafe { bindings::get_file_active(&mut self.0) })?;
        // SAFETY: We own the reference that was taken; nobody takes positions of this file.
        Some(unsafe { ARef::from_raw(file.cast()) })
    }

    /// Sets the file.
    ///
    /// # Safety
    ///
    /// The release of the file calls [`Mapped::clear`].
    pub(crate) unsafe fn set(&mut self, file: &File) {
        self.0 = file.as_ptr();
    }

    /// Forgets a file that is being released; a later one stays.
    pub(crate) fn clear(&mut self, file: *mut bindings::file) {
        if ptr::eq(self.0, file) {
            self.0 = ptr::null_mut();
        }
    }
}

/// The memory of one pool.
#[pin_data]
pub(crate) struct Memory {
    branches: [Part<Branch>; N_BRANCHES],
    present: Atomic<usize>,
    /// The page behind the next one that the shrinker looks at.
    #[pin]
    hand: Mutex<usize>,
    /// Number of mappings, in all processes. `mapping.rs` counts them.
    pub(crate) mappings: Atomic<usize>,
    #[pin]
    pub(crate) mapped: SpinLock<Mapped>,
}

impl Memory {
    /// Makes a memory without pages, mapped nowhere.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            branches <- init_zeroed(),
            present: Atomic::new(0),
            hand <- new_mutex!(N_PAGES, "bus1::hand"),
            mappings: Atomic::new(0),
            mapped <- new_spinlock!(Mapped(ptr::null_mut()), "bus1::mapped"),
        })
    }

    /// Returns a page and all that follow in the same leaf. None if there is no leaf.
    #[inline]
    fn entries(&self, page: usize) -> Option<&[Entry]> {
        let branch = self.branches.get(page / PER_BRANCH)?.get()?;
        let leaf = branch[page % PER_BRANCH / PER_LEAF].get()?;
        Some(&leaf[page % PER_LEAF..])
    }

    /// Returns a page and all that follow in the same leaf, which is made if it is missing.
    fn entries_or_new(&self, page: usize) -> Result<&[Entry]> {
        let branch = self.branches.get(page / PER_BRANCH).ok_or(EINVAL)?;
        let leaf = branch.get_or_new()?[page % PER_BRANCH / PER_LEAF].get_or_new()?;
        Ok(&leaf[page % PER_LEAF..])
    }

    /// Pins pages, or none. Missing pages are made.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    #[inline]
    pub(crate) fn pin(&self, pages: Range<usize>) -> Result {
        let mut page = pages.start;
        while page < pages.end {
            let entries = self.entries(page).unwrap_or_default();
            let n = entries.len().min(pages.end - page);
            let pinned = Entry::pin(&entries[..n]);
            page += pinned;
            if pinned == 0 || pinned < n {
                let made = self.make(page..pages.end);
                page += made.inspect_err(|_| self.unpin(pages.start..page))?;
            }
        }
        Ok(())
    }

    /// Makes the first of `pages` and those behind it that are missing as well, pinned once.
    /// Returns their number: 0 if others are faster.
    #[cold]
    fn make(&self, pages: Range<usize>) -> Result<usize> {
        let entries = self.entries_or_new(pages.start)?;
        // Slices are disjoint and of 8 bytes or more, so 512 pin a page, and faults a few more.
        if entries[0].is_full() {
            return Err(ENOMEM);
        }
        let most = entries.iter().take(pages.len().min(ROW));
        let missing = most.take_while(|entry| entry.address().is_null()).count();
        // If there is one meanwhile none is made, and the caller pins it.
        Ok(self.fill(entries, Entry::new_row(missing.max(1))?))
    }

    /// Puts new pages into entries, up to the first that has a page, and frees the rest. Returns
    /// how many were put in.
    fn fill(&self, entries: &[Entry], new: impl Iterator<Item = Entry>) -> usize {
        let mut made = 0;
        for (i, (entry, new)) in entries.iter().zip(new).enumerate() {
            // Counted before it can be freed, so that the count never falls below 0.
            self.present.add(1_usize, Relaxed);
            if made == i && entry.fill(new) {
                made += 1;
            } else {
                self.present.fetch_sub(1_usize, Relaxed);
            }
        }
        made
    }

    /// Locks a page and takes a reference to it. Null if there is none, or if its memory is broken.
    pub(crate) fn lock(&self, page: usize) -> *mut bindings::page {
        let entry = self.entries(page).and_then(<[Entry]>::first);
        entry.map_or(ptr::null_mut(), Entry::lock)
    }

    /// Undoes one pin of each page.
    #[inline]
    pub(crate) fn unpin(&self, mut pages: Range<usize>) {
        while !pages.is_empty() {
            let Some(entries) = self.entries(pages.start) else {
                return;
            };
            let n = entries.len().min(pages.len());
            Entry::unpin(&entries[..n]);
            pages.start += n;
        }
    }

    /// Returns the memory at `offset`: of the `len` bytes from there, which are pinned, as many as
    /// lie in a row. None if there is no page.
    #[inline]
    pub(crate) fn piece(&self, offset: usize, len: usize) -> Option<*mut [u8]> {
        let entries = self.entries(offset / PAGE_SIZE)?;
        let page = NonNull::new(entries.first()?.address())?.as_ptr();
        let start = offset % PAGE_SIZE;
        let mut size = PAGE_SIZE - start;
        if size < len {
            let n = entries.len().min((start + len).div_ceil(PAGE_SIZE));
            size = Entry::row(&entries[..n]) - start;
        }
        let piece = page.wrapping_add(start);
        Some(ptr::slice_from_raw_parts_mut(piece, len.min(size)))
    }

    /// Looks at up to `budget` pages, from where the last call ended on, and frees those that are
    /// idle. Returns their number, and counts `budget` down. Does nothing while another task frees
    /// pages here. May be called in reclaim.
    pub(crate) fn sweep(&self, budget: &mut usize) -> usize {
        let hand = self
            .hand
            .try_lock()
            .filter(|_| self.present.load(Relaxed) != 0);
        let Some(mut hand) = hand else {
            return 0;
        };
        // SAFETY: The hand is locked.
        let freed = unsafe { self.reclaim(0, &mut hand, budget) };
        if *hand == 0 {
            *hand = N_PAGES;
        }
        freed
    }

    /// Frees those of `pages` that are idle, unless another task frees pages of this pool at the
    /// moment: no sender waits for the mappings of a receiver.
    pub(crate) fn trim(&self, pages: Range<usize>) {
        let Some(_hand) = self.hand.try_lock() else {
            return;
        };
        let (mut hand, mut budget) = (pages.end, usize::MAX);
        // SAFETY: The hand is locked.
        unsafe { self.reclaim(pages.start, &mut hand, &mut budget) };
    }

    /// Frees idle pages from `start` on, and returns how many. High pages come first, since slices
    /// are placed as low as possible.
    ///
    /// `hand` is the page behind the next one to look at, and `start` or less at the end; `budget`
    /// is how many pages may still be looked at. Both go down on the way. Missing pages of a leaf
    /// count as one.
    ///
    /// # Safety
    ///
    /// `self.hand` is locked.
    unsafe fn reclaim(&self, start: usize, hand: &mut usize, budget: &mut usize) -> usize {
        let mut freed = 0;
        while *hand > start && *budget > 0 {
            let page = *hand - 1;
            let leaf = page / PER_LEAF * PER_LEAF;
            let Some(entries) = self.entries(start.max(leaf)) else {
                let branch = self.branches[page / PER_BRANCH].get();
                let missing = branch.map_or(PER_BRANCH, |_| PER_LEAF);
                *hand = page / missing * missing;
                continue;
            };
            let entries = &entries[..*hand - start.max(leaf)];
            let from_above = || entries.iter().rev();
            let absent = from_above().take_while(|entry| entry.address().is_null());
            let absent = absent.count();
            // SAFETY: By the caller nobody else takes pages out.
            let idle = |entry: &&Entry| unsafe { entry.try_lock_idle() };
            let n_locked = from_above().skip(absent).take(RUN).take_while(idle).count();
            let locked = &entries[entries.len() - absent - n_locked..entries.len() - absent];
            // A page that is in use is a look as well.
            let looked = n_locked.max(1);
            *hand -= (absent + looked).min(entries.len());
            *budget = budget.saturating_sub(looked);
            // SAFETY: They were locked here.
            freed += unsafe { self.free(*hand, locked) };
        }
        freed
    }

    /// Unlocks pages, the first of which is `first`, and frees those that are still idle. Returns
    /// how many. A page that page tables have leaves all of them first: otherwise the next page of
    /// that entry could be written while the owner still sees this one.
    ///
    /// # Safety
    ///
    /// [`Entry::try_lock_idle`] locked the pages.
    unsafe fn free(&self, first: usize, locked: &[Entry]) -> usize {
        // SAFETY: By the caller.
        let mapped = locked.iter().any(|entry| unsafe { entry.is_mapped() });
        let is_free = !mapped || self.unmap(first, locked.len());
        // SAFETY: By the caller.
        let unlock = |entry: &&Entry| unsafe { entry.unlock(is_free) };
        let freed = locked.iter().filter(unlock).count();
        self.present.fetch_sub(freed, Relaxed);
        freed
    }

    /// Takes pages out of all page tables. False, with nothing done, if there are so many mappings
    /// that this would take long.
    fn unmap(&self, first: usize, n: usize) -> bool {
        if self.mappings.load(Relaxed) > MAPPINGS_MAX {
            return false;
        }
        let file = self.mapped.lock().file();
        if let Some(file) = file {
            let (start, size) = ((first * PAGE_SIZE) as Offset, (n * PAGE_SIZE) as Offset);
            // SAFETY: The file is valid, and keeps its inode, of which the index is a part.
            unsafe { bindings::unmap_mapping_range((*file.as_ptr()).f_mapping, start, size, 1) };
        }
        true
    }
}
