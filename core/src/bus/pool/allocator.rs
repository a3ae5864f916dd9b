// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The allocator of slices. It knows the parts of a pool's address space that are in use.
//!
//! The space is cut into extents, free or reserved. Free ones are linked in bins by length, four to
//! every power of two, so that reserving and freeing take the same few steps however many slices
//! there are. A freed extent may be kept *warm*, to be the first that is used again, which keeps
//! the pages that are touched few; otherwise it coalesces with its free neighbours.
//!
//! Extents live in one array and name each other by index, which is the number of the slice. The
//! array only grows when asked to, because memory cannot be allocated under the lock that this
//! lies under.
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

use core::num::NonZeroU64;
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No extent uses this element of the array.
    Unused,
    Free,
    Reserved,
    /// Reserved, and the user has it: `given.rs`.
    Given {
        /// The peer that is charged for it. IDs of peers begin at 1.
        payer: NonZeroU64,
        /// Bytes that it is charged for.
        n_bytes: u32,
    },
}

#[derive(Clone, Copy)]
pub(super) struct Extent {
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
    };
}

/// Reserves and frees slices of one address space.
pub(crate) struct Allocator {
    pub(super) extents: KVVec<Extent>,
    /// The first slice of each chain of given ones; a power of two of them, or none.
    pub(super) chains: KVVec<u32>,
    /// The first extent of each bin.
    bins: [u32; BINS],
    /// A bit for each bin that is not empty.
    filled: u128,
    /// The first unused element.
    unused: u32,
    /// Number of slices in use.
    n_used: u32,
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

/// Returns the first bin of which every extent is at least this long, which is not 0: the one after
/// that of the next shorter.
fn bin_above(len: u32) -> usize {
    bin_of(len - 1) + 1
}

impl Allocator {
    /// An allocator without space and memory.
    pub(crate) const EMPTY: Self = Self {
        extents: KVVec::new(),
        chains: KVVec::new(),
        bins: [NONE; BINS],
        filled: 0,
        unused: NONE,
        n_used: 0,
        warm: NONE,
    };

    /// Makes an allocator of `size` free bytes.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(size: u64, memory: ExtentArray) -> Result<Self> {
        let mut new = Self::EMPTY;
        drop(new.grow(memory));
        let whole = Extent {
            len: (size / UNIT) as u32,
            ..Extent::UNUSED
        };
        new.extents.push(whole, GFP_KEPT)?;
        new.insert_free(0);
        Ok(new)
    }

    /// Returns the number of slices in use.
    pub(crate) fn n_used(&self) -> u32 {
        self.n_used
    }

    /// Moves into a larger array. Returns the old one, to be freed without locks.
    pub(crate) fn grow(&mut self, mut memory: ExtentArray) -> ExtentArray {
        if memory.capacity() > self.extents.capacity() {
            for extent in self.extents.iter() {
                // There is room for all of them, so nothing is lost here.
                let _ = memory.extents.push_within_capacity(*extent);
            }
            core::mem::swap(&mut self.extents, &mut memory.extents);
            core::mem::swap(&mut self.chains, &mut memory.chains);
            self.link_all_given();
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

    /// Changes the start and the length of a free extent, and its bin if need be.
    fn resize(&mut self, i: u32, start: u32, len: u32) {
        let moves = bin_of(self.at(i).len) != bin_of(len);
        if moves {
            self.remove_free(i);
        }
        let extent = self.at(i);
        extent.start = start;
        extent.len = len;
        if moves {
            self.insert_free(i);
        }
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
        let whole = *self.at(i);
        if whole.len == len {
            self.remove_free(i);
            self.n_used += 1;
            return Ok(i);
        }
        // Cut off the front of it; the rest mostly stays in its bin.
        let new = self.unused_element()?;
        *self.at(new) = Extent {
            state: State::Reserved,
            start: whole.start,
            len,
            ..Extent::UNUSED
        };
        self.join(whole.prev, new);
        self.join(new, i);
        self.resize(i, whole.start + len, whole.len - len);
        self.n_used += 1;
        Ok(new)
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
        if let Some(unused) = self.extents.get(self.unused as usize) {
            return Ok(core::mem::replace(&mut self.unused, unused.bin_next));
        }
        let i = self.extents.len();
        let pushed = self.extents.push_within_capacity(Extent::UNUSED);
        pushed.map_err(|_| AllocError::NeedsMemory(2 * i))?;
        Ok(i as u32)
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
        let extent = *self.at(i);
        let (prev, next) = (extent.prev, extent.next);
        let (mut start, mut len) = (extent.start, extent.len);
        debug_assert!(extent.state == State::Reserved && len != 0);
        let into = match (self.is_free(prev), self.is_free(next)) {
            (false, false) => return self.insert_free(i),
            (true, false) => prev,
            (false, true) => next,
            (true, true) => {
                self.remove_free(prev);
                start = self.at(prev).start;
                len += self.at(prev).len;
                self.remove(prev);
                next
            }
        };
        self.remove(i);
        let whole = *self.at(into);
        self.resize(into, start.min(whole.start), len + whole.len);
    }

    /// Takes a reserved extent out whose space becomes a neighbour's.
    fn remove(&mut self, i: u32) {
        let Extent { prev, next, .. } = *self.at(i);
        self.join(prev, next);
        *self.at(i) = Extent {
            bin_next: self.unused,
            ..Extent::UNUSED
        };
        self.unused = i;
    }
}

/// Memory for extents, and for the chains of those that are given.
pub(crate) struct ExtentArray {
    extents: KVVec<Extent>,
    chains: KVVec<u32>,
}

impl ExtentArray {
    /// Allocates memory for at least `n` extents.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(n: usize) -> Result<Self> {
        let extents = KVVec::with_capacity(n, GFP_KEPT)?;
        let n_chains = extents.capacity().next_power_of_two();
        Ok(Self {
            extents,
            chains: KVVec::from_elem(NONE, n_chains, GFP_KEPT)?,
        })
    }

    /// Returns the number of extents that there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.extents.capacity()
    }
}

#[cfg(test)]
#[path = "allocator_tests.rs"]
mod tests;
