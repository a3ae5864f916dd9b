// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Random claims, releases, recalls, waits and ends of peers: both levels agree, nobody keeps
//! credit of an account with waits, and in the end all is zero.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Claim(usize, u64, Amounts),
    Release(usize, u64, u64),
    Recall,
    Close(usize),
    /// Begins or ends a wait for room, of the peer's level or of the user's.
    Wait(usize, Level),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let amounts = [0..4u64, 0..60, 0..3000, 0..20];
    let level = prop_oneof![Just(Level::Peer), Just(Level::User)];
    let op = prop_oneof![
        12 => (0..3usize, 0..8u64, amounts).prop_map(|(at, peer, a)| Op::Claim(at, peer, a)),
        12 => (0..3usize, 0..8u64, 0..=16u64).prop_map(|(at, peer, n)| Op::Release(at, peer, n)),
        1 => Just(Op::Recall),
        1 => (0..3usize).prop_map(Op::Close),
        1 => (0..3usize, level).prop_map(|(at, level)| Op::Wait(at, level)),
    ];
    prop::collection::vec(op, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_levels_agree_and_end_at_zero(ops in ops(), limit in 2000..40000u64, times in 1..9u64) {
        let mut bench = Bench::with(limit, limit * times, 3);
        let mut held: BTreeMap<(usize, u64), Amounts> = BTreeMap::new();
        let (mut waits_here, mut waits) = ([false; 3], false);
        for op in ops {
            match op {
                Op::Claim(at, peer, amounts) => {
                    let claimant = claimant([OWNER, OWNER, 1, 1, 1, 2, 3, 3][peer as usize], peer);
                    if bench.claim(at, claimant, &amounts) {
                        add(held.entry((at, peer)).or_insert(NOTHING), &amounts);
                    }
                }
                Op::Release(at, peer, part) => {
                    if let Some(held) = held.get_mut(&(at, peer)) {
                        let amounts = held.map(|held| held * part / 16);
                        subtract(held, &amounts);
                        if amounts != NOTHING {
                            bench.ledgers[at].release(peer, &amounts);
                        }
                    }
                }
                Op::Recall => drop(bench.recall_all()),
                Op::Close(at) => {
                    let fresh = bench.ledger(bench.ledgers[at].peer);
                    bench.recall(at..at + 1);
                    core::mem::replace(&mut bench.ledgers[at], fresh).close().end();
                    held.retain(|&(other, _), _| other != at);
                    waits_here[at] = false;
                }
                Op::Wait(at, level) => {
                    let waits = match level {
                        Level::Peer => &mut waits_here[at],
                        _ => &mut waits,
                    };
                    *waits = !*waits;
                    if !*waits {
                        bench.ledgers[at].end_wait(level);
                    } else if bench.ledgers[at].begin_wait(level) != 0 {
                        bench.recall_all();
                    }
                }
            }
            bench.assert_invariants();
            let mut sum = NOTHING;
            for (at, ledger) in bench.ledgers.iter().enumerate() {
                let mut own = NOTHING;
                for (_, amounts) in held.range((at, 0)..(at + 1, 0)) {
                    add(&mut own, amounts);
                }
                prop_assert_eq!(used(ledger), own);
                if waits || waits_here[at] {
                    prop_assert_eq!(ledger.account.used, own, "nobody keeps credit");
                }
                add(&mut sum, &own);
            }
            prop_assert!(sum.iter().all(|&sum| sum <= limit * times));
        }
        for ((at, peer), amounts) in held {
            if amounts != NOTHING {
                bench.ledgers[at].release(peer, &amounts);
            }
        }
        bench.recall_all();
        let used = bench.user.account.lock().account.used;
        prop_assert_eq!(used, NOTHING, "a recall returns all that is not held");
        bench.end();
    }
}
