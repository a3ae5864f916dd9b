// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which parts of a pool's address space are in use.
//!
//! The space is cut into extents, free or used. Free ones hang in bins by size, four to every power
//! of two, so that reserving and freeing take the same few steps however many slices there are. A
//! freed extent melts into its free neighbours and is the first to be used again, which keeps the
//! pages that are touched few and warm.
//!
//! Extents live in one array and name each other by index. It only grows when asked to, because
//! memory cannot be allocated under the lock this lies under.
//!
//! # Invariants
//!
//! - The extents cover the whole space, in address order along `next`.
//! - No two free extents are neighbours.
//! - A bin's bit is set if the bin is not empty.

use kernel::prelude::*;

use super::GFP_KEPT;

const NONE: u32 = u32::MAX;
const BINS: usize = 128;
/// Offsets and sizes are multiples of this many bytes.
pub(super) const UNIT: u64 = 8;
/// How many extents of the bin below are tried when all above are empty.
const TRIES: usize = 64;

#[derive(Clone, Copy)]
struct Extent {
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
    /// Neighbours in the bin, or in the list of unused array elements.
    bin_prev: u32,
    bin_next: u32,
    free: bool,
}

/// Why nothing could be reserved.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There is no room of that size now.
    Space,
    /// The array has to grow to this many elements first.
    Array(usize),
}

/// See the module.
pub(super) struct Slices {
    extents: KVVec<Extent>,
    bins: [u32; BINS],
    filled: u128,
    unused: u32,
    used: u32,
}

/// The bin that an extent of this length hangs in.
fn bin_of(len: u32) -> usize {
    if len < 4 {
        return len as usize;
    }
    let log = 31 - len.leading_zeros();
    ((log - 1) * 4 + ((len >> (log - 2)) & 3)) as usize
}

/// The first bin of which every extent is at least this long.
fn bin_above(len: u32) -> usize {
    let bin = bin_of(len);
    if len < 8 {
        return bin;
    }
    let log = 31 - len.leading_zeros();
    let exact = len & ((1 << (log - 2)) - 1) == 0;
    bin + usize::from(!exact)
}

impl Slices {
    /// All of `size` bytes free.
    pub(super) fn new(size: u64) -> Result<Self> {
        let mut new = Self {
            extents: KVVec::with_capacity(8, GFP_KEPT)?,
            bins: [NONE; BINS],
            filled: 0,
            unused: NONE,
            used: 0,
        };
        new.extents.push(
            Extent {
                start: 0,
                len: (size / UNIT) as u32,
                prev: NONE,
                next: NONE,
                bin_prev: NONE,
                bin_next: NONE,
                free: true,
            },
            GFP_KERNEL,
        )?;
        new.hang(0);
        Ok(new)
    }

    /// Takes everything out and leaves nothing: no space, no memory.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self {
            extents: KVVec::new(),
            bins: [NONE; BINS],
            filled: 0,
            unused: NONE,
            used: 0,
        };
        core::mem::replace(self, empty)
    }

    /// Memory for an array of `n` elements, for [`Slices::grow`].
    pub(super) fn array(n: usize) -> Result<Array> {
        Ok(Array(KVVec::with_capacity(n, GFP_KEPT)?))
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
        array
    }

    /// Number of slices in use.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    fn at(&mut self, i: u32) -> &mut Extent {
        &mut self.extents[i as usize]
    }

    fn hang(&mut self, i: u32) {
        let bin = bin_of(self.at(i).len);
        let first = self.bins[bin];
        let extent = self.at(i);
        extent.free = true;
        extent.bin_prev = NONE;
        extent.bin_next = first;
        if first != NONE {
            self.at(first).bin_prev = i;
        }
        self.bins[bin] = i;
        self.filled |= 1 << bin;
    }

    fn unhang(&mut self, i: u32) {
        let Extent {
            len,
            bin_prev,
            bin_next,
            ..
        } = *self.at(i);
        if bin_next != NONE {
            self.at(bin_next).bin_prev = bin_prev;
        }
        if bin_prev != NONE {
            self.at(bin_prev).bin_next = bin_next;
        } else {
            let bin = bin_of(len);
            self.bins[bin] = bin_next;
            if bin_next == NONE {
                self.filled &= !(1 << bin);
            }
        }
        self.at(i).free = false;
    }

    fn find(&self, len: u32) -> Option<u32> {
        let above = bin_above(len);
        let candidates = (self.filled >> above) << above;
        if candidates != 0 {
            return Some(self.bins[candidates.trailing_zeros() as usize]);
        }
        let mut i = self.bins[bin_of(len)];
        for _ in 0..TRIES {
            if i == NONE {
                break;
            }
            let extent = &self.extents[i as usize];
            if extent.len >= len {
                return Some(i);
            }
            i = extent.bin_next;
        }
        None
    }

    /// Reserves `size` bytes, a multiple of [`UNIT`] other than 0. Returns the slice's number.
    pub(super) fn reserve(&mut self, size: u64) -> Result<u32, Full> {
        let len = u32::try_from(size / UNIT).map_err(|_| Full::Space)?;
        let i = self.find(len).ok_or(Full::Space)?;
        let rest = self.at(i).len - len;
        if rest != 0 {
            let new = self.element()?;
            let Extent { start, next, .. } = *self.at(i);
            *self.at(new) = Extent {
                start: start + len,
                len: rest,
                prev: i,
                next,
                bin_prev: NONE,
                bin_next: NONE,
                free: true,
            };
            self.unhang(i);
            if next != NONE {
                self.at(next).prev = new;
            }
            let extent = self.at(i);
            extent.next = new;
            extent.len = len;
            self.hang(new);
        } else {
            self.unhang(i);
        }
        self.used += 1;
        Ok(i)
    }

    /// An element of the array that no extent uses.
    fn element(&mut self) -> Result<u32, Full> {
        if self.unused != NONE {
            let i = self.unused;
            self.unused = self.at(i).bin_next;
            return Ok(i);
        }
        let i = self.extents.len();
        let blank = Extent {
            start: 0,
            len: 0,
            prev: NONE,
            next: NONE,
            bin_prev: NONE,
            bin_next: NONE,
            free: false,
        };
        match self.extents.push_within_capacity(blank) {
            Ok(()) => Ok(i as u32),
            Err(_) => Err(Full::Array(2 * i)),
        }
    }

    /// Where the slice of this number starts, in bytes.
    pub(super) fn offset(&self, i: u32) -> u64 {
        u64::from(self.extents[i as usize].start) * UNIT
    }

    /// Frees the slice of this number.
    pub(super) fn free(&mut self, mut i: u32) {
        debug_assert!(!self.at(i).free && self.at(i).len != 0);
        self.used -= 1;
        let prev = self.at(i).prev;
        if prev != NONE && self.at(prev).free {
            self.unhang(prev);
            self.absorb(prev);
            i = prev;
        }
        let next = self.at(i).next;
        if next != NONE && self.at(next).free {
            self.unhang(next);
            self.absorb(i);
        }
        self.hang(i);
    }

    /// Joins the extent after `i` to it.
    fn absorb(&mut self, i: u32) {
        let gone = self.at(i).next;
        let Extent { len, next, .. } = *self.at(gone);
        let extent = self.at(i);
        extent.len += len;
        extent.next = next;
        if next != NONE {
            self.at(next).prev = i;
        }
        let unused = self.unused;
        let element = self.at(gone);
        element.len = 0;
        element.bin_next = unused;
        self.unused = gone;
    }
}

/// Memory for more extents.
pub(super) struct Array(KVVec<Extent>);

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
