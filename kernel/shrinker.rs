// SPDX-License-Identifier: GPL-2.0-only

//! The shrinker: gives pages that no slice needs back to the system when memory runs short.
//!
//! Such a page is kept until then, since the next message will want it again. All pools are in
//! one list, which is touched when a pool is made, when it goes, and here.
//!
//! # Locks
//!
//! `bus1::pools`, a mutex, guards the list. A pool leaves the list before it goes, so all memory in
//! the list is alive while the mutex is held. The shrinker only tries to lock it, for it is also
//! called by allocations under any lock. Below it come page locks, which are tried as well, and the
//! locks of unmapping, which may be taken in reclaim.

use core::ptr::NonNull;

use kernel::bindings;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::memory::Memory;
use crate::pages::{Sweep, N_PAGES};

const SHRINK_STOP: usize = usize::MAX;

/// The memory of a pool in the list.
pub(crate) struct Member {
    memory: NonNull<Memory>,
    /// Place in the pool to go on at.
    hand: usize,
}

// SAFETY: The memory of a pool can be used from any thread.
unsafe impl Send for Member {}

struct List {
    /// Memories of pools, by address.
    members: RBTree<usize, Member>,
    /// Place in the list to go on at.
    next: usize,
}

impl List {
    /// Looks at `budget` pages at most, once around the list, and frees those that are not in use.
    /// Returns the place at which that ended.
    fn reclaim(&mut self, budget: usize) -> Sweep {
        let mut sweep = Sweep {
            hand: 0,
            budget,
            freed: 0,
        };
        let start = self.next;
        let mut around = false;
        while sweep.budget > 0 {
            let Some(mut cursor) = self.members.cursor_lower_bound_mut(&self.next) else {
                if around {
                    break;
                }
                around = true;
                self.next = 0;
                continue;
            };
            let (&address, member) = cursor.current_mut();
            if around && address >= start {
                break;
            }
            self.next = address + 1;
            // A pool counts as a look, however little is in it.
            sweep.budget -= 1;
            // SAFETY: Memory in the list is alive.
            let memory = unsafe { member.memory.as_ref() };
            if memory.pages.present() == 0 {
                continue;
            }
            sweep.hand = member.hand;
            // SAFETY: The list is locked, so this runs once at a time.
            unsafe { memory.reclaim(&mut sweep) };
            member.hand = if sweep.hand == 0 { N_PAGES } else { sweep.hand };
        }
        sweep
    }
}

/// Memory for an entry of the list.
pub(crate) type MemberReservation = RBTreeNodeReservation<usize, Member>;

fn address_of(memory: &Memory) -> usize {
    core::ptr::from_ref(memory).addr()
}

/// All pools.
#[pin_data]
pub(crate) struct Pools {
    /// Its private data is this structure, so it goes first.
    shrinker: Shrinker,
    #[pin]
    list: Mutex<List>,
}

impl Pools {
    /// Makes an empty list, and a shrinker that is registered until all references are gone.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let list = List {
            members: RBTree::new(),
            next: 0,
        };
        let shrinker = Shrinker::new()?;
        let pools = Arc::pin_init(
            pin_init!(Self { shrinker, list <- new_mutex!(list, "bus1::pools") }),
            GFP_KERNEL,
        )?;
        let shrinker = pools.shrinker.0.as_ptr();
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
    /// # Safety
    ///
    /// The pool calls [`Pools::leave`] before it goes.
    pub(crate) unsafe fn enter(&self, reservation: MemberReservation, memory: &Memory) {
        let member = Member {
            memory: NonNull::from(memory),
            hand: N_PAGES,
        };
        let node = reservation.into_node(address_of(memory), member);
        self.list.lock().members.insert(node);
    }

    /// Takes the memory of a pool out of the list, if it is in it.
    pub(crate) fn leave(&self, memory: &Memory) {
        // Freed after the lock.
        let _node = self.list.lock().members.remove_node(&address_of(memory));
    }

    /// Frees the pages of a pool that are not in use.
    pub(crate) fn trim(&self, memory: &Memory) {
        let _list = self.list.lock();
        let mut sweep = Sweep {
            hand: N_PAGES,
            budget: usize::MAX,
            freed: 0,
        };
        // SAFETY: The list is locked, so this runs once at a time.
        unsafe { memory.reclaim(&mut sweep) };
    }
}

/// A shrinker, which is registered by [`Pools::new`] and not for longer than this lives.
struct Shrinker(NonNull<bindings::shrinker>);

// SAFETY: A shrinker may be freed by any thread.
unsafe impl Send for Shrinker {}
// SAFETY: There is nothing to do with a reference.
unsafe impl Sync for Shrinker {}

impl Shrinker {
    fn new() -> Result<Self> {
        // SAFETY: The format takes no arguments.
        let shrinker = unsafe { bindings::shrinker_alloc(0, c"bus1-pool".as_char_ptr()) };
        NonNull::new(shrinker).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        // SAFETY: It is ours, registered or not. This waits for running calls.
        unsafe { bindings::shrinker_free(self.0.as_ptr()) };
    }
}

/// Counts the pages of all pools. Not all of them can be freed; the number of those that can is
/// found out by looking.
///
/// # Safety
///
/// Called for a shrinker that [`Pools::new`] made.
unsafe extern "C" fn count(
    shrinker: *mut bindings::shrinker,
    _control: *mut bindings::shrink_control,
) -> c_ulong {
    // SAFETY: It is unregistered before they go.
    let pools = unsafe { &*(*shrinker).private_data.cast::<Pools>() };
    let Some(list) = pools.list.try_lock() else {
        return 0;
    };
    let present = |member: &Member| {
        // SAFETY: Memory in the list is alive.
        unsafe { member.memory.as_ref() }.pages.present()
    };
    list.members.values().map(present).sum()
}

/// Frees pages, and returns their number.
///
/// # Safety
///
/// Called for a shrinker that [`Pools::new`] made, with a valid `control`.
unsafe extern "C" fn scan(
    shrinker: *mut bindings::shrinker,
    control: *mut bindings::shrink_control,
) -> c_ulong {
    // SAFETY: It is unregistered before they go.
    let pools = unsafe { &*(*shrinker).private_data.cast::<Pools>() };
    // SAFETY: The caller lends us `control`.
    let control = unsafe { &mut *control };
    let Some(mut list) = pools.list.try_lock() else {
        return SHRINK_STOP;
    };
    let sweep = list.reclaim(control.nr_to_scan);
    control.nr_scanned = control.nr_to_scan - sweep.budget;
    if control.nr_scanned == 0 {
        // The caller would go on for ever if it saw neither progress nor a sign to stop.
        return SHRINK_STOP;
    }
    sweep.freed
}
