// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The account: the worked numbers of the contract, and its corner cases.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::bus::quota::resource::{only, BYTES, FDS, HANDLES, SLICES};

#[path = "account_model_tests.rs"]
mod model;

const OWNER: u32 = 7;

fn limits(n: u32) -> Limits {
    [n; RESOURCES]
}

fn claimant(uid: u32, peer: u64) -> Claimant {
    Claimant { uid, peer }
}

/// Checks a claim, and books it if it fits.
fn try_claim(
    account: &mut Account,
    claimant: Claimant,
    amounts: &Amounts,
    reservation: &mut Option<ClaimReservation>,
) -> Result<(), QuotaError> {
    let grown = account.check(claimant, amounts, reservation)?;
    account.grant(claimant, amounts, &grown);
    Ok(())
}

/// Claims with a reservation where the claimant needs one. False if the claim is refused.
fn claim(account: &mut Account, claimant: Claimant, amounts: &Amounts) -> bool {
    let mut result = try_claim(account, claimant, amounts, &mut None);
    if result == Err(QuotaError::NeedsReservation) {
        let mut reservation = Some(ClaimReservation::new().unwrap());
        result = try_claim(account, claimant, amounts, &mut reservation);
    }
    assert!(matches!(result, Ok(()) | Err(QuotaError::Refused)));
    result.is_ok()
}

impl Account {
    /// Returns all claimants with what each holds.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (Claimant, &Claim)> {
        self.claims.iter().map(|(&peer, claim)| {
            let uid = claim.uid;
            (Claimant { uid, peer }, claim)
        })
    }
}

/// Asserts the invariants that the head of `account.rs` lists.
fn assert_invariants(account: &mut Account) {
    let (mut granted, mut foreign) = (NOTHING, [0; RESOURCES]);
    let mut used = BTreeMap::new();
    for (&uid, share) in &account.shares {
        for r in 0..RESOURCES {
            granted[r] += share.granted[r];
            foreign[r] += u32::from(uid != account.owner && share.granted[r] != 0);
            assert!(share.used[r] <= share.granted[r]);
            assert!(share.granted[r] <= 2 * share.used[r]);
        }
        used.insert(uid, share.used);
    }
    assert_eq!(account.granted, granted);
    assert_eq!(account.foreign, foreign);
    let mut held = BTreeMap::new();
    for (claimant, claim) in account.claims() {
        let sum = held.entry(claimant.uid).or_insert(NOTHING);
        for (sum, held) in sum.iter_mut().zip(claim.held) {
            *sum += held;
        }
    }
    // A user with a share and no claim holds nothing.
    used.retain(|uid, used| *used != NOTHING || held.contains_key(uid));
    assert_eq!(used, held);
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

/// Fills `account` as the table says: each claimant takes all that it can get.
fn fill(account: &mut Account, table: &[(u32, u64, u64)], one_by_one: bool) {
    for &(uid, peer, most) in table {
        let claimant = claimant(uid, peer);
        if one_by_one {
            for _ in 0..most {
                assert!(
                    claim(account, claimant, &only(BYTES, 1)),
                    "{claimant:?} of {most}"
                );
            }
        } else {
            assert!(
                !claim(account, claimant, &only(BYTES, most + 1)),
                "{claimant:?}"
            );
            assert!(claim(account, claimant, &only(BYTES, most)), "{claimant:?}");
        }
        assert!(
            !claim(account, claimant, &only(BYTES, 1)),
            "{claimant:?} got more"
        );
        assert_invariants(account);
    }
}

#[test]
fn own_peers_get_a_half_and_a_quarter() {
    for one_by_one in [false, true] {
        fill(
            &mut Account::new(OWNER, limits(1024)),
            &WORKED[..2],
            one_by_one,
        );
    }
}

#[test]
fn foreign_users_get_the_worked_shares() {
    for one_by_one in [false, true] {
        fill(
            &mut Account::new(OWNER, limits(1024)),
            &WORKED[2..],
            one_by_one,
        );
    }
}

#[test]
fn the_owner_gets_half_of_what_foreign_users_leave() {
    let mut account = Account::new(OWNER, limits(1024));
    fill(&mut account, &WORKED[2..], false);
    // 1024 less the shares of 256 and 84.
    fill(&mut account, &[(OWNER, 1, 342), (OWNER, 2, 171)], false);
}

#[test]
fn foreign_users_get_nothing_of_what_the_owner_holds() {
    let mut account = Account::new(OWNER, limits(1024));
    fill(&mut account, &WORKED[..2], true);
    assert!(!claim(&mut account, claimant(100, 3), &only(BYTES, 1)));
    // Another resource is another matter.
    assert!(claim(&mut account, claimant(100, 3), &only(SLICES, 128)));
    assert_invariants(&mut account);
}

#[test]
fn a_released_amount_can_be_taken_again() {
    let mut account = Account::new(OWNER, limits(1024));
    for _ in 0..3 {
        fill(&mut account, &WORKED[2..], true);
        for (_, peer, most) in &WORKED[2..] {
            account.release(*peer, &only(BYTES, *most));
            assert_invariants(&mut account);
        }
        assert_eq!((account.granted, account.used()), (NOTHING, NOTHING));
    }
}

#[test]
fn a_release_lowers_the_share_to_twice_its_use() {
    let mut account = Account::new(OWNER, limits(1024));
    assert!(claim(&mut account, claimant(100, 1), &only(FDS, 100)));
    assert_eq!(account.granted[FDS], 200);
    account.release(1, &only(FDS, 60));
    assert_eq!(account.granted[FDS], 80);
    account.release(1, &only(FDS, 40));
    assert_eq!(account.granted[FDS], 0);
    assert_invariants(&mut account);
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
    let mut account = Account::new(OWNER, limits(u32::MAX));
    assert!(claim(&mut account, claimant(OWNER, 1), &only(BYTES, 9)));
    assert!(claim(&mut account, claimant(100, 2), &only(BYTES, 9)));
    let granted = account.granted;
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
            assert!(!claim(&mut account, claimant, &only(BYTES, amount)));
        }
    }
    assert_eq!(account.granted, granted);
    assert_invariants(&mut account);
}

