// SPDX-License-Identifier: GPL-2.0-only

//! How the owner of a pool sees it: a read-only shared mapping.
//!
//! What is mapped is not the bus1 file but a file of the pool's own, which holds nothing but the
//! pool. So a mapping neither keeps its peer connected nor ends with it. The file is made for the
//! first mapping and goes with the last; no descriptor ever stands for it. It has an inode of its own,
//! and so an index of all its mappings, by which a page can be found in all page tables.
//!
//! # A page that is taken back is never seen again
//!
//! Otherwise a page table could keep an old page while a new one has its number, and the owner would
//! read old messages. So a page leaves all page tables before it leaves the pool's table, and between
//! the two none can get it:
//!
//! - A fault pins the page, locks it, unpins it, and returns it locked. The kernel unlocks it when
//!   it is in the page table.
//! - The shrinker locks the page, takes it out of all page tables, takes it out of the pool's table
//!   if it is not pinned, and unlocks it.
//!
//! If the fault locks first, the shrinker finds what it did. If the shrinker does, the fault has
//! pinned the page, and so it stays; or it comes too late to pin it and finds nothing or the next.
//!
//! The shrinker finds the page tables through the pool's file. If there is no file when the page is
//! locked, no page table has the page: a fault happens in a mapping, and a mapping holds the file.
//!
//! # Locks
//!
//! `bus1::mapped`, a spin lock, guards the pointer to the file, which is no reference: the file
//! clears it when it is released. Nothing is locked under it.

use core::mem;
use core::ptr::{self, NonNull};

use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::fs::File;
use kernel::mm::virt::{flags, vm_flags_t, VmaNew};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;

use crate::glue::{self, Operations};
use crate::pages::N_PAGES;
use crate::pool::{Pool, Shared};

/// Of the two flags of a shared mapping, the one that it also has if the descriptor is read-only. The
/// one in `flags` has the wrong value in 7.2.
const MAYSHARE: vm_flags_t = 1 << bindings::VMA_MAYSHARE_BIT;

/// The file that stands for a pool in mappings, or null.
///
/// Invariant: the file is valid memory as long as the pointer is here; its last reference may be
/// gone.
pub(crate) struct Mapped(*mut bindings::file);

// SAFETY: A file may be used from any thread.
unsafe impl Send for Mapped {}

impl Mapped {
    pub(crate) const NOWHERE: Self = Self(ptr::null_mut());

    /// A reference to the file, if there is one and it is not on its way out.
    fn file(&mut self) -> Option<ARef<File>> {
        // SAFETY: Null or valid memory by the invariant, and the pointer can't change meanwhile.
        let file = NonNull::new(unsafe { bindings::get_file_active(&mut self.0) })?;
        // SAFETY: We own the reference that was taken; nobody takes positions of this file.
        Some(unsafe { ARef::from_raw(file.cast()) })
    }
}

static POOL_FILE: Operations<bindings::file_operations> = Operations(bindings::file_operations {
    owner: glue::OWNER,
    release: Some(release),
    ..pin_init::zeroed()
});

static POOL_MAPPING: Operations<bindings::vm_operations_struct> =
    Operations(bindings::vm_operations_struct { fault: Some(fault), ..pin_init::zeroed() });

impl Pool {
    /// Makes `vma` a mapping of the pool. EPERM, EINVAL, ENOMEM.
    pub(crate) fn map(&self, vma: &VmaNew) -> Result {
        if vma.flags() & (flags::WRITE | flags::EXEC) != 0 {
            return Err(EPERM);
        }
        // A private mapping would be of no use: it could not be written either.
        if vma.flags() & MAYSHARE == 0 {
            return Err(EINVAL);
        }
        // SAFETY: The mapping is being set up and nobody else uses it.
        let first = unsafe { (*vma.as_ptr()).vm_pgoff };
        let n = (vma.end() - vma.start()) / PAGE_SIZE;
        if first.checked_add(n).is_none_or(|end| end > N_PAGES) {
            return Err(EINVAL);
        }
        let file = self.file()?;
        vma.try_clear_maywrite()?;
        vma.try_clear_mayexec()?;
        vma.set_dontexpand();
        // It would make a core dump of up to 4 GiB.
        vma.set_dontdump();
        // SAFETY: The mapping is being set up. It takes a reference of its own to the file; the
        // operations are static, and the file keeps the module.
        unsafe {
            bindings::vma_set_file(vma.as_ptr(), file.as_ptr());
            (*vma.as_ptr()).vm_ops = &POOL_MAPPING.0;
        }
        Ok(())
    }

    /// The file of the pool, which is made if it is not there.
    fn file(&self) -> Result<ARef<File>> {
        if let Some(file) = self.0.mapped.lock().file() {
            return Ok(file);
        }
        let pool = self.0.clone();
        let data = Arc::as_ptr(&pool).cast_mut().cast();
        // SAFETY: The operations are static and fit the data.
        let new = from_err_ptr(unsafe { glue::bus1_new_pool_file(&POOL_FILE.0, data) })?;
        // The reference is the file's now.
        mem::forget(pool);
        // SAFETY: It is valid, we own the first reference, and nobody takes its position.
        let new = unsafe { ARef::<File>::from_raw(NonNull::new_unchecked(new).cast()) };
        let mut mapped = self.0.mapped.lock();
        // Another thread may have been faster; then the new one goes, after the lock.
        if let Some(file) = mapped.file() {
            return Ok(file);
        }
        mapped.0 = new.as_ptr();
        Ok(new)
    }
}

impl Shared {
    /// Takes a page out of all page tables. May be called in reclaim.
    pub(crate) fn unmap(&self, page: usize) {
        let file = self.mapped.lock().file();
        if let Some(file) = file {
            let start = (page * PAGE_SIZE) as bindings::loff_t;
            let size = PAGE_SIZE as bindings::loff_t;
            // SAFETY: The file is valid, and keeps its inode, of which the index is a part.
            unsafe { bindings::unmap_mapping_range((*file.as_ptr()).f_mapping, start, size, 1) };
        }
    }
}

/// # Safety
///
/// Called for a mapping that [`Pool::map`] set up.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The caller lends us `vmf`, and takes over the reference and the lock. The mapping
    // holds a pool's file, and that holds the pool.
    let page = unsafe {
        let file = (*(*vmf).__bindgen_anon_1.vma).vm_file;
        let pool = &*(*file).private_data.cast::<Shared>();
        (*vmf).page = pool.pages.lock((*vmf).__bindgen_anon_1.pgoff);
        (*vmf).page
    };
    if page.is_null() {
        bindings::vm_fault_reason_VM_FAULT_SIGBUS
    } else {
        bindings::vm_fault_reason_VM_FAULT_LOCKED
    }
}

/// # Safety
///
/// Called for a file that [`Pool::file`] made, once.
unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The file owns a reference to the pool.
    let pool = unsafe { Arc::from_raw((*file).private_data.cast::<Shared>()) };
    let mut mapped = pool.mapped.lock();
    // Not if the next file is there already, or if this one came second.
    if ptr::eq(mapped.0, file) {
        *mapped = Mapped::NOWHERE;
    }
    0
}
