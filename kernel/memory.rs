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
//! All only try to lock it: the shrinker is also called by allocations under any lock, senders must
//! not wait for the mappings of a receiver, and the owner must not wait for a sender, which may be
//! preempted for as long as others like. The owner's next attempt makes up for one that failed.
//! Below it come page locks, of which the same holds, and the locks of unmapping, which may be taken
//! in reclaim.

use core::ops::Range;
use core::ptr::{self, NonNull};

use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::fs::file::Offset;
use kernel::fs::File;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::{new_mutex, Mutex};
use pin_init::init_zeroed;

use crate::entry::Entry;
use crate::gfp::ACCOUNT_MAYFAIL;
use crate::glue;

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

/// A way through the pages of a pool, from the last one down.
struct Scan {
    /// The first page, and the one behind the next to look at.
    left: Range<usize>,
    /// How much may still be done: a look at a page or into a mapping. Missing pages of a leaf
    /// count as one.
    budget: usize,
}

/// The memory of one pool.
#[pin_data]
pub(crate) struct Memory {
    branches: [Part<Branch>; N_BRANCHES],
    /// The page behind the next one that the shrinker looks at.
    #[pin]
    hand: Mutex<usize>,
    /// The file that all mappings have. It stands for nothing except them: it has an inode of its
    /// own, and so an index of the mappings.
    pub(crate) file: ARef<File>,
    /// Number of mappings, in all processes. `mapping.rs` counts them.
    pub(crate) mappings: Atomic<usize>,
}

impl Memory {
    /// Makes a memory without pages, mapped nowhere.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            branches <- init_zeroed(),
            hand <- new_mutex!(N_PAGES, "bus1::hand"),
            file: new_file()?,
            mappings: Atomic::new(0),
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
    /// ENOMEM; EINTR if the caller was killed.
    #[inline]
    pub(crate) fn pin(&self, pages: Range<usize>) -> Result {
        let pinned = self.pin_row(pages.clone());
        if pinned == pages.len() {
            return Ok(());
        }
        self.pin_rows(pages.start, pages.start + pinned..pages.end)
    }

    /// Pins pages, up to the first that is missing or in the next leaf. Returns how many.
    #[inline]
    fn pin_row(&self, pages: Range<usize>) -> usize {
        let entries = self.entries(pages.start).unwrap_or_default();
        Entry::pin(&entries[..entries.len().min(pages.len())])
    }

