// SPDX-License-Identifier: GPL-2.0-only

//! The memory of one pool: its pages, and the way from a page to the page tables that have it.
//!
//! # Locks
//!
//! `bus1::mapped`, a spin lock, guards the pointer to the pool's file, which is no reference: the
//! file clears it when it is released. Nothing is locked under it.

use core::ptr::{self, NonNull};

use kernel::bindings;
use kernel::fs::file::Offset;
use kernel::fs::File;
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::{new_spinlock, SpinLock};
use pin_init::init_zeroed;

use crate::pages::{Pages, Sweep};

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
    pub(crate) pages: Pages,
    #[pin]
    pub(crate) mapped: SpinLock<Mapped>,
}

impl Memory {
    /// Makes a memory without pages, mapped nowhere.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            pages <- init_zeroed(),
            mapped <- new_spinlock!(Mapped(ptr::null_mut()), "bus1::mapped"),
        })
    }

    /// Frees pages that nobody needs, as far as the sweep's budget goes. May be called in reclaim.
    ///
    /// # Safety
    ///
    /// Runs once at a time.
    pub(crate) unsafe fn reclaim(&self, sweep: &mut Sweep) {
        // SAFETY: This runs once at a time.
        unsafe { self.pages.reclaim(sweep, |page| self.unmap(page)) };
    }

    /// Takes a page out of all page tables.
    fn unmap(&self, page: usize) {
        let file = self.mapped.lock().file();
        if let Some(file) = file {
            let (start, size) = ((page * PAGE_SIZE) as Offset, PAGE_SIZE as Offset);
            // SAFETY: The file is valid, and keeps its inode, of which the index is a part.
            unsafe { bindings::unmap_mapping_range((*file.as_ptr()).f_mapping, start, size, 1) };
        }
    }
}
