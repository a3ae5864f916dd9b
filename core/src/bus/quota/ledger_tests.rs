// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Booking on two levels: credit keeps no claimant from anything, and all of it comes back.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::bus::quota::account::Claim;
use crate::bus::quota::resource::{BYTES, FDS, HANDLES, SLICES};

const OWNER: u32 = 7;
/// Large enough for batches, of 16.
const LIMIT: u32 = 65536;

fn limits(n: u32) -> Limits {
    [n; NOTHING.len()]
}

fn claimant(uid: u32, peer: u64) -> Claimant {
    Claimant { uid, peer }
}

/// A user with the ledgers of some peers.
struct Bench {
    user: Arc<User>,
    ledgers: Vec<Ledger>,
}

impl Bench {
    fn new(limit: u32, peers: usize) -> Self {
        let user = User::new(OWNER, limits(limit)).unwrap();
        let ledger = |_| Ledger::new(user.clone(), limits(limit));
        let ledgers = (0..peers).map(ledger).collect();
        Self { user, ledgers }
    }

    /// Claims at a peer, with reservations where the claimant needs them, and without a recall.
    fn try_claim(
        &mut self,
        at: usize,
        claimant: Claimant,
        amounts: &Amounts,
    ) -> Result<(), QuotaError> {
        let mut reservation = LedgerReservation::default();
        loop {
            match self.ledgers[at].claim(claimant, amounts, Some(&mut reservation)) {
                Err(QuotaError::NeedsReservation) => {
                    reservation = LedgerReservation::new().unwrap();
                }
                result => return result,
            }
        }
    }

    /// Claims at a peer as a sender does: recalls idle credit once if that may help.
    fn claim(&mut self, at: usize, claimant: Claimant, amounts: &Amounts) -> bool {
        let mut result = self.try_claim(at, claimant, amounts);
        if result == Err(QuotaError::RefusedUntilRecall) && self.user.has_credit() {
            self.ledgers.iter_mut().for_each(Ledger::recall);
            result = self.try_claim(at, claimant, amounts);
        }
        result.is_ok()
    }

    /// Lets each claimant in turn take all that it can get, at peer after peer.
    fn fill(&mut self, table: &[(u32, u64, u64)], one_by_one: bool) {
        let n = self.ledgers.len();
        for (i, &(uid, peer, most)) in table.iter().enumerate() {
            let (at, claimant) = (i % n, claimant(uid, peer));
            if one_by_one {
                for _ in 0..most {
                    assert!(self.claim(at, claimant, &only(BYTES, 1)), "{claimant:?}");
                }
            } else {
                assert!(
                    !self.claim(at, claimant, &only(BYTES, most + 1)),
                    "{claimant:?}"
                );
                assert!(self.claim(at, claimant, &only(BYTES, most)), "{claimant:?}");
            }
            for at in 0..n {
                assert!(
                    !self.claim(at, claimant, &only(BYTES, 1)),
                    "{claimant:?} got more"
                );
            }
            self.assert_invariants();
        }
    }

    /// Asserts that the user's account has the amounts that the peers' claimants hold, and that no
    /// claimant keeps more credit than two batches.
    fn assert_invariants(&mut self) {
        let mut drawn = BTreeMap::new();
        let mut keepers = 0;
        let user = self.user.clone();
        for ledger in &mut self.ledgers {
            let mut here = 0;
            for (claimant, claim) in ledger.account.claims() {
                add(drawn.entry(claimant.peer).or_insert(NOTHING), &claim.held);
                for r in 0..NOTHING.len() {
                    assert!(claim.credit[r] <= claim.held[r].min(2 * user.batch[r]));
                }
                assert!(claim.keeps || claim.credit == NOTHING);
                here += u32::from(claim.keeps);
            }
            assert_eq!(ledger.account.keepers, here);
            keepers += here;
        }
        let books = user.account.lock();
        assert_eq!(books.account.keepers, keepers);
        for (claimant, claim) in books.account.claims() {
            let drawn = drawn.remove(&claimant.peer).unwrap_or(NOTHING);
            assert_eq!(claim.held, drawn, "{claimant:?}");
        }
        drawn.retain(|_, amounts| *amounts != NOTHING);
        assert!(drawn.is_empty());
    }

    /// Closes all ledgers, and asserts that nothing is left on the user.
    fn end(mut self) {
        for ledger in &mut self.ledgers {
            ledger.close();
        }
        let books = self.user.account.lock();
        assert_eq!(books.account.keepers, 0);
        assert!(books.account.is_unused());
        assert_eq!(books.account.used(), NOTHING);
    }
}

