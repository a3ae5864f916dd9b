// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The chains of given slices.

use std::vec::Vec;

use super::*;
use crate::bus::pool::allocator::Extent;
use crate::bus::pool::AllocError;

impl Allocator {
    /// Reserves a slice, with a larger array where it is needed.
    fn reserve_for(&mut self, size: u64, payer: u64) -> Slice {
        let number = loop {
            match self.reserve(size) {
                Ok(number) => break number,
                Err(AllocError::NeedsMemory(n)) => {
                    drop(self.grow(Extent::new_array(n).unwrap()));
                    self.assert_chains();
                }
                Err(AllocError::Full) => panic!("the space is full"),
            }
        };
        Slice {
            number,
            offset: self.offset(number),
            size,
            n_bytes: size as u32 - 3,
            payer,
        }
    }

    fn is_given(&self, number: u32) -> bool {
        matches!(self.extents[number as usize].state, State::Given { .. })
    }

    /// Returns the numbers in a chain, first to last.
    fn numbers_in(&self, chain: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        let mut number = self.extents[chain].chain;
        while number != NONE {
            numbers.push(number);
            assert!(numbers.len() <= self.extents.len(), "a chain without end");
            number = self.extents[number as usize].bin_next;
        }
        numbers
    }

    /// Asserts that those slices are in the chains of their starts, once, that the user has.
    fn assert_chains(&self) {
        self.assert_invariants();
        let mut chained = Vec::new();
        for chain in 0..self.extents.len() {
            for number in self.numbers_in(chain) {
                assert_eq!(self.chain_of(self.extents[number as usize].start), chain);
                chained.push(number);
            }
        }
        chained.sort_unstable();
        let numbers = 0..self.extents.len() as u32;
        let given: Vec<u32> = numbers.filter(|&number| self.is_given(number)).collect();
        assert_eq!(chained, given);
        assert_eq!(self.given().count(), given.len());
    }
}

fn new(size: u64) -> Allocator {
    Allocator::new(size, Extent::new_array(8).unwrap()).unwrap()
}

/// A slice that the user was given is found by its offset, once, also after the arrays grew.
#[test]
fn a_given_slice_is_taken_back_by_its_offset() {
    let mut allocator = new(1 << 16);
    let mut all = Vec::new();
    for i in 0..100 {
        let slice = allocator.reserve_for(8 * (1 + i % 5), 2 + i % 3);
        assert!(allocator.take_back(slice.offset).is_none());
        // Some are still on their way.
        if i % 3 != 0 {
            allocator.give(&slice);
            all.push(slice);
        }
        assert_eq!(allocator.is_given(slice.number), i % 3 != 0);
    }
    allocator.assert_chains();
    all.reverse();
    all.swap(3, 40);
    let rest = all.split_off(50);
    for slice in all {
        assert!(allocator.take_back(slice.offset + 1).is_none());
        assert_eq!(allocator.take_back(slice.offset), Some(slice));
        assert!(allocator.take_back(slice.offset).is_none());
        allocator.free(slice.number);
        allocator.assert_chains();
    }
    let mut taken = 0;
    for number in 0..allocator.n_extents() {
        if let Some(slice) = allocator.take_back(allocator.offset(number)) {
            assert!(rest.contains(&slice));
            allocator.free(slice.number);
            allocator.assert_chains();
            taken += 1;
        }
    }
    assert_eq!(taken, rest.len());
    assert_eq!(allocator.n_used, 34);
}

/// Slices of one chain are taken back in any order, wherever in it they are.
#[test]
fn a_chain_loses_its_first_a_middle_and_its_last() {
    let mut allocator = new(1 << 16);
    let slices: Vec<Slice> = (0..200).map(|_| allocator.reserve_for(8, 1)).collect();
    let chain_of =
        |slices: &Allocator, slice: &Slice| slices.chain_of((slice.offset / UNIT) as u32);
    let crowd = (0..allocator.extents.len())
        .map(|chain| {
            let of_chain = |slice: &&Slice| chain_of(&allocator, slice) == chain;
            slices.iter().filter(of_chain).copied().collect::<Vec<_>>()
        })
        .max_by_key(Vec::len)
        .unwrap();
    let n = crowd.len();
    assert!(n >= 2, "no two slices share a chain");
    for first in 0..n {
        crowd.iter().for_each(|slice| allocator.give(slice));
        for i in 0..n {
            let slice = crowd[(first + i) % n];
            assert_eq!(allocator.take_back(slice.offset), Some(slice));
            allocator.assert_chains();
        }
    }
}

/// Once, the hash kept the low bits, which slices of the same large size have in common.
#[test]
fn large_slices_do_not_crowd_one_chain() {
    for (n, size) in [(250, 16 << 20), (4000, 1 << 20), (4096, 64 << 10)] {
        let mut allocator = new(1 << 32);
        for _ in 0..n {
            let slice = allocator.reserve_for(size, 1);
            allocator.give(&slice);
        }
        for chain in 0..allocator.extents.len() {
            let length = allocator.numbers_in(chain).len();
            assert!(length <= 4, "{length} of {n} slices of {size} bytes");
        }
    }
}

#[test]
fn without_memory_nothing_is_found() {
    let mut allocator = Allocator::EMPTY;
    for offset in [0, 1, 8, u64::MAX] {
        assert!(allocator.take_back(offset).is_none());
    }
}
