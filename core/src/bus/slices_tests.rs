// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The allocator of slices against a naive model: a list of what is in use.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn new(size: u64) -> Slices {
    Slices::new(size, Slices::array(8).unwrap()).unwrap()
}

/// Reserves, with a larger array where it takes one.
fn reserve(slices: &mut Slices, size: u64) -> Option<u32> {
    loop {
        match slices.reserve(size) {
            Ok(number) => return Some(number),
            Err(Denied::Error(EXFULL)) => return None,
            Err(Denied::Array(n)) => {
                assert!(n > slices.extents.len());
                let old = slices.grow(Slices::array(n).unwrap());
                assert!(old.0.capacity() < n);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// The invariants of the head, and the bins. Returns what is free, as start and length.
fn check(slices: &Slices) -> Vec<(u32, u32)> {
    let (mut free, mut n, mut used) = (Vec::new(), 0, 0);
    // With what was freed last, and would melt.
    let mut all_free: Vec<(u32, u32)> = Vec::new();
    let first = |extent: &Extent| extent.len != 0 && extent.prev == NONE;
    let first = slices.extents.iter().position(first).unwrap();
    let (mut i, mut before, mut at, mut was_free) = (first as u32, NONE, 0, false);
    while i != NONE {
        let extent = slices.extents[i as usize];
        assert_eq!((extent.start, extent.prev), (at, before));
        assert_ne!(extent.len, 0);
        if extent.holder == FREE || i == slices.warm {
            match all_free.last_mut() {
                Some((start, len)) if *start + *len == at => *len += extent.len,
                _ => all_free.push((at, extent.len)),
            }
        }
        assert!(
            !(extent.holder == FREE && was_free),
            "two free neighbours at {at}"
        );
        if extent.holder == FREE {
            free.push((extent.start, extent.len));
        } else {
            used += u32::from(i != slices.warm);
        }
        n += 1;
        (before, at, was_free) = (i, at + extent.len, extent.holder == FREE);
        i = extent.next;
    }
    assert_eq!(used, slices.used);

    let mut hanging = Vec::new();
    for (bin, &first) in slices.heads[..BINS].iter().enumerate() {
        assert_eq!(first != NONE, slices.filled & 1 << bin != 0);
        let (mut i, mut before) = (first, NONE);
        while i != NONE {
            let extent = slices.extents[i as usize];
            assert!(extent.holder == FREE);
            assert_eq!((bin_of(extent.len), extent.hang_prev), (bin, before));
            hanging.push((extent.start, extent.len));
            (before, i) = (i, extent.hang_next);
        }
    }
    hanging.sort_unstable();
    assert_eq!(hanging, free);

    let mut i = slices.unused;
    while i != NONE {
        n += 1;
        i = slices.extents[i as usize].hang_next;
    }
    assert_eq!(n, slices.extents.len(), "an element of the array is lost");
    all_free
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
        // Whatever hangs in a bin from there on is long enough.
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
        let mut slices = new(size);
        assert_eq!(slices.reserve(size + 8), Err(Denied::Error(EXFULL)));
        let all = reserve(&mut slices, size).unwrap();
        assert_eq!(slices.offset(all), 0);
        assert_eq!(slices.reserve(8), Err(Denied::Error(EXFULL)));
        slices.free(all);
        assert_eq!(check(&slices), [(0, (size / 8) as u32)]);
    }
}

#[test]
fn sizes_beyond_the_space_are_refused() {
    let mut slices = new(1 << 32);
    for size in [(1 << 32) + 8, 1 << 35, 1 << 40, !7] {
        assert_eq!(slices.reserve(size), Err(Denied::Error(EXFULL)));
    }
    check(&slices);
}

#[test]
fn the_array_grows_only_when_asked_to() {
    let mut slices = new(1 << 20);
    let before = slices.extents.capacity();
    let mut numbers = Vec::new();
    let n = loop {
        match slices.reserve(8) {
            Ok(number) => numbers.push(number),
            Err(full) => break full,
        }
    };
    assert_eq!(slices.extents.capacity(), before);
    assert_eq!(n, Denied::Array(2 * before));
    check(&slices);
    // One that is too small is given back.
    let small = slices.grow(Slices::array(2).unwrap());
    assert!(small.0.capacity() < before);
    let old = slices.grow(Slices::array(2 * before).unwrap());
    assert_eq!(old.0.capacity(), before);
    numbers.push(slices.reserve(8).unwrap());
    for (i, number) in numbers.into_iter().enumerate() {
        assert_eq!(slices.offset(number), 8 * i as u64);
        slices.free(number);
    }
    assert_eq!(check(&slices), [(0, 1 << 17)]);
}

#[test]
fn an_element_is_used_again() {
    let mut slices = new(1 << 20);
    for _ in 0..1000 {
        let (a, b) = (slices.reserve(64).unwrap(), slices.reserve(8).unwrap());
        slices.free(a);
        slices.free(b);
    }
    assert!(slices.extents.len() <= 3);
    check(&slices);
}

#[test]
fn a_slice_that_was_freed_is_the_first_to_be_used_again() {
    let mut slices = new(1 << 20);
    let numbers: Vec<u32> = (0..6).filter_map(|_| reserve(&mut slices, 64)).collect();
    let offset = slices.offset(numbers[3]);
    slices.free(numbers[1]);
    slices.free(numbers[3]);
    let again = reserve(&mut slices, 64).unwrap();
    assert_eq!(slices.offset(again), offset);
}

/// A full space, but for `n` free extents of `short` units, and one of `last`, which is looked at
/// last.
fn fragments(n: usize, short: u32, last: u32) -> Slices {
    let mut slices = new(1 << 24);
    let mut holes = Vec::new();
    for i in 0..=n {
        let len = if i == 0 { last } else { short };
        holes.push(reserve(&mut slices, u64::from(len) * 8).unwrap());
        reserve(&mut slices, 8).unwrap();
    }
    while reserve(&mut slices, 1 << 16).is_some()
        || reserve(&mut slices, 1 << 10).is_some()
        || reserve(&mut slices, 8).is_some()
    {}
    assert_eq!(check(&slices), []);
    // What is freed last is looked at first.
    for hole in holes {
        slices.free(hole);
    }
    slices.cool();
    slices
}

#[test]
fn a_fit_in_the_bin_below_is_found_within_the_tries() {
    // 33 and 39 units hang in one bin.
    let mut slices = fragments(TRIES - 1, 33, 39);
    assert!(reserve(&mut slices, 39 * 8).is_some());
    let mut slices = fragments(TRIES, 33, 39);
    assert!(
        reserve(&mut slices, 39 * 8).is_none(),
        "only so many are tried"
    );
    // What is sure to fit is found in any case.
    assert!(reserve(&mut slices, 32 * 8).is_some());
    check(&slices);
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
    fn slices_never_overlap_and_melt_together(
        units in prop_oneof![1..64u32, 1..2000u32],
        ops in ops(),
    ) {
        let mut slices = new(u64::from(units) * UNIT);
        // By start: length and number.
        let mut used: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for op in ops {
            let free = check(&slices);
            match op {
                Op::Reserve(len) => match reserve(&mut slices, u64::from(len) * UNIT) {
                    Some(number) => {
                        let offset = slices.offset(number);
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
                    slices.free(number);
                }
                Op::Free(_) => (),
            }
            prop_assert_eq!(slices.used, used.len() as u32);
        }
        for (_, number) in used.into_values() {
            slices.free(number);
        }
        prop_assert_eq!(check(&slices), [(0, units)]);
        prop_assert!(reserve(&mut slices, u64::from(units) * UNIT).is_some());
    }
}

/// What the user was given is found by its offset, once, also after the array grew.
#[test]
fn what_was_given_is_taken_back_by_its_offset() {
    let payer = 2;
    let mut slices = new(1 << 16);
    let mut all = Vec::new();
    for i in 0..100 {
        let size = 8 * (1 + i % 5);
        let number = reserve(&mut slices, size).unwrap();
        let slice = Slice {
            number,
            offset: slices.offset(number),
            size,
            payer,
        };
        assert!(slices.take_back(slice.offset).is_none());
        // Some are still on their way.
        if i % 3 != 0 {
            slices.give(&slice);
            all.push(slice);
        }
        assert_eq!(slices.is_given(number), i % 3 != 0);
    }
    all.reverse();
    all.swap(3, 40);
    let rest = all.split_off(50);
    for slice in all {
        assert!(slices.take_back(slice.offset + 1).is_none());
        assert_eq!(slices.take_back(slice.offset), Some(slice));
        assert!(slices.take_back(slice.offset).is_none());
        slices.free(slice.number);
        check(&slices);
    }
    let mut from = 0;
    for _ in 0..rest.len() {
        let slice = slices.take_back_from(&mut from).unwrap();
        assert!(rest.contains(&slice));
        slices.free(slice.number);
    }
    assert!(slices.take_back_from(&mut from).is_none());
    assert_eq!(slices.used, 34);
}

/// Once, the hash kept the low bits, which slices of the same large size have in common.
#[test]
fn large_slices_do_not_crowd_one_chain() {
    for (n, size) in [(250, 16 << 20), (4000, 1 << 20), (4096, 64 << 10)] {
        let mut slices = new(1 << 32);
        for _ in 0..n {
            let number = reserve(&mut slices, size).unwrap();
            let slice = Slice {
                number,
                offset: slices.offset(number),
                size,
                payer: 1,
            };
            slices.give(&slice);
        }
        for &head in &slices.heads[BINS..] {
            let (mut i, mut length) = (head, 0);
            while i != NONE {
                (i, length) = (slices.extents[i as usize].hang_next, length + 1);
            }
            assert!(length <= 4, "{length} of {n} slices of {size} bytes");
        }
    }
}
