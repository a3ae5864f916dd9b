// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Booking on two levels: credit keeps no claimant from anything, and all of it comes back.

use core::ops::Range;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::bus::quota::resource::{only, Limits, BYTES, HANDLES, SLICES};

#[path = "ledger_model_tests.rs"]
mod model;

const OWNER: u32 = 7;
/// Large enough for batches, of 256.
const LIMIT: u64 = 65536;
/// Limits of a user are so many times those of its peers.
const TIMES: u64 = 8;

fn limits(n: u64) -> Limits {
    [n; NOTHING.len()]
}

fn claimant(uid: u32, peer: u64) -> Claimant {
    Claimant { uid, peer }
}

/// A user with the ledgers of some peers.
struct Bench {
    user: Arc<User>,
    ledgers: Vec<Ledger>,
    limit: u64,
    /// Claimants whose credit was taken back for a refused claim.
    recalled: u32,
}

impl Bench {
    /// Makes peers with this limit, and their user with eight times as much.
    fn new(limit: u64, peers: usize) -> Self {
        Self::with(limit, TIMES * limit, peers)
    }

    fn with(limit: u64, users: u64, peers: usize) -> Self {
        let user = User::new(OWNER, limits(users)).unwrap();
        let mut bench = Self {
            user,
            ledgers: Vec::new(),
            limit,
            recalled: 0,
        };
        (0..peers).for_each(|_| bench.open());
        bench
    }

    fn ledger(&self, peer: u64) -> Ledger {
        let mut ledger = Ledger::new(&self.user, peer).unwrap();
        for r in ALL {
            assert_eq!(ledger.set_limit(r, self.limit as u32), 0);
        }
        ledger
    }

    fn open(&mut self) {
        let ledger = self.ledger(1000 + self.ledgers.len() as u64);
        self.ledgers.push(ledger);
    }

    /// Claims at a peer, with reservations where the claimant needs them, and without a recall.
    fn try_claim(
        &mut self,
        at: usize,
        claimant: Claimant,
        amounts: &Amounts,
    ) -> Result<(), QuotaError> {
        self.try_claim_after(at, claimant, amounts, [false; 3])
    }

    /// Claims at a peer, after credit was recalled at the given levels.
    fn try_claim_after(
        &mut self,
        at: usize,
        claimant: Claimant,
        amounts: &Amounts,
        recalled: [bool; 3],
    ) -> Result<(), QuotaError> {
        let mut reservation = LedgerReservation {
            recalled,
            ..LedgerReservation::default()
        };
        loop {
            match self.ledgers[at].claim(claimant, amounts, Some(&mut reservation)) {
                Err(QuotaError::NeedsReservation) => {
                    reservation = LedgerReservation::new(recalled).unwrap();
                }
                result => return result,
            }
        }
    }

    /// Recalls credit: of one peer's claimants, or of those of all.
    fn recall(&mut self, at: Range<usize>) -> u32 {
        let mut recalled = 0;
        for ledger in &mut self.ledgers[at] {
            loop {
                match ledger.recall() {
                    0 => break,
                    n => recalled += n,
                }
            }
        }
        recalled
    }

    fn recall_all(&mut self) -> u32 {
        self.recall(0..self.ledgers.len())
    }

    /// Claims at a peer as a sender does: recalls idle credit once if that may help.
    fn claim(&mut self, at: usize, claimant: Claimant, amounts: &Amounts) -> bool {
        let mut result = self.try_claim(at, claimant, amounts);
        if let Err(QuotaError::RefusedUntilRecall(level, _)) = result {
            self.recalled += match level {
                Level::Peer => self.recall(at..at + 1),
                _ => self.recall_all(),
            };
            let mut recalled = [false; 3];
            recalled[level as usize] = true;
            result = self.try_claim_after(at, claimant, amounts, recalled);
        }
        result.is_ok()
    }

    /// Claims one of a resource again and again, and returns how many were granted.
    fn flood(&mut self, at: usize, claimant: Claimant) -> u64 {
        (0..)
            .find(|_| !self.claim(at, claimant, &only(BYTES, 1)))
            .unwrap()
    }

    /// Lets each claimant in turn take all that it can get, each at the peer that it names.
    fn fill(&mut self, table: &[(usize, u32, u64, u64)], one_by_one: bool) {
        for &(at, uid, peer, most) in table {
            let claimant = claimant(uid, peer);
            if one_by_one {
                assert_eq!(self.flood(at, claimant), most, "{claimant:?}");
            } else {
                let more = self.claim(at, claimant, &only(BYTES, most + 1));
                assert!(!more, "{claimant:?}");
                assert!(self.claim(at, claimant, &only(BYTES, most)), "{claimant:?}");
            }
            let more = self.claim(at, claimant, &only(BYTES, 1));
            assert!(!more, "{claimant:?} got more");
            self.assert_invariants();
        }
    }

