// SPDX-License-Identifier: MIT OR Apache-2.0

//! Vectors: a contiguous list whose growth can fail.
//!
//! Invariant: the capacity doubles as it does in the kernel, so the number of
//! allocations a caller sees is the kernel's.

use super::{
    allocator::{KVmalloc, Kmalloc, Vmalloc},
    AllocError, Allocator, Flags,
};
use crate::{
    error::{code::EINVAL, Error},
    fault, work,
};
use core::{
    borrow::{Borrow, BorrowMut},
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut, Index, IndexMut},
    slice::{self, SliceIndex},
};
use pinned_init::Zeroable;
use std::vec::Vec as StdVec;

/// A contiguous list.
///
/// # Examples
///
/// ```
/// use kernel_shim::prelude::*;
///
/// let mut v = KVec::with_capacity(1, GFP_KERNEL)?;
/// v.push(1, GFP_KERNEL)?;
/// assert!(v.push_within_capacity(2).is_err());
/// v.push(2, GFP_KERNEL)?;
/// assert_eq!(v, [1, 2]);
/// # Ok::<(), Error>(())
/// ```
pub struct Vec<T, A: Allocator>(StdVec<T>, PhantomData<fn() -> A>);

/// A vector of kernel memory.
pub type KVec<T> = Vec<T, Kmalloc>;
/// A vector of virtually contiguous memory.
pub type VVec<T> = Vec<T, Vmalloc>;
/// A vector of kernel memory, or of virtually contiguous memory where that fails.
pub type KVVec<T> = Vec<T, KVmalloc>;

impl<T, A: Allocator> Vec<T, A> {
    /// Returns an empty vector; allocates nothing.
    pub const fn new() -> Self {
        Self(StdVec::new(), PhantomData)
    }

    /// Returns an empty vector with room for `capacity` elements.
    pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut v = Self::new();
        v.reserve(capacity, flags)?;
        Ok(v)
    }

    /// Returns a vector of `n` elements of zeroes.
    pub fn zeroed(n: usize, flags: Flags) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        let mut v = Self::with_capacity(n, flags)?;
        v.0.resize_with(n, pinned_init::zeroed);
        Ok(v)
    }

    /// Returns the number of elements there is room for.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// Returns the elements, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.0
    }

    /// Makes room for `additional` more elements: at least twice the capacity
    /// where it grows at all. Unchanged where that fails.
    pub fn reserve(&mut self, additional: usize, _flags: Flags) -> Result<(), AllocError> {
        let (len, capacity) = (self.0.len(), self.0.capacity());
        if capacity - len >= additional {
            return Ok(());
        }
        fault::check()?;
        let wanted = len.checked_add(additional).ok_or(AllocError)?;
        let capacity = wanted.max(capacity.saturating_mul(2));
        self.0
            .try_reserve_exact(capacity - len)
            .map_err(|_| AllocError)
    }

    /// Appends `v`, which is dropped where there is no memory.
    pub fn push(&mut self, v: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(1, flags)?;
        self.0.push(v);
        Ok(())
    }

    /// Appends `v` without allocating; gives it back where there is no room.
    pub fn push_within_capacity(&mut self, v: T) -> Result<(), PushError<T>> {
        if self.0.len() == self.0.capacity() {
            return Err(PushError(v));
        }
        self.0.push(v);
        Ok(())
    }

    /// Inserts at `index` without allocating; gives the element back where
    /// there is no room or `index` is beyond the end.
    pub fn insert_within_capacity(
        &mut self,
        index: usize,
        element: T,
    ) -> Result<(), InsertError<T>> {
        if index > self.0.len() {
            return Err(InsertError::IndexOutOfBounds(element));
        }
        if self.0.len() == self.0.capacity() {
            return Err(InsertError::OutOfCapacity(element));
        }
        self.0.insert(index, element);
        Ok(())
    }

    /// Takes the last element out.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Takes the element at `i` out, in time linear in the length.
    pub fn remove(&mut self, i: usize) -> Result<T, RemoveError> {
        if i >= self.0.len() {
            return Err(RemoveError);
        }
        Ok(self.0.remove(i))
    }

    /// Drops all elements; keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Drops all elements from `len` on; keeps the memory.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Takes all elements out; keeps the memory.
    pub fn drain_all(&mut self) -> DrainAll<'_, T> {
        DrainAll(self.0.drain(..))
    }

    /// Drops the elements for which `f` is false; keeps the order of the rest.
    pub fn retain(&mut self, f: impl FnMut(&mut T) -> bool) {
        self.0.retain_mut(f);
    }
}

impl<T> KVVec<T> {
    /// Gives back memory beyond `min_capacity` and the length.
    pub fn shrink_to(&mut self, min_capacity: usize, _flags: Flags) -> Result<(), AllocError> {
        self.0.shrink_to(min_capacity);
        Ok(())
    }
}

impl<T: Clone, A: Allocator> Vec<T, A> {
    /// Appends `n` times `value`.
    pub fn extend_with(&mut self, n: usize, value: T, flags: Flags) -> Result<(), AllocError> {
        if n > 0 {
            self.reserve(n, flags)?;
            self.0.resize(self.0.len() + n, value);
        }
        Ok(())
    }

    /// Appends clones of the elements of `other`.
    pub fn extend_from_slice(&mut self, other: &[T], flags: Flags) -> Result<(), AllocError> {
        self.reserve(other.len(), flags)?;
        self.0.extend_from_slice(other);
        Ok(())
    }