/// The numbers of the contract, on a limit 64 times as large.
const OWN: [(u32, u64, u64); 2] = [(OWNER, 1, 32768), (OWNER, 2, 16384)];
const FOREIGN: [(u32, u64, u64); 4] = [
    (100, 3, 8192),
    (100, 4, 4096),
    (200, 5, 2730),
    (200, 6, 1365),
];

#[test]
fn batches_make_the_worked_numbers_neither_larger_nor_smaller() {
    for peers in 1..4 {
        for table in [&OWN[..], &FOREIGN[..]] {
            for one_by_one in [false, true] {
                let mut bench = Bench::new(LIMIT, peers);
                bench.fill(table, one_by_one);
                bench.end();
            }
        }
    }
}

#[test]
fn idle_credit_keeps_no_claimant_from_anything() {
    let mut bench = Bench::new(LIMIT, 3);
    // Many own and foreign claimants take a lot and release all of it; their credit stays.
    for peer in 10..110 {
        let claimant = claimant(if peer % 2 == 0 { OWNER } else { peer as u32 }, peer);
        for at in 0..3 {
            for amount in [1, 500, 1] {
                assert!(bench.claim(at, claimant, &only(BYTES, amount)));
                bench.ledgers[at].release(claimant.peer, &only(BYTES, amount));
            }
        }
    }
    bench.assert_invariants();
    let idle = bench.user.account.lock().account.used()[BYTES];
    assert!(idle >= 100, "nothing is kept: {idle}");
    // Without a recall the credit is in the way.
    let refused = bench.try_claim(0, claimant(100, 3), &only(BYTES, 8192));
    assert_eq!(refused, Err(QuotaError::RefusedUntilRecall));
    bench.fill(&FOREIGN, false);
    bench.end();
}

#[test]
fn charges_that_come_and_go_do_not_touch_the_user() {
    let mut bench = Bench::new(LIMIT, 1);
    let claimant = claimant(100, 1);
    let amounts = [1, 3, 10, 2];
    assert!(bench.claim(0, claimant, &amounts));
    bench.ledgers[0].release(claimant.peer, &amounts);
    let drawn = bench.user.account.lock().account.used();
    for _ in 0..100 {
        assert!(bench.claim(0, claimant, &amounts));
        assert_eq!(bench.user.account.lock().account.used(), drawn);
        bench.ledgers[0].release(claimant.peer, &amounts);
        assert_eq!(bench.user.account.lock().account.used(), drawn);
    }
    bench.assert_invariants();
    bench.end();
}

#[test]
fn small_limits_are_booked_exactly() {
    let mut bench = Bench::new(4095, 2);
    let claimant = claimant(100, 1);
    for n in 1..=20 {
        assert!(bench.claim(1, claimant, &[n, 1, 2, 3]));
        assert_eq!(bench.user.account.lock().account.used(), [n, 1, 2, 3]);
        bench.ledgers[1].release(claimant.peer, &[n, 1, 2, 3]);
        assert_eq!(bench.user.account.lock().account.used(), NOTHING);
    }
    bench.end();
}

#[test]
fn a_refusal_of_either_level_leaves_nothing() {
    let mut bench = Bench::new(LIMIT, 2);
    bench.ledgers[0].set_limit(SLICES, 8);
    // The peer's own limit.
    let refused = bench.try_claim(0, claimant(100, 1), &[2, 1, 1, 1]);
    assert_eq!(refused, Err(QuotaError::Refused));
    assert_eq!(bench.ledgers[0].account.used(), NOTHING);
    assert_eq!(bench.user.account.lock().account.used(), NOTHING);
    // The user's: half of it is taken at the other peer.
    assert!(bench.claim(1, claimant(OWNER, 2), &only(HANDLES, 32768)));
    // No recall can help against amounts in use.
    let refused = bench.try_claim(0, claimant(OWNER, 3), &[1, 20000, 1, 1]);
    assert_eq!(refused, Err(QuotaError::Refused));
    assert_eq!(bench.ledgers[0].account.used(), NOTHING);
    bench.assert_invariants();
    bench.end();
}

#[test]
fn a_sweep_returns_credit() {
    let mut bench = Bench::new(LIMIT, 1);
    for peer in 1..200 {
        assert!(bench.claim(0, claimant(100, peer), &only(FDS, 1)));
        bench.ledgers[0].release(peer, &only(FDS, 1));
        bench.assert_invariants();
    }
    let idle = bench.user.account.lock().account.used()[FDS];
    // At most 32 claimants wait for the next sweep, with at most two batches each.
    assert!(idle <= 33 * 32, "{idle}");
    bench.end();
}

