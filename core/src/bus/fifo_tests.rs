// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The list against a plain queue, over random steps.

use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::testing::Test;
use super::*;

/// Puts one in; its bytes are its timestamp.
fn push(fifo: &mut Fifo<Test>, at: u64) {
    let mut message = Message::blank().unwrap();
    message.cargo.n_bytes = at;
    fifo.push(at, message);
}

fn bytes(body: Body<Test>) -> u64 {
    match body {
        Body::Data(message) => message.cargo.n_bytes,
        _ => unreachable!(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn first_in_is_first_out(steps in prop::collection::vec((0..5u8, 2..7u64), 0..200)) {
        let (mut fifo, mut model) = (Fifo::<Test>::EMPTY, VecDeque::new());
        let mut clock = 0;
        for (step, n) in steps {
            match step {
                0..=2 => {
                    clock += n;
                    push(&mut fifo, clock);
                    model.push_back(clock);
                }
                3 => prop_assert_eq!(fifo.pop().map(bytes), model.pop_front()),
                _ => {
                    let mut stale = fifo.sift(|message| message.at.is_multiple_of(n));
                    let stale = core::iter::from_fn(|| stale.pop()).map(|message| message.at);
                    let mut stale: Vec<u64> = stale.collect();
                    stale.reverse();
                    let (out, kept): (Vec<u64>, Vec<u64>) = model.into_iter().partition(|at| at.is_multiple_of(n));
                    model = kept.into();
                    prop_assert_eq!(stale, out);
                }
            }
            fifo.turn();
            prop_assert_eq!(fifo.first().map(|first| first.0), model.front().copied());
            prop_assert_eq!(fifo.count(), model.len());
        }
    }
}

#[test]
fn a_long_list_is_dropped_without_a_deep_stack() {
    let mut fifo = Fifo::<Test>::EMPTY;
    for at in 0..1_000_000 {
        push(&mut fifo, at);
    }
    drop(fifo.pop());
    drop(fifo);
}