    /// Returns a vector of `n` times `value`.
    pub fn from_elem(value: T, n: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut v = Self::with_capacity(n, flags)?;
        v.extend_with(n, value, flags)?;
        Ok(v)
    }

    /// Cuts to `new_len`, or appends clones of `value` up to it.
    pub fn resize(&mut self, new_len: usize, value: T, flags: Flags) -> Result<(), AllocError> {
        match new_len.checked_sub(self.len()) {
            Some(n) => self.extend_with(n, value, flags),
            None => {
                self.truncate(new_len);
                Ok(())
            }
        }
    }
}

impl<T, A: Allocator> Default for Vec<T, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug, A: Allocator> fmt::Debug for Vec<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<T, A: Allocator> Deref for Vec<T, A> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        work::step();
        &self.0
    }
}

impl<T, A: Allocator> DerefMut for Vec<T, A> {
    fn deref_mut(&mut self) -> &mut [T] {
        work::step();
        &mut self.0
    }
}

impl<T, A: Allocator> Borrow<[T]> for Vec<T, A> {
    fn borrow(&self) -> &[T] {
        &self.0
    }
}

impl<T, A: Allocator> BorrowMut<[T]> for Vec<T, A> {
    fn borrow_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// Returns how many elements a part of a vector has.
fn n_elements<T, O: ?Sized>(part: &O) -> usize {
    size_of_val(part) / size_of::<T>().max(1)
}

impl<T, I: SliceIndex<[T]>, A: Allocator> Index<I> for Vec<T, A> {
    type Output = I::Output;

    fn index(&self, index: I) -> &I::Output {
        let found = &self.0[index];
        work::steps(n_elements::<T, _>(found));
        found
    }
}

impl<T, I: SliceIndex<[T]>, A: Allocator> IndexMut<I> for Vec<T, A> {
    fn index_mut(&mut self, index: I) -> &mut I::Output {
        let found = &mut self.0[index];
        work::steps(n_elements::<T, _>(found));
        found
    }
}

impl<T: Eq, A: Allocator> Eq for Vec<T, A> {}

macro_rules! impl_slice_eq {
    ($([$($vars:tt)*] $lhs:ty, $rhs:ty;)*) => {
        $(
            impl<T: PartialEq<U>, U, $($vars)*> PartialEq<$rhs> for $lhs {
                fn eq(&self, other: &$rhs) -> bool {
                    self[..] == other[..]
                }
            }
        )*
    };
}

impl_slice_eq! {
    [A: Allocator, B: Allocator] Vec<T, A>, Vec<U, B>;
    [A: Allocator] Vec<T, A>, [U];
    [A: Allocator] Vec<T, A>, &[U];
    [A: Allocator] Vec<T, A>, &mut [U];
    [A: Allocator] [T], Vec<U, A>;
    [A: Allocator] &[T], Vec<U, A>;
    [A: Allocator] &mut [T], Vec<U, A>;
    [A: Allocator, const N: usize] Vec<T, A>, [U; N];
    [A: Allocator, const N: usize] Vec<T, A>, &[U; N];
}

impl<'a, T, A: Allocator> IntoIterator for &'a Vec<T, A> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        work::steps(self.len());
        self.0.iter()
    }
}

impl<'a, T, A: Allocator> IntoIterator for &'a mut Vec<T, A> {
    type Item = &'a mut T;
    type IntoIter = slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        work::steps(self.len());
        self.0.iter_mut()
    }
}

impl<T, A: Allocator> IntoIterator for Vec<T, A> {
    type Item = T;
    type IntoIter = IntoIter<T, A>;

    fn into_iter(self) -> Self::IntoIter {
        IntoIter(self.0.into_iter(), PhantomData)
    }
}

/// The elements of a vector, by value.
pub struct IntoIter<T, A: Allocator>(std::vec::IntoIter<T>, PhantomData<fn() -> A>);

impl<T, A: Allocator> IntoIter<T, A> {
    /// Returns the elements that are left, in the memory of the vector.
    pub fn collect(self, _flags: Flags) -> Vec<T, A> {
        Vec(self.0.collect(), PhantomData)
    }
}

impl<T, A: Allocator> Iterator for IntoIter<T, A> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// The elements taken out by [`Vec::drain_all`]; drops those not asked for.
pub struct DrainAll<'vec, T>(std::vec::Drain<'vec, T>);

impl<T> Iterator for DrainAll<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// The element that [`Vec::push_within_capacity`] had no room for.
pub struct PushError<T>(pub T);

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the vector is full")
    }
}

impl<T> From<PushError<T>> for Error {
    fn from(_: PushError<T>) -> Error {
        EINVAL
    }
}

/// The index that [`Vec::remove`] got is beyond the end.
pub struct RemoveError;

impl fmt::Debug for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the index is beyond the end of the vector")
    }
}

impl From<RemoveError> for Error {
    fn from(_: RemoveError) -> Error {
        EINVAL
    }
}

/// The reason why [`Vec::insert_within_capacity`] failed, with the element.
pub enum InsertError<T> {
    /// The index is beyond the end.
    IndexOutOfBounds(T),
    /// The vector is full.
    OutOfCapacity(T),
}

impl<T> fmt::Debug for InsertError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IndexOutOfBounds(_) => "the index is beyond the end of the vector",
            Self::OutOfCapacity(_) => "the vector is full",
        })
    }
}

impl<T> From<InsertError<T>> for Error {
    fn from(_: InsertError<T>) -> Error {
        EINVAL
    }
}

#[cfg(test)]
mod tests;
