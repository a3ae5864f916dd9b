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

use kernel::bindings::{self, shrink_control, shrinker};
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::memory::{Memory, N_PAGES};

const SHRINK_STOP: usize = usize::MAX;

/// The memory of a pool in the list.
pub(crate) struct Member {
    memory: NonNull<Memory>,
    /// Place in the pool to go on at.
    hand: usize,
}

// SAFETY: The memory of a pool can be used from any thread.
unsafe impl Send for Member {}

#[derive(Default)]
struct List {
    /// Memories of pools, by address.
    members: RBTree<usize, Member>,
    /// Place in the list to go on at.
    next: usize,
}

impl List {
    /// Looks at `budget` pages at most, once around the list, and frees those that are not in use.
    /// Returns their number, and leaves in `budget` the number of pages that could still be looked
    /// at.
    fn reclaim(&mut self, budget: &mut usize) -> usize {
        let start = self.next;
        let mut around = false;
        let mut freed = 0;
        while *budget > 0 {
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
            *budget -= 1;
            // SAFETY: Memory in the list is alive.
            let memory = unsafe { member.memory.as_ref() };
            if memory.present() == 0 {
                continue;
            }
            // SAFETY: The list is locked, so this runs once at a time.
            freed += unsafe { memory.reclaim(&mut member.hand, budget) };
            if member.hand == 0 {
                member.hand = N_PAGES;
            }
        }
        freed
    }
}

/// Memory for an entry of the list.
pub(crate) type MemberReservation = RBTreeNodeReservation<usize, Member>;

fn address_of(memory: &Memory) -> usize {
    core::ptr::from_ref(memory).addr()
}

/// All pools.
#[pin_data(PinnedDrop)]
pub(crate) struct Pools {
    #[pin]
    list: Mutex<List>,
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
            list <- new_mutex!(List::default(), "bus1::pools"),
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
        let (mut hand, mut budget) = (N_PAGES, usize::MAX);
        // SAFETY: The list is locked, so this runs once at a time.
        unsafe { memory.reclaim(&mut hand, &mut budget) };
    }
}

/// Counts the pages of all pools. Not all of them can be freed; the number of those that can is
/// found out by looking.
///
/// # Safety
///
/// Called for a shrinker that [`Pools::new`] made.
unsafe extern "C" fn count(this: *mut shrinker, _control: *mut shrink_control) -> c_ulong {
    // SAFETY: It is unregistered before they go.
    let pools = unsafe { &*(*this).private_data.cast::<Pools>() };
    let Some(list) = pools.list.try_lock() else {
        return 0;
    };
    // SAFETY: Memory in the list is alive.
    let present = |member: &Member| unsafe { member.memory.as_ref() }.present();
    list.members.values().map(present).sum()
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
    let Some(mut list) = pools.list.try_lock() else {
        return SHRINK_STOP;
    };
    let mut budget = control.nr_to_scan;
    let freed = list.reclaim(&mut budget);
    control.nr_scanned = control.nr_to_scan - budget;
    if control.nr_scanned == 0 {
        // The caller would go on for ever if it saw neither progress nor a sign to stop.
        return SHRINK_STOP;
    }
    freed
}
