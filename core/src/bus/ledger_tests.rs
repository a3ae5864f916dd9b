// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Booking on two levels: batches take nothing from anybody, and all of it comes back.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::account::{Claim, BYTES, FDS, HANDLES, SLICES};
use super::*;

const OWNER: u32 = 7;
/// Large enough for batches, of 16.
const LIMIT: u32 = 65536;

fn limits(n: u32) -> Limits {
    [n; NOTHING.len()]
}

fn who(uid: u32, peer: u64) -> Claimant {
    Claimant { uid, peer }
}

fn one(resource: usize, amount: u64) -> Amounts {
    let mut amounts = NOTHING;
    amounts[resource] = amount;
    amounts
}

/// A user with some peers.
struct Books {
    user: Arc<User>,
    ledgers: Vec<Ledger>,
}

impl Books {
    fn new(limit: u32, peers: usize) -> Self {
        let user = User::new(OWNER, limits(limit)).unwrap();
        let ledger = |_| Ledger::new(user.clone(), limits(limit));
        let ledgers = (0..peers).map(ledger).collect();
        Self { user, ledgers }
    }

    /// Claims at a peer, without recall.
    fn try_claim(&mut self, at: usize, who: Claimant, amounts: &Amounts) -> Result<(), Denied> {
        let mut rooms = [None, None];
        loop {
            match self.ledgers[at].claim(who, amounts, Some(&mut rooms)) {
                Err(Denied::Rooms) => {
                    rooms = [Some(Room::new().unwrap()), Some(Room::new().unwrap())]
                }
                result => return result,
            }
        }
    }

    /// Claims at a peer, as a sender does.
    fn claim(&mut self, at: usize, who: Claimant, amounts: &Amounts) -> bool {
        let mut result = self.try_claim(at, who, amounts);
        if result == Err(Denied::Recall) && self.user.account.lock().account.keepers != 0 {
            self.ledgers.iter_mut().for_each(Ledger::recall);
            result = self.try_claim(at, who, amounts);
        }
        result.is_ok()
    }

    /// Each in turn takes all it can get, at peer after peer.
    fn fill(&mut self, table: &[(u32, u64, u64)], one_by_one: bool) {
        let n = self.ledgers.len();
        for (i, &(uid, peer, most)) in table.iter().enumerate() {
            let (at, who) = (i % n, who(uid, peer));
            if one_by_one {
                for _ in 0..most {
                    assert!(self.claim(at, who, &one(BYTES, 1)), "{who:?}");
                }
            } else {
                assert!(!self.claim(at, who, &one(BYTES, most + 1)), "{who:?}");
                assert!(self.claim(at, who, &one(BYTES, most)), "{who:?}");
            }
            for at in 0..n {
                assert!(!self.claim(at, who, &one(BYTES, 1)), "{who:?} got more");
            }
            self.check();
        }
    }

    /// What the user's account says is what the peers hold and keep; nobody keeps too much.
    fn check(&mut self) {
        let mut drawn = BTreeMap::new();
        let mut keepers = 0;
        let user = self.user.clone();
        for ledger in &mut self.ledgers {
            let mut here = 0;
            for (who, claim) in ledger.account.claims() {
                add(drawn.entry(who.peer).or_insert(NOTHING), &claim.held);
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
        for (who, claim) in books.account.claims() {
            let drawn = drawn.remove(&who.peer).unwrap_or(NOTHING);
            assert_eq!(claim.held, drawn, "{who:?}");
        }
        drawn.retain(|_, amounts| *amounts != NOTHING);
        assert!(drawn.is_empty());
    }

    /// Closes all peers; then nothing is left on the user.
    fn end(mut self) {
        for ledger in &mut self.ledgers {
            ledger.close();
        }
        let books = self.user.account.lock();
        assert_eq!(books.account.keepers, 0);
        assert_eq!(books.account.granted, NOTHING);
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
                let mut books = Books::new(LIMIT, peers);
                books.fill(table, one_by_one);
                books.end();
            }
        }
    }
}

#[test]
fn credit_of_the_idle_keeps_nobody_from_anything() {
    let mut books = Books::new(LIMIT, 3);
    // Many own and foreign claimants come, take a lot, and go, but for their credit.
    for peer in 10..110 {
        let who = who(if peer % 2 == 0 { OWNER } else { peer as u32 }, peer);
        for at in 0..3 {
            for amount in [1, 500, 1] {
                assert!(books.claim(at, who, &one(BYTES, amount)));
                books.ledgers[at].release(who.peer, &one(BYTES, amount));
            }
        }
    }
    books.check();
    let idle = books.user.account.lock().account.used()[BYTES];
    assert!(idle >= 100, "nothing is kept: {idle}");
    // Without a recall that is noticed.
    let refused = books.try_claim(0, who(100, 3), &one(BYTES, 8192));
    assert_eq!(refused, Err(Denied::Recall));
    books.fill(&FOREIGN, false);
    books.end();
}

#[test]
fn what_comes_and_goes_does_not_touch_the_user() {
    let mut books = Books::new(LIMIT, 1);
    let who = who(100, 1);
    let amounts = [1, 3, 10, 2];
    assert!(books.claim(0, who, &amounts));
    books.ledgers[0].release(who.peer, &amounts);
    let drawn = books.user.account.lock().account.used();
    for _ in 0..100 {
        assert!(books.claim(0, who, &amounts));
        assert_eq!(books.user.account.lock().account.used(), drawn);
        books.ledgers[0].release(who.peer, &amounts);
        assert_eq!(books.user.account.lock().account.used(), drawn);
    }
    books.check();
    books.end();
}

