// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Which parts of a pool's address space are in use, and which of them the user has.
//!
//! The space is cut into extents, free or used. Free ones hang in bins by size, four to every power
//! of two, so that reserving and freeing take the same few steps however many slices there are. A
//! freed extent may be kept warm, to be the first that is used again, which keeps the pages that are
//! touched few; else it melts into its free neighbours. Slices that the user was given hang in a hash table by their
//! offset, by which the user names them.
//!
//! Extents live in one array and name each other by index. It only grows when asked to, because
//! memory cannot be allocated under the lock this lies under.
//!
//! # Invariants
//!
//! - The extents cover the whole space, in address order along `next`.
//! - No two free extents are neighbours.
//! - A bin's bit is set if the bin is not empty.
//! - A free extent hangs in the bin of its length, a given one in the chain of its start, along
//!   `hang_next`; what is reserved and not given hangs nowhere.

use core::ops::Range;

use kernel::prelude::*;

use super::inbox::Denied;
use super::message::Slice;
use super::GFP_KEPT;
use crate::errno::EXFULL;

const NONE: u32 = u32::MAX;
const BINS: usize = 128;
/// Offsets and sizes are multiples of this many bytes.
pub(super) const UNIT: u64 = 8;
/// How many extents of the bin below are tried when all above are empty.
const TRIES: usize = 64;

// Who has an extent: the user, if it is neither of these. Then it is the peer that is charged; IDs begin
// at 1 and never get so high. All in one word, since there may be many extents.
const FREE: u64 = u64::MAX;
const RESERVED: u64 = 0;

#[derive(Clone, Copy)]
struct Extent {
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
    /// Neighbours in the bin or in the chain, or in the list of unused array elements.
    hang_prev: u32,
    hang_next: u32,
    holder: u64,
}

/// An element that no extent uses.
const BLANK: Extent = Extent {
    start: 0,
    len: 0,
    prev: NONE,
    next: NONE,
    hang_prev: NONE,
    hang_next: NONE,
    holder: RESERVED,
};

/// See the module.
pub(super) struct Slices {
    extents: KVVec<Extent>,
    /// What hangs first: in each bin, then in each chain, of which there is a power of two.
    heads: KVVec<u32>,
    filled: u128,
    unused: u32,
    /// Number of slices in use.
    pub(super) used: u32,
    /// What was freed last and waits for the next of its size, or NONE.
    warm: u32,
}

/// The bin that an extent of this length hangs in.
fn bin_of(len: u32) -> usize {
    if len < 4 {
        return len as usize;
    }
    let log = 31 - len.leading_zeros();
    ((log - 1) * 4 + ((len >> (log - 2)) & 3)) as usize
}

/// The first bin of which every extent is at least this long, which is not 0: the one after that of
/// the next shorter.
fn bin_above(len: u32) -> usize {
    bin_of(len - 1) + 1
}

impl Slices {
    /// No space, no memory.
    pub(super) const EMPTY: Self = Self {
        extents: KVVec::new(),
        heads: KVVec::new(),
        filled: 0,
        unused: NONE,
        used: 0,
        warm: NONE,
    };

    /// All of `size` bytes free.
    pub(super) fn new(size: u64, array: Array) -> Result<Self> {
        let mut new = Self::EMPTY;
        drop(new.grow(array));
        let whole = Extent {
            len: (size / UNIT) as u32,
            ..BLANK
        };
        new.extents.push(whole, GFP_KERNEL)?;
        new.bin(0);
        Ok(new)
    }

    /// Memory for an array of `n` elements, for [`Slices::grow`].
    pub(super) fn array(n: usize) -> Result<Array> {
        Ok(Array(
            KVVec::with_capacity(n, GFP_KEPT)?,
            KVVec::from_elem(NONE, BINS + n.next_power_of_two(), GFP_KEPT)?,
        ))
    }

    /// Moves into a larger array. Returns the old one, to be freed without locks.
    pub(super) fn grow(&mut self, mut array: Array) -> Array {
        if array.0.capacity() <= self.extents.capacity() {
            return array;
        }
        for extent in self.extents.iter() {
            // There is room for all of them, so nothing is lost here.
            let _ = array.0.push_within_capacity(*extent);
        }
        core::mem::swap(&mut self.extents, &mut array.0);
        core::mem::swap(&mut self.heads, &mut array.1);
        for (head, old) in self.heads.iter_mut().zip(array.1.iter()).take(BINS) {
            *head = *old;
        }
        for i in 0..self.extents.len() as u32 {
            if self.is_given(i) {
                self.hang(i, self.chain_of(self.start(i)));
            }
        }
        array
    }

