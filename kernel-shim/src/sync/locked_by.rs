// SPDX-License-Identifier: MIT OR Apache-2.0

//! Data that is protected by a lock of another object.
//!
//! Invariant: the data is reached only with a reference to the data of the very
//! lock given to [`LockedBy::new`]: a shared one for reading, an exclusive one
//! for writing. Under loom each access is also checked to be ordered after the
//! accesses before it.

use super::lock::{Backend, Lock};
use crate::{cachelines, work};
use core::ptr;

#[cfg(loom)]
use loom::cell::UnsafeCell;

#[cfg(not(loom))]
struct UnsafeCell<T: ?Sized>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T: ?Sized> UnsafeCell<T> {
    fn new(data: T) -> Self
    where
        T: Sized,
    {
        Self(core::cell::UnsafeCell::new(data))
    }

    fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Data that is accessed under a lock next to which it does not live.
///
/// # Examples
///
/// ```
/// use kernel_shim::{new_mutex, prelude::*, sync::{Arc, LockedBy, Mutex}};
///
/// let lock: Arc<Mutex<u32>> = Arc::pin_init(new_mutex!(0, "doc::owner"), GFP_KERNEL)?;
/// let apart = LockedBy::new(&lock, 5);
/// let mut held = lock.lock();
/// *apart.access_mut(&mut *held) += 1;
/// assert_eq!(*apart.access(&*held), 6);
/// # Ok::<(), Error>(())
/// ```
pub struct LockedBy<T: ?Sized, U: ?Sized> {
    owner: *const U,
    data: UnsafeCell<T>,
}

// SAFETY: with it goes its data; the owner is only compared.
unsafe impl<T: ?Sized + Send, U: ?Sized> Send for LockedBy<T, U> {}

// SAFETY: exclusive access is handed out to one thread at a time, for which
// `T: Send` is enough, and shared access only where `T: Sync`.
unsafe impl<T: ?Sized + Send, U: ?Sized> Sync for LockedBy<T, U> {}

impl<T, U> LockedBy<T, U> {
    /// Makes data protected by `owner`, which must neither move nor go away while the data is
    /// accessed.
    pub fn new<B: Backend>(owner: &Lock<U, B>, data: T) -> Self {
        Self {
            owner: owner.data.get(),
            data: UnsafeCell::new(data),
        }
    }
}

impl<T: ?Sized, U> LockedBy<T, U> {
    /// Reads the data; `owner` is what the lock protects, while it is held.
    ///
    /// # Panics
    ///
    /// If `owner` is not the data of the lock given to [`LockedBy::new`].
    pub fn access<'a>(&'a self, owner: &'a U) -> &'a T
    where
        T: Sync,
    {
        self.check(owner);
        // SAFETY: while the owner is shared nobody can hold it exclusively,
        // which `access_mut` needs, and `T` is `Sync`.
        self.data.with(|data| unsafe { &*data })
    }

    /// Changes the data; `owner` is what the lock protects, while it is held.
    ///
    /// # Panics
    ///
    /// If `owner` is not the data of the lock given to [`LockedBy::new`].
    pub fn access_mut<'a>(&'a self, owner: &'a mut U) -> &'a mut T {
        self.check(owner);
        cachelines::wrote::<Self, _>(&self.data);
        // SAFETY: the owner is held exclusively for as long as the reference
        // lives, and there is only one owner.
        self.data.with_mut(|data| unsafe { &mut *data })
    }

    fn check(&self, owner: *const U) {
        work::step();
        const {
            assert!(
                size_of::<U>() > 0,
                "the data of the owning lock has no size, so its address does not name it"
            );
        }
        if !ptr::eq(owner, self.owner) {
            panic!("mismatched owners: the data is protected by another lock");
        }
    }
}