    /// Asserts the invariants that the head of `ledger.rs` lists, and that no claimant keeps more
    /// credit than two batches.
    fn assert_invariants(&mut self) {
        let mut drawn = BTreeMap::new();
        let (mut keepers, mut with_credit) = (0, Vec::new());
        for ledger in &mut self.ledgers {
            let mut used = BTreeMap::new();
            for claim in ledger.claims.values() {
                assert_eq!(claim.credit, NOTHING);
            }
            for claim in ledger.keeping.values() {
                for r in ALL {
                    let most = 2 * batch(ledger.account.limits[r], 1);
                    assert!(claim.credit[r] <= claim.held[r].min(most));
                }
            }
            let all = Iterator::chain(ledger.claims.values(), ledger.keeping.values());
            for claim in all {
                add(used.entry(claim.uid).or_insert(NOTHING), &claim.held);
            }
            for (&uid, used) in &used {
                assert_eq!(ledger.account.used_by(uid), *used);
                add(drawn.entry(uid).or_insert(NOTHING), used);
            }
            let here = ledger.keeping.iter().count() as u32;
            assert_eq!(ledger.keepers, here);
            assert_eq!(ledger.entry.is_none(), here != 0);
            keepers += here;
            with_credit.extend((here != 0).then_some(ledger.peer));
        }
        with_credit.sort();
        let books = self.user.account.lock();
        assert_eq!(books.keepers, keepers);
        let marked: Vec<u64> = books.with_credit.keys().copied().collect();
        assert_eq!(marked, with_credit);
        let mut all = NOTHING;
        for (uid, drawn) in drawn {
            assert_eq!(books.account.used_by(uid), drawn);
            add(&mut all, &drawn);
        }
        assert_eq!(books.account.used, all);
    }

    /// Closes all ledgers, and asserts that nothing is left on the user.
    fn end(mut self) {
        self.recall_all();
        for ledger in &mut self.ledgers {
            ledger.close().end();
        }
        let books = self.user.account.lock();
        assert_eq!(books.keepers, 0);
        assert!(books.with_credit.is_empty());
        assert_eq!(books.account.used, NOTHING);
    }
}

/// The numbers of the contract for a single peer, on a limit 64 times as large.
const OWN: [(usize, u32, u64, u64); 2] = [(0, OWNER, 1, 32768), (0, OWNER, 2, 16384)];
const FOREIGN: [(usize, u32, u64, u64); 4] = [
    (0, 100, 3, 8192),
    (0, 100, 4, 4096),
    (0, 200, 5, 2730),
    (0, 200, 6, 1365),
];

#[test]
fn batches_make_the_worked_numbers_neither_larger_nor_smaller() {
    for table in [&OWN[..], &FOREIGN[..]] {
        for one_by_one in [false, true] {
            let mut bench = Bench::new(LIMIT, 1);
            bench.fill(table, one_by_one);
            bench.end();
        }
    }
}

/// A number of peers that stopped, and the most that a running one takes of a sender of its own
/// user, and of one of a foreign user.
const STOPPED: [(usize, u64, u64); 5] = [
    (0, 8192, 2048),
    (1, 5575, 1934),
    (4, 1618, 561),
    (16, 278, 96),
    (64, 46, 16),
];

#[test]
fn peers_that_stopped_leave_a_running_one_the_numbers_of_the_contract() {
    for (stopped, own, foreign) in STOPPED {
        for (uid, expected) in [(OWNER, own), (1, foreign)] {
            // The default limits.
            let mut bench = Bench::new(16384, stopped + 1);
            for at in 0..stopped {
                // Four senders of each of three users, as that many as can fill them.
                for filler in [uid, OWNER, 2] {
                    for n in 0..4 {
                        let peer = 100 * u64::from(filler) + n;
                        bench.flood(at, claimant(filler, peer));
                    }
                }
            }
            let got = bench.flood(stopped, claimant(uid, 9999));
            assert_eq!(got, expected, "{stopped} stopped, user {uid}");
            // Messages that are received make room for as many again.
            for _ in 0..3 {
                bench.ledgers[stopped].release(9999, &only(BYTES, got));
                assert_eq!(bench.flood(stopped, claimant(uid, 9999)), got);
            }
            bench.assert_invariants();
            bench.end();
        }
    }
}

#[test]
fn no_crowd_of_users_takes_a_user_all() {
    let mut bench = Bench::new(16384, 10);
    for uid in 100..299 {
        for at in 0..4 {
            bench.flood(at, claimant(uid, u64::from(uid)));
        }
    }
    assert_eq!(bench.flood(9, claimant(OWNER, 1)), 5443);
    assert_eq!(bench.flood(9, claimant(1000, 2)), 3);
    bench.end();
}