    fn at(&mut self, i: u32) -> &mut Extent {
        &mut self.extents[i as usize]
    }

    /// Hangs an extent into a bin or a chain.
    #[inline]
    fn hang(&mut self, i: u32, list: usize) {
        let first = core::mem::replace(&mut self.heads[list], i);
        let extent = self.at(i);
        extent.hang_prev = NONE;
        extent.hang_next = first;
        if first != NONE {
            self.at(first).hang_prev = i;
        }
    }

    #[inline]
    fn unhang(&mut self, i: u32, list: usize) {
        let Extent {
            hang_prev,
            hang_next,
            ..
        } = *self.at(i);
        if hang_next != NONE {
            self.at(hang_next).hang_prev = hang_prev;
        }
        if hang_prev != NONE {
            self.at(hang_prev).hang_next = hang_next;
        } else {
            self.heads[list] = hang_next;
        }
    }

    /// Makes an extent a free one.
    fn bin(&mut self, i: u32) {
        let bin = bin_of(self.at(i).len);
        self.hang(i, bin);
        self.at(i).holder = FREE;
        self.filled |= 1 << bin;
    }

    /// Makes a free extent a reserved one.
    fn unbin(&mut self, i: u32) {
        let bin = bin_of(self.at(i).len);
        self.unhang(i, bin);
        self.at(i).holder = RESERVED;
        if self.heads[bin] == NONE {
            self.filled &= !(1 << bin);
        }
    }

    fn find(&self, len: u32) -> Option<u32> {
        let above = bin_above(len);
        let candidates = (self.filled >> above) << above;
        if candidates != 0 {
            return Some(self.heads[candidates.trailing_zeros() as usize]);
        }
        let mut i = self.heads[bin_of(len)];
        for _ in 0..TRIES {
            let extent = self.extents.get(i as usize)?;
            if extent.len >= len {
                return Some(i);
            }
            i = extent.hang_next;
        }
        None
    }

    /// Changes the place and the length of a free extent, and its bin if need be.
    fn resize(&mut self, i: u32, start: u32, len: u32) {
        let moves = bin_of(self.at(i).len) != bin_of(len);
        if moves {
            self.unbin(i);
        }
        let extent = self.at(i);
        extent.start = start;
        extent.len = len;
        if moves {
            self.bin(i);
        }
    }

    /// Reserves what was freed last and kept warm, if it has this size. Returns the slice's number.
    #[inline]
    pub(super) fn reserve_warm(&mut self, size: u64) -> Option<u32> {
        let warm = self.warm;
        let extent = self.extents.get(warm as usize)?;
        if u64::from(extent.len) * UNIT != size {
            return None;
        }
        self.warm = NONE;
        self.used += 1;
        Some(warm)
    }

    /// Reserves `size` bytes, a multiple of [`UNIT`] other than 0. Returns the slice's number.
    /// EXFULL if there is no room of that size; [`Denied::Array`] if the array is to grow first.
    pub(super) fn reserve(&mut self, size: u64) -> Result<u32, Denied> {
        let len = u32::try_from(size / UNIT).map_err(|_| Denied::Error(EXFULL))?;
        let i = self.find(len).ok_or(Denied::Error(EXFULL))?;
        let whole = *self.at(i);
        if whole.len == len {
            self.unbin(i);
            self.used += 1;
            return Ok(i);
        }
        // Cut off the front of it; the rest mostly stays in its bin.
        let new = self.element()?;
        *self.at(new) = Extent {
            start: whole.start,
            len,
            prev: whole.prev,
            next: i,
            ..BLANK
        };
        self.at(i).prev = new;
        if whole.prev != NONE {
            self.at(whole.prev).next = new;
        }
        self.resize(i, whole.start + len, whole.len - len);
        self.used += 1;
        Ok(new)
    }

    /// An element of the array that no extent uses.
    fn element(&mut self) -> Result<u32, Denied> {
        if let Some(unused) = self.extents.get(self.unused as usize) {
            return Ok(core::mem::replace(&mut self.unused, unused.hang_next));
        }
        let i = self.extents.len();
        self.extents
            .push_within_capacity(BLANK)
            .map_err(|_| Denied::Array(2 * i))?;
        Ok(i as u32)
    }

    fn start(&self, i: u32) -> u32 {
        self.extents[i as usize].start
    }

