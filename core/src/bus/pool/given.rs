// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The slices that the user of a peer was given and has not released.
//!
//! The user names a slice by its offset, so they are chained in a hash table by their starts. The
//! table has as many chains as the array of extents has elements, and lies in these.
//!
//! # Invariants
//!
//! - An extent is in the chain of its start while it is given, and in no other list.
//!
//! # Locks
//!
//! None of its own; it lies in the peer's inbox.

use crate::bus::pool::allocator::{Allocator, State, NONE};
use crate::bus::pool::slice::{Slice, UNIT};

impl Allocator {
    /// Returns the bytes that are charged for each slice that the user has.
    pub(crate) fn given(&self) -> impl Iterator<Item = u64> + '_ {
        self.extents.iter().filter_map(|extent| match extent.state {
            State::Given { n_bytes, .. } => Some(u64::from(n_bytes)),
            _ => None,
        })
    }

    /// Returns the chain of slices that start at `start`, in units.
    #[inline]
    fn chain_of(&self, start: u32) -> usize {
        // The high bits: starts are multiples of large powers of two where slices are large.
        let hash = start.wrapping_mul(0x9e37_79b1);
        let n = self.extents.len();
        ((u64::from(hash) * n as u64) >> 32) as usize
    }

    /// Puts a given slice in its chain.
    #[inline]
    fn link_given(&mut self, number: u32) {
        let chain = self.chain_of(self.extents[number as usize].start);
        let next = core::mem::replace(&mut self.extents[chain].chain, number);
        self.extents[number as usize].bin_next = next;
    }

    /// Puts all given slices in chains anew, since the number of chains changed. There were `n`
    /// elements before, and there is nothing in the others.
    pub(super) fn link_all_given(&mut self, n: usize) {
        for extent in &mut self.extents[..n] {
            extent.chain = NONE;
        }
        for number in 0..n {
            if let State::Given { .. } = self.extents[number].state {
                self.link_given(number as u32);
            }
        }
    }

    /// Gives the user a reserved slice.
    #[inline]
    pub(crate) fn give(&mut self, slice: &Slice) {
        self.extents[slice.number as usize].state = State::Given {
            payer: slice.payer,
            n_bytes: slice.n_bytes,
        };
        self.link_given(slice.number);
    }

    /// Takes the slice at `offset` from the user; it stays reserved. None if the user has none
    /// there.
    #[inline(always)]
    pub(crate) fn take_back(&mut self, offset: u64) -> Option<Slice> {
        let start = u32::try_from(offset / UNIT).ok()?;
        if offset & (UNIT - 1) != 0 {
            return None;
        }
        let chain = self.chain_of(start);
        let mut number = self.extents.get(chain)?.chain;
        let mut before = NONE;
        // The number at the end of a chain is no slice.
        let extent = loop {
            let extent = self.extents.get_mut(number as usize)?;
            if extent.start == start {
                break extent;
            }
            before = number;
            number = extent.bin_next;
        };
        let State::Given { payer, n_bytes } = extent.state else {
            return None;
        };
        extent.state = State::Reserved;
        let size = u64::from(extent.len) * UNIT;
        let next = extent.bin_next;
        match self.extents.get_mut(before as usize) {
            Some(before) => before.bin_next = next,
            None => self.extents[chain].chain = next,
        }
        Some(Slice {
            number,
            offset,
            size,
            n_bytes,
            payer,
        })
    }
}

#[cfg(test)]
#[path = "given_tests.rs"]
mod tests;
