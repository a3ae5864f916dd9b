// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The ring against a plain queue, over random steps; holes; positions that wrap.

use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::testing::Test;
use super::*;

const SIZE: usize = 16;

fn fifo() -> Fifo<Test> {
    let mut fifo = Fifo::EMPTY;
    drop(fifo.grow(Fifo::ring(SIZE).unwrap()));
    fifo
}

fn message(at: u64) -> KBox<Message<Test>> {
    let mut message = Message::blank().unwrap();
    message.key.0 = at;
    message
}

fn at(body: &Body<Test>) -> u64 {
    match body {
        Body::Data(message) => message.key.0,
        _ => unreachable!(),
    }
}

fn first(fifo: &Fifo<Test>) -> Option<u64> {
    Some(fifo.first()?.0 .0)
}

/// Takes all out that can be divided by `n`, as a purge does.
fn purge(fifo: &mut Fifo<Test>, n: u64) -> Vec<u64> {
    let mut out = Vec::new();
    let mut from = fifo.head;
    while let Some(here) = fifo.seek(from) {
        from = here.wrapping_add(1);
        if fifo
            .get(here)
            .is_some_and(|body| at(body).is_multiple_of(n))
        {
            out.push(at(&fifo.remove(here).unwrap()));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_queue_with_two_ends(steps in prop::collection::vec((0..7u8, 2..7u64), 0..300)) {
        let (mut fifo, mut model) = (fifo(), VecDeque::new());
        let (mut room, mut low, mut high) = (SIZE, 1 << 32, 1 << 32);
        for (step, n) in steps {
            match step {
                0..=2 if model.len() < room => {
                    high += n;
                    fifo.push(message(high));
                    model.push_back(high);
                }
                3 if model.len() < room => {
                    low -= n;
                    fifo.push_first(message(low));
                    model.push_front(low);
                }
                4 => {
                    let (out, kept): (Vec<u64>, Vec<u64>) =
                        model.into_iter().partition(|at| at.is_multiple_of(n));
                    model = kept.into();
                    prop_assert_eq!(purge(&mut fifo, n), out);
                }
                5 if n == 6 => {
                    room *= 2;
                    drop(fifo.grow(Fifo::ring(room).unwrap()));
                    // One that is no larger is given back.
                    prop_assert_eq!(fifo.grow(Fifo::ring(room).unwrap()).len(), room);
                }
                _ => prop_assert_eq!(fifo.pop().map(|body| at(&body)), model.pop_front()),
            }
            prop_assert_eq!(first(&fifo), model.front().copied());
            prop_assert_eq!(fifo.count(), model.len());
        }
    }
}

#[test]
fn holes_are_in_nobodys_way() {
    let mut fifo = fifo();
    fifo.push(message(1));
    for at in 2..1000 {
        fifo.push(message(2 * at));
        if fifo.count() == SIZE {
            assert_eq!(purge(&mut fifo, 2).len(), SIZE - 1);
        }
    }
    assert_eq!(first(&fifo), Some(1));
}

#[test]
fn positions_wrap_around() {
    let mut fifo = fifo();
    (fifo.head, fifo.tail) = (u32::MAX - 2, u32::MAX - 2);
    (1..10).for_each(|at| fifo.push(message(at)));
    drop(fifo.grow(Fifo::ring(2 * SIZE).unwrap()));
    assert_eq!(purge(&mut fifo, 3), [3, 6, 9]);
    assert_eq!(fifo.seek(u32::MAX - 9), Some(fifo.head));
    let all: Vec<u64> = core::iter::from_fn(|| fifo.pop())
        .map(|body| at(&body))
        .collect();
    assert_eq!(all, [1, 2, 4, 5, 7, 8]);
    assert_eq!(fifo.seek(fifo.head), None);
}

#[test]
fn without_memory_there_is_nothing() {
    let mut fifo = Fifo::<Test>::EMPTY;
    assert!(fifo.first().is_none() && fifo.pop().is_none());
    assert_eq!((fifo.seek(0), fifo.count()), (None, 0));
}
