// SPDX-License-Identifier: MIT OR Apache-2.0

//! Initialisation in place: the trait behind `Arc::pin_init` and
//! `KBox::pin_init`, and the initialiser macros with the kernel's defaults.
//!
//! The initialisers themselves are those of the crate `pinned-init`, the
//! published form of the kernel's own.

use crate::{
    alloc::{AllocError, Flags},
    error::{Error, Result},
};
use pinned_init::{init_from_closure, pin_init_from_closure, Init, PinInit};

/// Smart pointers that can allocate and initialise their value in place.
pub trait InPlaceInit<T>: Sized {
    /// The pointer once its value is pinned: `Self` for an `Arc`, which always
    /// pins, otherwise `Pin<Self>`.
    type PinnedSelf;

    /// Allocates and initialises a pinned value; errors are the initialiser's.
    fn try_pin_init<E>(
        init: impl PinInit<T, E>,
        flags: Flags,
    ) -> core::result::Result<Self::PinnedSelf, E>
    where
        E: From<AllocError>;

    /// Allocates and initialises a pinned value; errors are the kernel's.
    fn pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self::PinnedSelf>
    where
        Error: From<E>,
    {
        // SAFETY: the closure hands the slot on under the same contract and
        // maps only the error.
        let init =
            unsafe { pin_init_from_closure(|slot| init.__pinned_init(slot).map_err(Error::from)) };
        Self::try_pin_init(init, flags)
    }

    /// Allocates and initialises a value; errors are the initialiser's.
    fn try_init<E>(init: impl Init<T, E>, flags: Flags) -> core::result::Result<Self, E>
    where
        E: From<AllocError>;

    /// Allocates and initialises a value; errors are the kernel's.
    fn init<E>(init: impl Init<T, E>, flags: Flags) -> Result<Self>
    where
        Error: From<E>,
    {
        // SAFETY: as in `pin_init`.
        let init = unsafe { init_from_closure(|slot| init.__init(slot).map_err(Error::from)) };
        Self::try_init(init, flags)
    }
}

/// An initialiser of a pinned struct that cannot fail, unless an error type
/// follows: `pin_init!(Foo { .. }? MyError)`.
///
/// # Examples
///
/// ```
/// use kernel_shim::{prelude::*, new_spinlock, sync::{Arc, SpinLock}};
///
/// #[pin_data]
/// struct Counter {
///     #[pin]
///     value: SpinLock<u32>,
/// }
///
/// let counter = Arc::pin_init(
///     pin_init!(Counter { value <- new_spinlock!(7, "doc::counter") }),
///     GFP_KERNEL,
/// )?;
/// assert_eq!(*counter.value.lock(), 7);
/// # Ok::<(), Error>(())
/// ```
#[macro_export]
macro_rules! pin_init {
    ($(&$this:ident in)? $t:ident $(::<$($g:ty),* $(,)?>)? { $($fields:tt)* }) => {
        $crate::__pinned_init::try_pin_init!(
            $(&$this in)? $t $(::<$($g),*>)? { $($fields)* }? ::core::convert::Infallible
        )
    };
    ($(&$this:ident in)? $t:ident $(::<$($g:ty),* $(,)?>)? { $($fields:tt)* }? $err:ty) => {
        $crate::__pinned_init::try_pin_init!(
            $(&$this in)? $t $(::<$($g),*>)? { $($fields)* }? $err
        )
    };
}

/// An initialiser of a pinned struct that fails with the kernel's `Error` unless an
/// error type follows.
#[macro_export]
macro_rules! try_pin_init {
    ($(&$this:ident in)? $t:ident $(::<$($g:ty),* $(,)?>)? { $($fields:tt)* }) => {
        $crate::__pinned_init::try_pin_init!(
            $(&$this in)? $t $(::<$($g),*>)? { $($fields)* }? $crate::error::Error
        )
    };
    ($(&$this:ident in)? $t:ident $(::<$($g:ty),* $(,)?>)? { $($fields:tt)* }? $err:ty) => {
        $crate::__pinned_init::try_pin_init!(
            $(&$this in)? $t $(::<$($g),*>)? { $($fields)* }? $err
        )
    };
}

/// An initialiser of a struct that need not be pinned. It cannot fail, unless an error
/// type follows.
#[macro_export]
macro_rules! init {
    ($(&$this:ident in)? $t:ident $(::<$($g:ty),* $(,)?>)? { $($fields:tt)* }) => {
        $crate::__pinned_init::try_init!(
            $(&$this in)? $t $(::<$($g),*>)? { $($fields)* }? ::core::convert::Infallible
        )
    };
    ($(&$this:ident in)? $t:ident $(::<$($g:ty),* $(,)?>)? { $($fields:tt)* }? $err:ty) => {
        $crate::__pinned_init::try_init!(
            $(&$this in)? $t $(::<$($g),*>)? { $($fields)* }? $err
        )
    };
}

/// An initialiser of a struct that need not be pinned, which fails with the kernel's
/// `Error` unless an error type follows.
#[macro_export]
macro_rules! try_init {
    ($(&$this:ident in)? $t:ident $(::<$($g:ty),* $(,)?>)? { $($fields:tt)* }) => {
        $crate::__pinned_init::try_init!(
            $(&$this in)? $t $(::<$($g),*>)? { $($fields)* }? $crate::error::Error
        )
    };
    ($(&$this:ident in)? $t:ident $(::<$($g:ty),* $(,)?>)? { $($fields:tt)* }? $err:ty) => {
        $crate::__pinned_init::try_init!(
            $(&$this in)? $t $(::<$($g),*>)? { $($fields)* }? $err
        )
    };
}