#[test]
fn all_of_a_claim_is_granted_or_nothing() {
    let mut account = Account::new(OWNER, limits(1024));
    assert!(!claim(&mut account, claimant(100, 1), &[1, 1, 129, 1]));
    assert_eq!((account.granted, account.used()), (NOTHING, NOTHING));
    assert_invariants(&mut account);
    assert!(claim(&mut account, claimant(100, 1), &[1, 128, 128, 0]));
    assert_eq!(account.used(), [1, 128, 128, 0]);
    assert_eq!(account.foreign, [1, 1, 1, 0]);
    assert_invariants(&mut account);
}

#[test]
fn a_limit_below_what_is_held_refuses_everything() {
    let mut account = Account::new(OWNER, limits(1024));
    assert!(claim(&mut account, claimant(OWNER, 1), &only(BYTES, 512)));
    account.limits[BYTES] = 600;
    // The share was granted 1024, but may only use 600 now.
    assert!(!claim(&mut account, claimant(OWNER, 2), &only(BYTES, 45)));
    assert!(claim(&mut account, claimant(OWNER, 2), &only(BYTES, 44)));
    account.limits[BYTES] = 0;
    for claimant in [
        claimant(OWNER, 1),
        claimant(OWNER, 2),
        claimant(OWNER, 3),
        claimant(100, 4),
    ] {
        assert!(!claim(&mut account, claimant, &only(BYTES, 1)));
    }
    account.release(1, &only(BYTES, 512));
    account.release(2, &only(BYTES, 44));
    assert_invariants(&mut account);
    assert_eq!(account.granted, NOTHING);
}