#[test]
fn peers_that_send_in_turn_stay_on_the_books() {
    let mut bench = Bench::new(1 << 24, 1);
    let mut send = |peers: core::ops::Range<u64>| {
        let mut swept = 0;
        for peer in peers {
            let before = bench.ledgers[0].account.claims().count();
            assert!(bench.claim(0, claimant(peer as u32 % 70, peer), &[1, 0, 9, 0]));
            bench.ledgers[0].release(peer, &[1, 0, 9, 0]);
            swept += usize::from(bench.ledgers[0].account.claims().count() < before);
        }
        (bench.ledgers[0].account.claims().count(), swept)
    };
    for _ in 0..4 {
        send(1..1001);
    }
    // All peers have entries now, and keep them.
    for _ in 0..3 {
        assert_eq!(send(1..1001), (1000, 0));
    }
    // They close, and others come once: the first sweep is as far off as there were peers.
    let (left, swept) = send(2000..6000);
    assert!(
        swept > 10 && left <= 65,
        "{left} entries after {swept} sweeps"
    );
    bench.assert_invariants();
    bench.end();
}

/// A peer's account may list a claimant that holds nothing and that a sweep of the user's account
/// dropped. Once, a debug build took that for a fault when the peer closed.
#[test]
fn a_peer_closes_that_lists_a_claimant_that_the_user_swept() {
    let mut bench = Bench::new(LIMIT, 2);
    assert!(bench.claim(0, claimant(100, 7), &only(FDS, 1)));
    bench.ledgers[0].release(7, &only(FDS, 1));
    bench.ledgers[0].recall();
    for peer in 10..100 {
        assert!(bench.claim(1, claimant(200, peer), &only(FDS, 1)));
    }
    let knows = |(claimant, _): (Claimant, &Claim)| claimant.peer == 7;
    assert!(bench.ledgers[0].account.claims().any(knows));
    assert!(!bench.user.account.lock().account.claims().any(knows));
    bench.end();
}

#[derive(Clone, Debug)]
enum Op {
    Claim(usize, u64, Amounts),
    Release(usize, u64, u64),
    Recall,
    Close(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let amounts = [0..4u64, 0..60, 0..3000, 0..20];
    let op = prop_oneof![
        12 => (0..3usize, 0..8u64, amounts).prop_map(|(at, peer, a)| Op::Claim(at, peer, a)),
        12 => (0..3usize, 0..8u64, 0..=16u64).prop_map(|(at, peer, n)| Op::Release(at, peer, n)),
        1 => Just(Op::Recall),
        1 => (0..3usize).prop_map(Op::Close),
    ];
    prop::collection::vec(op, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_levels_agree_and_end_at_zero(ops in ops(), limit in 2000..40000u32) {
        let mut bench = Bench::new(limit, 3);
        let mut held: BTreeMap<(usize, u64), Amounts> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Claim(at, peer, amounts) => {
                    let claimant = claimant([OWNER, OWNER, 1, 1, 1, 2, 3, 3][peer as usize], peer);
                    if bench.claim(at, claimant, &amounts) {
                        add(held.entry((at, peer)).or_insert(NOTHING), &amounts);
                    }
                }
                Op::Release(at, peer, part) => {
                    let claimant = claimant([OWNER, OWNER, 1, 1, 1, 2, 3, 3][peer as usize], peer);
                    if let Some(held) = held.get_mut(&(at, peer)) {
                        let amounts = held.map(|held| held * part / 16);
                        subtract(held, &amounts);
                        bench.ledgers[at].release(claimant.peer, &amounts);
                    }
                }
                Op::Recall => bench.ledgers.iter_mut().for_each(Ledger::recall),
                Op::Close(at) => {
                    let fresh = Ledger::new(bench.user.clone(), limits(limit));
                    core::mem::replace(&mut bench.ledgers[at], fresh).close();
                    held.retain(|&(other, _), _| other != at);
                }
            }
            bench.assert_invariants();
            let mut sum = NOTHING;
            for (at, ledger) in bench.ledgers.iter().enumerate() {
                let mut own = NOTHING;
                for (_, amounts) in held.range((at, 0)..(at + 1, 0)) {
                    add(&mut own, amounts);
                }
                prop_assert_eq!(ledger.account.used(), own);
                add(&mut sum, &own);
            }
            prop_assert!(sum.iter().all(|&sum| sum <= u64::from(limit)));
        }
        for ((at, peer), amounts) in held {
            let claimant = claimant([OWNER, OWNER, 1, 1, 1, 2, 3, 3][peer as usize], peer);
            bench.ledgers[at].release(claimant.peer, &amounts);
        }
        bench.ledgers.iter_mut().for_each(Ledger::recall);
        let used = bench.user.account.lock().account.used();
        prop_assert_eq!(used, NOTHING, "a recall returns all that is not held");
        bench.end();
    }
}
