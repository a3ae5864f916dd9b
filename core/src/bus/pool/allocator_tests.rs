// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The allocator against a naive model, which lists the ranges in use.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Makes an allocator with a small array.
fn new(size: u64) -> Allocator {
    Allocator::new(size, Extent::new_array(8).unwrap()).unwrap()
}

/// Reserves, with a larger array where one is needed. None if the space is full.
fn reserve(allocator: &mut Allocator, size: u64) -> Option<u32> {
    loop {
        match allocator.reserve(size) {
            Ok(number) => return Some(number),
            Err(AllocError::Full) => return None,
            Err(AllocError::NeedsMemory(n)) => {
                assert!(n > allocator.extents.len());
                let old = allocator.grow(Extent::new_array(n).unwrap());
                assert!(old.len() < n);
            }
        }
    }
}

impl Allocator {
    /// Asserts the invariants that the head of `allocator.rs` lists. Returns the start and the
    /// length of each range that is free, with the warm extent as if it were.
    pub(crate) fn assert_invariants(&self) -> Vec<(u32, u32)> {
        let (mut free, mut n, mut used) = (Vec::new(), 0, 0);
        // With the warm extent, coalesced.
        let mut all_free: Vec<(u32, u32)> = Vec::new();
        let first = |extent: &Extent| extent.len != 0 && extent.prev == NONE;
        let first = self.extents.iter().position(first).unwrap();
        let (mut i, mut before, mut at, mut was_free) = (first as u32, NONE, 0, false);
        while i != NONE {
            let extent = self.extents[i as usize];
            assert_eq!((extent.start, extent.prev), (at, before));
            assert_ne!(extent.len, 0);
            if extent.state == State::Free || i == self.warm {
                match all_free.last_mut() {
                    Some((start, len)) if *start + *len == at => *len += extent.len,
                    _ => all_free.push((at, extent.len)),
                }
            }
            assert!(
                !(extent.state == State::Free && was_free),
                "two free neighbours at {at}"
            );
            if extent.state == State::Free {
                free.push((extent.start, extent.len));
            } else {
                used += u32::from(i != self.warm);
            }
            n += 1;
            (before, at, was_free) = (i, at + extent.len, extent.state == State::Free);
            i = extent.next;
        }
        assert_eq!(used, self.n_used);

        let mut linked = Vec::new();
        for (bin, &first) in self.bins.iter().enumerate() {
            assert_eq!(first != NONE, self.filled & 1 << bin != 0);
            let (mut i, mut before) = (first, NONE);
            while i != NONE {
                let extent = self.extents[i as usize];
                assert!(extent.state == State::Free);
                assert_eq!((bin_of(extent.len), extent.bin_prev), (bin, before));
                linked.push((extent.start, extent.len));
                (before, i) = (i, extent.bin_next);
            }
        }
        linked.sort_unstable();
        assert_eq!(linked, free);

        let mut i = self.unused;
        while i != NONE {
            n += 1;
            assert!(self.extents[i as usize].state == State::Unused);
            i = self.extents[i as usize].bin_next;
        }
        assert_eq!(n, self.extents.len(), "an element of the array is lost");
        all_free
    }
}

#[test]
fn bins_are_in_order_and_cover_every_length() {
    let mut last = 0;
    for len in 1..1 << 16 {
        let bin = bin_of(len);
        assert!(bin == last || bin == last + 1, "{len}");
        last = bin;
        let above = bin_above(len);
        assert!(above == bin || above == bin + 1);
        // Every extent in a bin from there on is long enough.
        assert!(above == bin_of(len) && bin_of(len - 1) < bin || bin_of(len) < above);
    }
    for log in 3..32 {
        let power = 1u32 << log;
        assert_eq!(bin_of(power), bin_above(power));
        assert_eq!(bin_of(power - 1) + 1, bin_of(power));
        assert_eq!(bin_above(power + 1), bin_of(power) + 1);
    }
    assert!(bin_above(u32::MAX) < BINS);
}

#[test]
fn all_of_the_space_can_be_one_slice() {
    for size in [8, 16, 4096, 1 << 20, 1 << 32] {
        let mut allocator = new(size);
        assert_eq!(allocator.reserve(size + 8), Err(AllocError::Full));
        let all = reserve(&mut allocator, size).unwrap();
        assert_eq!(allocator.offset(all), 0);
        assert_eq!(allocator.reserve(8), Err(AllocError::Full));
        allocator.free(all);
        assert_eq!(allocator.assert_invariants(), [(0, (size / 8) as u32)]);
    }
}

#[test]
fn sizes_beyond_the_space_are_refused() {
    let mut allocator = new(1 << 32);
    for size in [(1 << 32) + 8, 1 << 35, 1 << 40, !7] {
        assert_eq!(allocator.reserve(size), Err(AllocError::Full));
    }
    allocator.assert_invariants();
}

#[test]
fn the_array_grows_only_when_asked_to() {
    let mut allocator = new(1 << 20);
    let before = allocator.extents.len();
    let mut numbers = Vec::new();
    let n = loop {
        match allocator.reserve(8) {
            Ok(number) => numbers.push(number),
            Err(full) => break full,
        }
    };
    assert_eq!(allocator.extents.len(), before);
    assert_eq!(n, AllocError::NeedsMemory(2 * before));
    allocator.assert_invariants();
    // An array that is too small is given back.
    let small = allocator.grow(Extent::new_array(2).unwrap());
    assert!(small.len() < before);
    let old = allocator.grow(Extent::new_array(2 * before).unwrap());
    assert_eq!(old.len(), before);
    numbers.push(allocator.reserve(8).unwrap());
    for (i, number) in numbers.into_iter().enumerate() {
        assert_eq!(allocator.offset(number), 8 * i as u64);
        allocator.free(number);
    }
    assert_eq!(allocator.assert_invariants(), [(0, 1 << 17)]);
}

