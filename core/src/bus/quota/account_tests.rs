// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The account: the worked numbers of the contract, and its corner cases.

use std::collections::BTreeMap;

use super::*;
use crate::bus::allocation::GFP_KEPT;
use crate::bus::quota::resource::{add, only, subtract, Claimant, BYTES, FDS, HANDLES, SLICES};

#[path = "account_model_tests.rs"]
mod model;

const OWNER: u32 = 7;

fn limits(n: u64) -> Limits {
    [n; RESOURCES]
}

fn claimant(uid: u32, peer: u64) -> Claimant {
    Claimant { uid, peer }
}

/// An account, with the amounts that its claimants hold, as its user has to know them.
struct Bench {
    account: Account,
    held: BTreeMap<(u32, u64), Amounts>,
}

impl Bench {
    fn new(level: Level, limit: u64) -> Self {
        Self {
            account: Account::new(level, OWNER, limits(limit)),
            held: BTreeMap::new(),
        }
    }

    fn held(&self, Claimant { uid, peer }: Claimant) -> Amounts {
        self.held.get(&(uid, peer)).copied().unwrap_or(NOTHING)
    }

    /// Checks a claim, and books it if it fits.
    fn try_claim(
        &mut self,
        claimant: Claimant,
        amounts: &Amounts,
        reservation: &mut Option<ShareReservation>,
    ) -> Result<(), QuotaError> {
        let (uid, held) = (claimant.uid, self.held(claimant));
        let grown = self.account.check(uid, &held, amounts, reservation, 0)?;
        self.account.grant(uid, &held, amounts, &grown, false);
        add(self.held.entry((uid, claimant.peer)).or_default(), amounts);
        Ok(())
    }

    /// Claims with a reservation where the user needs one. False if the claim is refused.
    fn claim(&mut self, claimant: Claimant, amounts: &Amounts) -> bool {
        let refusal = self
            .account
            .refuses(claimant.uid, &self.held(claimant), amounts);
        let mut result = self.try_claim(claimant, amounts, &mut None);
        if result == Err(QuotaError::NeedsReservation) {
            let mut reservation = Some(ShareReservation::new(GFP_KEPT).unwrap());
            result = self.try_claim(claimant, amounts, &mut reservation);
        }
        assert!(matches!(result, Ok(()) | Err(QuotaError::Refused)));
        assert_eq!(result.is_ok(), refusal.is_none());
        result.is_ok()
    }

    fn release(&mut self, claimant: Claimant, amounts: &Amounts) {
        let held = self.held(claimant);
        self.account.release(claimant.uid, &held, amounts, false);
        let held = self.held.get_mut(&(claimant.uid, claimant.peer)).unwrap();
        subtract(held, amounts);
    }

    /// Asserts the invariants that the head of `account.rs` lists.
    fn assert_invariants(&self) {
        let account = &self.account;
        let (mut granted, mut used, mut foreign) = (NOTHING, NOTHING, [0; RESOURCES]);
        for (&uid, share) in &account.shares {
            let (mut sum, mut holders) = (NOTHING, [0; RESOURCES]);
            for (_, held) in self.held.range((uid, 0)..=(uid, u64::MAX)) {
                add(&mut sum, held);
                (0..RESOURCES).for_each(|r| holders[r] += u32::from(held[r] != 0));
            }
            assert_eq!((share.used, share.holders), (sum, holders));
            add(&mut granted, &share.granted);
            add(&mut used, &share.used);
            for r in ALL {
                foreign[r] += u32::from(uid != account.owner && share.granted[r] != 0);
                assert!(share.used[r] <= share.granted[r]);
                assert!(
                    share.granted[r] <= account.level.between(share.holders[r]) * share.used[r]
                );
            }
        }
        assert_eq!((account.granted, account.used), (granted, used));
        assert_eq!(account.foreign, foreign);
    }

    /// Releases everything, and asserts that nothing is left.
    fn end(mut self) {
        for ((uid, peer), held) in self.held.clone() {
            self.release(claimant(uid, peer), &held);
        }
        self.assert_invariants();
        assert_eq!(
            (self.account.granted, self.account.used),
            (NOTHING, NOTHING)
        );
    }
}

/// Claimants by user and peer, and the most that each can take, one after the other, of a limit of
/// 1024.
const WORKED: [(u32, u64, u64); 6] = [
    (OWNER, 1, 512),
    (OWNER, 2, 256),
    (100, 3, 128),
    (100, 4, 64),
    (200, 5, 42),
    (200, 6, 21),
];

