// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reference counting: [`Arc`], [`ArcBorrow`] and [`UniqueArc`].
//!
//! The count is our own since `std`'s `Arc` cannot hand a pinned value back to
//! exactly one of several last owners ([`Arc::into_unique_or_drop`]).
//!
//! Invariants: `count` is the number of `Arc`s of the value, and a `UniqueArc`
//! holds the only one. The value never moves: it is pinned from the start.
//!
//! Memory order: a reference is dropped with Release, and the last one takes
//! Acquire before it touches the value, so every access through another
//! reference happens before the drop. Making a reference needs no order, since
//! it is made of one that is held.
//!
//! Under loom the count is loom's, and a value that is never dropped is
//! reported as a leak.

use crate::{
    alloc::{AllocError, Flags},
    cachelines, fault,
    init::InPlaceInit,
    types::NotThreadSafe,
};
use core::{
    borrow::{Borrow, BorrowMut},
    fmt,
    marker::PhantomData,
    mem::{ManuallyDrop, MaybeUninit},
    ops::{Deref, DerefMut},
    pin::Pin,
    ptr::NonNull,
};
use pinned_init::{InPlaceWrite, Init, PinInit};

#[cfg(loom)]
use loom::sync::atomic::{fence, AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{fence, AtomicUsize, Ordering};

/// More references than this are a leak, and the count must not wrap.
const MAX_COUNT: usize = isize::MAX as usize;

// `repr(C)`: an `Inner<MaybeUninit<T>>` is turned into an `Inner<T>`.
#[repr(C)]
struct Inner<T: ?Sized> {
    count: AtomicUsize,
    #[cfg(loom)]
    _leak: loom::alloc::Track<()>,
    data: T,
}

impl<T: ?Sized> Inner<T> {
    /// Drops one reference. Returns whether it was the last one, which then owns the value.
    ///
    /// It takes a pointer and makes no reference to the whole: from the moment the count is lowered
    /// another thread may free the memory, and a reference that is an argument of a running
    /// function must stay valid until that returns. The reference to the count that `fetch_sub`
    /// gets may dangle at its end, since all of an atomic is an `UnsafeCell`; `std`'s `Arc` relies
    /// on the same.
    ///
    /// # Safety
    ///
    /// The caller holds the reference, and uses `this` afterwards only if it was the last one.
    unsafe fn release(this: NonNull<Self>) -> bool {
        // SAFETY: the caller's reference keeps the memory alive until the count is lowered.
        let count = unsafe { &(*this.as_ptr()).count };
        cachelines::wrote::<T, _>(count);
        if count.fetch_sub(1, Ordering::Release) != 1 {
            return false;
        }
        fence(Ordering::Acquire);
        true
    }
}

/// A shared, pinned value that is dropped with its last reference.
///
/// # Examples
///
/// ```
/// use kernel_shim::{prelude::*, sync::Arc};
///
/// let a = Arc::new(5, GFP_KERNEL)?;
/// let b = a.clone();
/// assert!(Arc::ptr_eq(&a, &b));
/// assert_eq!(*b, 5);
/// # Ok::<(), Error>(())
/// ```
pub struct Arc<T: ?Sized> {
    ptr: NonNull<Inner<T>>,
    _owns: PhantomData<Inner<T>>,
}

// SAFETY: an `Arc` shares its value (needs `Sync`) and its last owner drops it,
// on whatever thread that is (needs `Send`).
unsafe impl<T: ?Sized + Sync + Send> Send for Arc<T> {}

// SAFETY: an `&Arc` can be cloned, so it may share the value and drop it wherever an `Arc` may
// (needs `Sync` and `Send`).
unsafe impl<T: ?Sized + Sync + Send> Sync for Arc<T> {}

impl<T> Arc<T> {
    /// Allocates memory with one reference and moves `contents` there, which
    /// are dropped where that fails.
    pub fn new(contents: T, _flags: Flags) -> Result<Self, AllocError> {
        fault::check()?;
        let inner = Box::new(Inner {
            count: AtomicUsize::new(1),
            #[cfg(loom)]
            _leak: loom::alloc::Track::new(()),
            data: contents,
        });
        Ok(Self::from_inner(NonNull::from(Box::leak(inner))))
    }
}

impl<T: ?Sized> Arc<T> {
    fn from_inner(ptr: NonNull<Inner<T>>) -> Self {
        Self {
            ptr,
            _owns: PhantomData,
        }
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: the reference held by `self` keeps the value alive.
        unsafe { self.ptr.as_ref() }
    }

    /// Returns the address of the value.
    pub fn as_ptr(this: &Self) -> *const T {
        &raw const this.inner().data
    }

    /// Returns whether both refer to the same value.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        core::ptr::addr_eq(this.ptr.as_ptr(), other.ptr.as_ptr())
    }

    /// Returns a borrow that can be turned into an `Arc` again.
    pub fn as_arc_borrow(&self) -> ArcBorrow<'_, T> {
        ArcBorrow {
            arc: self,
            _thread: NotThreadSafe,
        }
    }

    /// Drops this reference, and returns the value if it was the last one. Of
    /// several owners that do this at once, exactly one gets the value.
    pub fn into_unique_or_drop(this: Self) -> Option<Pin<UniqueArc<T>>> {
        let this = ManuallyDrop::new(this);
        // SAFETY: `this` is a reference, which is not dropped a second time; it is used below only
        // as the last one.
        if !unsafe { Inner::release(this.ptr) } {
            return None;
        }
        this.inner().count.store(1, Ordering::Relaxed);
        Some(Pin::from(UniqueArc {
            inner: ManuallyDrop::into_inner(this),
        }))
    }
}

