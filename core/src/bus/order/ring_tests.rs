// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The ring against a plain queue, over random steps; holes; positions that wrap.

use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const SIZE: usize = 16;

fn ring() -> Ring<u64> {
    let mut ring = Ring::EMPTY;
    drop(ring.grow(Ring::new(SIZE).unwrap()));
    ring
}

fn message(n: u64) -> KBox<u64> {
    KBox::new(n, GFP_KERNEL).unwrap()
}

/// Counts the messages.
fn count(ring: &Ring<u64>) -> usize {
    let (mut from, mut n) = (ring.head, 0);
    while let Some(here) = ring.seek(from) {
        n += usize::from(ring.get(here).is_some());
        from = here.wrapping_add(1);
    }
    n
}

/// Takes all messages out that `n` divides, as a purge does.
fn purge(ring: &mut Ring<u64>, n: u64) -> Vec<u64> {
    let mut out = Vec::new();
    let mut from = ring.head;
    while let Some(here) = ring.seek(from) {
        from = here.wrapping_add(1);
        if ring.get(here).is_some_and(|at| at.is_multiple_of(n)) {
            out.push(*ring.remove(here).unwrap());
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_queue_with_holes(steps in prop::collection::vec((0..7u8, 2..7u64), 0..300)) {
        let (mut ring, mut model) = (ring(), VecDeque::new());
        let (mut room, mut high) = (SIZE, 0);
        for (step, n) in steps {
            match step {
                0..=3 if model.len() < room => {
                    high += n;
                    ring.push(message(high));
                    model.push_back(high);
                }
                4 => {
                    let (out, kept): (Vec<u64>, Vec<u64>) =
                        model.into_iter().partition(|at| at.is_multiple_of(n));
                    model = kept.into();
                    prop_assert_eq!(purge(&mut ring, n), out);
                }
                5 if n == 6 => {
                    room *= 2;
                    drop(ring.grow(Ring::new(room).unwrap()));
                    // Slots that are no more are given back.
                    prop_assert_eq!(ring.grow(Ring::new(room).unwrap()).slots.len(), room);
                }
                _ => prop_assert_eq!(ring.pop().map(|at| *at), model.pop_front()),
            }
            prop_assert_eq!(ring.first(), model.front());
            prop_assert!(ring.last().is_none() || ring.last() == model.back());
            prop_assert_eq!(count(&ring), model.len());
        }
    }
}

#[test]
fn holes_take_no_room() {
    let mut ring = ring();
    ring.push(message(1));
    for at in 2..1000 {
        ring.push(message(2 * at));
        if count(&ring) == SIZE {
            assert_eq!(purge(&mut ring, 2).len(), SIZE - 1);
        }
    }
    assert_eq!(ring.first(), Some(&1));
}

#[test]
fn positions_wrap_around() {
    let mut ring = ring();
    (ring.head, ring.tail) = (u32::MAX - 2, u32::MAX - 2);
    (1..10).for_each(|at| ring.push(message(at)));
    drop(ring.grow(Ring::new(2 * SIZE).unwrap()));
    assert_eq!(purge(&mut ring, 3), [3, 6, 9]);
    assert_eq!(ring.seek(u32::MAX - 9), Some(ring.head));
    let all: Vec<u64> = core::iter::from_fn(|| ring.pop()).map(|at| *at).collect();
    assert_eq!(all, [1, 2, 4, 5, 7, 8]);
    assert_eq!(ring.seek(ring.head), None);
}

#[test]
fn without_memory_there_is_nothing() {
    let mut ring = Ring::<u64>::EMPTY;
    assert!(ring.first().is_none() && ring.pop().is_none());
    assert_eq!((ring.seek(0), count(&ring)), (None, 0));
}
