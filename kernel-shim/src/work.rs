// SPDX-License-Identifier: MIT OR Apache-2.0

//! A count of the work in one critical section, in debug builds.
//!
//! Each visit of a tree's node and each access to data that a lock protects is one step, and so is
//! each element of a vector that is named by an index or lies in a range that is named; a vector
//! that is used as a slice is one step, and none for its elements. Steps are counted from the moment
//! at which a thread that holds none takes a declared spin lock (see [`lockdep`](crate::lockdep))
//! until it holds none again; so a test can say how long a lock is kept, as a count and not as a
//! time. Without `debug_assertions` and under loom everything is 0.

#[cfg(all(debug_assertions, not(loom)))]
mod state {
    use core::cell::Cell;

    std::thread_local! {
        /// Steps since the thread took its first lock.
        pub(super) static STEPS: Cell<u64> = const { Cell::new(0) };
        /// The most steps so far.
        pub(super) static MOST: Cell<u64> = const { Cell::new(0) };
    }
}

/// Runs `run`. Returns its result, and the most steps that this thread took in one critical
/// section of it.
///
/// # Examples
///
/// ```
/// use kernel_shim::{lockdep, new_spinlock, prelude::*, rbtree::RBTree, sync::{Arc, SpinLock}, work};
///
/// lockdep::declare(&["doc::tree"]);
/// let tree: Arc<SpinLock<RBTree<u32, u32>>> =
///     Arc::pin_init(new_spinlock!(RBTree::new(), "doc::tree"), GFP_KERNEL)?;
/// let (_, most) = work::most_under_lock(|| {
///     for n in 0..3 {
///         tree.lock().try_create_and_insert(n, n, GFP_KERNEL)?;
///     }
///     Ok::<(), Error>(())
/// });
/// # if cfg!(debug_assertions) {
/// assert_eq!(most, 1);
/// # }
/// # Ok::<(), Error>(())
/// ```
pub fn most_under_lock<R>(run: impl FnOnce() -> R) -> (R, u64) {
    #[cfg(all(debug_assertions, not(loom)))]
    {
        state::MOST.set(0);
        let result = run();
        (result, state::MOST.get())
    }
    #[cfg(not(all(debug_assertions, not(loom))))]
    (run(), 0)
}

/// Notes that a thread that held no declared spin lock takes a declared lock.
#[cfg(all(debug_assertions, not(loom)))]
pub(crate) fn begin() {
    let _ = state::STEPS.try_with(|steps| steps.set(0));
}

/// Counts one step, if a declared spin lock is held.
#[inline]
pub(crate) fn step() {
    steps(1);
}

/// Counts `n` steps, if a declared spin lock is held.
#[inline]
pub(crate) fn steps(n: usize) {
    #[cfg(all(debug_assertions, not(loom)))]
    if crate::lockdep::spins() {
        let _ = state::STEPS.try_with(|steps| {
            steps.set(steps.get() + n as u64);
            let _ = state::MOST.try_with(|most| most.set(most.get().max(steps.get())));
        });
    }
    #[cfg(not(all(debug_assertions, not(loom))))]
    let _ = n;
}