impl<T: ?Sized> Clone for Arc<T> {
    fn clone(&self) -> Self {
        cachelines::wrote::<T, _>(&self.inner().count);
        if self.inner().count.fetch_add(1, Ordering::Relaxed) > MAX_COUNT {
            std::process::abort();
        }
        Self::from_inner(self.ptr)
    }
}

impl<T: ?Sized> Drop for Arc<T> {
    fn drop(&mut self) {
        // SAFETY: `self` is a reference, which ends here.
        if unsafe { Inner::release(self.ptr) } {
            // SAFETY: made by `Box::leak`, and this was the last reference.
            drop(unsafe { Box::from_raw(self.ptr.as_ptr()) });
        }
    }
}

impl<T: ?Sized> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().data
    }
}

impl<T: ?Sized> AsRef<T> for Arc<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized> Borrow<T> for Arc<T> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T> InPlaceInit<T> for Arc<T> {
    type PinnedSelf = Self;

    fn try_pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Self, E>
    where
        E: From<AllocError>,
    {
        UniqueArc::try_pin_init(init, flags).map(Arc::from)
    }

    fn try_init<E>(init: impl Init<T, E>, flags: Flags) -> Result<Self, E>
    where
        E: From<AllocError>,
    {
        UniqueArc::try_init(init, flags).map(Arc::from)
    }
}

/// A borrowed [`Arc`], from which an `Arc` can be made without a reference to
/// the pointer itself.
pub struct ArcBorrow<'a, T: ?Sized + 'a> {
    arc: &'a Arc<T>,
    _thread: NotThreadSafe,
}

impl<T: ?Sized> Clone for ArcBorrow<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for ArcBorrow<'_, T> {}

impl<T: ?Sized> From<ArcBorrow<'_, T>> for Arc<T> {
    fn from(b: ArcBorrow<'_, T>) -> Self {
        b.arc.clone()
    }
}

impl<T: ?Sized> Deref for ArcBorrow<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.arc
    }
}

/// The only reference to a value, which can therefore be changed. Becomes an
/// [`Arc`] with `into()`, without allocating.
///
/// # Examples
///
/// ```
/// use kernel_shim::{prelude::*, sync::{Arc, UniqueArc}};
///
/// let mut unique = UniqueArc::new(1, GFP_KERNEL)?;
/// *unique = 2;
/// let shared: Arc<i32> = unique.into();
/// assert_eq!(*shared, 2);
/// # Ok::<(), Error>(())
/// ```
pub struct UniqueArc<T: ?Sized> {
    inner: Arc<T>,
}

impl<T> UniqueArc<T> {
    /// Allocates memory and moves `value` there.
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        Ok(Self {
            inner: Arc::new(value, flags)?,
        })
    }

    /// Allocates memory for a `T` without a value in it.
    pub fn new_uninit(flags: Flags) -> Result<UniqueArc<MaybeUninit<T>>, AllocError> {
        UniqueArc::new(MaybeUninit::uninit(), flags)
    }
}