#[test]
fn a_wide_multicast_of_an_own_sender_passes() {
    // An eighth of 4 GiB, and 64 KiB to each of 300 peers.
    let mut bench = Bench::with(16 << 20, 1 << 29, 300);
    for at in 0..300 {
        assert!(bench.claim(at, claimant(OWNER, 1), &only(BYTES, 65536)));
    }
    bench.end();
}

#[test]
fn idle_credit_keeps_no_claimant_from_anything() {
    // One limit for both levels, so that both are near.
    let mut bench = Bench::with(LIMIT, LIMIT, 3);
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
    let idle = bench.user.account.lock().account.used[BYTES];
    assert!(idle >= 100, "nothing is kept: {idle}");
    assert!(idle <= LIMIT, "{idle}");
    // Without a recall the credit is in the way.
    let refused = bench.try_claim(0, claimant(100, 3), &only(BYTES, 4096));
    assert!(
        matches!(refused, Err(QuotaError::RefusedUntilRecall(..))),
        "{refused:?}"
    );
    bench.recall_all();
    assert!(bench.claim(0, claimant(100, 3), &only(BYTES, 4096)));
    bench.end();
}

#[test]
fn charges_that_come_and_go_do_not_touch_the_user() {
    let mut bench = Bench::new(LIMIT, 1);
    let claimant = claimant(100, 1);
    // As much as two batches.
    let amounts = [512, 64, 512, 512];
    assert!(bench.claim(0, claimant, &amounts));
    bench.ledgers[0].release(claimant.peer, &amounts);
    let drawn = bench.user.account.lock().account.used;
    for _ in 0..100 {
        assert!(bench.claim(0, claimant, &amounts));
        assert_eq!(bench.user.account.lock().account.used, drawn);
        bench.ledgers[0].release(claimant.peer, &amounts);
        assert_eq!(bench.user.account.lock().account.used, drawn);
    }
    bench.assert_invariants();
    bench.end();
}

#[test]
fn small_limits_are_booked_exactly() {
    // That of the peer, or that of the user.
    for (peers, users) in [(4095, 1 << 20), (1 << 20, 4095)] {
        let mut bench = Bench::with(peers, users, 2);
        let claimant = claimant(100, 1);
        for n in 1..=20 {
            assert!(bench.claim(1, claimant, &[n, 1, 2, 3]));
            assert_eq!(bench.user.account.lock().account.used, [n, 1, 2, 3]);
            bench.ledgers[1].release(claimant.peer, &[n, 1, 2, 3]);
            assert_eq!(bench.user.account.lock().account.used, NOTHING);
        }
        bench.end();
    }
}

/// As many claimants as keep whole batches leave half of a limit; thousands of them are granted
/// what they ask for in any case.
#[test]
fn idle_credit_is_bounded() {
    for n in [64, 4000] {
        let mut bench = Bench::new(LIMIT, 1);
        for round in 0..3 {
            for peer in 1..=n {
                let claimant = claimant(OWNER, peer);
                assert!(bench.claim(0, claimant, &only(BYTES, 600)), "round {round}");
                bench.ledgers[0].release(peer, &only(BYTES, 600));
                let idle = bench.ledgers[0].account.used[BYTES];
                assert!(n > 64 || idle <= LIMIT / 2, "{idle} of {LIMIT} lie idle");
            }
        }
        bench.assert_invariants();
        bench.end();
    }
}

/// A refusal costs the same for any number of claimants, with credit or without: it takes the
/// credit of each at most once, and of none where that does not help. That the user is granted
/// something in between changes nothing.
#[test]
fn refusals_do_not_cost_in_proportion_to_claimants() {
    const TURNS: u32 = 10_000;
    // The limit of the peer refuses, then that of its user.
    for (times, level) in [(8, Level::Peer), (1, Level::User)] {
        for n in [16, 256, 4096] {
            let mut bench = Bench::with(1 << 20, times << 20, 2);
            // Claimants of another user, at another peer and at this one. Most hold something.
            for peer in 100..100 + n {
                for at in 0..2 {
                    assert!(bench.claim(at, claimant(1, peer), &only(SLICES, 2)));
                    let kept = if peer % 4 == 0 { 2 } else { 1 };
                    bench.ledgers[at].release(peer, &only(SLICES, kept));
                }
            }
            let hog = claimant(2, 1);
            bench.flood(0, hog);
            let refused = bench.ledgers[0].refuses(hog, &only(BYTES, 1));
            assert_eq!(refused, Some((level, BYTES)));
            bench.recalled = 0;
            for _ in 0..TURNS {
                assert!(!bench.claim(0, hog, &only(BYTES, 1)));
                // It is granted something else, more than it keeps credit of.
                assert!(bench.claim(0, hog, &only(HANDLES, 9000)));
                bench.ledgers[0].release(1, &only(HANDLES, 9000));
                // Another sender is in full swing.
                assert!(bench.claim(0, claimant(3, 2), &only(SLICES, 1)));
                bench.ledgers[0].release(2, &only(SLICES, 1));
            }
            let looked_at = bench.recalled;
            assert!(
                looked_at <= 2 * 2 * TURNS / 64,
                "{level:?}, {n} claimants, {looked_at} times"
            );
            bench.end();
        }
    }
}

