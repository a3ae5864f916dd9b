// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The allocator of slices. It knows the parts of a pool's address space that are in use.
//!
//! The space is cut into extents, free or reserved. Free ones are linked in bins by length, four to
//! every power of two, so that reserving and freeing take the same few steps however many slices
//! there are. A freed extent may be kept *warm*, to be the first that is used again, which keeps
//! the pages that are touched few; otherwise it coalesces with its free neighbours.
//!
//! Extents live in one array and name each other by index, which is the number of the slice. The
//! elements that no extent uses are linked in a list. The array only grows when asked to, because
//! memory cannot be allocated under the lock that this lies under.
//!
//! # Invariants
//!
//! - The extents cover the whole space, in address order along `next`.
//! - No two free extents are neighbours.
//! - A bin's bit is set if the bin is not empty.
//! - A free extent is linked in the bin of its length; a reserved one, the warm one included, in
//!   none.
//!
//! # Locks
//!
//! None of its own; it lies in the peer's inbox.

use core::ops::Range;

use kernel::prelude::*;

use crate::bus::allocation::GFP_KEPT;
use crate::bus::pool::slice::UNIT;
use crate::bus::pool::AllocError;

/// No extent.
pub(super) const NONE: u32 = u32::MAX;
const BINS: usize = 128;
/// Number of extents of the bin below that are tried when all above are empty.
const TRIES: usize = 64;

/// Use of an element of the array.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No extent uses this element of the array.
    Unused,
    Free,
    Reserved,
    /// Reserved, and the user has it: `given.rs`.
    Given {
        /// The ID of the peer that is charged for it.
        payer: u64,
        /// Bytes that it is charged for.
        n_bytes: u32,
    },
}

/// An element of the array, and the extent that uses it.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(super) state: State,
    /// Start of the extent, in units; so is `len`.
    pub(super) start: u32,
    pub(super) len: u32,
    /// Neighbours in the address space.
    prev: u32,
    next: u32,
    /// The one before in the bin.
    bin_prev: u32,
    /// The next one in the bin, in the list of unused elements, or in the chain of given slices.
    pub(super) bin_next: u32,
    /// The first slice of the chain with the number of this element, whatever extent uses it.
    pub(super) chain: u32,
}

impl Extent {
    const UNUSED: Self = Self {
        state: State::Unused,
        start: 0,
        len: 0,
        prev: NONE,
        next: NONE,
        bin_prev: NONE,
        bin_next: NONE,
        chain: NONE,
    };

    /// Allocates an array of `n` elements that no extent uses, each linked to the next.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new_array(n: usize) -> Result<KVVec<Self>> {
        let mut elements = KVVec::from_elem(Self::UNUSED, n, GFP_KEPT)?;
        for (next, element) in (1..).zip(elements.iter_mut()) {
            element.bin_next = next;
        }
        Ok(elements)
    }
}

/// Reserves and frees slices of one address space.
pub(crate) struct Allocator {
    pub(super) extents: KVVec<Extent>,
    /// The first extent of each bin.
    bins: [u32; BINS],
    /// A bit for each bin that is not empty.
    filled: u128,
    /// The first unused element.
    unused: u32,
    /// Number of slices in use.
    pub(crate) n_used: u32,
    /// The extent that was freed last and waits for the next slice of its size, or NONE.
    warm: u32,
}

/// Returns the bin that an extent of this length is linked in.
fn bin_of(len: u32) -> usize {
    if len < 4 {
        return len as usize;
    }
    let log = 31 - len.leading_zeros();
    ((log - 1) * 4 + ((len >> (log - 2)) & 3)) as usize
}

/// Returns the first bin in which every extent has at least this length, which is not 0: the bin
/// behind that of `len - 1`.
fn bin_above(len: u32) -> usize {
    bin_of(len - 1) + 1
}

impl Allocator {
    /// An allocator without space and memory.
    pub(crate) const EMPTY: Self = Self {
        extents: KVVec::new(),
        bins: [NONE; BINS],
        filled: 0,
        unused: NONE,
        n_used: 0,
        warm: NONE,
    };