#[test]
fn an_element_is_used_again() {
    let mut allocator = new(1 << 20);
    for _ in 0..1000 {
        let (a, b) = (
            allocator.reserve(64).unwrap(),
            allocator.reserve(8).unwrap(),
        );
        allocator.free(a);
        allocator.free(b);
    }
    // Three elements are enough.
    let unused = |extent: &&Extent| extent.state == State::Unused;
    let n_used = allocator.extents.len() - allocator.extents.iter().filter(unused).count();
    assert!(n_used <= 3);
    allocator.assert_invariants();
}

#[test]
fn a_slice_that_was_freed_is_the_first_to_be_used_again() {
    let mut allocator = new(1 << 20);
    let numbers: Vec<u32> = (0..6).filter_map(|_| reserve(&mut allocator, 64)).collect();
    let offset = allocator.offset(numbers[3]);
    allocator.free(numbers[1]);
    allocator.free(numbers[3]);
    let again = reserve(&mut allocator, 64).unwrap();
    assert_eq!(allocator.offset(again), offset);
}

/// Makes a full space except for `n` free extents of `short` units and one of `last`, which is
/// looked at last.
fn fragments(n: usize, short: u32, last: u32) -> Allocator {
    let mut allocator = new(1 << 24);
    let mut holes = Vec::new();
    for i in 0..=n {
        let len = if i == 0 { last } else { short };
        holes.push(reserve(&mut allocator, u64::from(len) * 8).unwrap());
        reserve(&mut allocator, 8).unwrap();
    }
    while reserve(&mut allocator, 1 << 16).is_some()
        || reserve(&mut allocator, 1 << 10).is_some()
        || reserve(&mut allocator, 8).is_some()
    {}
    assert_eq!(allocator.assert_invariants(), []);
    // The extent that is freed last is looked at first.
    for hole in holes {
        allocator.free(hole);
    }
    allocator.drop_warm();
    allocator
}

#[test]
fn a_fit_in_the_bin_below_is_found_within_the_tries() {
    // Extents of 33 and of 39 units are in one bin.
    let mut allocator = fragments(TRIES - 1, 33, 39);
    assert!(reserve(&mut allocator, 39 * 8).is_some());
    let mut allocator = fragments(TRIES, 33, 39);
    assert!(
        reserve(&mut allocator, 39 * 8).is_none(),
        "only so many are tried"
    );
    // An extent of a bin above is found in any case.
    assert!(reserve(&mut allocator, 32 * 8).is_some());
    allocator.assert_invariants();
}

#[derive(Clone, Debug)]
enum Op {
    Reserve(u32),
    Free(prop::sample::Index),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let len = prop_oneof![1..8u32, 1..40u32, 1..400u32];
    let op = prop_oneof![
        3 => len.prop_map(Op::Reserve),
        2 => any::<prop::sample::Index>().prop_map(Op::Free),
    ];
    prop::collection::vec(op, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slices_never_overlap_and_free_extents_coalesce(
        units in prop_oneof![1..64u32, 1..2000u32],
        ops in ops(),
    ) {
        let mut allocator = new(u64::from(units) * UNIT);
        // By start: length and number.
        let mut used: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for op in ops {
            let free = allocator.assert_invariants();
            match op {
                Op::Reserve(len) => match reserve(&mut allocator, u64::from(len) * UNIT) {
                    Some(number) => {
                        let offset = allocator.offset(number);
                        prop_assert_eq!(offset % UNIT, 0);
                        let start = (offset / UNIT) as u32;
                        prop_assert!(start + len <= units);
                        if let Some((&other, (size, _))) = used.range(..start + len).next_back() {
                            prop_assert!(other + size <= start, "it overlaps with {}", other);
                        }
                        prop_assert!(used.insert(start, (len, number)).is_none());
                    }
                    None => {
                        // There never are as many free extents as may be tried.
                        let fits = |&(_, size): &(u32, u32)| size >= len;
                        prop_assert!(free.len() > TRIES || !free.iter().any(fits));
                    }
                },
                Op::Free(index) if !used.is_empty() => {
                    let start = *index.get(&used.keys().copied().collect::<Vec<_>>());
                    let (_, number) = used.remove(&start).unwrap();
                    allocator.free(number);
                }
                Op::Free(_) => (),
            }
            prop_assert_eq!(allocator.n_used, used.len() as u32);
        }
        for (_, number) in used.into_values() {
            allocator.free(number);
        }
        prop_assert_eq!(allocator.assert_invariants(), [(0, units)]);
        prop_assert!(reserve(&mut allocator, u64::from(units) * UNIT).is_some());
    }
}

/// Otherwise each round of such slices would go further up, and touch more memory.
#[test]
fn a_hole_of_exactly_the_right_size_is_filled() {
    for len in 1..300 {
        let mut allocator = new(1 << 20);
        let first = reserve(&mut allocator, 8 * len).unwrap();
        reserve(&mut allocator, 8).unwrap();
        allocator.free(first);
        let again = reserve(&mut allocator, 8 * len).unwrap();
        assert_eq!(allocator.offset(again), 0, "{len} units");
    }
}