/// Fills an account as the table says: each claimant takes all that it can get.
fn fill(bench: &mut Bench, table: &[(u32, u64, u64)], one_by_one: bool) {
    for &(uid, peer, most) in table {
        let claimant = claimant(uid, peer);
        if one_by_one {
            for _ in 0..most {
                let granted = bench.claim(claimant, &only(BYTES, 1));
                assert!(granted, "{claimant:?} of {most}");
            }
        } else {
            let more = bench.claim(claimant, &only(BYTES, most + 1));
            assert!(!more, "{claimant:?}");
            assert!(bench.claim(claimant, &only(BYTES, most)), "{claimant:?}");
        }
        let more = bench.claim(claimant, &only(BYTES, 1));
        assert!(!more, "{claimant:?} got more");
        bench.assert_invariants();
    }
}

fn peers_account() -> Bench {
    Bench::new(Level::Peer, 1024)
}

#[test]
fn own_peers_get_a_half_and_a_quarter() {
    for one_by_one in [false, true] {
        fill(&mut peers_account(), &WORKED[..2], one_by_one);
    }
}

#[test]
fn foreign_users_get_the_worked_shares() {
    for one_by_one in [false, true] {
        fill(&mut peers_account(), &WORKED[2..], one_by_one);
    }
}

#[test]
fn the_owner_gets_half_of_what_foreign_users_leave() {
    let mut bench = peers_account();
    fill(&mut bench, &WORKED[2..], false);
    // 1024 less the shares of 256 and 84.
    fill(&mut bench, &[(OWNER, 1, 342), (OWNER, 2, 171)], false);
}

#[test]
fn foreign_users_get_nothing_of_what_the_owner_holds() {
    let mut bench = peers_account();
    fill(&mut bench, &WORKED[..2], true);
    assert!(!bench.claim(claimant(100, 3), &only(BYTES, 1)));
    // Another resource is another matter.
    assert!(bench.claim(claimant(100, 3), &only(SLICES, 128)));
    bench.assert_invariants();
}

#[test]
fn a_released_amount_can_be_taken_again() {
    let mut bench = peers_account();
    for _ in 0..3 {
        fill(&mut bench, &WORKED[2..], true);
        for (uid, peer, most) in &WORKED[2..] {
            bench.release(claimant(*uid, *peer), &only(BYTES, *most));
            bench.assert_invariants();
        }
        assert_eq!(
            (bench.account.granted, bench.account.used),
            (NOTHING, NOTHING)
        );
    }
}

/// At a peer's account that is twice, at a user's four times as much.
#[test]
fn a_release_lowers_the_share_to_the_need_of_a_single_claimant() {
    for (level, single) in [(Level::Peer, 2), (Level::User, 4)] {
        let (mut bench, claimant) = (Bench::new(level, 4096), claimant(100, 1));
        assert!(bench.claim(claimant, &only(FDS, 100)));
        for released in [60, 30, 10] {
            assert_eq!(
                bench.account.granted[FDS],
                single * bench.held(claimant)[FDS]
            );
            bench.release(claimant, &only(FDS, released));
            bench.assert_invariants();
        }
        assert_eq!(bench.account.granted[FDS], 0);
    }
}

/// Where nobody holds anything, and where the claimant and others of the owner hold handles.
#[test]
fn one_claim_may_be_as_large_as_is_said() {
    for (level, uid) in [
        (Level::Peer, OWNER),
        (Level::Peer, 100),
        (Level::User, OWNER),
        (Level::User, 100),
    ] {
        for (held, others) in [(0, 0), (1, 0), (0, 1), (3, 0), (1, 1)] {
            if uid != OWNER && (held, others) == (1, 1) {
                continue;
            }
            let mut bench = Bench::new(level, 1001);
            if held != 0 {
                assert!(bench.claim(claimant(OWNER, 1), &only(HANDLES, held)));
            }
            for peer in 0..u64::from(others) {
                assert!(bench.claim(claimant(OWNER, 2 + peer), &only(HANDLES, 1)));
            }
            for r in ALL {
                let most = bench.account.most(uid, held, others)[r];
                assert!(!bench.claim(claimant(uid, 1), &only(r, most + 1)));
                assert!(bench.claim(claimant(uid, 1), &only(r, most)));
            }
        }
    }
}