    /// Makes an allocator of `size` free bytes, with room for as many extents as `memory` has
    /// elements.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(size: u64, memory: KVVec<Extent>) -> Result<Self> {
        let mut new = Self::EMPTY;
        drop(new.grow(memory));
        let whole = new.unused_element().map_err(|_| ENOMEM)?;
        new.at(whole).len = (size / UNIT) as u32;
        new.insert_free(whole);
        Ok(new)
    }

    /// Moves into a larger array. Returns the old one, to be freed without locks.
    pub(crate) fn grow(&mut self, mut memory: KVVec<Extent>) -> KVVec<Extent> {
        let n = self.extents.len();
        if memory.len() > n {
            memory[..n].copy_from_slice(&self.extents);
            if let Some(last) = memory.last_mut() {
                last.bin_next = self.unused;
            }
            self.unused = n as u32;
            core::mem::swap(&mut self.extents, &mut memory);
            self.link_all_given(n);
        }
        memory
    }

    fn at(&mut self, i: u32) -> &mut Extent {
        &mut self.extents[i as usize]
    }

    /// Makes an extent a free one, and links it in its bin.
    fn insert_free(&mut self, i: u32) {
        let bin = bin_of(self.at(i).len);
        let first = core::mem::replace(&mut self.bins[bin], i);
        let extent = self.at(i);
        extent.state = State::Free;
        extent.bin_prev = NONE;
        extent.bin_next = first;
        if first != NONE {
            self.at(first).bin_prev = i;
        }
        self.filled |= 1 << bin;
    }

    /// Makes a free extent a reserved one, and unlinks it from its bin.
    fn remove_free(&mut self, i: u32) {
        self.at(i).state = State::Reserved;
        let extent = *self.at(i);
        if extent.bin_next != NONE {
            self.at(extent.bin_next).bin_prev = extent.bin_prev;
        }
        if extent.bin_prev != NONE {
            self.at(extent.bin_prev).bin_next = extent.bin_next;
            return;
        }
        let bin = bin_of(extent.len);
        self.bins[bin] = extent.bin_next;
        if extent.bin_next == NONE {
            self.filled &= !(1 << bin);
        }
    }

    /// Finds a free extent of at least this length.
    fn find_free(&self, len: u32) -> Option<u32> {
        // The one of its own bin that was freed last mostly fits, since slices of a size come again.
        let last = self.bins[bin_of(len)];
        if self
            .extents
            .get(last as usize)
            .is_some_and(|e| e.len >= len)
        {
            return Some(last);
        }
        let above = bin_above(len);
        let candidates = (self.filled >> above) << above;
        if candidates != 0 {
            return Some(self.bins[candidates.trailing_zeros() as usize]);
        }
        let mut i = self.bins[bin_of(len)];
        for _ in 0..TRIES {
            let extent = self.extents.get(i as usize)?;
            if extent.len >= len {
                return Some(i);
            }
            i = extent.bin_next;
        }
        None
    }

    /// Reserves the extent that was freed last and kept warm, if it has this size. Returns the
    /// slice's number.
    #[inline]
    pub(crate) fn reserve_warm(&mut self, size: u64) -> Option<u32> {
        let warm = self.warm;
        let extent = self.extents.get(warm as usize)?;
        if u64::from(extent.len) * UNIT != size {
            return None;
        }
        self.warm = NONE;
        self.n_used += 1;
        Some(warm)
    }

    /// Returns whether `size` bytes could be reserved, as far as room goes.
    pub(crate) fn has_room(&self, size: u64) -> bool {
        let len = u32::try_from(size / UNIT);
        len.is_ok_and(|len| self.find_free(len).is_some())
    }

    /// Reserves `size` bytes, a multiple of [`UNIT`] other than 0. Returns the slice's number.
    ///
    /// # Errors
    ///
    /// Full; NeedsMemory if the array is to grow first.
    pub(crate) fn reserve(&mut self, size: u64) -> Result<u32, AllocError> {
        let len = u32::try_from(size / UNIT).map_err(|_| AllocError::Full)?;
        let i = self.find_free(len).ok_or(AllocError::Full)?;
        let left = self.at(i).len - len;
        if left == 0 {
            self.remove_free(i);
        } else {
            let rest = self.unused_element()?;
            self.remove_free(i);
            self.at(i).len = len;
            let Extent { start, next, .. } = *self.at(i);
            let behind = self.at(rest);
            behind.start = start + len;
            behind.len = left;
            self.join(i, rest);
            self.join(rest, next);
            self.insert_free(rest);
        }
        self.n_used += 1;
        Ok(i)
    }

    /// Makes two extents, either of which may be none, neighbours in the address space.
    fn join(&mut self, prev: u32, next: u32) {
        if prev != NONE {
            self.at(prev).next = next;
        }
        if next != NONE {
            self.at(next).prev = prev;
        }
    }

    /// Takes an element of the array that no extent uses.
    fn unused_element(&mut self) -> Result<u32, AllocError> {
        let n = self.extents.len();
        let unused = self.extents.get(self.unused as usize);
        let unused = unused.ok_or(AllocError::NeedsMemory(2 * n))?;
        Ok(core::mem::replace(&mut self.unused, unused.bin_next))
    }

    /// Returns the number of extents, which those of all slices are below.
    pub(crate) fn n_extents(&self) -> u32 {
        self.extents.len() as u32
    }

    /// Returns the start of the slice of this number, in bytes.
    #[inline]
    pub(crate) fn offset(&self, i: u32) -> u64 {
        u64::from(self.extents[i as usize].start) * UNIT
    }

    /// Returns the length of the slice of this number, in bytes.
    #[inline]
    pub(crate) fn size(&self, i: u32) -> u64 {
        u64::from(self.extents[i as usize].len) * UNIT
    }

    fn is_free(&self, i: u32) -> bool {
        let extent = self.extents.get(i as usize);
        extent.is_some_and(|extent| extent.state == State::Free)
    }

    /// Frees the slice of this number, but keeps it warm for the next of its size. Returns the
    /// place of the one that was kept warm before, and is free now.
    #[inline]
    pub(crate) fn keep_warm(&mut self, i: u32) -> Option<Range<u64>> {
        self.n_used -= 1;
        let last = self.drop_warm();
        self.warm = i;
        last
    }

    /// Makes the extent that was kept warm a free one. Returns its place.
    #[inline]
    pub(crate) fn drop_warm(&mut self) -> Option<Range<u64>> {
        let i = core::mem::replace(&mut self.warm, NONE);
        if i == NONE {
            return None;
        }
        let start = self.offset(i);
        let end = start + self.size(i);
        self.coalesce(i);
        Some(start..end)
    }

    /// Frees the slice of this number.
    pub(crate) fn free(&mut self, i: u32) {
        self.n_used -= 1;
        self.coalesce(i);
    }

    /// Makes a reserved extent a free one, joined with the neighbours that are free.
    fn coalesce(&mut self, i: u32) {
        let Extent { prev, next, .. } = *self.at(i);
        debug_assert!(self.at(i).state == State::Reserved);
        for neighbour in [prev, next] {
            if self.is_free(neighbour) {
                self.remove_free(neighbour);
                let Extent { start, len, .. } = *self.at(neighbour);
                let whole = self.at(i);
                whole.start = whole.start.min(start);
                whole.len += len;
                self.remove(neighbour);
            }
        }
        self.insert_free(i);
    }

    /// Takes a reserved extent out whose space became a neighbour's.
    fn remove(&mut self, i: u32) {
        let Extent { prev, next, .. } = *self.at(i);
        self.join(prev, next);
        let unused = self.unused;
        let element = self.at(i);
        *element = Extent {
            bin_next: unused,
            chain: element.chain,
            ..Extent::UNUSED
        };
        self.unused = i;
    }
}

#[cfg(test)]
#[path = "allocator_tests.rs"]
mod tests;
