// SPDX-License-Identifier: GPL-2.0-only

//! Gives pages that no slice needs back to the system when memory runs short.
//!
//! Such a page is kept until then, since the next message will want it again. All pools are in
//! one list, which is touched when a pool is made, when it goes, and here.
//!
//! # Locks
//!
//! `bus1::pools`, a mutex, guards the list; a pool leaves it before it goes, so those in it are alive
//! while it is held. The shrinker only tries to lock it, for it is also called by
//! allocations under any lock. Below it come page locks, which are tried as well, and what
//! unmapping takes, which may be taken in reclaim.

use core::ptr::NonNull;

use kernel::bindings;
use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::pages::N_PAGES;
use crate::pool::Shared;

const SHRINK_STOP: usize = usize::MAX;

/// A pool in the list.
pub(crate) struct Member {
    pool: NonNull<Shared>,
    /// Where in the pool to go on.
    hand: usize,
}

// SAFETY: A pool can be used from any thread.
unsafe impl Send for Member {}

struct List {
    /// By address.
    members: RBTree<usize, Member>,
    /// Where in the list to go on.
    next: usize,
}

/// Memory for a place in the list.
pub(crate) type Place = RBTreeNodeReservation<usize, Member>;

fn address_of(pool: &Shared) -> usize {
    core::ptr::from_ref(pool).addr()
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
    /// No pools, and a shrinker that is registered until all references are gone.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let list = List { members: RBTree::new(), next: 0 };
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

    /// Puts a pool into the list, in which it is until [`Pools::leave`].
    ///
    /// # Safety
    ///
    /// `pool` calls [`Pools::leave`] before it goes.
    pub(crate) unsafe fn enter(&self, place: Place, pool: &Shared) {
        let member = Member { pool: NonNull::from(pool), hand: N_PAGES };
        let node = place.into_node(address_of(pool), member);
        self.list.lock().members.insert(node);
    }

    /// Takes a pool out of the list, if it is in it.
    pub(crate) fn leave(&self, pool: &Shared) {
        // Freed after the lock.
        let _node = self.list.lock().members.remove_node(&address_of(pool));
    }

    /// Frees the pages of a pool that are not in use.
    pub(crate) fn trim(&self, pool: &Shared) {
        let _list = self.list.lock();
        let (mut hand, mut budget) = (N_PAGES, usize::MAX);
        let unmap = |page| pool.unmap(page);
        // SAFETY: The list is locked, so this runs once at a time.
        unsafe { pool.pages.reclaim(&mut hand, &mut budget, unmap) };
    }

    /// Looks at `budget` pages at most, counts them off, and frees those that are not in use.
    /// Returns how many those were; looks at none if it can't now.
    fn reclaim(&self, budget: &mut usize) -> usize {
        let Some(mut list) = self.list.try_lock() else { return 0 };
        let list = &mut *list;
        let start = list.next;
        let mut around = false;
        let mut freed = 0;
        while *budget > 0 {
            let Some(mut cursor) = list.members.cursor_lower_bound_mut(&list.next) else {
                if around {
                    break;
                }
                around = true;
                list.next = 0;
                continue;
            };
            let (&address, member) = cursor.current_mut();
            if around && address >= start {
                break;
            }
            list.next = address + 1;
            // A pool counts as a look, however little is in it.
            *budget -= 1;
            // SAFETY: Pools in the list are alive.
            let pool = unsafe { member.pool.as_ref() };
            if pool.pages.present() == 0 {
                continue;
            }
            // High pages first: slices are placed as low as possible.
            // SAFETY: The list is locked, so this runs once at a time.
            freed +=
                unsafe { pool.pages.reclaim(&mut member.hand, budget, |page| pool.unmap(page)) };
            if member.hand == 0 {
                member.hand = N_PAGES;
            }
        }
        freed
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

/// Pages in all pools. Not all of them can be freed; how many is known by looking only.
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
    let Some(list) = pools.list.try_lock() else { return 0 };
    // SAFETY: Pools in the list are alive.
    list.members.values().map(|member| unsafe { member.pool.as_ref() }.pages.present()).sum()
}

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
    let mut budget = control.nr_to_scan;
    let freed = pools.reclaim(&mut budget);
    control.nr_scanned = control.nr_to_scan - budget;
    if control.nr_scanned == 0 {
        // The caller would go on for ever if it neither saw progress nor was told to stop.
        return SHRINK_STOP;
    }
    freed
}
