// SPDX-License-Identifier: GPL-2.0-only

//! Mappings of a pool: read-only, shared or private.
//!
//! The mapped file is not the bus1 file but a file of the pool's own, for which no descriptor ever
//! stands. So a mapping neither keeps its peer connected nor ends with it. It holds the pool. The
//! file has an inode of its own, and so an index of all mappings, by which a page can be found in
//! all page tables.
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
//! - A fault takes a reference to the page, locks it, and returns it locked if it is still in the
//!   pool's table. The kernel unlocks it when it is in the page table.
//! - The shrinker locks the page, takes it out of all page tables, takes it out of the pool's table
//!   if it is not pinned, and unlocks it.
//!
//! If the fault locks first, the shrinker finds the page in the page table. If the shrinker does,
//! the fault finds nothing or the next page in the pool's table.
//!
//! A page whose lock the shrinker has and that no page table has stays so, and needs no unmapping.
//!
//! # The number of mappings is bounded
//!
//! To take a page out of all page tables is work in proportion to the mappings. So a process can
//! make no more than [`MAPPINGS_MAX`], by mmap(2) or by cutting one into parts. A child inherits
//! its parent's mappings, which cannot be refused; while there are more than the bound, pages that
//! are in page tables stay, as if they were pinned.

use core::mem;

use kernel::bindings::{self, vm_operations_struct};
use kernel::error::from_result;
use kernel::mm::virt::{flags, VmaNew};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::{Arc, ArcBorrow};

use crate::memory::{MAPPINGS_MAX, N_PAGES};
use crate::pool::Pool;

const POOL_MAPPING: &vm_operations_struct = &vm_operations_struct {
    open: Some(opened),
    close: Some(closed),
    may_split: Some(may_split),
    fault: Some(fault),
    ..pin_init::zeroed()
};

/// Makes `vma` a mapping of the pool.
///
/// # Errors
///
/// EPERM if it is to be written or executed; EINVAL if it is beyond the end of the pool; ENOMEM,
/// also if there are too many mappings.
pub(crate) fn map(pool: &Arc<Pool>, vma: &VmaNew) -> Result {
    if vma.flags() & (flags::WRITE | flags::EXEC) != 0 {
        return Err(EPERM);
    }
    // SAFETY: The mapping is being set up and nobody else uses it.
    let first = unsafe { (*vma.as_ptr()).vm_pgoff };
    let n = (vma.end() - vma.start()) / PAGE_SIZE;
    if first.checked_add(n).is_none_or(|end| end > N_PAGES) {
        return Err(EINVAL);
    }
    vma.try_clear_maywrite()?;
    vma.try_clear_mayexec()?;
    vma.set_dontexpand();
    // It would make a core dump of up to 4 GiB.
    vma.set_dontdump();
    // From here on nothing fails, so it ends in `closed`.
    let mappings = &pool.memory.mappings;
    if mappings.fetch_add(1_usize, Relaxed) >= MAPPINGS_MAX {
        mappings.fetch_sub(1_usize, Relaxed);
        return Err(ENOMEM);
    }
    // SAFETY: The mapping is being set up. It takes a reference of its own to the file, and one to
    // the pool, which `closed` drops; the operations are static, and the file keeps the module.
    unsafe {
        bindings::vma_set_file(vma.as_ptr(), pool.memory.file.as_ptr());
        (*vma.as_ptr()).vm_private_data = pool.clone().into_raw().cast_mut().cast();
        (*vma.as_ptr()).vm_ops = POOL_MAPPING;
    }
    Ok(())
}

/// Returns the pool that `vma` maps.
///
/// # Safety
///
/// [`map`] set the mapping up, or one that it is a copy of, and it stays meanwhile.
unsafe fn pool<'a>(vma: *mut bindings::vm_area_struct) -> ArcBorrow<'a, Pool> {
    // SAFETY: By the caller the mapping owns a reference.
    unsafe { ArcBorrow::from_raw((*vma).vm_private_data.cast()) }
}

/// Counts a mapping that is a copy, or a part, of another.
///
/// # Safety
///
/// Called for a mapping that [`map`] set up, or for a copy.
unsafe extern "C" fn opened(vma: *mut bindings::vm_area_struct) {
    // SAFETY: By the caller.
    let pool = unsafe { pool(vma) };
    pool.memory.mappings.add(1_usize, Relaxed);
    // The reference of the copy.
    mem::forget(Arc::from(pool));
}

/// Counts a mapping that goes.
///
/// # Safety
///
/// Called for a mapping that [`map`] set up, or for a copy.
unsafe extern "C" fn closed(vma: *mut bindings::vm_area_struct) {
    // SAFETY: By the caller. The mapping gives its reference up.
    let pool = unsafe { Arc::<Pool>::from_raw((*vma).vm_private_data.cast()) };
    pool.memory.mappings.fetch_sub(1_usize, Relaxed);
}

/// Returns whether a mapping may become two: 0 or -ENOMEM.
///
/// # Safety
///
/// Called for a mapping that [`map`] set up, or for a copy.
unsafe extern "C" fn may_split(vma: *mut bindings::vm_area_struct, _addr: c_ulong) -> c_int {
    // SAFETY: By the caller.
    let room = unsafe { pool(vma) }.memory.mappings.load(Relaxed) < MAPPINGS_MAX;
    from_result(|| room.then_some(0).ok_or(ENOMEM))
}

/// Gives a page to a page table, locked.
///
/// # Safety
///
/// Called for a mapping that [`map`] set up.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The caller lends us `vmf`, and takes over the reference and the lock.
    let page = unsafe {
        let pool = pool((*vmf).__bindgen_anon_1.vma);
        (*vmf).page = pool.memory.lock((*vmf).__bindgen_anon_1.pgoff);
        (*vmf).page
    };
    if page.is_null() {
        bindings::vm_fault_reason_VM_FAULT_SIGBUS
    } else {
        bindings::vm_fault_reason_VM_FAULT_LOCKED
    }
}