#[test]
fn a_new_claimant_needs_a_reservation_once() {
    let mut account = Account::new(OWNER, limits(1024));
    let (new, byte) = (claimant(1, 1), only(BYTES, 1));
    let mut reservation = None;
    let refusal = try_claim(&mut account, new, &byte, &mut reservation);
    assert_eq!(refusal, Err(QuotaError::NeedsReservation));
    assert_eq!(account.granted, NOTHING);
    reservation = Some(ClaimReservation::new().unwrap());
    try_claim(&mut account, new, &byte, &mut reservation).unwrap();
    assert!(reservation.is_none());
    try_claim(&mut account, new, &byte, &mut reservation).unwrap();
}

/// A check that no grant follows, as where the user's account refuses, leaves all numbers as they
/// were.
#[test]
fn a_check_books_nothing() {
    let mut account = Account::new(OWNER, limits(1024));
    for claimant in [claimant(OWNER, 1), claimant(100, 2)] {
        let mut reservation = Some(ClaimReservation::new().unwrap());
        let grant = account.check(claimant, &[1, 2, 3, 4], &mut reservation);
        assert!(grant.is_ok() && reservation.is_none());
        assert_eq!((account.granted, account.used()), (NOTHING, NOTHING));
        assert_eq!(account.foreign, [0; RESOURCES]);
        assert_invariants(&mut account);
    }
}

#[test]
fn a_sweep_drops_claimants_that_hold_nothing() {
    let mut account = Account::new(OWNER, limits(1 << 20));
    for peer in 0..64 {
        assert!(claim(
            &mut account,
            claimant(peer as u32 / 4, peer),
            &only(BYTES, 1)
        ));
    }
    assert!(account.is_crowded());
    for peer in (0..64).filter(|peer| peer % 8 != 0) {
        account.release(peer, &only(BYTES, 1));
    }
    account.sweep();
    let left: Vec<u64> = account
        .claims()
        .map(|(claimant, _)| claimant.peer)
        .collect();
    let expected: Vec<u64> = (0..64).step_by(8).collect();
    assert_eq!(left, expected);
    // Every other user is left, with one peer.
    assert_eq!(account.claims.iter().count(), 8);
    assert_eq!(account.shares.iter().count(), 8);
    assert_eq!(account.sweep_in, 8 + 32);
    assert!(!account.is_crowded());
    assert_invariants(&mut account);
    // A swept claimant starts anew.
    assert!(claim(&mut account, claimant(0, 1), &only(BYTES, 1)));
    assert_invariants(&mut account);
    for peer in (0..64).step_by(8) {
        account.release(peer, &only(BYTES, 1));
    }
    account.release(1, &only(BYTES, 1));
    account.sweep();
    assert!(account.claims.is_empty() && account.shares.is_empty());
    // They are older than some that were swept before: each delays the next sweep by two.
    assert_eq!(account.sweep_in, 2 * 9 + 32);
    assert!(claim(&mut account, claimant(0, 100), &only(BYTES, 1)));
    account.release(100, &only(BYTES, 1));
    account.sweep();
    assert_eq!(account.sweep_in, 32);
}

#[test]
fn a_refusal_leaves_at_most_an_entry_of_zeros() {
    let mut account = Account::new(OWNER, limits(16));
    for peer in 0..1000 {
        assert!(!claim(
            &mut account,
            claimant(100 + peer as u32, peer),
            &only(BYTES, 17)
        ));
        if account.is_crowded() {
            account.sweep();
        }
    }
    // Entries of zeros do not pile up.
    assert!(account.claims.iter().count() <= 32);
    assert_invariants(&mut account);
}

#[test]
fn the_resources_are_independent() {
    let mut account = Account::new(OWNER, limits(1024));
    for resource in [SLICES, HANDLES, BYTES, FDS] {
        assert!(claim(&mut account, claimant(100, 1), &only(resource, 128)));
        assert!(!claim(&mut account, claimant(100, 1), &only(resource, 1)));
    }
    assert_invariants(&mut account);
}
