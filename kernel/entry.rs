// SPDX-License-Identifier: GPL-2.0-only

//! A page of a pool and the number of its pins, in one word.
//!
//! The word is the kernel address of the page, and in the bits below it how often the page is
//! pinned; 0 means that there is no page. Pages are charged to the memory cgroup of the sender that
//! needs them first.
//!
//! # Invariants
//!
//! - An entry that is not 0 owns its page. A pinned page stays.
//! - An entry goes to 0 only in [`Entry::unlock`] and [`Entry::free_unmapped`], with the page locked
//!   and unpinned, or with the whole table.
//! - So a page that is locked and is the one of the entry stays that until it is unlocked.
//!   [`Entry::lock`] does this for `mapping.rs`. It pins nothing, so a task that faults, however
//!   long, keeps no page from being freed for the next message's sender to pay.
//!
//! # Memory order
//!
//! An entry is filled with release and pinned with acquire, so that the page is seen zeroed. It is
//! unpinned with release and emptied with acquire, so that the page is freed after its last use.

use core::{mem, ptr};

use kernel::bindings;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};

use crate::gfp;
use crate::glue;

/// The bits of an entry that count pins.
const PINS: usize = PAGE_SIZE - 1;

/// Flags for every page of a pool: zeroed, and charged to the memory cgroup of the task.
const KIND: u32 = 1 << bindings::___GFP_ACCOUNT_BIT | bindings::__GFP_ZERO;
/// Flags for several pages in a row, which are worth no effort.
const EAGER: u32 = KIND | 1 << bindings::___GFP_NOWARN_BIT;
/// Flags for a single page. Rather than have a process killed for memory it fails: there may be
/// idle pages to free.
const PATIENT: u32 = KIND | gfp::ACCOUNT_MAYFAIL_BITS;

/// The number of pages of all pools.
static PAGES: Atomic<usize> = Atomic::new(0);

/// Returns the number of pages of all pools.
pub(crate) fn pages() -> usize {
    PAGES.load(Relaxed)
}

/// A page and its pins, or nothing.
#[repr(transparent)]
pub(crate) struct Entry(Atomic<usize>);

// SAFETY: All zeroes is an entry without a page.
unsafe impl Zeroable for Entry {}

