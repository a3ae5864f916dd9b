// SPDX-License-Identifier: MIT OR Apache-2.0

//! Locks: [`spinlock::SpinLock`] and [`mutex::Mutex`], made with
//! [`new_spinlock!`](crate::new_spinlock) and [`new_mutex!`](crate::new_mutex).
//!
//! Both are the same lock here, which sleeps once it has waited in vain for some
//! microseconds (to sleep and to be woken takes longer than a lock is held); they
//! are types of their own as in the kernel. Under loom the lock is loom's. In debug
//! builds the order of the locks is checked by name, see [`crate::lockdep`].
//!
//! Invariant: the data is reached only through a [`Guard`], and a guard exists
//! only while `raw` is held. A locked value is pinned.

use super::LockClassKey;
use crate::{cachelines, lockdep, steps, types::NotThreadSafe};
use core::{
    cell::UnsafeCell,
    convert::Infallible,
    ffi::CStr,
    marker::{PhantomData, PhantomPinned},
    ops::{Deref, DerefMut},
    pin::Pin,
};
use pinned_init::{pin_init_from_closure, PinInit};

#[cfg(not(loom))]
mod raw {
    use crate::steps;

    pub(super) type RawLock = parking_lot::Mutex<()>;
    pub(super) type Held<'a> = parking_lot::MutexGuard<'a, ()>;

    /// Pauses before each look at a lock that is held, as powers of two; then the thread sleeps.
    /// The first is no shorter: it takes longer anyway to get the lock's cache line back, and the
    /// holder mostly takes the lock again at once.
    const PAUSES: core::ops::Range<u32> = 5..10;

    #[inline]
    pub(super) fn lock(lock: &RawLock) -> Held<'_> {
        steps::before();
        loop {
            if let Some(held) = lock.try_lock() {
                return held;
            }
            // With a hook, another call of this thread may hold it.
            if !steps::before() {
                return contended(lock);
            }
        }
    }

    #[cold]
    fn contended(lock: &RawLock) -> Held<'_> {
        for pauses in PAUSES {
            for _ in 0..1 << pauses {
                core::hint::spin_loop();
            }
            if let Some(held) = lock.try_lock() {
                return held;
            }
        }
        lock.lock()
    }

    #[inline]
    pub(super) fn try_lock(lock: &RawLock) -> Option<Held<'_>> {
        lock.try_lock()
    }
}

#[cfg(loom)]
mod raw {
    pub(super) type RawLock = loom::sync::Mutex<()>;
    pub(super) type Held<'a> = loom::sync::MutexGuard<'a, ()>;

    pub(super) fn lock(lock: &RawLock) -> Held<'_> {
        lock.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn try_lock(lock: &RawLock) -> Option<Held<'_>> {
        lock.try_lock().ok()
    }
}

/// A kind of lock; only a name in user space.
pub trait Backend: sealed::Sealed {
    /// A thread of the kernel that holds one does not sleep.
    #[doc(hidden)]
    const SPINS: bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::spinlock::SpinLockBackend {}
    impl Sealed for super::mutex::MutexBackend {}
}

/// The locks for short times.
pub mod spinlock {
    use super::{Backend, Guard, Lock};

    /// The kind of a [`SpinLock`].
    pub struct SpinLockBackend;
    impl Backend for SpinLockBackend {
        const SPINS: bool = true;
    }

    /// A lock that must not be held across anything that sleeps in the kernel.
    pub type SpinLock<T> = Lock<T, SpinLockBackend>;
    /// A held [`SpinLock`].
    pub type SpinLockGuard<'a, T> = Guard<'a, T, SpinLockBackend>;
}

/// The locks for any time.
pub mod mutex {
    use super::{Backend, Guard, Lock};

    /// The kind of a [`Mutex`].
    pub struct MutexBackend;
    impl Backend for MutexBackend {
        const SPINS: bool = false;
    }

    /// A lock that may be held across anything.
    pub type Mutex<T> = Lock<T, MutexBackend>;
    /// A held [`Mutex`].
    pub type MutexGuard<'a, T> = Guard<'a, T, MutexBackend>;
}

/// A lock and the data it protects.
///
/// # Examples
///
/// ```
/// use core::pin::pin;
/// use kernel_shim::{prelude::*, new_spinlock, sync::SpinLock};
///
/// let lock: Pin<KBox<SpinLock<u32>>> =
///     KBox::pin_init(new_spinlock!(1, "doc::lock"), GFP_KERNEL)?;
/// *lock.lock() += 1;
/// assert_eq!(*lock.lock(), 2);
/// # Ok::<(), Error>(())
/// ```
pub struct Lock<T: ?Sized, B: Backend> {
    raw: raw::RawLock,
    class: lockdep::Class,
    _pin: PhantomPinned,
    _backend: PhantomData<fn() -> B>,
    pub(super) data: UnsafeCell<T>,
}

// SAFETY: with the lock goes its data.
unsafe impl<T: ?Sized + Send, B: Backend> Send for Lock<T, B> {}

// SAFETY: only one thread at a time gets to the data, so `T: Send` is enough.
unsafe impl<T: ?Sized + Send, B: Backend> Sync for Lock<T, B> {}