#[test]
fn small_limits_are_booked_exactly() {
    let mut books = Books::new(4095, 2);
    let who = who(100, 1);
    for n in 1..=20 {
        assert!(books.claim(1, who, &[n, 1, 2, 3]));
        assert_eq!(books.user.account.lock().account.used(), [n, 1, 2, 3]);
        books.ledgers[1].release(who.peer, &[n, 1, 2, 3]);
        assert_eq!(books.user.account.lock().account.used(), NOTHING);
    }
    books.end();
}

#[test]
fn a_refusal_of_either_level_leaves_nothing() {
    let mut books = Books::new(LIMIT, 2);
    books.ledgers[0].set_limit(SLICES, 8);
    // The peer's own limit.
    let refused = books.try_claim(0, who(100, 1), &[2, 1, 1, 1]);
    assert_eq!(refused, Err(Denied::Quota));
    assert_eq!(books.ledgers[0].account.used(), NOTHING);
    assert_eq!(books.user.account.lock().account.used(), NOTHING);
    // The user's: half of it is taken at the other peer.
    assert!(books.claim(1, who(OWNER, 2), &one(HANDLES, 32768)));
    // No recall can help against what is in use.
    let refused = books.try_claim(0, who(OWNER, 3), &[1, 20000, 1, 1]);
    assert_eq!(refused, Err(Denied::Quota));
    assert_eq!(books.ledgers[0].account.used(), NOTHING);
    books.check();
    books.end();
}

#[test]
fn a_sweep_returns_credit() {
    let mut books = Books::new(LIMIT, 1);
    for peer in 1..200 {
        assert!(books.claim(0, who(100, peer), &one(FDS, 1)));
        books.ledgers[0].release(peer, &one(FDS, 1));
        books.check();
    }
    let idle = books.user.account.lock().account.used()[FDS];
    // At most 32 claimants wait for the next sweep, with at most two batches each.
    assert!(idle <= 33 * 32, "{idle}");
    books.end();
}

#[test]
fn peers_that_send_in_turn_stay_on_the_books() {
    let mut books = Books::new(1 << 24, 1);
    let mut send = |peers: core::ops::Range<u64>| {
        let mut swept = 0;
        for peer in peers {
            let before = books.ledgers[0].account.claims().count();
            assert!(books.claim(0, who(peer as u32 % 70, peer), &[1, 0, 9, 0]));
            books.ledgers[0].release(peer, &[1, 0, 9, 0]);
            swept += usize::from(books.ledgers[0].account.claims().count() < before);
        }
        (books.ledgers[0].account.claims().count(), swept)
    };
    for _ in 0..4 {
        send(1..1001);
    }
    // All are there now, and stay.
    for _ in 0..3 {
        assert_eq!(send(1..1001), (1000, 0));
    }
    // They close, and others come once: at first there is room for as many as there were.
    let (left, swept) = send(2000..6000);
    assert!(
        swept > 10 && left <= 65,
        "{left} entries after {swept} sweeps"
    );
    books.check();
    books.end();
}

/// Once, a debug build took it for a fault that the user's account had forgotten a claimant which a
/// peer's account still listed, with nothing.
#[test]
fn a_peer_closes_that_lists_a_claimant_whom_the_user_forgot() {
    let mut books = Books::new(LIMIT, 2);
    assert!(books.claim(0, who(100, 7), &one(FDS, 1)));
    books.ledgers[0].release(7, &one(FDS, 1));
    books.ledgers[0].recall();
    for peer in 10..100 {
        assert!(books.claim(1, who(200, peer), &one(FDS, 1)));
    }
    let knows = |(who, _): (Claimant, &Claim)| who.peer == 7;
    assert!(books.ledgers[0].account.claims().any(knows));
    assert!(!books.user.account.lock().account.claims().any(knows));
    books.end();
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
        let mut books = Books::new(limit, 3);
        let mut held: BTreeMap<(usize, u64), Amounts> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Claim(at, peer, amounts) => {
                    let who = who([OWNER, OWNER, 1, 1, 1, 2, 3, 3][peer as usize], peer);
                    if books.claim(at, who, &amounts) {
                        add(held.entry((at, peer)).or_insert(NOTHING), &amounts);
                    }
                }
                Op::Release(at, peer, part) => {
                    let who = who([OWNER, OWNER, 1, 1, 1, 2, 3, 3][peer as usize], peer);
                    if let Some(held) = held.get_mut(&(at, peer)) {
                        let amounts = held.map(|held| held * part / 16);
                        subtract(held, &amounts);
                        books.ledgers[at].release(who.peer, &amounts);
                    }
                }
                Op::Recall => books.ledgers.iter_mut().for_each(Ledger::recall),
                Op::Close(at) => {
                    let fresh = Ledger::new(books.user.clone(), limits(limit));
                    core::mem::replace(&mut books.ledgers[at], fresh).close();
                    held.retain(|&(other, _), _| other != at);
                }
            }
            books.check();
            let mut sum = NOTHING;
            for (at, ledger) in books.ledgers.iter().enumerate() {
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
            let who = who([OWNER, OWNER, 1, 1, 1, 2, 3, 3][peer as usize], peer);
            books.ledgers[at].release(who.peer, &amounts);
        }
        books.ledgers.iter_mut().for_each(Ledger::recall);
        let used = books.user.account.lock().account.used();
        prop_assert_eq!(used, NOTHING, "a recall returns all that is not held");
        books.end();
    }
}