impl<T: ?Sized> UniqueArc<T> {
    /// Returns the address of the value.
    pub fn as_ptr(this: &Self) -> *const T {
        Arc::as_ptr(&this.inner)
    }
}

impl<T> UniqueArc<MaybeUninit<T>> {
    /// Moves `value` into the memory.
    pub fn write(mut self, value: T) -> UniqueArc<T> {
        self.deref_mut().write(value);
        // SAFETY: written just now.
        unsafe { self.assume_init() }
    }

    /// Declares the value initialised.
    ///
    /// # Safety
    ///
    /// It is.
    pub unsafe fn assume_init(self) -> UniqueArc<T> {
        let ptr = ManuallyDrop::new(self).inner.ptr;
        UniqueArc {
            inner: Arc::from_inner(ptr.cast()),
        }
    }

    /// Initialises the value.
    pub fn init_with<E>(self, init: impl Init<T, E>) -> Result<UniqueArc<T>, E> {
        self.write_init(init)
    }

    /// Initialises the value and pins it.
    pub fn pin_init_with<E>(self, init: impl PinInit<T, E>) -> Result<Pin<UniqueArc<T>>, E> {
        self.write_pin_init(init)
    }
}

impl<T> InPlaceWrite<T> for UniqueArc<MaybeUninit<T>> {
    type Initialized = UniqueArc<T>;

    fn write_init<E>(mut self, init: impl Init<T, E>) -> Result<UniqueArc<T>, E> {
        // SAFETY: the memory is valid for writes and, after an error, freed
        // without a drop of its contents.
        unsafe { init.__init(self.as_mut_ptr())? };
        // SAFETY: initialised just now.
        Ok(unsafe { self.assume_init() })
    }

    fn write_pin_init<E>(mut self, init: impl PinInit<T, E>) -> Result<Pin<UniqueArc<T>>, E> {
        // SAFETY: as in `write_init`; the memory never moves.
        unsafe { init.__pinned_init(self.as_mut_ptr())? };
        // SAFETY: initialised just now.
        Ok(unsafe { self.assume_init() }.into())
    }
}

impl<T> InPlaceInit<T> for UniqueArc<T> {
    type PinnedSelf = Pin<Self>;

    fn try_pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Pin<Self>, E>
    where
        E: From<AllocError>,
    {
        UniqueArc::new_uninit(flags)?.write_pin_init(init)
    }

    fn try_init<E>(init: impl Init<T, E>, flags: Flags) -> Result<Self, E>
    where
        E: From<AllocError>,
    {
        UniqueArc::new_uninit(flags)?.write_init(init)
    }
}

impl<T: ?Sized> From<UniqueArc<T>> for Arc<T> {
    fn from(item: UniqueArc<T>) -> Self {
        item.inner
    }
}

impl<T: ?Sized> From<Pin<UniqueArc<T>>> for Arc<T> {
    fn from(item: Pin<UniqueArc<T>>) -> Self {
        // SAFETY: an `Arc` keeps its value pinned too.
        unsafe { Pin::into_inner_unchecked(item) }.inner
    }
}

impl<T: ?Sized> From<UniqueArc<T>> for Pin<UniqueArc<T>> {
    fn from(item: UniqueArc<T>) -> Self {
        // SAFETY: the value lives on the heap, and a pinned `UniqueArc` gives
        // out no `&mut T` unless `T: Unpin`.
        unsafe { Pin::new_unchecked(item) }
    }
}

impl<T: ?Sized> Deref for UniqueArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for UniqueArc<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: alive, and by the invariant no other reference exists.
        unsafe { &mut self.inner.ptr.as_mut().data }
    }
}

impl<T: ?Sized> Borrow<T> for UniqueArc<T> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized> BorrowMut<T> for UniqueArc<T> {
    fn borrow_mut(&mut self) -> &mut T {
        self
    }
}

macro_rules! impl_fmt {
    ($($trait:ident for $pointer:ident;)*) => {
        $(
            impl<T: ?Sized + fmt::$trait> fmt::$trait for $pointer<T> {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::$trait::fmt(&**self, f)
                }
            }
        )*
    };
}

impl_fmt! {
    Debug for Arc;
    Display for Arc;
    Debug for UniqueArc;
    Display for UniqueArc;
}

#[cfg(test)]
mod tests;
