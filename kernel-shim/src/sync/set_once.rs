// SPDX-License-Identifier: MIT OR Apache-2.0

//! A value that is set once, as `kernel::sync::SetOnce`.

use core::cell::UnsafeCell;

use super::atomic::{Acquire, Atomic, Relaxed, Release};

const EMPTY: u32 = 0;
const BEING_SET: u32 = 1;
const SET: u32 = 2;

/// A place for a value that is set at most once, by any thread.
///
/// # Examples
///
/// ```
/// use kernel_shim::sync::SetOnce;
///
/// let place = SetOnce::new();
/// assert_eq!(place.as_ref(), None);
/// assert!(place.populate(7));
/// assert!(!place.populate(8));
/// assert_eq!(place.as_ref(), Some(&7));
/// ```
pub struct SetOnce<T> {
    state: Atomic<u32>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: a value is written by one thread only, before `state` says that it is set, and from then
// on only read or dropped.
unsafe impl<T: Send + Sync> Sync for SetOnce<T> {}

impl<T> Default for SetOnce<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> SetOnce<T> {
    /// Makes an empty place.
    pub fn new() -> Self {
        Self {
            state: Atomic::new(EMPTY),
            value: UnsafeCell::new(None),
        }
    }

    /// Returns the value, if it is set.
    pub fn as_ref(&self) -> Option<&T> {
        if self.state.load(Acquire) != SET {
            return None;
        }
        // SAFETY: the state is loaded with Acquire, so the value is written, and is written no more.
        unsafe { &*self.value.get() }.as_ref()
    }

    /// Sets the value. False, and nothing changes, if it is set or being set.
    pub fn populate(&self, value: T) -> bool {
        if self.state.cmpxchg(EMPTY, BEING_SET, Relaxed).is_err() {
            return false;
        }
        // SAFETY: only this thread changed the state from EMPTY, and nobody reads before SET.
        unsafe { *self.value.get() = Some(value) };
        self.state.store(SET, Release);
        true
    }
}
