// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of reference counting: on threads, and under loom in every order that
//! threads can run in.

use super::*;
use crate::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};

/// Runs a test once, or under loom in every order.
fn model(test: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    loom::model(test);
    #[cfg(not(loom))]
    test();
}

#[cfg(loom)]
use loom::thread::spawn;
#[cfg(not(loom))]
use std::thread::spawn;

struct CountDrop(Arc<Atomic<u32>>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.add(1, Relaxed);
    }
}

fn counter() -> Arc<Atomic<u32>> {
    Arc::new(Atomic::new(0), GFP_KERNEL).unwrap()
}

#[test]
fn the_last_reference_drops_the_value() {
    model(|| {
        let drops = counter();
        let a = Arc::new(CountDrop(drops.clone()), GFP_KERNEL).unwrap();
        let b = a.clone();
        let c: Arc<CountDrop> = a.as_arc_borrow().into();
        assert!(Arc::ptr_eq(&b, &c));
        assert_eq!(Arc::as_ptr(&b), &*c as *const CountDrop);
        drop((a, b));
        assert_eq!(drops.load(Relaxed), 0);
        drop(c);
        assert_eq!(drops.load(Relaxed), 1);
    });
}

#[test]
fn a_unique_arc_keeps_its_value_where_it_is() {
    model(|| {
        let mut unique = UniqueArc::new(1u32, GFP_KERNEL).unwrap();
        *unique += 1;
        let place = UniqueArc::as_ptr(&unique);
        let shared: Arc<u32> = unique.into();
        assert_eq!(Arc::as_ptr(&shared), place);
        let mut again = Arc::into_unique_or_drop(shared).unwrap();
        *again += 1;
        let shared: Arc<u32> = again.into();
        assert_eq!((*shared, Arc::as_ptr(&shared)), (3, place));
        let other = shared.clone();
        assert!(Arc::into_unique_or_drop(shared).is_none());
        assert_eq!(*other, 3);
    });
}

#[test]
fn a_failed_initialiser_leaves_nothing() {
    model(|| {
        let drops = counter();
        let make = |result: Result<CountDrop>| -> Result<Arc<CountDrop>> {
            Arc::pin_init(result, GFP_KERNEL)
        };
        assert_eq!(make(Err(EBUSY)).err(), Some(EBUSY));
        drop(make(Ok(CountDrop(drops.clone()))).unwrap());
        assert_eq!(drops.load(Relaxed), 1);
    });
}

#[test]
fn exactly_one_of_the_last_owners_gets_the_value() {
    model(|| {
        let drops = counter();
        let a = Arc::new(CountDrop(drops.clone()), GFP_KERNEL).unwrap();
        let b = a.clone();
        let got = counter();
        let also = got.clone();
        let take = |arc: Arc<CountDrop>, got: &Atomic<u32>| {
            if let Some(unique) = Arc::into_unique_or_drop(arc) {
                got.add(1, Relaxed);
                drop(unique);
            }
        };
        let other = spawn(move || take(b, &also));
        take(a, &got);
        other.join().unwrap();
        assert_eq!(got.load(Relaxed), 1);
        assert_eq!(drops.load(Relaxed), 1);
    });
}

/// Under loom an access that is not ordered before the drop is reported.
#[test]
fn changes_of_an_owner_are_seen_by_the_one_that_drops() {
    #[cfg(loom)]
    use loom::cell::Cell;
    #[cfg(not(loom))]
    use std::cell::Cell;

    struct Value(Cell<u32>);

    // SAFETY: in this test each owner but one only writes before it drops its
    // reference, and the last one reads.
    unsafe impl Sync for Value {}

    impl Drop for Value {
        fn drop(&mut self) {
            assert_eq!(self.0.get(), 7);
        }
    }

    model(|| {
        let a = Arc::new(Value(Cell::new(0)), GFP_KERNEL).unwrap();
        let b = a.clone();
        let writer = spawn(move || {
            b.0.set(7);
            drop(b);
        });
        let waited = Arc::into_unique_or_drop(a);
        if let Some(last) = waited {
            assert_eq!(last.0.get(), 7);
        }
        writer.join().unwrap();
    });
}
