// SPDX-License-Identifier: MIT OR Apache-2.0

//! Boxes: one value on the heap, made by a call that can fail.

use super::{
    allocator::{KVmalloc, Kmalloc, Vmalloc},
    AllocError, Allocator, Flags,
};
use crate::{fault, init::InPlaceInit};
use core::{
    borrow::{Borrow, BorrowMut},
    fmt,
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
    pin::Pin,
};
use pinned_init::{InPlaceWrite, Init, PinInit, Zeroable};
use std::boxed::Box as StdBox;

/// A value on the heap.
///
/// # Examples
///
/// ```
/// use kernel_shim::prelude::*;
///
/// let mut b = KBox::new(24u64, GFP_KERNEL)?;
/// *b += 1;
/// assert_eq!(KBox::into_inner(b), 25);
/// # Ok::<(), Error>(())
/// ```
pub struct Box<T: ?Sized, A: Allocator>(StdBox<T>, PhantomData<fn() -> A>);

/// A box of kernel memory.
pub type KBox<T> = Box<T, Kmalloc>;
/// A box of virtually contiguous memory.
pub type VBox<T> = Box<T, Vmalloc>;
/// A box of kernel memory, or of virtually contiguous memory where that fails.
pub type KVBox<T> = Box<T, KVmalloc>;

impl<T: ?Sized, A: Allocator> Box<T, A> {
    /// Gives up ownership; the value is never dropped.
    pub fn leak<'a>(b: Self) -> &'a mut T {
        StdBox::leak(b.0)
    }
}

impl<T, A: Allocator> Box<T, A> {
    /// Allocates memory and moves `x` there. `x` is dropped where that fails.
    pub fn new(x: T, _flags: Flags) -> Result<Self, AllocError> {
        fault::check()?;
        Ok(Self(StdBox::new(x), PhantomData))
    }

    /// Allocates memory for a `T` without a value in it.
    pub fn new_uninit(_flags: Flags) -> Result<Box<MaybeUninit<T>, A>, AllocError> {
        fault::check()?;
        Ok(Box(StdBox::new_uninit(), PhantomData))
    }

    /// Allocates a `T` of zeroes.
    pub fn zeroed(flags: Flags) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        Self::new(pinned_init::zeroed(), flags)
    }

    /// Allocates memory, moves `x` there and pins it.
    pub fn pin(x: T, flags: Flags) -> Result<Pin<Self>, AllocError>
    where
        A: 'static,
    {
        Ok(Self::new(x, flags)?.into())
    }

    /// Pins the value.
    pub fn into_pin(this: Self) -> Pin<Self> {
        this.into()
    }

    /// Moves the value out and frees the memory.
    pub fn into_inner(b: Self) -> T {
        *b.0
    }
}

impl<T, A: Allocator> Box<MaybeUninit<T>, A> {
    /// Declares the value initialised.
    ///
    /// # Safety
    ///
    /// It is.
    pub unsafe fn assume_init(self) -> Box<T, A> {
        // SAFETY: the caller's promise.
        Box(unsafe { self.0.assume_init() }, PhantomData)
    }

    /// Moves `value` into the memory.
    pub fn write(mut self, value: T) -> Box<T, A> {
        self.0.as_mut().write(value);
        // SAFETY: written just now.
        unsafe { self.assume_init() }
    }
}

impl<T, A: Allocator + 'static> InPlaceWrite<T> for Box<MaybeUninit<T>, A> {
    type Initialized = Box<T, A>;

    fn write_init<E>(mut self, init: impl Init<T, E>) -> Result<Box<T, A>, E> {
        // SAFETY: the memory is valid for writes and, after an error, freed
        // without a drop of its contents.
        unsafe { init.__init(self.0.as_mut_ptr())? };
        // SAFETY: initialised just now.
        Ok(unsafe { self.assume_init() })
    }

    fn write_pin_init<E>(mut self, init: impl PinInit<T, E>) -> Result<Pin<Box<T, A>>, E> {
        // SAFETY: as in `write_init`; the memory stays where it is, since the
        // box is pinned below.
        unsafe { init.__pinned_init(self.0.as_mut_ptr())? };
        // SAFETY: initialised just now.
        Ok(unsafe { self.assume_init() }.into())
    }
}

impl<T, A: Allocator + 'static> InPlaceInit<T> for Box<T, A> {
    type PinnedSelf = Pin<Self>;

    fn try_pin_init<E>(init: impl PinInit<T, E>, flags: Flags) -> Result<Pin<Self>, E>
    where
        E: From<AllocError>,
    {
        Self::new_uninit(flags)?.write_pin_init(init)
    }

    fn try_init<E>(init: impl Init<T, E>, flags: Flags) -> Result<Self, E>
    where
        E: From<AllocError>,
    {
        Self::new_uninit(flags)?.write_init(init)
    }
}

impl<T: ?Sized, A: Allocator> From<Box<T, A>> for Pin<Box<T, A>> {
    fn from(b: Box<T, A>) -> Self {
        // SAFETY: the value lives on the heap, and a pinned box gives out no
        // `&mut T` unless `T: Unpin`.
        unsafe { Pin::new_unchecked(b) }
    }
}

impl<T: ?Sized, A: Allocator> Deref for Box<T, A> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized, A: Allocator> DerefMut for Box<T, A> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: ?Sized, A: Allocator> Borrow<T> for Box<T, A> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized, A: Allocator> BorrowMut<T> for Box<T, A> {
    fn borrow_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized + fmt::Display, A: Allocator> fmt::Display for Box<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Debug, A: Allocator> fmt::Debug for Box<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::prelude::*;
    use core::{cell::Cell, marker::PhantomPinned};

    struct CountDrop<'a>(&'a Cell<u32>);

    impl Drop for CountDrop<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[pin_data]
    struct Two<'a> {
        first: CountDrop<'a>,
        second: u8,
        #[pin]
        pinned: PhantomPinned,
    }

    fn second(fail: bool) -> Result<u8> {
        if fail {
            Err(EBUSY)
        } else {
            Ok(9)
        }
    }

    fn make(drops: &Cell<u32>, fail: bool) -> Result<Pin<KBox<Two<'_>>>> {
        KBox::pin_init(
            try_pin_init!(Two {
                first: CountDrop(drops),
                second: second(fail)?,
                pinned: PhantomPinned,
            }),
            GFP_KERNEL,
        )
    }

    #[test]
    fn a_value_initialised_in_place_is_dropped_once() {
        let drops = Cell::new(0);
        let two = make(&drops, false).unwrap();
        assert_eq!(two.second, 9);
        assert_eq!(drops.get(), 0);
        drop(two);
        assert_eq!(drops.get(), 1);
    }

    #[test]
    fn a_failed_initialiser_drops_what_it_had_made() {
        let drops = Cell::new(0);
        assert_eq!(make(&drops, true).err(), Some(EBUSY));
        assert_eq!(drops.get(), 1);
    }

    #[test]
    fn into_inner_does_not_drop_the_value() {
        let drops = Cell::new(0);
        let value = KBox::into_inner(KBox::new(CountDrop(&drops), GFP_KERNEL).unwrap());
        assert_eq!(drops.get(), 0);
        drop(value);
        assert_eq!(drops.get(), 1);
    }

    #[test]
    fn memory_without_a_value_can_be_written() {
        let b: KBox<core::mem::MaybeUninit<u32>> = KBox::new_uninit(GFP_KERNEL).unwrap();
        assert_eq!(*b.write(77), 77);
        assert_eq!(*KBox::<[u16; 4]>::zeroed(GFP_KERNEL).unwrap(), [0; 4]);
    }
}
