// SPDX-License-Identifier: MIT OR Apache-2.0

//! Atomic variables, as `kernel::sync::atomic`.
//!
//! Memory order, from the kernel's model to the one of Rust: Relaxed, Acquire
//! and Release are those of the same name, which order as much or more. `Full`
//! is a barrier of its own on both sides in the kernel, so here a sequentially
//! consistent operation between two sequentially consistent fences; on x86,
//! where a locked instruction is a full barrier already, the fences only stop
//! the compiler. A `cmpxchg` that fails orders nothing.

use crate::cachelines::wrote;
use crate::steps;
use core::fmt;
pub use ordering::{Acquire, Full, Relaxed, Release};
use ordering::{OrderingType, Relaxed as RelaxedOrder};

#[cfg(loom)]
use loom::sync::atomic as imp;
#[cfg(not(loom))]
use std::sync::atomic as imp;

/// The memory orders an operation can name.
pub mod ordering {
    /// No order.
    pub struct Relaxed;
    /// Orders later accesses after this one.
    pub struct Acquire;
    /// Orders earlier accesses before this one.
    pub struct Release;
    /// Orders all earlier accesses before all later ones.
    pub struct Full;

    #[doc(hidden)]
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum OrderingType {
        Relaxed,
        Acquire,
        Release,
        Full,
    }

    mod sealed {
        pub trait Sealed {}
        impl Sealed for super::Relaxed {}
        impl Sealed for super::Acquire {}
        impl Sealed for super::Release {}
        impl Sealed for super::Full {}
    }

    /// Any memory order.
    pub trait Ordering: sealed::Sealed {
        /// The ordering that it is.
        const TYPE: OrderingType;
    }

    impl Ordering for Relaxed {
        const TYPE: OrderingType = OrderingType::Relaxed;
    }
    impl Ordering for Acquire {
        const TYPE: OrderingType = OrderingType::Acquire;
    }
    impl Ordering for Release {
        const TYPE: OrderingType = OrderingType::Release;
    }
    impl Ordering for Full {
        const TYPE: OrderingType = OrderingType::Full;
    }

    /// The orders of a load.
    pub trait AcquireOrRelaxed: Ordering {}
    impl AcquireOrRelaxed for Acquire {}
    impl AcquireOrRelaxed for Relaxed {}

    /// The orders of a store.
    pub trait ReleaseOrRelaxed: Ordering {}
    impl ReleaseOrRelaxed for Release {}
    impl ReleaseOrRelaxed for Relaxed {}
}

#[doc(hidden)]
pub mod repr {
    /// The operations of one of `std`'s, or loom's, atomic types.
    pub trait Repr<T> {
        fn new(v: T) -> Self;
        fn load(&self, order: super::imp::Ordering) -> T;
        fn store(&self, v: T, order: super::imp::Ordering);
        fn swap(&self, v: T, order: super::imp::Ordering) -> T;
        fn compare_exchange(&self, old: T, new: T, order: super::imp::Ordering) -> Result<T, T>;
    }

    /// Types of atomic variables that can count.
    pub trait Arithmetic<T>: Repr<T> {
        fn fetch_add(&self, v: T, order: super::imp::Ordering) -> T;
        fn fetch_sub(&self, v: T, order: super::imp::Ordering) -> T;
    }
}
use repr::{Arithmetic, Repr};

/// A type that an [`Atomic`] can hold: the integers of 32 and 64 bits, `isize`,
/// `usize`, and `bool`, which does not count.
pub trait AtomicType: Copy {
    #[doc(hidden)]
    type Repr: Repr<Self>;
}

/// A type to which `Rhs` can be added.
pub trait AtomicAdd<Rhs = Self>: AtomicType<Repr: Arithmetic<Self>> {
    #[doc(hidden)]
    fn rhs_into_delta(rhs: Rhs) -> Self;
}

macro_rules! impl_repr {
    ($($t:ty, $atomic:ident;)*) => {
        $(
            impl Repr<$t> for imp::$atomic {
                #[inline]
                fn new(v: $t) -> Self {
                    imp::$atomic::new(v)
                }
                #[inline]
                fn load(&self, order: imp::Ordering) -> $t {
                    self.load(order)
                }
                #[inline]
                fn store(&self, v: $t, order: imp::Ordering) {
                    self.store(v, order);
                }
                #[inline]
                fn swap(&self, v: $t, order: imp::Ordering) -> $t {
                    self.swap(v, order)
                }
                #[inline]
                fn compare_exchange(
                    &self,
                    old: $t,
                    new: $t,
                    order: imp::Ordering,
                ) -> Result<$t, $t> {
                    self.compare_exchange(old, new, order, imp::Ordering::Relaxed)
                }
            }

            impl AtomicType for $t {
                type Repr = imp::$atomic;
            }
        )*
    };
}

