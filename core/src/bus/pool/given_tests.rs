// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The index of given slices, beside an allocator, as both lie in an inbox.

use std::vec::Vec;

use super::*;
use crate::bus::pool::allocator::ExtentArray;
use crate::bus::pool::AllocError;

/// An allocator, and the index of its slices that were given.
struct Bench {
    allocator: Allocator,
    given: GivenSlices,
}

impl Bench {
    fn new(size: u64) -> Self {
        let extents = ExtentArray::new(8).unwrap();
        let memory = GivenSlices::new(extents.capacity()).unwrap();
        Self {
            allocator: Allocator::new(size, extents).unwrap(),
            given: memory,
        }
    }

    /// Reserves a slice, with larger arrays where they are needed.
    fn reserve(&mut self, size: u64, payer: u64) -> Slice {
        let number = loop {
            match self.allocator.reserve(size) {
                Ok(number) => break number,
                Err(AllocError::NeedsMemory(n)) => self.grow(n),
                Err(AllocError::Full) => panic!("the space is full"),
            }
        };
        Slice {
            number,
            offset: self.allocator.offset(number),
            size,
            n_bytes: size as u32 - 3,
            payer,
        }
    }

    /// Moves both into larger arrays.
    fn grow(&mut self, n: usize) {
        let extents = ExtentArray::new(n).unwrap();
        let memory = GivenSlices::new(extents.capacity()).unwrap();
        drop(self.given.grow(&self.allocator, memory));
        drop(self.allocator.grow(extents));
        self.assert_invariants();
    }

    fn take_back(&mut self, offset: u64) -> Option<Slice> {
        self.given.take_back(&self.allocator, offset)
    }

    fn take_back_from(&mut self, number: &mut u32) -> Option<Slice> {
        self.given.take_back_from(&self.allocator, number)
    }

    fn is_given(&self, number: u32) -> bool {
        let given = &self.given.slices[number as usize];
        given.payer.is_some()
    }

    /// Returns the numbers in a chain, first to last.
    fn numbers_in(&self, chain: usize) -> Vec<u32> {
        let array = &self.given;
        let mut numbers = Vec::new();
        let mut number = array.chains[chain];
        while number != NONE {
            numbers.push(number);
            assert!(numbers.len() <= array.slices.len(), "a chain without end");
            number = array.slices[number as usize].next;
        }
        numbers
    }

    /// Asserts that those slices are in the chains of their starts, once, that the user has.
    fn assert_invariants(&self) {
        self.allocator.assert_invariants();
        let array = &self.given;
        let mut chained = Vec::new();
        for chain in 0..array.chains.len() {
            for number in self.numbers_in(chain) {
                assert_eq!(array.chain_of(self.allocator.start(number)), chain);
                chained.push(number);
            }
        }
        chained.sort_unstable();
        let numbers = 0..array.slices.len() as u32;
        let given: Vec<u32> = numbers.filter(|&number| self.is_given(number)).collect();
        assert_eq!(chained, given);
    }
}

/// A slice that the user was given is found by its offset, once, also after the arrays grew.
#[test]
fn a_given_slice_is_taken_back_by_its_offset() {
    let mut bench = Bench::new(1 << 16);
    let mut all = Vec::new();
    for i in 0..100 {
        let slice = bench.reserve(8 * (1 + i % 5), 2 + i % 3);
        assert!(bench.take_back(slice.offset).is_none());
        // Some are still on their way.
        if i % 3 != 0 {
            bench.given.give(&slice);
            all.push(slice);
        }
        assert_eq!(bench.is_given(slice.number), i % 3 != 0);
    }
    bench.assert_invariants();
    all.reverse();
    all.swap(3, 40);
    let rest = all.split_off(50);
    for slice in all {
        assert!(bench.take_back(slice.offset + 1).is_none());
        assert_eq!(bench.take_back(slice.offset), Some(slice));
        assert!(bench.take_back(slice.offset).is_none());
        bench.allocator.free(slice.number);
        bench.assert_invariants();
    }
    let mut from = 0;
    for _ in 0..rest.len() {
        let slice = bench.take_back_from(&mut from).unwrap();
        assert!(rest.contains(&slice));
        bench.allocator.free(slice.number);
        bench.assert_invariants();
    }
    assert!(bench.take_back_from(&mut from).is_none());
    assert_eq!(bench.allocator.n_used(), 34);
}

/// Slices of one chain are taken back in any order, wherever in it they are.
#[test]
fn a_chain_loses_its_first_a_middle_and_its_last() {
    let mut bench = Bench::new(1 << 16);
    let slices: Vec<Slice> = (0..200).map(|_| bench.reserve(8, 1)).collect();
    let chain_of =
        |bench: &Bench, slice: &Slice| bench.given.chain_of((slice.offset / UNIT) as u32);
    let crowd = (0..bench.given.chains.len())
        .map(|chain| {
            let of_chain = |slice: &&Slice| chain_of(&bench, slice) == chain;
            slices.iter().filter(of_chain).copied().collect::<Vec<_>>()
        })
        .max_by_key(Vec::len)
        .unwrap();
    let n = crowd.len();
    assert!(n >= 2, "no two slices share a chain");
    for first in 0..n {
        crowd.iter().for_each(|slice| bench.given.give(slice));
        for i in 0..n {
            let slice = crowd[(first + i) % n];
            assert_eq!(bench.take_back(slice.offset), Some(slice));
            bench.assert_invariants();
        }
    }
}

/// Once, the hash kept the low bits, which slices of the same large size have in common.
#[test]
fn large_slices_do_not_crowd_one_chain() {
    for (n, size) in [(250, 16 << 20), (4000, 1 << 20), (4096, 64 << 10)] {
        let mut bench = Bench::new(1 << 32);
        for _ in 0..n {
            let slice = bench.reserve(size, 1);
            bench.given.give(&slice);
        }
        for chain in 0..bench.given.chains.len() {
            let length = bench.numbers_in(chain).len();
            assert!(length <= 4, "{length} of {n} slices of {size} bytes");
        }
    }
}

#[test]
fn without_memory_nothing_is_found() {
    let mut given = GivenSlices::EMPTY;
    let allocator = Allocator::EMPTY;
    for offset in [0, 1, 8, u64::MAX] {
        assert!(given.take_back(&allocator, offset).is_none());
    }
    assert!(given.take_back_from(&allocator, &mut 0).is_none());
}
