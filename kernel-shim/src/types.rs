// SPDX-License-Identifier: MIT OR Apache-2.0

//! Helper types, as `kernel::types`.

use core::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// A zero-sized marker that keeps a type on its thread: not `Send`, not `Sync`.
pub type NotThreadSafe = PhantomData<*mut ()>;

/// The value of the type of the same name.
#[expect(non_upper_case_globals)]
pub const NotThreadSafe: NotThreadSafe = PhantomData;

/// Runs a closure over its data when dropped, unless dismissed before.
///
/// # Examples
///
/// ```
/// use core::cell::Cell;
/// use kernel_shim::types::ScopeGuard;
///
/// let undone = Cell::new(0);
/// {
///     let _undo = ScopeGuard::new(|| undone.set(undone.get() + 1));
/// }
/// ScopeGuard::new(|| undone.set(100)).dismiss();
/// assert_eq!(undone.get(), 1);
/// ```
pub struct ScopeGuard<T, F: FnOnce(T)>(Option<(T, F)>);

impl<T, F: FnOnce(T)> ScopeGuard<T, F> {
    /// Guards `data`; `cleanup` gets it when the guard is dropped.
    pub fn new_with_data(data: T, cleanup: F) -> Self {
        Self(Some((data, cleanup)))
    }

    /// Takes the data out; the closure does not run.
    pub fn dismiss(mut self) -> T {
        self.0.take().expect("filled until dismissed").0
    }
}

impl ScopeGuard<(), fn(())> {
    /// Returns a guard without data.
    pub fn new(cleanup: impl FnOnce()) -> ScopeGuard<(), impl FnOnce(())> {
        ScopeGuard::new_with_data((), move |()| cleanup())
    }
}

impl<T, F: FnOnce(T)> Deref for ScopeGuard<T, F> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.as_ref().expect("filled until dismissed").0
    }
}

impl<T, F: FnOnce(T)> DerefMut for ScopeGuard<T, F> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.as_mut().expect("filled until dismissed").0
    }
}

impl<T, F: FnOnce(T)> Drop for ScopeGuard<T, F> {
    fn drop(&mut self) {
        if let Some((data, cleanup)) = self.0.take() {
            cleanup(data);
        }
    }
}