macro_rules! impl_arithmetic {
    ($($t:ty, $atomic:ident;)*) => {
        impl_repr! { $($t, $atomic;)* }

        $(
            impl Arithmetic<$t> for imp::$atomic {
                #[inline]
                fn fetch_add(&self, v: $t, order: imp::Ordering) -> $t {
                    self.fetch_add(v, order)
                }
                #[inline]
                fn fetch_sub(&self, v: $t, order: imp::Ordering) -> $t {
                    self.fetch_sub(v, order)
                }
            }

            impl AtomicAdd<$t> for $t {
                #[inline]
                fn rhs_into_delta(rhs: $t) -> $t {
                    rhs
                }
            }
        )*
    };
}

impl_repr! {
    bool, AtomicBool;
}

impl_arithmetic! {
    i32, AtomicI32;
    u32, AtomicU32;
    i64, AtomicI64;
    u64, AtomicU64;
    isize, AtomicIsize;
    usize, AtomicUsize;
}

/// A variable that threads may access at once.
///
/// # Examples
///
/// ```
/// use kernel_shim::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};
///
/// let x = Atomic::new(1u64);
/// x.store(2, Release);
/// assert_eq!(x.fetch_add(40, Full), 2);
/// assert_eq!(x.cmpxchg(42, 7, Full), Ok(42));
/// assert_eq!(x.cmpxchg(42, 8, Relaxed), Err(7));
/// assert_eq!(x.load(Acquire), 7);
/// ```
pub struct Atomic<T: AtomicType>(T::Repr);

impl<T: AtomicType> Atomic<T> {
    /// Returns a variable with the value `v`.
    #[inline]
    pub fn new(v: T) -> Self {
        Self(T::Repr::new(v))
    }

    /// Reads.
    #[inline]
    pub fn load<O: ordering::AcquireOrRelaxed>(&self, _: O) -> T {
        steps::before();
        self.0.load(order::<O>())
    }

    /// Writes.
    #[inline]
    pub fn store<O: ordering::ReleaseOrRelaxed>(&self, v: T, _: O) {
        steps::before();
        wrote::<Self, _>(self);
        self.0.store(v, order::<O>());
    }

    /// Writes, and gives what was there.
    #[inline]
    pub fn xchg<O: ordering::Ordering>(&self, v: T, _: O) -> T {
        steps::before();
        wrote::<Self, _>(self);
        between_fences::<O, _>(|| self.0.swap(v, order::<O>()))
    }

    /// Writes `new` where `old` is there, and gives what was there: in `Ok`
    /// where it was `old`, otherwise in `Err`.
    #[inline]
    pub fn cmpxchg<O: ordering::Ordering>(&self, old: T, new: T, _: O) -> Result<T, T> {
        steps::before();
        wrote::<Self, _>(self);
        between_fences::<O, _>(|| self.0.compare_exchange(old, new, order::<O>()))
    }

    /// Adds, and wraps around.
    #[inline]
    pub fn add<Rhs>(&self, v: Rhs, _: RelaxedOrder)
    where
        T: AtomicAdd<Rhs>,
    {
        self.fetch_add(v, Relaxed);
    }

    /// Adds, and gives what was there; wraps around.
    #[inline]
    pub fn fetch_add<Rhs, O: ordering::Ordering>(&self, v: Rhs, _: O) -> T
    where
        T: AtomicAdd<Rhs>,
    {
        let v = T::rhs_into_delta(v);
        steps::before();
        wrote::<Self, _>(self);
        between_fences::<O, _>(|| self.0.fetch_add(v, order::<O>()))
    }

    /// Subtracts, and gives what was there; wraps around.
    #[inline]
    pub fn fetch_sub<Rhs, O: ordering::Ordering>(&self, v: Rhs, _: O) -> T
    where
        T: AtomicAdd<Rhs>,
    {
        let v = T::rhs_into_delta(v);
        steps::before();
        wrote::<Self, _>(self);
        between_fences::<O, _>(|| self.0.fetch_sub(v, order::<O>()))
    }
}

impl<T: AtomicType + fmt::Debug> fmt::Debug for Atomic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load(Relaxed).fmt(f)
    }
}

/// Returns the order of the operation itself.
const fn order<O: ordering::Ordering>() -> imp::Ordering {
    match O::TYPE {
        OrderingType::Relaxed => imp::Ordering::Relaxed,
        OrderingType::Acquire => imp::Ordering::Acquire,
        OrderingType::Release => imp::Ordering::Release,
        OrderingType::Full => imp::Ordering::SeqCst,
    }
}

/// Runs an operation that reads and writes, as a full barrier where `O` is.
#[inline]
fn between_fences<O: ordering::Ordering, R>(operation: impl FnOnce() -> R) -> R {
    if matches!(O::TYPE, OrderingType::Full) {
        full_fence();
    }
    let result = operation();
    if matches!(O::TYPE, OrderingType::Full) {
        full_fence();
    }
    result
}

#[inline]
fn full_fence() {
    #[cfg(all(any(target_arch = "x86", target_arch = "x86_64"), not(loom)))]
    core::sync::atomic::compiler_fence(imp::Ordering::SeqCst);
    #[cfg(not(all(any(target_arch = "x86", target_arch = "x86_64"), not(loom))))]
    imp::fence(imp::Ordering::SeqCst);
}

#[cfg(test)]
mod tests;
