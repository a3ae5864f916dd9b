// SPDX-License-Identifier: GPL-2.0-only

//! Mappings of a pool: read-only, shared or private.
//!
//! The mapped file is not the bus1 file but a file of the pool's own, which holds only the pool. So
//! a mapping neither keeps its peer connected nor ends with it. The file is made for the first
//! mapping and goes with the last; no descriptor ever stands for it. It has an inode of its own,
//! and so an index of all its mappings, by which a page can be found in all page tables.
//!
//! # Nothing is written through a mapping
//!
//! No mapping has VM_MAYWRITE, so mprotect() cannot make it writable. A private mapping without
//! that flag is none that is copied on write: ptrace and /proc/PID/mem, which may write into
//! private mappings that are read-only, are refused. So private and shared mappings have the same
//! pages.
//!
//! # A page that is taken back is never seen again
//!
//! Otherwise a page table could keep an old page while a new one has its number, and the owner
//! would read old messages. So a page leaves all page tables before it leaves the pool's table, and
//! between the two none can get it:
//!
//! - A fault pins the page, locks it, unpins it, and returns it locked. The kernel unlocks it when
//!   it is in the page table.
//! - The shrinker locks the page, takes it out of all page tables, takes it out of the pool's table
//!   if it is not pinned, and unlocks it.
//!
//! If the fault locks first, the shrinker finds the page in the page table. If the shrinker does,
//! the fault has pinned the page, and so it stays; or it comes too late to pin it and finds nothing
//! or the next.
//!
//! A page whose lock the shrinker has and that no page table has stays so, and needs no unmapping.
//!
//! # The number of mappings is bounded
//!
//! To take a page out of all page tables is work in proportion to the mappings. So a process can
//! make no more than [`MAPPINGS_MAX`], by mmap(2) or by cutting one into parts. A child inherits
//! its parent's mappings, which cannot be refused; while there are more than the bound, pages that
//! are in page tables stay, as if they were pinned.
//!
//! The shrinker finds the page tables through the pool's file. If there is no file when the page is
//! locked, no page table has the page: a fault happens in a mapping, and a mapping holds the file.

use core::mem;
use core::ptr::NonNull;

use kernel::bindings::{self, file_operations, vm_operations_struct};
use kernel::error::{from_err_ptr, from_result};
use kernel::fs::File;
use kernel::mm::virt::{flags, VmaNew};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

use crate::glue::{self, Operations};
use crate::memory::{MAPPINGS_MAX, N_PAGES};
use crate::pool::{Pool, Shared};

static POOL_FILE: Operations<file_operations> = Operations(file_operations {
    owner: glue::OWNER,
    release: Some(release),
    ..pin_init::zeroed()
});

static POOL_MAPPING: Operations<vm_operations_struct> = Operations(vm_operations_struct {
    open: Some(opened),
    close: Some(closed),
    may_split: Some(may_split),
    fault: Some(fault),
    ..pin_init::zeroed()
});

/// Makes `vma` a mapping of the pool.
///
/// # Errors
///
/// EPERM if it is to be written or executed; EINVAL if it is beyond the end of the pool; ENOMEM,
/// also if there are too many mappings.
pub(crate) fn map(pool: &Pool, vma: &VmaNew) -> Result {
    if vma.flags() & (flags::WRITE | flags::EXEC) != 0 {
        return Err(EPERM);
    }
    // SAFETY: The mapping is being set up and nobody else uses it.
    let first = unsafe { (*vma.as_ptr()).vm_pgoff };
    let n = (vma.end() - vma.start()) / PAGE_SIZE;
    if first.checked_add(n).is_none_or(|end| end > N_PAGES) {
        return Err(EINVAL);
    }
    let file = file_of(pool)?;
    vma.try_clear_maywrite()?;
    vma.try_clear_mayexec()?;
    vma.set_dontexpand();
    // It would make a core dump of up to 4 GiB.
    vma.set_dontdump();
    // From here on nothing fails, so it ends in `closed`.
    let mappings = &pool.0.memory.mappings;
    if mappings.fetch_add(1_usize, Relaxed) >= MAPPINGS_MAX {
        mappings.fetch_sub(1_usize, Relaxed);
        return Err(ENOMEM);
    }
    // SAFETY: The mapping is being set up. It takes a reference of its own to the file; the
    // operations are static, and the file keeps the module.
    unsafe {
        bindings::vma_set_file(vma.as_ptr(), file.as_ptr());
        (*vma.as_ptr()).vm_ops = &POOL_MAPPING.0;
    }
    Ok(())
}