/// What a claimant holds idle at peers of a user goes only if it can help another to what it
/// wants.
#[test]
fn a_claim_that_no_recall_helps_takes_nobodys_credit() {
    let mut bench = Bench::new(LIMIT, 2);
    for at in 0..2 {
        assert!(bench.claim(at, claimant(1, 1), &only(BYTES, 300)));
        bench.ledgers[at].release(1, &only(BYTES, 300));
    }
    // An entry of its own.
    assert!(bench.claim(0, claimant(2, 2), &only(BYTES, 1)));
    let idle = bench.user.account.lock().account.used;
    let most = bench.ledgers[0].most(claimant(2, 2))[BYTES];
    for more in [LIMIT, u64::MAX / 4, 2 * most] {
        for _ in 0..100 {
            assert!(!bench.claim(0, claimant(2, 2), &only(BYTES, more)));
        }
    }
    assert_eq!(bench.recalled, 0);
    assert_eq!(bench.user.account.lock().account.used, idle);
    bench.end();
}

#[test]
fn a_refusal_of_either_level_leaves_nothing() {
    let mut bench = Bench::with(LIMIT, LIMIT, 2);
    bench.ledgers[0].set_limit(SLICES, 8);
    // The peer's own limit.
    let refused = bench.try_claim(0, claimant(100, 1), &[2, 1, 1, 1]);
    assert_eq!(refused, Err(QuotaError::Refused));
    let refused = bench.ledgers[0].refuses(claimant(100, 1), &[2, 1, 1, 1]);
    assert_eq!(refused, Some((Level::Peer, SLICES)));
    assert_eq!(used(&bench.ledgers[0]), NOTHING);
    assert_eq!(bench.user.account.lock().account.used, NOTHING);
    // The user's: most of it is taken at the other peer.
    assert!(bench.claim(1, claimant(OWNER, 2), &only(HANDLES, 8192)));
    // No recall can help against amounts in use.
    let refused = bench.try_claim(0, claimant(OWNER, 3), &[1, 8000, 1, 1]);
    assert_eq!(refused, Err(QuotaError::Refused));
    let refused = bench.ledgers[0].refuses(claimant(OWNER, 3), &[1, 8000, 1, 1]);
    assert_eq!(refused, Some((Level::User, HANDLES)));
    assert_eq!(used(&bench.ledgers[0]), NOTHING);
    bench.assert_invariants();
    bench.end();
}

#[test]
fn peers_that_send_in_turn_stay_on_the_books() {
    for limit in [1 << 24, 4000] {
        let mut bench = Bench::with(limit, 1 << 24, 1);
        let known = |bench: &Bench| {
            let ledger = &bench.ledgers[0];
            ledger.claims.iter().count() + ledger.keeping.iter().count()
        };
        let send = |bench: &mut Bench, peers: Range<u64>| {
            let mut new = 0;
            for peer in peers {
                let claimant = claimant(peer as u32 % 70, peer);
                new += usize::from(bench.ledgers[0].claim_mut(peer).is_none());
                assert!(bench.claim(0, claimant, &[1, 0, 9, 0]));
                bench.ledgers[0].release(peer, &[1, 0, 9, 0]);
            }
            new
        };
        for _ in 0..4 {
            send(&mut bench, 1..1001);
        }
        // All peers have entries now, and keep them, also while some come once.
        for round in 0..50 {
            let once = 1_000_000 + round * 10;
            send(&mut bench, once..once + 10);
            let new = send(&mut bench, 1..1001);
            assert!(new <= 10, "{new} were forgotten");
        }
        // They close, and others come once.
        send(&mut bench, 2_000_000..2_004_000);
        let left = known(&bench);
        assert!(left <= 64, "{left} entries are left");
        bench.assert_invariants();
        bench.end();
    }
}

/// Returns what is used of a ledger, of what is charged.
fn used(ledger: &Ledger) -> Amounts {
    let (mut used, mut next) = (ledger.account.used, Some(0));
    while next.is_some() {
        subtract(&mut used, &ledger.idle_from(&mut next));
    }
    used
}
