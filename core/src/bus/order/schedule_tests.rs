// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The order as a whole: transactions over several queues take their steps in random schedules, in
//! which makers stop for ever and others are killed. All queues agree on an order that is
//! consistent and causal, and nothing that was committed is kept back.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The state of a transaction of the random schedules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The number of parts that are staged.
    Staging(usize),
    Committed,
    /// Its parts from this one on are still to be taken back.
    Killed(usize),
    Over,
}

/// A transaction of the random schedules.
struct Run {
    /// The queue of each part.
    parts: Vec<usize>,
    transaction: Arc<Transaction>,
    state: State,
    at: u64,
    /// Runs that ended, or were seen, before this one began.
    causes: BTreeSet<u64>,
}

/// All queues, and what was received from them.
struct Scene {
    tests: Vec<TestQueue>,
    runs: Vec<Run>,
    /// The runs in the order in which each queue delivered them, once per part.
    received: Vec<Vec<u64>>,
    ended: BTreeSet<u64>,
}

impl Scene {
    fn run(&mut self, id: u64) -> &mut Run {
        &mut self.runs[id as usize / 2]
    }

    /// Has a run take its next step.
    fn advance(&mut self, id: u64) {
        let Self {
            tests, runs, ended, ..
        } = self;
        let run = &mut runs[id as usize / 2];
        match run.state {
            State::Staging(0) => run.causes.extend(ended.iter()),
            State::Staging(_) | State::Committed | State::Killed(_) | State::Over => (),
        }
        run.state = match run.state {
            State::Staging(0) if run.parts.len() == 1 => {
                tests[run.parts[0]].push(id);
                State::Committed
            }
            State::Staging(n) if n < run.parts.len() => {
                let test = &mut tests[run.parts[n]];
                let behind = test.stage_some(&run.transaction, n as u32, id);
                run.at = run.at.max(behind);
                State::Staging(n + 1)
            }
            State::Staging(_) => match run.transaction.commit(run.at) {
                Some(_) => State::Committed,
                None => State::Killed(0),
            },
            State::Committed => {
                ended.insert(id);
                State::Over
            }
            State::Killed(n) if n < run.parts.len() => {
                let place = run.transaction.staged_key(n as u32);
                assert!(tests[run.parts[n]].queue.unstage(&place).is_some());
                State::Killed(n + 1)
            }
            State::Killed(_) | State::Over => State::Over,
        };
    }

    /// Receives one entry from a queue, if there is one, and acts on it: the next run is later.
    fn receive(&mut self, queue: usize, next: Option<u64>) {
        let Some(id) = self.tests[queue].take() else {
            // Nothing that was committed is kept back.
            for run in &self.runs {
                let here = run.parts.iter().filter(|&&part| part == queue).count();
                let is_committed = run.transaction.committed_at().is_some();
                if is_committed && run.parts.len() > 1 {
                    let id = run.transaction.number.count;
                    let got = self.received[queue].iter().filter(|&&got| got == id);
                    assert_eq!(got.count(), here, "{id} is kept back");
                }
            }
            return;
        };
        self.received[queue].push(id);
        // What a run was caused by is received before it.
        for cause in self.run(id).causes.clone() {
            let parts = &self.run(cause).parts;
            if parts.contains(&queue) {
                assert!(self.received[queue].contains(&cause), "{cause} after {id}");
            }
        }
        if let Some(next) = next.map(|next| self.run(next)) {
            if next.state == State::Staging(0) {
                next.causes.insert(id);
            }
        }
    }
}

const QUEUES: usize = 3;
const RUNS: usize = 8;

/// Returns the queues of the parts of a transaction, in their order.
fn parts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..QUEUES, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 2048,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_order_is_consistent_causal_and_never_kept_back(
        plans in prop::collection::vec((parts(), any::<bool>()), RUNS),
        // The actor of each step: a run, then the receivers, then a killer.
        schedule in prop::collection::vec((0..RUNS + QUEUES + 1, 0..RUNS), 0..200),
    ) {
        let runs = plans.into_iter().zip(0..).map(|((parts, is_notice), n)| {
            // Notices have odd IDs.
            let id = 2 * n + u64::from(is_notice);
            Run {
                parts,
                transaction: transaction(id),
                state: State::Staging(0),
                at: 0,
                causes: BTreeSet::new(),
            }
        });
        let mut scene = Scene {
            runs: runs.collect(),
            tests: (0..QUEUES).map(|_| TestQueue::new()).collect(),
            received: vec![Vec::new(); QUEUES],
            ended: BTreeSet::new(),
        };
        for (actor, other) in schedule {
            let other = scene.runs[other].transaction.number.count;
            if actor < RUNS {
                let id = scene.runs[actor].transaction.number.count;
                scene.advance(id);
            } else if actor < RUNS + QUEUES {
                scene.receive(actor - RUNS, Some(other));
            } else if scene.run(other).parts.len() > 1 {
                scene.run(other).transaction.kill();
            }
        }
        // Those that are not over never run again.
        for queue in 0..QUEUES {
            while scene.tests[queue].head().is_some() {
                scene.receive(queue, None);
            }
            scene.receive(queue, None);
        }
        let places: Vec<BTreeMap<u64, usize>> = scene
            .received
            .iter()
            .map(|received| {
                let mut apart = received.clone();
                apart.dedup();
                let places: BTreeMap<_, _> = apart.iter().copied().zip(0..).collect();
                assert_eq!(places.len(), apart.len(), "parts are not consecutive");
                places
            })
            .collect();
        for a in &scene.runs {
            for b in &scene.runs {
                let (a, b) = (a.transaction.number.count, b.transaction.number.count);
                let orders: BTreeSet<bool> = places
                    .iter()
                    .filter_map(|places| Some(places.get(&a)? < places.get(&b)?))
                    .collect();
                prop_assert!(orders.len() < 2, "{a} and {b}");
            }
        }
    }
}