#[test]
fn the_divisor_is_the_one_of_the_contract() {
    let table = [
        (0, 1),
        (1, 4),
        (2, 9),
        (3, 12),
        (4, 20),
        (5, 24),
        (6, 28),
        (7, 32),
        (8, 45),
        (15, 80),
        (16, 102),
        (255, 2304),
        (u32::MAX, (1 << 32) * 33),
    ];
    for (n, expected) in table {
        assert_eq!(divisor(n), expected, "A({n})");
    }
    for n in 0..5000u32 {
        let m = u64::from(n) + 1;
        let log = (0..).find(|log| 1 << log >= m).unwrap();
        assert_eq!(divisor(n), m * log + m);
    }
}

#[test]
fn overflow_is_refusal() {
    let mut bench = Bench::new(Level::Peer, u64::from(u32::MAX));
    assert!(bench.claim(claimant(OWNER, 1), &only(BYTES, 9)));
    assert!(bench.claim(claimant(100, 2), &only(BYTES, 9)));
    let granted = bench.account.granted;
    for amount in [
        u64::MAX,
        u64::MAX - 1,
        u64::MAX / 2,
        u64::MAX / 2 + 1,
        u64::MAX / 4,
        u64::MAX / 8,
    ] {
        for claimant in [
            claimant(OWNER, 1),
            claimant(100, 2),
            claimant(100, 3),
            claimant(200, 4),
        ] {
            assert!(!bench.claim(claimant, &only(BYTES, amount)));
        }
    }
    assert_eq!(bench.account.granted, granted);
    bench.assert_invariants();
}

#[test]
fn all_of_a_claim_is_granted_or_nothing() {
    let mut bench = peers_account();
    assert!(!bench.claim(claimant(100, 1), &[1, 1, 129, 1]));
    assert_eq!(
        (bench.account.granted, bench.account.used),
        (NOTHING, NOTHING)
    );
    bench.assert_invariants();
    assert!(bench.claim(claimant(100, 1), &[1, 128, 128, 0]));
    assert_eq!(bench.account.used, [1, 128, 128, 0]);
    assert_eq!(bench.account.foreign, [1, 1, 1, 0]);
    bench.assert_invariants();
}

#[test]
fn a_limit_below_what_is_held_refuses_everything() {
    let mut bench = peers_account();
    assert!(bench.claim(claimant(OWNER, 1), &only(BYTES, 512)));
    bench.account.limits[BYTES] = 600;
    // The share was granted 1024, but may only use 600 now.
    assert!(!bench.claim(claimant(OWNER, 2), &only(BYTES, 45)));
    assert!(bench.claim(claimant(OWNER, 2), &only(BYTES, 44)));
    bench.account.limits[BYTES] = 0;
    for claimant in [
        claimant(OWNER, 1),
        claimant(OWNER, 2),
        claimant(OWNER, 3),
        claimant(100, 4),
    ] {
        assert!(!bench.claim(claimant, &only(BYTES, 1)));
    }
    bench.release(claimant(OWNER, 1), &only(BYTES, 512));
    bench.release(claimant(OWNER, 2), &only(BYTES, 44));
    bench.assert_invariants();
    assert_eq!(bench.account.granted, NOTHING);
}

#[test]
fn a_new_user_needs_a_reservation_once() {
    let mut bench = peers_account();
    let (new, byte) = (claimant(1, 1), only(BYTES, 1));
    let mut reservation = None;
    let refusal = bench.try_claim(new, &byte, &mut reservation);
    assert_eq!(refusal, Err(QuotaError::NeedsReservation));
    assert_eq!(bench.account.granted, NOTHING);
    reservation = Some(ShareReservation::new(GFP_KEPT).unwrap());
    bench.try_claim(new, &byte, &mut reservation).unwrap();
    assert!(reservation.is_none());
    bench.try_claim(new, &byte, &mut reservation).unwrap();
}

/// A check that no grant follows, as where the user's account refuses, leaves all numbers as they
/// were.
#[test]
fn a_check_books_nothing() {
    let mut bench = peers_account();
    for uid in [OWNER, 100] {
        let mut reservation = Some(ShareReservation::new(GFP_KEPT).unwrap());
        let account = &mut bench.account;
        let grant = account.check(uid, &NOTHING, &[1, 2, 3, 4], &mut reservation, 0);
        assert!(grant.is_ok() && reservation.is_none());
        assert_eq!((account.granted, account.used), (NOTHING, NOTHING));
        assert_eq!(account.foreign, [0; RESOURCES]);
        bench.assert_invariants();
    }
}