    /// Where the slice of this number starts, in bytes.
    pub(super) fn offset(&self, i: u32) -> u64 {
        u64::from(self.start(i)) * UNIT
    }

    fn holder(&self, i: u32) -> Option<u64> {
        Some(self.extents.get(i as usize)?.holder)
    }

    fn is_free(&self, i: u32) -> bool {
        self.holder(i) == Some(FREE)
    }

    /// Frees the slice of this number, but keeps it for the next of its size, in place of the one
    /// before, which is returned.
    #[inline]
    pub(super) fn keep_warm(&mut self, i: u32) -> Option<Range<u64>> {
        self.used -= 1;
        let last = self.cool();
        self.warm = i;
        last
    }

    /// Makes what was kept warm a free extent; returns where it is.
    #[inline]
    pub(super) fn cool(&mut self) -> Option<Range<u64>> {
        let i = core::mem::replace(&mut self.warm, NONE);
        if i == NONE {
            return None;
        }
        let start = self.offset(i);
        let end = start + u64::from(self.at(i).len) * UNIT;
        self.melt(i);
        Some(start..end)
    }

    /// Frees the slice of this number.
    pub(super) fn free(&mut self, i: u32) {
        self.used -= 1;
        self.melt(i);
    }

    /// Makes an extent a free one. Its neighbours swallow it if they are free.
    fn melt(&mut self, i: u32) {
        let Extent {
            mut start,
            mut len,
            prev,
            next,
            ..
        } = *self.at(i);
        debug_assert!(self.at(i).holder == RESERVED && len != 0);
        let into = match (self.is_free(prev), self.is_free(next)) {
            (false, false) => return self.bin(i),
            (true, false) => prev,
            (false, true) => next,
            (true, true) => {
                self.unbin(prev);
                start = self.at(prev).start;
                len += self.at(prev).len;
                self.cut(prev);
                next
            }
        };
        self.cut(i);
        let whole = *self.at(into);
        self.resize(into, start.min(whole.start), len + whole.len);
    }

    /// Takes an extent out whose space becomes a neighbour's.
    fn cut(&mut self, i: u32) {
        let Extent { prev, next, .. } = *self.at(i);
        if prev != NONE {
            self.at(prev).next = next;
        }
        if next != NONE {
            self.at(next).prev = prev;
        }
        *self.at(i) = Extent {
            hang_next: self.unused,
            ..BLANK
        };
        self.unused = i;
    }
}

/// What the user has.
impl Slices {
    /// The chain of what starts there.
    fn chain_of(&self, start: u32) -> usize {
        // The high bits: starts are multiples of large powers of two where slices are large.
        let (hash, n) = (start.wrapping_mul(0x9e37_79b1), self.heads.len() - BINS);
        BINS + ((u64::from(hash) * n as u64) >> 32) as usize
    }

    /// Gives the user a reserved slice.
    #[inline]
    pub(super) fn give(&mut self, slice: &Slice) {
        self.at(slice.number).holder = slice.payer;
        self.hang(slice.number, self.chain_of(self.start(slice.number)));
    }

    /// Whether the user has the slice of this number.
    pub(super) fn is_given(&self, i: u32) -> bool {
        self.holder(i)
            .is_some_and(|holder| holder != FREE && holder != RESERVED)
    }

    /// Takes the slice at `offset` from the user; it stays reserved. None if the user has none there.
    #[inline]
    pub(super) fn take_back(&mut self, offset: u64) -> Option<Slice> {
        let start = u32::try_from(offset / UNIT).ok()?;
        let chain = self.chain_of(start);
        let mut number = self.heads[chain];
        while self.extents.get(number as usize)?.start != start || offset & (UNIT - 1) != 0 {
            number = self.at(number).hang_next;
        }
        // What hangs in a chain is the user's.
        self.unhang(number, chain);
        let payer = core::mem::replace(&mut self.at(number).holder, RESERVED);
        Some(Slice {
            number,
            offset,
            size: u64::from(self.at(number).len) * UNIT,
            payer,
        })
    }

    /// Takes the first slice from the user that has this number or a higher one.
    pub(super) fn take_back_from(&mut self, number: &mut u32) -> Option<Slice> {
        while !self.is_given(*number) {
            self.holder(*number)?;
            *number += 1;
        }
        self.take_back(self.offset(*number))
    }
}

/// Memory for more extents.
pub(super) struct Array(KVVec<Extent>, KVVec<u32>);

impl Array {
    /// How many there will be room for.
    pub(super) fn len(&self) -> usize {
        self.0.capacity()
    }
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
