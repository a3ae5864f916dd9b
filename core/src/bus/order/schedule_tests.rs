// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The order as a whole: transactions over several queues take their steps in random schedules, and
//! all queues agree on an order that is consistent and causal.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A transaction of the random schedules: its queues, and which steps it took.
struct Run {
    queues: Vec<usize>,
    transaction: Arc<Transaction>,
    step: usize,
    top: u64,
    /// The time its first step was made, and the time after its last.
    began: usize,
    ended: usize,
}

impl Run {
    /// Takes the next step; false if there is none.
    fn advance(&mut self, benches: &mut [Bench], id: u64, now: usize) -> bool {
        let n = self.queues.len();
        if self.step == 0 {
            self.began = now;
        }
        match self.step {
            step if step < n => {
                let bench = &mut benches[self.queues[step]];
                if n == 1 {
                    bench.push(id);
                    self.step = 2;
                    self.ended = now;
                    return true;
                }
                self.top = self.top.max(bench.stage_some(&self.transaction, 0, id));
            }
            step if step < 2 * n => benches[self.queues[step - n]].queue.raise(self.top),
            step if step == 2 * n => {
                assert!(self.transaction.commit(self.top));
                self.ended = now;
            }
            _ => return false,
        }
        self.step += 1;
        true
    }
}

const QUEUES: usize = 3;

/// Returns the queues of a transaction, in the order in which it stages there.
fn queues() -> impl Strategy<Value = Vec<usize>> {
    let all = Just((0..QUEUES).collect::<Vec<_>>()).prop_shuffle();
    (all, 1..=QUEUES).prop_map(|(mut all, n)| {
        all.truncate(n);
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_is_consistent_and_causal(
        plans in prop::collection::vec(queues(), 1..8),
        // The actor of each step; the last three numbers are receivers.
        schedule in prop::collection::vec(0..11usize, 0..150),
    ) {
        let mut benches: Vec<Bench> = (0..QUEUES).map(|_| Bench::new()).collect();
        let mut runs: Vec<Run> = plans
            .into_iter()
            .enumerate()
            .map(|(i, queues)| Run {
                queues,
                transaction: transaction(100 - i as u64),
                step: 0,
                top: 0,
                began: usize::MAX,
                ended: usize::MAX,
            })
            .collect();
        let mut received = [const { Vec::new() }; QUEUES];
        let mut now = 0;
        for actor in schedule {
            now += 1;
            if actor >= 8 {
                received[actor - 8].extend(benches[actor - 8].take());
            } else if let Some(run) = runs.get_mut(actor) {
                run.advance(&mut benches, actor as u64, now);
            }
        }
        for (id, run) in runs.iter_mut().enumerate() {
            now += 1;
            while run.advance(&mut benches, id as u64, now) {}
        }
        let mut places: Vec<BTreeMap<u64, usize>> = Vec::new();
        for (bench, mut received) in benches.iter_mut().zip(received) {
            received.extend(bench.take_all());
            places.push(received.into_iter().zip(0..).collect());
        }
        for (i, a) in runs.iter().enumerate() {
            for q in &a.queues {
                prop_assert!(places[*q].contains_key(&(i as u64)), "{} is lost", i);
            }
            for (j, b) in runs.iter().enumerate().filter(|(j, _)| *j != i) {
                let common = a.queues.iter().filter(|q| b.queues.contains(q));
                let orders = common.map(|&q| places[q][&(i as u64)] < places[q][&(j as u64)]);
                let orders: Vec<bool> = orders.collect();
                prop_assert!(orders.windows(2).all(|pair| pair[0] == pair[1]), "{} and {}", i, j);
                if a.ended < b.began {
                    prop_assert!(orders.iter().all(|before| *before), "{} before {}", i, j);
                }
            }
        }
    }
}
