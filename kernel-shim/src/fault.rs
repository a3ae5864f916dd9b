// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes a chosen allocation of this thread fail, so a test can walk through
//! every point of failure. Only with the feature `fault`; without it the check
//! is nothing.
//!
//! Each of these counts as one allocation: making an `Arc`, a `UniqueArc`, a
//! `KBox`, an `RBTreeNode`, an `RBTreeNodeReservation`, and each growth of a
//! vector. Turning one of them into another (a reservation into a node, a
//! `UniqueArc` into an `Arc`) counts nothing.

use crate::alloc::AllocError;

#[cfg(feature = "fault")]
mod state {
    use core::cell::Cell;

    std::thread_local! {
        /// Allocations left before the one that fails; zero never fails.
        pub(super) static LEFT: Cell<u64> = const { Cell::new(0) };
        /// Allocations asked for since the last call of `fail_after`.
        pub(super) static COUNT: Cell<u64> = const { Cell::new(0) };
    }
}

/// Makes the `n`-th next allocation of this thread fail, counted from 1; later
/// ones succeed again. `None`, and zero, turn it off. Sets [`count`] to zero.
///
/// # Examples
///
/// ```
/// use kernel_shim::{fault, prelude::*};
///
/// fault::fail_after(Some(2));
/// assert!(KBox::new(1, GFP_KERNEL).is_ok());
/// assert!(KBox::new(2, GFP_KERNEL).is_err());
/// assert!(KBox::new(3, GFP_KERNEL).is_ok());
/// assert_eq!(fault::count(), 3);
/// fault::fail_after(None);
/// ```
#[cfg(feature = "fault")]
pub fn fail_after(n: Option<u64>) {
    state::LEFT.set(n.unwrap_or(0));
    state::COUNT.set(0);
}

/// Returns the number of allocations that this thread asked for since [`fail_after`].
#[cfg(feature = "fault")]
pub fn count() -> u64 {
    state::COUNT.get()
}

/// Accounts for one allocation: fails where a test asked for it.
#[inline]
pub(crate) fn check() -> Result<(), AllocError> {
    // A thread that ends may allocate in a destructor, after its counters are gone.
    #[cfg(feature = "fault")]
    {
        let _ = state::COUNT.try_with(|count| count.set(count.get() + 1));
        if state::LEFT.try_with(count_down) == Ok(Verdict::Fails) {
            return Err(AllocError);
        }
    }
    Ok(())
}

/// The fate of one allocation.
#[cfg(feature = "fault")]
#[derive(PartialEq)]
enum Verdict {
    Passes,
    Fails,
}

/// Takes one allocation off those that are left before the one that fails.
#[cfg(feature = "fault")]
fn count_down(left: &core::cell::Cell<u64>) -> Verdict {
    match left.get() {
        0 => Verdict::Passes,
        n => {
            left.set(n - 1);
            if n == 1 {
                Verdict::Fails
            } else {
                Verdict::Passes
            }
        }
    }
}

#[cfg(all(test, feature = "fault", not(loom)))]
mod tests {
    use super::*;
    use crate::{
        prelude::*,
        rbtree::{RBTree, RBTreeNode, RBTreeNodeReservation},
        sync::{Arc, UniqueArc},
    };

    /// Counts the allocations of `make` and makes each of them fail in turn.
    fn allocations<T>(make: impl Fn() -> Result<T>) -> u64 {
        fail_after(None);
        assert!(make().is_ok());
        let all = count();
        for n in 1..=all {
            fail_after(Some(n));
            assert_eq!(make().err(), Some(ENOMEM), "allocation {n} of {all}");
        }
        fail_after(Some(all + 1));
        assert!(make().is_ok());
        fail_after(None);
        all
    }

    #[test]
    fn each_kind_of_allocation_counts_once_and_fails() {
        assert_eq!(allocations(|| Ok(Arc::new(1, GFP_KERNEL)?)), 1);
        assert_eq!(allocations(|| Arc::pin_init(1, GFP_KERNEL)), 1);
        assert_eq!(allocations(|| Ok(UniqueArc::new(1, GFP_KERNEL)?)), 1);
        assert_eq!(allocations(|| UniqueArc::pin_init(1, GFP_KERNEL)), 1);
        assert_eq!(allocations(|| Ok(KBox::new(1, GFP_KERNEL)?)), 1);
        assert_eq!(allocations(|| Ok(KBox::pin(1, GFP_KERNEL)?)), 1);
        assert_eq!(allocations(|| KBox::pin_init(1, GFP_KERNEL)), 1);
        assert_eq!(allocations(|| RBTreeNode::new(1, 2, GFP_KERNEL)), 1);
        let reserve = || RBTreeNodeReservation::<u8, u8>::new(GFP_KERNEL);
        assert_eq!(allocations(reserve), 1);
        let room = || Ok(KVec::<u8>::with_capacity(4, GFP_KERNEL)?);
        assert_eq!(allocations(room), 1);
        assert_eq!(allocations(|| Ok(KVec::from_elem(0u8, 4, GFP_KERNEL)?)), 1);
    }

    #[test]
    fn a_vector_counts_each_growth() {
        let fill = || {
            let mut v = KVec::new();
            for i in 0..9 {
                v.push(i, GFP_KERNEL)?;
            }
            Ok(v)
        };
        // To 1, 2, 4, 8 and 16.
        assert_eq!(allocations(fill), 5);
    }

    #[test]
    fn objects_made_before_a_failure_go_away() {
        let shared = std::rc::Rc::new(());
        let fill = || {
            let mut tree = RBTree::new();
            let boxed = KBox::new(shared.clone(), GFP_KERNEL)?;
            tree.try_create_and_insert(1, shared.clone(), GFP_KERNEL)?;
            tree.try_create_and_insert(2, KBox::into_inner(boxed), GFP_KERNEL)?;
            Ok(tree)
        };
        assert_eq!(allocations(fill), 3);
        assert_eq!(std::rc::Rc::strong_count(&shared), 1);
    }

    #[test]
    fn other_threads_are_not_touched() {
        fail_after(Some(1));
        std::thread::spawn(|| assert!(KBox::new(1, GFP_KERNEL).is_ok()))
            .join()
            .unwrap();
        assert!(KBox::new(1, GFP_KERNEL).is_err());
    }
}
