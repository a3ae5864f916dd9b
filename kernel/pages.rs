// SPDX-License-Identifier: GPL-2.0-only

//! The pages of one pool: a table from page number to [`Entry`].
//!
//! The table has three levels. Its lower two are made as they are needed and stay until the pool
//! goes, so the table is walked without any lock. It is charged like the pages.
//!
//! Invariant: [`Pages::reclaim`] runs once at a time.

use core::ops::Range;
use core::ptr;

use kernel::bindings;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use pin_init::init_zeroed;

use crate::entry::Entry;

/// Bytes of address space of a pool.
pub(crate) const POOL_SIZE: u64 = 1 << 32;
/// Pages of address space of a pool.
pub(crate) const N_PAGES: usize = (POOL_SIZE / PAGE_SIZE as u64) as usize;

const PER_LEAF: usize = 128;
const PER_BRANCH: usize = 128 * PER_LEAF;
const N_BRANCHES: usize = N_PAGES.div_ceil(PER_BRANCH);

/// Most pages that are made at once: enough for a slice of 64 KiB.
const ROW: usize = 16;

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
            let new = KBox::into_raw(KBox::init(init_zeroed(), GFP_KERNEL_ACCOUNT)?);
            if self.0.cmpxchg(ptr::null_mut(), new, Full).is_err() {
                // SAFETY: From `into_raw` above and not shared with anybody.
                drop(unsafe { KBox::from_raw(new) });
            }
        }
        // This is our leaf, or that of a faster thread.
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

/// A walk through a table in search of idle pages, high pages first: slices are placed as low as
/// possible.
pub(crate) struct Sweep {
    /// The page behind the next one to look at; 0 is the end.
    pub(crate) hand: usize,
    /// Number of pages that may still be looked at.
    pub(crate) budget: usize,
    /// Number of pages that were freed.
    pub(crate) freed: usize,
}

/// The pages of one pool.
pub(crate) struct Pages {
    branches: [Part<Branch>; N_BRANCHES],
    present: Atomic<usize>,
}

// SAFETY: A table without pages.
unsafe impl Zeroable for Pages {}

impl Pages {
    /// Returns the number of pages.
    pub(crate) fn present(&self) -> usize {
        self.present.load(Relaxed)
    }

    #[inline]
    fn branch(&self, page: usize) -> Option<&Branch> {
        self.branches.get(page / PER_BRANCH)?.get()
    }

    #[inline]
    fn leaf(branch: &Branch, page: usize) -> &Part<Leaf> {
        &branch[page % PER_BRANCH / PER_LEAF]
    }

    /// Returns a page and all that follow in the same leaf. None if there is no leaf.
    #[inline]
    fn entries(&self, page: usize) -> Option<&[Entry]> {
        let leaf = Self::leaf(self.branch(page)?, page).get()?;
        Some(&leaf[page % PER_LEAF..])
    }

    /// Returns a page and all that follow in the same leaf, which is made if it is missing.
    fn entries_or_new(&self, page: usize) -> Result<&[Entry]> {
        let branch = self.branches.get(page / PER_BRANCH).ok_or(EINVAL)?;
        let leaf = Self::leaf(branch.get_or_new()?, page).get_or_new()?;
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
            if made == i && entry.fill(new).is_ok() {
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
        let page = entries
            .first()
            .map(Entry::address)
            .filter(|page| !page.is_null())?;
        let start = offset % PAGE_SIZE;
        let mut size = PAGE_SIZE - start;
        if size < len {
            let n = entries.len().min((start + len).div_ceil(PAGE_SIZE));
            size = Entry::row(&entries[..n]) - start;
        }
        Some(ptr::slice_from_raw_parts_mut(
            page.wrapping_add(start),
            len.min(size),
        ))
    }

    /// Frees pages that are not pinned, as far as the sweep's budget goes. `unmap` takes a page out
    /// of all page tables.
    ///
    /// # Safety
    ///
    /// Runs once at a time.
    pub(crate) unsafe fn reclaim(&self, sweep: &mut Sweep, mut unmap: impl FnMut(usize)) {
        while sweep.hand > 0 && sweep.budget > 0 {
            let page = sweep.hand - 1;
            let Some(branch) = self.branch(page) else {
                sweep.hand = page / PER_BRANCH * PER_BRANCH;
                continue;
            };
            let Some(leaf) = Self::leaf(branch, page).get() else {
                sweep.hand = page / PER_LEAF * PER_LEAF;
                continue;
            };
            sweep.hand = page;
            let entry = &leaf[page % PER_LEAF];
            if entry.address().is_null() {
                continue;
            }
            sweep.budget -= 1;
            // SAFETY: This runs once at a time.
            if unsafe { entry.reclaim(|| unmap(page)) } {
                self.present.fetch_sub(1_usize, Relaxed);
                sweep.freed += 1;
            }
        }
    }
}
