// SPDX-License-Identifier: GPL-2.0-only

//! The pages of one pool: a table from page number to page.
//!
//! The table has three levels; its lower two are made as they are needed and stay until the pool
//! goes, so it is walked without any lock. An entry is one word: the kernel address of the page,
//! and in the bits below how many pin it. 0 means that there is no page. All of it is charged to the
//! memory cgroup of the sender who first needed it.
//!
//! # Invariants
//!
//! - An entry that is not 0 owns its page. While it is pinned, the page stays.
//! - An entry only goes to 0 in [`Pages::reclaim`], with the page locked and unpinned, or with the
//!   whole table. [`Pages::reclaim`] runs once at a time.
//! - So whoever locks a page that he has pinned can unpin it and still rely on it being the one in the
//!   table, until he unlocks it. [`Pages::lock`] does this; `mapping.rs` says what for.
//!
//! # Memory order
//!
//! An entry is filled with release and pinned with acquire, so that the page is seen zeroed. It is
//! unpinned with release and emptied with acquire, so that the page is freed after its last use.

use core::ops::Range;
use core::{mem, ptr};

use kernel::bindings;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};
use pin_init::init_zeroed;

use crate::glue;

/// Bytes of address space of a pool.
pub(crate) const POOL_SIZE: u64 = 1 << 32;
/// Pages of address space of a pool.
pub(crate) const N_PAGES: usize = (POOL_SIZE / PAGE_SIZE as u64) as usize;

const PER_LEAF: usize = 128;
const PER_BRANCH: usize = 128 * PER_LEAF;
const N_BRANCHES: usize = N_PAGES.div_ceil(PER_BRANCH);

const PINS: usize = PAGE_SIZE - 1;

/// Most pages that are made at once: enough for a slice of 64 KiB.
const RUN: usize = 16;

/// A page and its pins in one word, or nothing.
#[repr(transparent)]
struct Entry(Atomic<usize>);

// SAFETY: All zeroes is an entry without a page.
unsafe impl Zeroable for Entry {}

impl Entry {
    /// New pages that lie in a row, pinned once: at least one, at most `n`. ENOMEM.
    fn new(n: usize) -> Result<impl Iterator<Item = Self>> {
        let flags = 1 << bindings::___GFP_ACCOUNT_BIT | bindings::__GFP_ZERO;
        // A row is worth no effort. For a single page, rather fail than have somebody killed for memory:
        // there may be idle pages to free.
        let patient = bindings::GFP_KERNEL | 1 << bindings::___GFP_RETRY_MAYFAIL_BIT;
        for (size, more) in
            [(n * PAGE_SIZE, 1 << bindings::___GFP_NOWARN_BIT), (PAGE_SIZE, patient)]
        {
            // SAFETY: May sleep, which all callers may. The pages are not from highmem, so their
            // addresses are permanent. Each is freed by itself.
            let first = unsafe { bindings::alloc_pages_exact_noprof(size, flags | more) } as usize;
            if first != 0 {
                let pages = (first..first + size).step_by(PAGE_SIZE);
                return Ok(pages.map(|page| Self(Atomic::new(page + 1))));
            }
        }
        Err(ENOMEM)
    }

    /// Pins pages, as many as there are up to the first that is missing or has all the pins that it can
    /// have. Returns how many.
    #[inline]
    fn pin(entries: &[Self]) -> usize {
        // SAFETY: An entry is an atomic word.
        unsafe { glue::bus1_pin(entries.as_ptr().cast(), entries.len()) }
    }

    /// Undoes [`Entry::pin`] for pages that are all pinned.
    #[inline]
    fn unpin(entries: &[Self]) {
        // SAFETY: An entry is an atomic word.
        unsafe { glue::bus1_unpin(entries.as_ptr().cast(), entries.len()) };
    }

    /// How many bytes of these pages lie in a row.
    // Not for slices within a page, whose way it would make longer.
    #[inline(never)]
    fn row(entries: &[Self]) -> usize {
        let first = entries[0].address();
        let in_a_row = |&i: &usize| entries[i].address() == first.wrapping_add(i * PAGE_SIZE);
        (0..entries.len()).take_while(in_a_row).count() * PAGE_SIZE
    }

    /// The address of the page, or null.
    fn address(&self) -> *mut u8 {
        // SAFETY: It may be read. Like a relaxed load, but that would be a call.
        (unsafe { self.0.as_ptr().read_volatile() } & !PINS) as *mut u8
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let page = self.address();
        if !page.is_null() {
            // SAFETY: The page is of order 0 and we own a reference to it. Others may have some, for
            // instance I/O that was started on the mapping; the last frees it.
            unsafe { bindings::free_pages(page as usize, 0) };
        }
    }
}

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
        // Ours, or that of who was faster.
        self.get().ok_or(ENOMEM)
    }
}

impl<T> Drop for Part<T> {
    fn drop(&mut self) {
        let part = *self.0.get_mut();
        if !part.is_null() {
            // SAFETY: From `into_raw` in `get_or_new`; nobody else has `self` any more.
            drop(unsafe { KBox::from_raw(part) });
        }
    }
}

type Leaf = [Entry; PER_LEAF];
type Branch = [Part<Leaf>; PER_BRANCH / PER_LEAF];

/// The pages of one pool.
pub(crate) struct Pages {
    branches: [Part<Branch>; N_BRANCHES],
    present: Atomic<usize>,
}

// SAFETY: A table without pages.
unsafe impl Zeroable for Pages {}

