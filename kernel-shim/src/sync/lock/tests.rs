// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the locks and of the data apart from them, also under loom.

use super::*;
use crate::{
    prelude::*,
    sync::{Arc, LockedBy, Mutex, SpinLock},
};

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

#[pin_data]
struct Two {
    #[pin]
    lock: SpinLock<(u32, u32)>,
    apart: LockedBy<u32, (u32, u32)>,
}

fn two() -> Arc<Two> {
    let init = pin_init!(&this in Two {
        lock <- new_spinlock!((0, 0), "test::two"),
        // SAFETY: fields are initialised in the order they are listed in, and
        // the lock is never moved.
        apart: LockedBy::new(unsafe { &(*this.as_ptr()).lock }, 0),
    });
    Arc::pin_init(init, GFP_KERNEL).unwrap()
}

fn step(two: &Two) {
    let mut held = two.lock.lock();
    assert_eq!(held.0, held.1);
    held.0 += 1;
    *two.apart.access_mut(&mut held) += 2;
    held.1 += 1;
}

#[test]
fn one_thread_at_a_time_gets_to_the_data() {
    let steps = if cfg!(loom) { 2 } else { 1000 };
    model(move || {
        let mine = two();
        let yours = mine.clone();
        let other = spawn(move || (0..steps).for_each(|_| step(&yours)));
        (0..steps).for_each(|_| step(&mine));
        other.join().unwrap();
        let held = mine.lock.lock();
        assert_eq!(*held, (2 * steps, 2 * steps));
        assert_eq!(*mine.apart.access(&held), 4 * steps);
    });
}

#[test]
fn try_lock_fails_while_the_lock_is_held() {
    model(|| {
        let lock: Arc<Mutex<u32>> = Arc::pin_init(new_mutex!(1), GFP_KERNEL).unwrap();
        let held = lock.lock();
        let other = lock.clone();
        spawn(move || assert!(other.try_lock().is_none()))
            .join()
            .unwrap();
        assert!(core::ptr::eq(held.lock_ref(), &*lock));
        drop(held);
        *lock.try_lock().unwrap() += 1;
        assert_eq!(*lock.lock(), 2);
    });
}

#[test]
fn data_that_must_not_move_is_changed_through_its_pin() {
    #[pin_data]
    struct Still {
        value: u32,
        #[pin]
        pinned: core::marker::PhantomPinned,
    }

    impl Still {
        fn set(self: Pin<&mut Self>, value: u32) {
            // SAFETY: nothing is moved.
            unsafe { self.get_unchecked_mut() }.value = value;
        }
    }

    model(|| {
        let still = pin_init!(Still {
            value: 0,
            pinned: core::marker::PhantomPinned
        });
        let lock: Pin<KBox<SpinLock<Still>>> =
            KBox::pin_init(new_spinlock!(still), GFP_KERNEL).unwrap();
        lock.lock().as_mut().set(3);
        assert_eq!(lock.lock().value, 3);
    });
}

#[test]
#[cfg(not(loom))]
fn a_panic_releases_the_lock() {
    let two = two();
    let other = two.clone();
    let panicked = spawn(move || {
        let _held = other.lock.lock();
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(*two.lock.lock(), (0, 0));
}

#[test]
#[cfg(not(loom))]
#[should_panic(expected = "mismatched owners")]
fn the_data_of_another_lock_gives_no_access() {
    let (mine, yours) = (two(), two());
    let mut held = yours.lock.lock();
    *mine.apart.access_mut(&mut held) += 1;
}

#[test]
#[cfg(not(loom))]
#[should_panic(expected = "mismatched owners")]
fn a_copy_of_the_data_gives_no_access() {
    let two = two();
    let copy = *two.lock.lock();
    two.apart.access(&copy);
}
