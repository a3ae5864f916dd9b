// SPDX-License-Identifier: MIT OR Apache-2.0

//! A check of the order in which locks are taken, in debug builds.
//!
//! A program declares the names of its locks once, first to last. From then on
//! a thread that waits for a declared lock while it holds one of the same or a
//! later rank panics with both names, whether or not the other thread of the
//! deadlock exists. Locks with undeclared names are not checked, and neither is
//! `try_lock`, which cannot deadlock; a lock it took counts as held. Without
//! `debug_assertions` and under loom, which finds real deadlocks by itself,
//! everything here is nothing. A thread that ends checks nothing any more once
//! its list is gone: destructors of thread-locals run after that, and take locks.

use core::ffi::CStr;

#[cfg(all(debug_assertions, not(loom)))]
mod state {
    use core::cell::RefCell;
    use std::sync::OnceLock;

    pub(super) static ORDER: OnceLock<std::vec::Vec<&'static str>> = OnceLock::new();

    std::thread_local! {
        /// The declared locks held, oldest first.
        pub(super) static HELD: RefCell<std::vec::Vec<super::Listed>> =
            const { RefCell::new(std::vec::Vec::new()) };
    }
}

/// A declared lock that is held.
#[cfg(all(debug_assertions, not(loom)))]
#[derive(Clone, Copy)]
pub(crate) struct Listed {
    rank: usize,
    spins: bool,
}

