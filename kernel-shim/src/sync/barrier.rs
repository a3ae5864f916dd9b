// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory barriers between processors, as `kernel::sync::barrier`.
//!
//! A full barrier is a sequentially consistent fence, a read barrier an Acquire
//! fence, a write barrier a Release fence; each is at least as strong as the
//! kernel's between accesses made with [`super::atomic`].

pub use super::atomic::ordering::Full;

#[cfg(loom)]
use loom::sync::atomic::{fence, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{fence, Ordering};

/// Orders reads before it against reads after it.
pub struct Read;
/// Orders writes before it against writes after it.
pub struct Write;

mod sealed {
    pub trait Smp {
        fn run();
    }
}

impl sealed::Smp for Full {
    fn run() {
        fence(Ordering::SeqCst);
    }
}

impl sealed::Smp for Read {
    fn run() {
        fence(Ordering::Acquire);
    }
}

impl sealed::Smp for Write {
    fn run() {
        fence(Ordering::Release);
    }
}

/// Orders accesses between processors: `smp_mb(Full)`, `smp_mb(Read)`, `smp_mb(Write)`.
///
/// # Examples
///
/// ```
/// use kernel_shim::sync::{atomic::{Atomic, Relaxed}, barrier::{smp_mb, Full}};
///
/// let (mine, yours) = (Atomic::new(0u32), Atomic::new(0u32));
/// mine.store(1, Relaxed);
/// smp_mb(Full);
/// assert_eq!(yours.load(Relaxed), 0);
/// ```
#[inline]
pub fn smp_mb<T: sealed::Smp>(_: T) {
    T::run();
}