impl Entry {
    /// Allocates pages that lie in a row, pinned once: `n`, or one if there is no such row.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new_row(n: usize) -> Result<impl Iterator<Item = Self>> {
        let row = Self::allocate(n, EAGER);
        row.or_else(|| Self::allocate(1, PATIENT)).ok_or(ENOMEM)
    }

    /// Allocates `n` pages that lie in a row, pinned once. May sleep.
    fn allocate(n: usize, flags: u32) -> Option<impl Iterator<Item = Self>> {
        // SAFETY: All callers may sleep. The pages are not from highmem, so their addresses are
        // permanent. Each is freed by itself.
        let first = unsafe { bindings::alloc_pages_exact_noprof(n * PAGE_SIZE, flags) } as usize;
        let pages = (first != 0).then(|| (first..first + n * PAGE_SIZE).step_by(PAGE_SIZE))?;
        PAGES.add(n, Relaxed);
        Some(pages.map(|page| Self(Atomic::new(page + 1))))
    }

    /// Moves the page of `new` into this entry, or frees it if there is a page already. Returns
    /// whether it was moved.
    pub(crate) fn fill(&self, new: Self) -> bool {
        let moved = self.0.cmpxchg(0, new.0.load(Relaxed), Release).is_ok();
        if moved {
            mem::forget(new);
        }
        moved
    }

    /// Returns whether the page has all the pins that it can have.
    pub(crate) fn is_full(&self) -> bool {
        self.0.load(Relaxed) & PINS == PINS
    }

    /// Pins pages, up to the first that is missing or has all the pins that it can have. Returns
    /// how many.
    #[inline]
    pub(crate) fn pin(entries: &[Self]) -> usize {
        // SAFETY: An entry is an atomic word.
        unsafe { glue::bus1_pin(entries.as_ptr().cast(), entries.len()) }
    }

    /// Undoes [`Entry::pin`] for pages that are all pinned.
    #[inline]
    pub(crate) fn unpin(entries: &[Self]) {
        // SAFETY: An entry is an atomic word.
        unsafe { glue::bus1_unpin(entries.as_ptr().cast(), entries.len()) };
    }

    /// Counts the bytes of these pages, at least one, that lie in a row.
    // Not inlined, so that the path of slices within a page stays short.
    #[inline(never)]
    pub(crate) fn row(entries: &[Self]) -> usize {
        let first = entries[0].address();
        let in_a_row = |&i: &usize| entries[i].address() == first.wrapping_add(i * PAGE_SIZE);
        (0..entries.len()).take_while(in_a_row).count() * PAGE_SIZE
    }

    /// Returns the address of the page, or null.
    #[inline]
    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: It may be read. A relaxed load, which would be a call.
        (unsafe { self.0.as_ptr().read_volatile() } & !PINS) as *mut u8
    }

    /// Locks the page and takes a reference to it. Null if there is none, or if its memory is
    /// broken.
    pub(crate) fn lock(&self) -> *mut bindings::page {
        // SAFETY: An entry is an atomic word, and 0 or the address of a page with pins.
        unsafe { glue::bus1_lock_page(ptr::from_ref(self).cast()) }
    }

    /// Locks the page, unless it is pinned, missing or locked.
    ///
    /// # Safety
    ///
    /// No other task takes the page out of the table meanwhile.
    pub(crate) unsafe fn lock_idle(&self) -> bool {
        let word = self.0.load(Relaxed);
        let page = word as *const c_void;
        // SAFETY: There is a page, and by the caller it stays.
        word != 0 && word & PINS == 0 && unsafe { glue::bus1_lock_idle_page(page) }
    }

    /// Frees the page if it is idle, nobody has it locked, and no page table has it.
    ///
    /// # Safety
    ///
    /// No other task takes the page out of the table meanwhile.
    pub(crate) unsafe fn free_unmapped(&self) {
        // SAFETY: An entry is an atomic word, and by the caller its page stays.
        let page = unsafe { glue::bus1_take_unmapped(ptr::from_ref(self).cast()) };
        drop(Self(Atomic::new(page)));
    }

    /// Returns whether a page table has the page, which the caller has locked: so a page that is in
    /// none gets into none.
    ///
    /// # Safety
    ///
    /// [`Entry::lock_idle`] locked the page.
    pub(crate) unsafe fn is_mapped(&self) -> bool {
        // SAFETY: By the caller there is a page at that address.
        unsafe { glue::bus1_page_is_mapped(self.address().cast()) }
    }

    /// Unlocks the page. Frees it unless a page table has it or it was pinned since. Returns whether
    /// the page was freed.
    ///
    /// # Safety
    ///
    /// [`Entry::lock_idle`] locked the page.
    pub(crate) unsafe fn unlock(&self) -> bool {
        let page = self.address();
        // SAFETY: By the caller.
        let mapped = unsafe { self.is_mapped() };
        let taken = !mapped && self.0.cmpxchg(page as usize, 0, Acquire).is_ok();
        // SAFETY: By the caller. It is ours or still in the table.
        unsafe { glue::bus1_unlock_page(page.cast()) };
        if taken {
            drop(Self(Atomic::new(page as usize)));
        }
        taken
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let page = self.address();
        if !page.is_null() {
            PAGES.fetch_sub(1_usize, Relaxed);
            // SAFETY: The page is of order 0 and we own a reference to it. There may be others, for
            // instance of I/O that was started on the mapping; the last one frees it.
            unsafe { bindings::free_pages(page as usize, 0) };
        }
    }
}
