// SPDX-License-Identifier: GPL-2.0-only

//! Commits one fault, by which the kernel's checkers are tried: a test in a debug kernel says
//! nothing if the kernel does not see faults in Rust.
//!
//! `xtask/src/selftest.rs` has the report that each fault has to end in.

use core::hint::black_box;
use core::mem;

use kernel::prelude::*;
use kernel::sync::{new_mutex, new_spinlock, Mutex, SpinLock};

module! {
    type: Selftest,
    name: "bus1_selftest",
    description: "Commits a fault that a debug kernel has to report",
    license: "GPL",
    params: {
        fault: u32 {
            default: 0,
            description: "Number of the fault",
        },
    },
}

struct Selftest;

/// Bytes of the objects that are misused.
const SIZE: usize = 100;

impl kernel::Module for Selftest {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        match module_parameters::fault.value() {
            0 => Ok(Self),
            1 => use_after_free(),
            2 => access_beyond_the_end(),
            3 => overflow(),
            4 => assertion(),
            5 => circle(),
            6 => sleep_under_spin_lock(),
            7 => leak(),
            _ => Err(EINVAL),
        }
    }
}

fn object() -> Result<KBox<[u8; SIZE]>> {
    Ok(KBox::new([7; SIZE], GFP_KERNEL)?)
}

fn use_after_free() -> Result<Selftest> {
    let object = KBox::into_raw(object()?);
    // SAFETY: From `into_raw`.
    drop(unsafe { KBox::from_raw(object) });
    // SAFETY: None: this is the fault. The page is mapped still.
    black_box(unsafe { object.cast::<u8>().read_volatile() });
    Ok(Selftest)
}

fn access_beyond_the_end() -> Result<Selftest> {
    let object = object()?;
    // SAFETY: None: this is the fault. The slab's next object is there, or its padding.
    black_box(unsafe {
        object
            .as_ptr()
            .wrapping_add(black_box(SIZE))
            .read_volatile()
    });
    Ok(Selftest)
}

fn overflow() -> Result<Selftest> {
    black_box(black_box(u32::MAX) + black_box(1));
    Ok(Selftest)
}

fn assertion() -> Result<Selftest> {
    debug_assert!(black_box(false));
    Ok(Selftest)
}

fn circle() -> Result<Selftest> {
    let a: Pin<KBox<Mutex<()>>> = KBox::pin_init(new_mutex!((), "selftest::a"), GFP_KERNEL)?;
    let b: Pin<KBox<Mutex<()>>> = KBox::pin_init(new_mutex!((), "selftest::b"), GFP_KERNEL)?;
    for (outer, inner) in [(&a, &b), (&b, &a)] {
        let outer = outer.lock();
        drop(inner.lock());
        drop(outer);
    }
    Ok(Selftest)
}

fn sleep_under_spin_lock() -> Result<Selftest> {
    let lock: Pin<KBox<SpinLock<()>>> = KBox::pin_init(new_spinlock!(()), GFP_KERNEL)?;
    let guard = lock.lock();
    // With this flag an allocation may sleep.
    drop(KBox::new([7; SIZE], GFP_KERNEL)?);
    drop(guard);
    Ok(Selftest)
}

fn leak() -> Result<Selftest> {
    // Several, since an old pointer may stay in a register or on a stack.
    for _ in 0..20 {
        mem::forget(object()?);
    }
    Ok(Selftest)
}
