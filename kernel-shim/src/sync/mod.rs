// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sharing between threads, as `kernel::sync`.

mod arc;
pub mod atomic;
pub mod barrier;
pub mod lock;
mod locked_by;
mod set_once;

pub use crate::{new_mutex, new_spinlock, static_lock_class};
pub use arc::{Arc, ArcBorrow, UniqueArc};
pub use lock::{
    mutex::{Mutex, MutexGuard},
    spinlock::{SpinLock, SpinLockGuard},
};
pub use locked_by::LockedBy;
pub use set_once::SetOnce;

/// The class of a lock for the kernel's lockdep; nothing in user space, where
/// the name of the lock is its class.
pub struct LockClassKey(());

impl LockClassKey {
    #[doc(hidden)]
    pub const fn __new_static() -> Self {
        Self(())
    }
}