/// Declares the order of the locks with these names, for the whole process. The
/// first declaration stays; the same one again does nothing.
///
/// # Panics
///
/// Panics in debug builds if another order was declared before.
///
/// # Examples
///
/// ```
/// use kernel_shim::{lockdep, new_mutex, prelude::*, sync::{Arc, Mutex}};
///
/// lockdep::declare(&["doc::first", "doc::second"]);
/// let first: Arc<Mutex<()>> = Arc::pin_init(new_mutex!((), "doc::first"), GFP_KERNEL)?;
/// let second: Arc<Mutex<()>> = Arc::pin_init(new_mutex!((), "doc::second"), GFP_KERNEL)?;
/// let a = first.lock();
/// let b = second.lock();
/// # drop((a, b));
/// # Ok::<(), Error>(())
/// ```
pub fn declare(order: &[&'static str]) {
    #[cfg(all(debug_assertions, not(loom)))]
    {
        let declared = state::ORDER.get_or_init(|| order.to_vec());
        assert!(
            declared == order,
            "the order of the locks is declared as {declared:?}, it cannot become {order:?}"
        );
    }
    #[cfg(not(all(debug_assertions, not(loom))))]
    let _ = order;
}

/// Returns whether this thread holds a declared spin lock.
#[cfg(all(debug_assertions, not(loom)))]
pub(crate) fn spins() -> bool {
    let spins = state::HELD.try_with(|held| held.borrow().iter().any(|lock| lock.spins));
    spins.unwrap_or(false)
}

/// The declared locks that a call holds, oldest first.
#[cfg(all(debug_assertions, not(loom), feature = "steps"))]
pub(crate) type Held = std::vec::Vec<Listed>;

/// Replaces the list of the thread by that of another call.
#[cfg(all(debug_assertions, not(loom), feature = "steps"))]
pub(crate) fn swap(held: &mut Held) {
    state::HELD.with_borrow_mut(|list| core::mem::swap(list, held));
}

/// The name of a lock, by which it is ranked.
pub(crate) struct Class {
    #[cfg(all(debug_assertions, not(loom)))]
    name: &'static CStr,
    #[cfg(all(debug_assertions, not(loom)))]
    spins: bool,
}

/// A lock on the list of those held; dropping it takes the lock off.
pub(crate) struct Acquired {
    /// Its rank, if it is on the list.
    #[cfg(all(debug_assertions, not(loom)))]
    rank: Option<usize>,
}

#[cfg(all(debug_assertions, not(loom)))]
impl Class {
    pub(crate) fn new(name: &'static CStr, spins: bool) -> Self {
        Self { name, spins }
    }

    fn rank(&self) -> Option<usize> {
        let name = self.name.to_bytes();
        let order = state::ORDER.get()?;
        order.iter().position(|n| n.as_bytes() == name)
    }

    /// Puts the lock on the list before it is waited for, or panics.
    pub(crate) fn acquire(&self) -> Acquired {
        let rank = self.rank();
        if let Some(rank) = rank {
            let last =
                state::HELD.try_with(|held| held.borrow().iter().map(|lock| lock.rank).max());
            if let (Ok(Some(last)), Some(order)) = (last, state::ORDER.get()) {
                assert!(
                    last < rank,
                    "lock \"{}\" must not be taken while \"{}\" is held: the declared order is \
                     {order:?}, and no lock nests in one of its own name",
                    order[rank],
                    order[last],
                );
            }
        }
        self.push(rank)
    }

    /// Puts the lock on the list.
    pub(crate) fn acquire_unchecked(&self) -> Acquired {
        self.push(self.rank())
    }

    fn push(&self, rank: Option<usize>) -> Acquired {
        let listed = |&rank: &usize| {
            if !spins() {
                crate::work::begin();
            }
            let lock = Listed {
                rank,
                spins: self.spins,
            };
            state::HELD
                .try_with(|held| held.borrow_mut().push(lock))
                .is_ok()
        };
        Acquired {
            rank: rank.filter(listed),
        }
    }
}

#[cfg(all(debug_assertions, not(loom)))]
impl Drop for Acquired {
    fn drop(&mut self) {
        let Some(rank) = self.rank else { return };
        // A guard in a thread-local may outlive the list.
        let _ = state::HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(i) = held.iter().rposition(|lock| lock.rank == rank) {
                held.remove(i);
            }
        });
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
impl Class {
    pub(crate) fn new(_name: &'static CStr, _spins: bool) -> Self {
        Self {}
    }

    pub(crate) fn acquire(&self) -> Acquired {
        Acquired {}
    }

    pub(crate) fn acquire_unchecked(&self) -> Acquired {
        Acquired {}
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        new_mutex, new_spinlock,
        prelude::*,
        sync::{Mutex, SpinLock},
    };

    struct Locks {
        outer: Pin<KBox<SpinLock<u8>>>,
        inner: Pin<KBox<Mutex<u8>>>,
        inner_too: Pin<KBox<Mutex<u8>>>,
        free: Pin<KBox<Mutex<u8>>>,
    }

    fn locks() -> Locks {
        declare(&["lockdep::outer", "lockdep::inner"]);
        Locks {
            outer: KBox::pin_init(new_spinlock!(0, "lockdep::outer"), GFP_KERNEL).unwrap(),
            inner: KBox::pin_init(new_mutex!(0, "lockdep::inner"), GFP_KERNEL).unwrap(),
            inner_too: KBox::pin_init(new_mutex!(0, "lockdep::inner"), GFP_KERNEL).unwrap(),
            free: KBox::pin_init(new_mutex!(0), GFP_KERNEL).unwrap(),
        }
    }

    #[test]
    fn the_declared_order_passes_again_and_again() {
        let l = locks();
        for _ in 0..3 {
            let outer = l.outer.lock();
            let inner = l.inner.lock();
            // Released in another order than taken.
            drop(outer);
            drop(inner);
        }
        drop(l.inner.lock());
        drop(l.outer.lock());
    }

    #[test]
    fn undeclared_locks_nest_anyhow() {
        let l = locks();
        let _free = l.free.lock();
        let _outer = l.outer.lock();
    }

    #[test]
    #[should_panic(expected = "\"lockdep::outer\" must not be taken while \"lockdep::inner\"")]
    fn the_other_order_panics() {
        let l = locks();
        let _inner = l.inner.lock();
        let _outer = l.outer.lock();
    }

    #[test]
    #[should_panic(expected = "\"lockdep::inner\" must not be taken while \"lockdep::inner\"")]
    fn two_locks_of_one_name_do_not_nest() {
        let l = locks();
        let _one = l.inner.lock();
        let _two = l.inner_too.lock();
    }

    #[test]
    fn try_lock_is_not_checked_but_counts_as_held() {
        let l = locks();
        let inner = l.inner.lock();
        let outer = l.outer.try_lock().unwrap();
        drop(inner);
        let nested = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            drop(l.outer.lock());
        }));
        assert!(nested.is_err(), "outer is held, so it must not be taken");
        drop(outer);
        drop(l.outer.lock());
    }

    /// Takes the locks when it is dropped.
    struct AtEnd(Locks);

    impl Drop for AtEnd {
        fn drop(&mut self) {
            let _outer = self.0.outer.lock();
            let _inner = self.0.inner.try_lock();
            let _free = self.0.free.lock();
        }
    }

    std::thread_local! {
        static AT_END: core::cell::RefCell<Option<AtEnd>> =
            const { core::cell::RefCell::new(None) };
    }

    #[test]
    fn a_thread_that_ends_takes_locks_before_and_after_its_list_is_gone() {
        // Thread-locals are destroyed in the reverse order of their first use.
        for list_first in [false, true] {
            let thread = std::thread::spawn(move || {
                let l = locks();
                if list_first {
                    drop(l.outer.lock());
                }
                AT_END.set(Some(AtEnd(l)));
                AT_END.with_borrow(|at_end| drop(at_end.as_ref().unwrap().0.outer.lock()));
            });
            // A panic of a destructor would have aborted the process.
            thread.join().unwrap();
        }
    }

    #[test]
    #[should_panic(expected = "it cannot become [\"lockdep::inner\"]")]
    fn another_order_cannot_be_declared() {
        let _ = locks();
        declare(&["lockdep::inner"]);
    }
}