/// Returns the file of the pool, which is made if it is not there.
fn file_of(pool: &Pool) -> Result<ARef<File>> {
    let mapped = &pool.0.memory.mapped;
    if let Some(file) = mapped.lock().file() {
        return Ok(file);
    }
    let new = new_file(pool)?;
    let mut mapped = mapped.lock();
    // Another thread may have set its file first; then the new one is dropped, after the lock.
    if let Some(file) = mapped.file() {
        return Ok(file);
    }
    // SAFETY: `release` clears it.
    unsafe { mapped.set(&new) };
    Ok(new)
}

/// Makes a file that holds the pool.
fn new_file(pool: &Pool) -> Result<ARef<File>> {
    let pool = pool.0.clone();
    let data = Arc::as_ptr(&pool).cast_mut().cast();
    // SAFETY: The operations are static and fit the data.
    let file = from_err_ptr(unsafe { glue::bus1_new_pool_file(&POOL_FILE.0, data) })?;
    // The reference is the file's now.
    mem::forget(pool);
    // SAFETY: It is valid, we own the first reference, and nobody takes its position.
    Ok(unsafe { ARef::from_raw(NonNull::new_unchecked(file).cast()) })
}

/// Returns the number of mappings of the pool that `vma` maps.
///
/// # Safety
///
/// [`map`] set the mapping up, or one that it is a copy of, and it stays meanwhile.
unsafe fn mappings<'a>(vma: *mut bindings::vm_area_struct) -> &'a Atomic<usize> {
    // SAFETY: The mapping holds a pool's file, and that holds the pool.
    unsafe {
        &(*(*(*vma).vm_file).private_data.cast::<Shared>())
            .memory
            .mappings
    }
}

/// Counts a mapping that is a copy, or a part, of another.
///
/// # Safety
///
/// Called for a mapping that [`map`] set up, or for a copy.
unsafe extern "C" fn opened(vma: *mut bindings::vm_area_struct) {
    // SAFETY: By the caller.
    unsafe { mappings(vma) }.add(1_usize, Relaxed);
}

/// Counts a mapping that goes.
///
/// # Safety
///
/// Called for a mapping that [`map`] set up, or for a copy.
unsafe extern "C" fn closed(vma: *mut bindings::vm_area_struct) {
    // SAFETY: By the caller.
    unsafe { mappings(vma) }.fetch_sub(1_usize, Relaxed);
}

/// Returns whether a mapping may become two: 0 or -ENOMEM.
///
/// # Safety
///
/// Called for a mapping that [`map`] set up, or for a copy.
unsafe extern "C" fn may_split(vma: *mut bindings::vm_area_struct, _addr: c_ulong) -> c_int {
    // SAFETY: By the caller.
    let room = unsafe { mappings(vma) }.load(Relaxed) < MAPPINGS_MAX;
    from_result(|| room.then_some(0).ok_or(ENOMEM))
}

/// Gives a page to a page table, locked.
///
/// # Safety
///
/// Called for a mapping that [`map`] set up.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The caller lends us `vmf`, and takes over the reference and the lock. The mapping
    // holds a pool's file, and that holds the pool.
    let page = unsafe {
        let file = (*(*vmf).__bindgen_anon_1.vma).vm_file;
        let pool = &*(*file).private_data.cast::<Shared>();
        (*vmf).page = pool.memory.lock((*vmf).__bindgen_anon_1.pgoff);
        (*vmf).page
    };
    if page.is_null() {
        bindings::vm_fault_reason_VM_FAULT_SIGBUS
    } else {
        bindings::vm_fault_reason_VM_FAULT_LOCKED
    }
}

/// Gives the file's reference to the pool up.
///
/// # Safety
///
/// Called for a file that [`new_file`] made, once.
unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: The file owns a reference to the pool.
    let pool = unsafe { Arc::from_raw((*file).private_data.cast::<Shared>()) };
    // The pointer stays if the next file is there already, or if this one came second.
    pool.memory.mapped.lock().clear(file);
    0
}
