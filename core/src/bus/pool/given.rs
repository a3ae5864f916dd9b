// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The slices that the user of a peer was given and has not released.
//!
//! The user names a slice by its offset, so they are chained in a hash table by their starts. The
//! [`Allocator`] knows the extent of each: both index their arrays by the number of the slice.
//!
//! # Invariants
//!
//! - A slice has a payer here while the user has it, and only then is it in the chain of its start.
//!
//! # Locks
//!
//! None of its own; it lies in the peer's inbox.

use core::num::NonZeroU64;

use kernel::prelude::*;

use crate::bus::allocation::GFP_KEPT;
use crate::bus::pool::allocator::{Allocator, NONE};
use crate::bus::pool::slice::{Slice, UNIT};

#[derive(Clone, Copy)]
struct Given {
    /// The peer that is charged for it. IDs of peers begin at 1.
    payer: Option<NonZeroU64>,
    /// Bytes that it is charged for.
    n_bytes: u32,
    /// The next in the chain.
    next: u32,
}

const NOT_GIVEN: Given = Given {
    payer: None,
    n_bytes: 0,
    next: NONE,
};

/// The index of the user's slices.
pub(crate) struct GivenSlices {
    /// By number of the slice.
    slices: KVVec<Given>,
    /// The first slice of each chain; a power of two of them.
    chains: KVVec<u32>,
}

impl GivenSlices {
    /// An index of nothing, without memory.
    pub(crate) const EMPTY: Self = Self {
        slices: KVVec::new(),
        chains: KVVec::new(),
    };

    /// Makes an index of nothing, with memory for slices with numbers below `n`.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(n: usize) -> Result<Self> {
        Ok(Self {
            slices: KVVec::from_elem(NOT_GIVEN, n, GFP_KEPT)?,
            chains: KVVec::from_elem(NONE, n.next_power_of_two(), GFP_KEPT)?,
        })
    }

    /// Returns the bytes that are charged for each slice that the user has.
    pub(crate) fn n_bytes(&self) -> impl Iterator<Item = u64> + '_ {
        let given = self.slices.iter().filter(|given| given.payer.is_some());
        given.map(|given| u64::from(given.n_bytes))
    }

    /// Returns the chain of slices that start at `start`, in units.
    #[inline]
    fn chain_of(&self, start: u32) -> usize {
        // The high bits: starts are multiples of large powers of two where slices are large.
        let (hash, n) = (start.wrapping_mul(0x9e37_79b1), self.chains.len());
        ((u64::from(hash) * n as u64) >> 32) as usize
    }

    /// Moves into the memory of an empty index, if that is larger. Returns the old memory, to be
    /// freed without locks.
    pub(crate) fn grow(&mut self, allocator: &Allocator, mut memory: Self) -> Self {
        if memory.slices.len() > self.slices.len() {
            core::mem::swap(self, &mut memory);
            for (number, old) in (0..).zip(memory.slices.iter()) {
                self.insert(number, allocator.start(number), *old);
            }
        }
        memory
    }

    #[inline]
    fn insert(&mut self, number: u32, start: u32, given: Given) {
        if given.payer.is_some() {
            let chain = self.chain_of(start);
            let next = core::mem::replace(&mut self.chains[chain], number);
            self.slices[number as usize] = Given { next, ..given };
        }
    }

    /// Gives the user a reserved slice.
    #[inline]
    pub(crate) fn give(&mut self, slice: &Slice) {
        let given = Given {
            payer: NonZeroU64::new(slice.payer),
            n_bytes: slice.n_bytes,
            next: NONE,
        };
        debug_assert!(given.payer.is_some(), "no peer has the ID 0");
        self.insert(slice.number, (slice.offset / UNIT) as u32, given);
    }

    /// Takes the slice at `offset` from the user; it stays reserved. None if the user has none
    /// there.
    #[inline(always)]
    pub(crate) fn take_back(&mut self, allocator: &Allocator, offset: u64) -> Option<Slice> {
        let start = u32::try_from(offset / UNIT).ok()?;
        if offset & (UNIT - 1) != 0 || self.chains.is_empty() {
            return None;
        }
        let chain = self.chain_of(start);
        let (mut number, mut before) = (self.chains[chain], NONE);
        // The number at the end of a chain is no slice.
        while allocator.start_of(number)? != start {
            before = number;
            number = self.slices[number as usize].next;
        }
        let given = &mut self.slices[number as usize];
        let (payer, n_bytes, next) = (given.payer.take()?, given.n_bytes, given.next);
        match self.slices.get_mut(before as usize) {
            Some(before) => before.next = next,
            None => self.chains[chain] = next,
        }
        Some(Slice {
            number,
            offset,
            size: allocator.size(number),
            n_bytes,
            payer: payer.get(),
        })
    }

    /// Takes the first slice from the user that has `number` or a higher one, which `number`
    /// becomes.
    pub(crate) fn take_back_from(
        &mut self,
        allocator: &Allocator,
        number: &mut u32,
    ) -> Option<Slice> {
        while self.slices.get(*number as usize)?.payer.is_none() {
            *number += 1;
        }
        self.take_back(allocator, allocator.offset(*number))
    }
}

#[cfg(test)]
#[path = "given_tests.rs"]
mod tests;
