// SPDX-License-Identifier: GPL-2.0-only

//! The shrinker: gives pages that no slice needs back to the system when memory runs short.
//!
//! Such a page is kept until then, since the next message will want it again. All pools are in
//! one list, which is touched when a pool is made, when it goes, and here.
//!
//! # Locks
//!
//! `bus1::pools`, a spin lock, guards the list. It is held for one look-up, insertion or removal:
//! the shrinker takes a reference to one memory at a time, and works without the lock. So a call
//! that opens or closes a peer waits for no other.

use core::ptr::NonNull;

use kernel::bindings::{self, shrink_control, shrinker};
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNode};
use kernel::sync::{new_spinlock, Arc, SpinLock};

use crate::entry;
use crate::gfp::ACCOUNT_MAYFAIL;
use crate::memory::Memory;

const SHRINK_STOP: usize = usize::MAX;

#[derive(Default)]
struct List {
    /// Memories of pools, by address.
    members: RBTree<usize, Arc<Memory>>,
    /// Place in the list to go on at.
    next: usize,
}

impl List {
    /// Returns the memory that comes next, around the list. None if the list is empty.
    fn next(&mut self) -> Option<Arc<Memory>> {
        let next = self.members.cursor_lower_bound(&self.next);
        let next = next.or_else(|| self.members.cursor_front())?;
        let (&address, memory) = next.current();
        self.next = address + 1;
        Some(memory.clone())
    }
}

fn address_of(memory: &Arc<Memory>) -> usize {
    Arc::as_ptr(memory).addr()
}

/// All pools.
#[pin_data(PinnedDrop)]
pub(crate) struct Pools {
    #[pin]
    list: SpinLock<List>,
    /// Registered by [`Pools::new`]; its private data is this structure.
    shrinker: NonNull<shrinker>,
}

// SAFETY: The list is locked, and a shrinker may be freed by any thread.
unsafe impl Send for Pools {}
// SAFETY: The list is locked, and nothing is done to the shrinker by a reference.
unsafe impl Sync for Pools {}

#[pinned_drop]
impl PinnedDrop for Pools {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It is ours, registered or not. This waits for running calls, before the list
        // goes.
        unsafe { bindings::shrinker_free(self.shrinker.as_ptr()) };
    }
}

impl Pools {
    /// Makes an empty list, and a shrinker that is registered until all references are gone.
    pub(crate) fn new() -> Result<Arc<Self>> {
        // SAFETY: The format takes no arguments.
        let allocate = || unsafe { bindings::shrinker_alloc(0, c"bus1-pool".as_char_ptr()) };
        let pools = try_pin_init!(Self {
            list <- new_spinlock!(List::default(), "bus1::pools"),
            // The last one: what fails before it leaves no shrinker behind.
            shrinker: NonNull::new(allocate()).ok_or(ENOMEM)?,
        });
        let pools = Arc::pin_init(pools, GFP_KERNEL)?;
        let shrinker = pools.shrinker.as_ptr();
        // SAFETY: It is ours until it is registered, and `pools` unregisters it before it goes.
        unsafe {
            (*shrinker).count_objects = Some(count);
            (*shrinker).scan_objects = Some(scan);
            (*shrinker).private_data = Arc::as_ptr(&pools).cast_mut().cast();
            bindings::shrinker_register(shrinker);
        }
        Ok(pools)
    }

    /// Puts the memory of a pool into the list, in which it is until [`Pools::leave`].
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn enter(&self, memory: &Arc<Memory>) -> Result {
        let node = RBTreeNode::new(address_of(memory), memory.clone(), ACCOUNT_MAYFAIL)?;
        self.list.lock().members.insert(node);
        Ok(())
    }

    /// Takes the memory of a pool out of the list, if it is in it.
    pub(crate) fn leave(&self, memory: &Arc<Memory>) {
        // Freed after the lock.
        let _node = self.list.lock().members.remove_node(&address_of(memory));
    }

    /// Looks at up to `budget` pages, once around the list, and frees those that are idle. Returns
    /// their number, and leaves in `budget` the number of pages that could still be looked at.
    fn reclaim(&self, budget: &mut usize) -> usize {
        let (mut freed, mut first) = (0, None);
        while *budget > 0 {
            let Some(memory) = self.list.lock().next() else {
                break;
            };
            let address = address_of(&memory);
            if first == Some(address) {
                break;
            }
            first.get_or_insert(address);
            // A pool counts as a look, however little is in it.
            *budget -= 1;
            freed += memory.sweep(budget);
        }
        freed
    }
}

/// Returns the number of pages of all pools. Not all of them can be freed; the number of those that
/// can is found out by looking.
///
/// # Safety
///
/// Called for a shrinker that [`Pools::new`] made.
unsafe extern "C" fn count(_this: *mut shrinker, _control: *mut shrink_control) -> c_ulong {
    entry::pages()
}

/// Frees pages, and returns their number.
///
/// # Safety
///
/// Called for a shrinker that [`Pools::new`] made, with a valid `control`.
unsafe extern "C" fn scan(this: *mut shrinker, control: *mut shrink_control) -> c_ulong {
    // SAFETY: It is unregistered before they go.
    let pools = unsafe { &*(*this).private_data.cast::<Pools>() };
    // SAFETY: The caller lends us `control`.
    let control = unsafe { &mut *control };
    let mut budget = control.nr_to_scan;
    let freed = pools.reclaim(&mut budget);
    control.nr_scanned = control.nr_to_scan - budget;
    if control.nr_scanned == 0 {
        // The caller would go on for ever if it saw neither progress nor a sign to stop.
        return SHRINK_STOP;
    }
    freed
}