    /// Pins pages, after those from `start` on up to them. On error none of these stay pinned.
    #[cold]
    fn pin_rows(&self, start: usize, mut pages: Range<usize>) -> Result {
        while !pages.is_empty() {
            let made = match glue::bus1_is_killed() {
                true => Err(EINTR),
                false => match self.pin_row(pages.clone()) {
                    0 => self.make(pages.clone()),
                    pinned => Ok(pinned),
                },
            };
            pages.start += made.inspect_err(|_| self.unpin(start..pages.start))?;
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
        let mut made = 0;
        // Up to the first that has a page meanwhile, which the caller pins; the rest is freed.
        for (i, new) in Entry::new_row(missing.max(1))?.enumerate() {
            if made == i && entries[i].fill(new) {
                made += 1;
            }
        }
        Ok(made)
    }

    /// Locks a page and takes a reference to it. Null if there is none, or if its memory is broken.
    pub(crate) fn lock(&self, page: usize) -> *mut bindings::page {
        let entry = self.entries(page).and_then(<[Entry]>::first);
        entry.map_or(ptr::null_mut(), Entry::lock)
    }

    /// Undoes one pin of each page.
    #[inline]
    pub(crate) fn unpin(&self, pages: Range<usize>) {
        self.each_leaf(pages, Entry::unpin);
    }

    /// Calls `f` with those of `pages` that are in one leaf, leaf by leaf, up to the first leaf that is
    /// missing.
    #[inline]
    fn each_leaf(&self, mut pages: Range<usize>, f: impl Fn(&[Entry])) {
        while !pages.is_empty() {
            let Some(entries) = self.entries(pages.start) else {
                return;
            };
            let n = entries.len().min(pages.len());
            f(&entries[..n]);
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
        let Some(mut hand) = self.hand.try_lock() else {
            return 0;
        };
        let mut scan = Scan {
            left: 0..*hand,
            budget: *budget,
        };
        // SAFETY: The hand is locked.
        let freed = unsafe { self.reclaim(&mut scan) };
        *budget = scan.budget;
        *hand = match scan.left.end {
            0 => N_PAGES,
            page => page,
        };
        freed
    }

    /// Frees those of `pages` that are idle. Returns false, and does nothing, while another task
    /// frees pages of this pool.
    pub(crate) fn trim(&self, pages: Range<usize>) -> bool {
        let Some(_hand) = self.hand.try_lock() else {
            return false;
        };
        let mut scan = Scan {
            left: pages,
            budget: usize::MAX,
        };
        // SAFETY: The hand is locked.
        unsafe { self.reclaim(&mut scan) };
        true
    }

    /// Frees those of `pages` that are idle and that no page table has, up to the first leaf that is
    /// missing. Does nothing while another task frees pages of this pool.
    pub(crate) fn trim_unmapped(&self, pages: Range<usize>) {
        let Some(_hand) = self.hand.try_lock() else {
            return;
        };
        // SAFETY: The hand is locked.
        let free = |entry: &Entry| unsafe { entry.free_unmapped() };
        self.each_leaf(pages, |entries| entries.iter().for_each(free));
    }

    /// Frees idle pages, and returns how many. High pages come first, since slices are placed as
    /// low as possible.
    ///
    /// # Safety
    ///
    /// `self.hand` is locked.
    unsafe fn reclaim(&self, scan: &mut Scan) -> usize {
        let mut freed = 0;
        while !scan.left.is_empty() && scan.budget > 0 {
            let page = scan.left.end - 1;
            let first = scan.left.start.max(page / PER_LEAF * PER_LEAF);
            let Some(entries) = self.entries(first) else {
                let branch = self.branches[page / PER_BRANCH].get();
                let missing = branch.map_or(PER_BRANCH, |_| PER_LEAF);
                scan.left.end = page / missing * missing;
                continue;
            };
            let entries = &entries[..scan.left.end - first];
            let from_above = || entries.iter().rev();
            let absent = from_above().take_while(|entry| entry.address().is_null());
            let absent = absent.count();
            // SAFETY: By the caller nobody else takes pages out.
            let idle = |entry: &&Entry| unsafe { entry.lock_idle() };
            let n_locked = from_above().skip(absent).take(RUN).take_while(idle).count();
            let locked = &entries[entries.len() - absent - n_locked..entries.len() - absent];
            // A page that is in use is a look as well.
            let looked = n_locked.max(1);
            scan.left.end -= (absent + looked).min(entries.len());
            scan.budget = scan.budget.saturating_sub(looked);
            // SAFETY: By the caller, and they were locked here.
            freed += unsafe { self.free(locked, scan) };
        }
        freed
    }

    /// Unlocks the pages that `scan` came to last, and frees those that are still idle. Returns how
    /// many. A page that page tables have leaves all of them first: otherwise the next page of that
    /// entry could be written while the owner still sees this one.
    ///
    /// # Safety
    ///
    /// [`Entry::lock_idle`] locked the pages.
    unsafe fn free(&self, locked: &[Entry], scan: &mut Scan) -> usize {
        // SAFETY: By the caller.
        let mapped = locked.iter().any(|entry| unsafe { entry.is_mapped() });
        let mappings = self.mappings.load(Relaxed);
        if mapped && mappings <= MAPPINGS_MAX {
            scan.budget = scan.budget.saturating_sub(mappings);
            let start = (scan.left.end * PAGE_SIZE) as Offset;
            let size = (locked.len() * PAGE_SIZE) as Offset;
            let file = self.file.as_ptr();
            // SAFETY: The file is ours, and keeps its inode, of which the index is a part.
            unsafe { bindings::unmap_mapping_range((*file).f_mapping, start, size, 1) };
        }
        // SAFETY: By the caller.
        let unlock = |entry: &&Entry| unsafe { entry.unlock() };
        locked.iter().filter(unlock).count()
    }
}

/// Makes a file for mappings.
///
/// # Errors
///
/// ENOMEM, ENFILE.
fn new_file() -> Result<ARef<File>> {
    let file = from_err_ptr(glue::bus1_new_pool_file())?;
    // SAFETY: It is valid, we own the first reference, and nobody takes its position.
    Ok(unsafe { ARef::from_raw(NonNull::new_unchecked(file).cast()) })
}