impl<T, B: Backend> Lock<T, B> {
    /// Initialises an unlocked lock in place. Use [`new_spinlock!`](crate::new_spinlock) or
    /// [`new_mutex!`](crate::new_mutex).
    pub fn new(
        t: impl PinInit<T>,
        name: &'static CStr,
        _key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        let init = move |slot: *mut Self| -> Result<(), Infallible> {
            // SAFETY: `slot` is valid for writes and pinned, hence its fields
            // are too. The one fallible step comes first and cannot fail.
            unsafe {
                t.__pinned_init((&raw mut (*slot).data).cast::<T>())?;
                (&raw mut (*slot).raw).write(raw::RawLock::new(()));
                (&raw mut (*slot).class).write(lockdep::Class::new(name, B::SPINS));
            }
            Ok(())
        };
        // SAFETY: the closure initialises every field that is not zero-sized,
        // `UnsafeCell<T>` has the layout of `T`, and nothing is moved.
        unsafe { pin_init_from_closure(init) }
    }
}

impl<T: ?Sized, B: Backend> Lock<T, B> {
    /// Waits for the lock.
    ///
    /// # Panics
    ///
    /// Panics in debug builds if the thread holds a lock that must come after this one.
    pub fn lock(&self) -> Guard<'_, T, B> {
        let order = self.class.acquire();
        Guard::new(self, raw::lock(&self.raw), order)
    }

    /// Takes the lock if it is free. Cannot deadlock, so the order is not
    /// checked.
    #[must_use = "if unused, the lock will be immediately unlocked"]
    pub fn try_lock(&self) -> Option<Guard<'_, T, B>> {
        let held = raw::try_lock(&self.raw)?;
        Some(Guard::new(self, held, self.class.acquire_unchecked()))
    }
}

/// A held lock: access to its data. Stays on its thread.
///
/// # Examples
///
/// ```compile_fail,E0277
/// use kernel_shim::{new_mutex, prelude::*, sync::{Arc, Mutex}};
///
/// let lock: Arc<Mutex<u32>> = Arc::pin_init(new_mutex!(1), GFP_KERNEL).unwrap();
/// let held = lock.lock();
/// // A guard cannot go to another thread.
/// std::thread::scope(|s| s.spawn(move || drop(held)).join()).unwrap();
/// ```
#[must_use = "the lock unlocks immediately when the guard is unused"]
pub struct Guard<'a, T: ?Sized, B: Backend> {
    lock: &'a Lock<T, B>,
    _held: raw::Held<'a>,
    _order: lockdep::Acquired,
    _counted: steps::Counted,
    _not_send: NotThreadSafe,
}

// SAFETY: a shared guard gives out shared references to the data only.
unsafe impl<T: Sync + ?Sized, B: Backend> Sync for Guard<'_, T, B> {}

impl<'a, T: ?Sized, B: Backend> Guard<'a, T, B> {
    fn new(lock: &'a Lock<T, B>, held: raw::Held<'a>, order: lockdep::Acquired) -> Self {
        cachelines::wrote::<Lock<T, B>, _>(&lock.raw);
        Self {
            lock,
            _held: held,
            _order: order,
            _counted: steps::Counted::new(B::SPINS),
            _not_send: NotThreadSafe,
        }
    }

    /// Returns the lock that is held.
    pub fn lock_ref(&self) -> &'a Lock<T, B> {
        self.lock
    }

    /// Returns the data, pinned; the way to change data that is not `Unpin`.
    pub fn as_mut(&mut self) -> Pin<&mut T> {
        cachelines::wrote::<T, T>(self);
        // SAFETY: the lock is held, its data is pinned and stays so.
        unsafe { Pin::new_unchecked(&mut *self.lock.data.get()) }
    }
}

impl<T: ?Sized, B: Backend> Deref for Guard<'_, T, B> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized + Unpin, B: Backend> DerefMut for Guard<'_, T, B> {
    fn deref_mut(&mut self) -> &mut T {
        cachelines::wrote::<T, T>(self);
        // SAFETY: the lock is held.
        unsafe { &mut *self.lock.data.get() }
    }
}

/// An initialiser of a [`SpinLock`](crate::sync::SpinLock) with its data and, optionally, its name,
/// which is the place in the source by default.
#[macro_export]
macro_rules! new_spinlock {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::sync::SpinLock::new(
            $inner, $crate::__optional_name!($($name)?), $crate::static_lock_class!())
    };
}

/// An initialiser of a [`Mutex`](crate::sync::Mutex), as [`new_spinlock!`](crate::new_spinlock).
#[macro_export]
macro_rules! new_mutex {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::sync::Mutex::new(
            $inner, $crate::__optional_name!($($name)?), $crate::static_lock_class!())
    };
}

/// A [`LockClassKey`](crate::sync::LockClassKey) of this place in the source.
#[macro_export]
macro_rules! static_lock_class {
    () => {{
        static CLASS: $crate::sync::LockClassKey = $crate::sync::LockClassKey::__new_static();
        ::core::pin::Pin::static_ref(&CLASS)
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __optional_name {
    () => {
        $crate::__c_str!(::core::concat!(::core::file!(), ":", ::core::line!()))
    };
    ($name:literal) => {
        $crate::__c_str!($name)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __c_str {
    ($text:expr) => {{
        const NAME: &::core::ffi::CStr =
            match ::core::ffi::CStr::from_bytes_with_nul(::core::concat!($text, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => ::core::panic!("a lock's name has a NUL in it"),
            };
        NAME
    }};
}

#[cfg(test)]
mod tests;