impl Pages {
    /// How many there are.
    pub(crate) fn present(&self) -> usize {
        self.present.load(Relaxed)
    }

    #[inline]
    fn branch(&self, page: usize) -> Option<&Branch> {
        self.branches.get(page / PER_BRANCH)?.get()
    }

    /// A page and all that follow in the same leaf. None if there is no leaf.
    #[inline]
    fn entries(&self, page: usize) -> Option<&[Entry]> {
        let leaf = self.branch(page)?[page % PER_BRANCH / PER_LEAF].get()?;
        Some(&leaf[page % PER_LEAF..])
    }

    /// Pins pages, or none. Those that are not there are made. ENOMEM.
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

    /// Makes the first of `pages` and those behind it that are missing as well, pinned once. Returns how
    /// many: none if others are faster.
    #[cold]
    fn make(&self, pages: Range<usize>) -> Result<usize> {
        let branch = self.branches.get(pages.start / PER_BRANCH).ok_or(EINVAL)?;
        let leaf = branch.get_or_new()?[pages.start % PER_BRANCH / PER_LEAF].get_or_new()?;
        let entries = &leaf[pages.start % PER_LEAF..];
        // Slices are disjoint and of 8 bytes or more, so 512 pin a page, and faults a few more.
        if entries[0].0.load(Relaxed) & PINS == PINS {
            return Err(ENOMEM);
        }
        let most = entries.iter().take(pages.len().min(RUN));
        // If there is one meanwhile none is made, and the caller pins it.
        let n = most.take_while(|entry| entry.address().is_null()).count().max(1);
        let mut made = 0;
        for (i, (entry, new)) in entries.iter().zip(Entry::new(n)?).enumerate() {
            // Counted before it can be freed, so that the count never falls below 0.
            self.present.add(1_usize, Relaxed);
            if made == i && entry.0.cmpxchg(0, new.0.load(Relaxed), Release).is_ok() {
                mem::forget(new);
                made += 1;
            } else {
                self.present.fetch_sub(1_usize, Relaxed);
            }
        }
        Ok(made)
    }

    /// Locks a page and takes a reference to it. Null if there is none, or if its memory is broken.
    pub(crate) fn lock(&self, page: usize) -> *mut bindings::page {
        let one = self.entries(page).unwrap_or_default().get(..1).unwrap_or_default();
        if Entry::pin(one) == 0 {
            return ptr::null_mut();
        }
        // SAFETY: It is pinned, so there is a page at that address.
        let locked = unsafe { glue::bus1_lock_page(one[0].address().cast()) };
        Entry::unpin(one);
        locked
    }

    /// Undoes one pin of each page.
    #[inline]
    pub(crate) fn unpin(&self, mut pages: Range<usize>) {
        while !pages.is_empty() {
            let Some(entries) = self.entries(pages.start) else { return };
            let n = entries.len().min(pages.len());
            Entry::unpin(&entries[..n]);
            pages.start += n;
        }
    }

    /// Where the byte at `offset` is, and of the `len` from there, which are pinned, as many as lie behind
    /// it in a row. None if there is no page.
    #[inline]
    pub(crate) fn piece(&self, offset: usize, len: usize) -> Option<*mut [u8]> {
        let entries = self.entries(offset / PAGE_SIZE)?;
        let page = entries.first().map(Entry::address).filter(|page| !page.is_null())?;
        let start = offset % PAGE_SIZE;
        let mut size = PAGE_SIZE - start;
        if size < len {
            let n = entries.len().min((start + len).div_ceil(PAGE_SIZE));
            size = Entry::row(&entries[..n]) - start;
        }
        Some(ptr::slice_from_raw_parts_mut(page.wrapping_add(start), len.min(size)))
    }

    /// Frees the pages that nobody has pinned, from page `*hand` downwards, which is where the next
    /// call goes on; 0 is the end. Looks at `*budget` pages at most, and counts them off. `unmap`
    /// takes a page out of all page tables. Returns how many were freed.
    ///
    /// # Safety
    ///
    /// Runs once at a time.
    pub(crate) unsafe fn reclaim(
        &self,
        hand: &mut usize,
        budget: &mut usize,
        mut unmap: impl FnMut(usize),
    ) -> usize {
        let mut freed = 0;
        while *hand > 0 && *budget > 0 {
            let page = *hand - 1;
            let Some(branch) = self.branch(page) else {
                *hand = page / PER_BRANCH * PER_BRANCH;
                continue;
            };
            let Some(leaf) = branch[page % PER_BRANCH / PER_LEAF].get() else {
                *hand = page / PER_LEAF * PER_LEAF;
                continue;
            };
            *hand = page;
            let entry = &leaf[page % PER_LEAF];
            let old = entry.0.load(Relaxed);
            if old == 0 {
                continue;
            }
            *budget -= 1;
            if old & PINS != 0 {
                continue;
            }
            // SAFETY: The page is in the table, and only this function takes one out.
            let locked = unsafe { glue::bus1_trylock_page(old as *const c_void) };
            if locked.is_null() {
                continue;
            }
            // First out of the page tables, and out of the table only if nobody pinned it meanwhile.
            // The other way round, the next page of this number could be written while the owner
            // still sees this one.
            unmap(page);
            let taken = entry.0.cmpxchg(old, 0, Acquire).is_ok();
            // SAFETY: We locked it, and it is ours or still in the table.
            unsafe { bindings::unlock_page(locked) };
            if taken {
                drop(Entry(Atomic::new(old)));
                self.present.fetch_sub(1_usize, Relaxed);
                freed += 1;
            }
        }
        freed
    }
}