#[test]
fn users_that_hold_nothing_make_room_for_others() {
    let mut bench = Bench::new(Level::Peer, 1 << 20);
    // Some hold something and stay; thousands come once, or are refused.
    for uid in 0..20 {
        assert!(bench.claim(claimant(uid, 1), &only(BYTES, 1)));
    }
    for uid in 1000..6000 {
        let passing = claimant(uid, 1);
        if bench.claim(
            passing,
            &only(BYTES, if uid % 2 == 0 { 1 } else { 1 << 20 }),
        ) {
            bench.release(passing, &only(BYTES, 1));
        }
        assert!(bench.account.shares.iter().count() <= 50);
    }
    bench.assert_invariants();
    assert!((0..20).all(|uid| bench.account.shares.get(&uid).is_some()));
    bench.end();
}

/// A refusal that idle credit could have to do with is worth a recall; if that does not help, the
/// next ones are not, whoever else keeps credit by then, and whatever else the user is granted.
#[test]
fn a_recall_that_did_not_help_is_remembered() {
    let mut bench = Bench::new(Level::User, 65536);
    for (uid, peer) in [(200, 1), (100, 2)] {
        assert!(bench.claim(claimant(uid, peer), &only(BYTES, 1024)));
    }
    let (held, more) = (bench.held(claimant(100, 2)), only(BYTES, 1024));
    let mut check = |amounts: &Amounts, keepers| {
        let account = &mut bench.account;
        account.check(100, &held, amounts, &mut None, keepers)
    };
    let recall = Err(QuotaError::RefusedUntilRecall(Level::User, 8));
    assert_eq!(
        check(&more, 0),
        Err(QuotaError::Refused),
        "nobody has credit"
    );
    assert_eq!(
        check(&only(BYTES, 8192), 8),
        Err(QuotaError::Refused),
        "no recall can help"
    );
    for _ in 0..3 {
        assert_eq!(check(&more, 8), recall);
        for _ in 0..8 * CLAIMS_PER_RECALL {
            assert_eq!(check(&more, 8), Err(QuotaError::Refused));
        }
    }
    // What is granted counts as what is refused does.
    assert_eq!(check(&more, 8), recall);
    for _ in 0..4 * CLAIMS_PER_RECALL {
        assert!(bench.claim(claimant(100, 2), &only(BYTES, 1)));
        bench.release(claimant(100, 2), &only(BYTES, 1));
        let refused = bench.account.check(100, &held, &more, &mut None, 8);
        assert_eq!(refused, Err(QuotaError::Refused));
    }
    assert_eq!(bench.account.check(100, &held, &more, &mut None, 8), recall);
}

/// A recall that helped is forgotten; one that perhaps helped, since the user gave something back
/// at the same time, costs as many claims as claimants.
#[test]
fn a_recall_that_helped_is_not_remembered() {
    let mut bench = Bench::new(Level::User, 65536);
    for (uid, peer) in [(200, 1), (100, 2)] {
        assert!(bench.claim(claimant(uid, peer), &only(BYTES, 1024)));
    }
    let (held, more, byte) = (
        bench.held(claimant(100, 2)),
        only(BYTES, 1024),
        only(BYTES, 1),
    );
    let account = &mut bench.account;
    let recall = Err(QuotaError::RefusedUntilRecall(Level::User, 8));
    for (by_recall, wait) in [(true, 0), (false, 8), (true, 0)] {
        assert_eq!(account.check(100, &held, &more, &mut None, 8), recall);
        // Something comes back, and the claim is granted.
        account.release(100, &held, &byte, by_recall);
        let less = only(BYTES, 1023);
        let grown = account.check(100, &less, &byte, &mut None, 8).unwrap();
        account.grant(100, &less, &byte, &grown, true);
        for _ in 0..wait {
            let refused = account.check(100, &held, &more, &mut None, 8);
            assert_eq!(refused, Err(QuotaError::Refused));
        }
    }
}

#[test]
fn the_resources_are_independent() {
    let mut bench = peers_account();
    for resource in [SLICES, HANDLES, BYTES, FDS] {
        assert!(bench.claim(claimant(100, 1), &only(resource, 128)));
        assert!(!bench.claim(claimant(100, 1), &only(resource, 1)));
    }
    bench.assert_invariants();
}
