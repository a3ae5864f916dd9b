// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the atomics: their effects, and under loom the orders that they impose.

use super::*;

fn model(test: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    loom::model(test);
    #[cfg(not(loom))]
    test();
}

macro_rules! check_integer {
    ($($t:ty)*) => {
        $({
            let x = Atomic::new(5 as $t);
            x.store(6, Release);
            assert_eq!(x.load(Acquire), 6);
            assert_eq!(x.xchg(7, Full), 6);
            assert_eq!(x.cmpxchg(6, 9, Acquire), Err(7));
            assert_eq!(x.cmpxchg(7, 9, Release), Ok(7));
            x.add(1, Relaxed);
            assert_eq!(x.fetch_add(<$t>::MAX, Full), 10);
            assert_eq!(x.load(Relaxed), (10 as $t).wrapping_add(<$t>::MAX));
            assert_eq!(x.fetch_sub(<$t>::MAX, Relaxed), (10 as $t).wrapping_add(<$t>::MAX));
            assert_eq!(std::format!("{x:?}"), "10");
        })*
    };
}

#[test]
fn integers_count_and_wrap() {
    model(|| {
        check_integer!(i32 u32 i64 u64 isize usize);
    });
}

#[test]
fn a_flag_is_exchanged() {
    model(|| {
        let x = Atomic::new(false);
        assert!(!x.xchg(true, Relaxed));
        assert_eq!(x.cmpxchg(false, true, Full), Err(true));
        assert_eq!(x.cmpxchg(true, false, Full), Ok(true));
        assert!(!x.load(Relaxed));
    });
}

#[cfg(loom)]
mod order {
    use super::*;
    use crate::sync::barrier::{self, smp_mb};
    use loom::{sync::Arc, thread};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed as StdRelaxed};

    /// Each of two threads writes its variable, does something to a third that
    /// no other thread touches, and then reads the other's variable; whether it
    /// can happen that neither sees the write of the other.
    fn both_can_miss(between: fn(&Atomic<u32>)) -> bool {
        let missed = std::sync::Arc::new(AtomicBool::new(false));
        let seen = missed.clone();
        loom::model(move || {
            let vars = Arc::new([(); 4].map(|()| Atomic::new(0u32)));
            let other = vars.clone();
            let thread = thread::spawn(move || {
                other[0].store(1, Relaxed);
                between(&other[2]);
                other[1].load(Relaxed)
            });
            vars[1].store(1, Relaxed);
            between(&vars[3]);
            let mine = vars[0].load(Relaxed);
            if mine == 0 && thread.join().unwrap() == 0 {
                seen.store(true, StdRelaxed);
            }
        });
        missed.load(StdRelaxed)
    }

    #[test]
    fn a_full_barrier_orders_a_write_before_a_read() {
        assert!(!both_can_miss(|_| smp_mb(barrier::Full)));
    }

    #[test]
    fn a_full_exchange_is_a_full_barrier() {
        assert!(!both_can_miss(|x| {
            x.xchg(1, Full);
        }));
    }

    #[test]
    fn weaker_orders_do_not() {
        assert!(both_can_miss(|_| {}));
        assert!(both_can_miss(|_| smp_mb(barrier::Read)));
        assert!(both_can_miss(|_| smp_mb(barrier::Write)));
    }

    /// Returns whether a reader that sees the flag can miss the data written before it.
    fn can_miss_data(write: fn(&Atomic<u32>), read: fn(&Atomic<u32>) -> u32) -> bool {
        let missed = std::sync::Arc::new(AtomicBool::new(false));
        let seen = missed.clone();
        loom::model(move || {
            let vars = Arc::new((Atomic::new(0u32), Atomic::new(0u32)));
            let other = vars.clone();
            let thread = thread::spawn(move || {
                other.0.store(1, Relaxed);
                write(&other.1);
            });
            if read(&vars.1) == 1 && vars.0.load(Relaxed) == 0 {
                seen.store(true, StdRelaxed);
            }
            thread.join().unwrap();
        });
        missed.load(StdRelaxed)
    }

    #[test]
    fn release_and_acquire_hand_data_over() {
        assert!(!can_miss_data(|f| f.store(1, Release), |f| f.load(Acquire)));
        assert!(can_miss_data(|f| f.store(1, Relaxed), |f| f.load(Relaxed)));
        assert!(!can_miss_data(
            |f| {
                smp_mb(barrier::Write);
                f.store(1, Relaxed);
            },
            |f| {
                let flag = f.load(Relaxed);
                smp_mb(barrier::Read);
                flag
            }
        ));
    }
}
