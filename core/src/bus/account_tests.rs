// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Quota: the worked numbers of the contract, and conservation against a model written from the
//! contract's sentence alone.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const OWNER: u32 = 7;

fn limits(n: u32) -> Limits {
    [n; RESOURCES]
}

fn who(uid: u32, peer: u64) -> Claimant {
    Claimant { uid, peer }
}

/// A claim of one resource.
fn one(resource: usize, amount: u64) -> Amounts {
    let mut amounts = NOTHING;
    amounts[resource] = amount;
    amounts
}

fn claim(account: &mut Account, who: Claimant, amounts: &Amounts) -> bool {
    let mut room = None;
    let result = match account.claim(who, amounts, &mut room, || Ok(())) {
        Err(Denied::Rooms) => {
            room = Some(Room::new().unwrap());
            account.claim(who, amounts, &mut room, || Ok(()))
        }
        result => result,
    };
    assert!(matches!(result, Ok(()) | Err(Denied::Quota)));
    result.is_ok()
}

/// What the invariants of the head say.
fn check(account: &mut Account) {
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
    for (who, claim) in account.claims() {
        let sum = held.entry(who.uid).or_insert(NOTHING);
        for (sum, held) in sum.iter_mut().zip(claim.held) {
            *sum += held;
        }
    }
    // Who has a share but no claim holds nothing.
    used.retain(|uid, used| *used != NOTHING || held.contains_key(uid));
    assert_eq!(used, held);
}

/// Who comes, and the most that each can take, one after the other, of a limit of 1024.
const WORKED: [(u32, u64, u64); 6] = [
    (OWNER, 1, 512),
    (OWNER, 2, 256),
    (100, 3, 128),
    (100, 4, 64),
    (200, 5, 42),
    (200, 6, 21),
];

/// Fills `account` as the table says: each takes all it can get.
fn fill(account: &mut Account, table: &[(u32, u64, u64)], one_by_one: bool) {
    for &(uid, peer, most) in table {
        let who = who(uid, peer);
        if one_by_one {
            for _ in 0..most {
                assert!(claim(account, who, &one(BYTES, 1)), "{who:?} of {most}");
            }
        } else {
            assert!(!claim(account, who, &one(BYTES, most + 1)), "{who:?}");
            assert!(claim(account, who, &one(BYTES, most)), "{who:?}");
        }
        assert!(!claim(account, who, &one(BYTES, 1)), "{who:?} got more");
        check(account);
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
fn the_owner_gets_half_of_what_foreigners_leave() {
    let mut account = Account::new(OWNER, limits(1024));
    fill(&mut account, &WORKED[2..], false);
    // 1024 less the shares of 256 and 84.
    fill(&mut account, &[(OWNER, 1, 342), (OWNER, 2, 171)], false);
}

#[test]
fn foreigners_get_nothing_of_what_the_owner_has_taken() {
    let mut account = Account::new(OWNER, limits(1024));
    fill(&mut account, &WORKED[..2], true);
    assert!(!claim(&mut account, who(100, 3), &one(BYTES, 1)));
    // Another resource is another matter.
    assert!(claim(&mut account, who(100, 3), &one(SLICES, 128)));
    check(&mut account);
}

#[test]
fn what_is_released_can_be_taken_again() {
    let mut account = Account::new(OWNER, limits(1024));
    for _ in 0..3 {
        fill(&mut account, &WORKED[2..], true);
        for (_, peer, most) in &WORKED[2..] {
            account.release(*peer, &one(BYTES, *most));
            check(&mut account);
        }
        assert_eq!((account.granted, account.used()), (NOTHING, NOTHING));
    }
}

#[test]
fn a_release_lowers_the_share_to_twice_its_use() {
    let mut account = Account::new(OWNER, limits(1024));
    assert!(claim(&mut account, who(100, 1), &one(FDS, 100)));
    assert_eq!(account.granted[FDS], 200);
    account.release(1, &one(FDS, 60));
    assert_eq!(account.granted[FDS], 80);
    account.release(1, &one(FDS, 40));
    assert_eq!(account.granted[FDS], 0);
    check(&mut account);
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
    assert!(claim(&mut account, who(OWNER, 1), &one(BYTES, 9)));
    assert!(claim(&mut account, who(100, 2), &one(BYTES, 9)));
    let granted = account.granted;
    for amount in [
        u64::MAX,
        u64::MAX - 1,
        u64::MAX / 2,
        u64::MAX / 2 + 1,
        u64::MAX / 4,
        u64::MAX / 8,
    ] {
        for who in [who(OWNER, 1), who(100, 2), who(100, 3), who(200, 4)] {
            assert!(!claim(&mut account, who, &one(BYTES, amount)));
        }
    }
    assert_eq!(account.granted, granted);
    check(&mut account);
}

#[test]
fn all_of_a_claim_is_granted_or_nothing() {
    let mut account = Account::new(OWNER, limits(1024));
    assert!(!claim(&mut account, who(100, 1), &[1, 1, 129, 1]));
    assert_eq!((account.granted, account.used()), (NOTHING, NOTHING));
    check(&mut account);
    assert!(claim(&mut account, who(100, 1), &[1, 128, 128, 0]));
    assert_eq!(account.used(), [1, 128, 128, 0]);
    assert_eq!(account.foreign, [1, 1, 1, 0]);
    check(&mut account);
}

#[test]
fn a_limit_below_what_is_held_refuses_everything() {
    let mut account = Account::new(OWNER, limits(1024));
    assert!(claim(&mut account, who(OWNER, 1), &one(BYTES, 512)));
    account.limit[BYTES] = 600;
    // The share was granted 1024, but may only use 600 now.
    assert!(!claim(&mut account, who(OWNER, 2), &one(BYTES, 45)));
    assert!(claim(&mut account, who(OWNER, 2), &one(BYTES, 44)));
    account.limit[BYTES] = 0;
    for who in [who(OWNER, 1), who(OWNER, 2), who(OWNER, 3), who(100, 4)] {
        assert!(!claim(&mut account, who, &one(BYTES, 1)));
    }
    account.release(1, &one(BYTES, 512));
    account.release(2, &one(BYTES, 44));
    check(&mut account);
    assert_eq!(account.granted, NOTHING);
}

#[test]
fn a_new_claimant_needs_memory_once() {
    let mut account = Account::new(OWNER, limits(1024));
    let mut room = None;
    let refusal = account.claim(who(1, 1), &one(BYTES, 1), &mut room, || Ok(()));
    assert_eq!(refusal, Err(Denied::Rooms));
    assert_eq!(account.granted, NOTHING);
    room = Some(Room::new().unwrap());
    account
        .claim(who(1, 1), &one(BYTES, 1), &mut room, || Ok(()))
        .unwrap();
    assert!(room.is_none());
    account
        .claim(who(1, 1), &one(BYTES, 1), &mut room, || Ok(()))
        .unwrap();
}

#[test]
fn a_sweep_takes_those_who_hold_nothing() {
    let mut account = Account::new(OWNER, limits(1 << 20));
    for peer in 0..64 {
        assert!(claim(
            &mut account,
            who(peer as u32 / 4, peer),
            &one(BYTES, 1)
        ));
    }
    assert!(account.crowded());
    for peer in (0..64).filter(|peer| peer % 8 != 0) {
        account.release(peer, &one(BYTES, 1));
    }
    account.sweep();
    let left: Vec<u64> = account.claims().map(|(who, _)| who.peer).collect();
    let expected: Vec<u64> = (0..64).step_by(8).collect();
    assert_eq!(left, expected);
    // Every other user is left, with one peer.
    assert_eq!(account.claims.iter().count(), 8);
    assert_eq!(account.shares.iter().count(), 8);
    assert_eq!(account.sweep_in, 8 + 32);
    assert!(!account.crowded());
    check(&mut account);
    // A swept one starts anew.
    assert!(claim(&mut account, who(0, 1), &one(BYTES, 1)));
    check(&mut account);
    for peer in (0..64).step_by(8) {
        account.release(peer, &one(BYTES, 1));
    }
    account.release(1, &one(BYTES, 1));
    account.sweep();
    assert!(account.claims.is_empty() && account.shares.is_empty());
    // Older than some that were swept before: each gets room for itself and another.
    assert_eq!(account.sweep_in, 2 * 9 + 32);
    assert!(claim(&mut account, who(0, 100), &one(BYTES, 1)));
    account.release(100, &one(BYTES, 1));
    account.sweep();
    assert_eq!(account.sweep_in, 32);
}

#[test]
fn a_refusal_leaves_at_most_an_entry_of_zeros() {
    let mut account = Account::new(OWNER, limits(16));
    for peer in 0..1000 {
        assert!(!claim(
            &mut account,
            who(100 + peer as u32, peer),
            &one(BYTES, 17)
        ));
        if account.crowded() {
            account.sweep();
        }
    }
    // They do not pile up.
    assert!(account.claims.iter().count() <= 32);
    check(&mut account);
}

/// The contract's sentence, on both levels, for one resource.
#[derive(Default)]
struct Model {
    limit: u64,
    /// By user: what it was granted, and what each of its peers holds.
    shares: BTreeMap<u32, (u64, BTreeMap<u64, u64>)>,
}

impl Model {
    /// How much the claimant's user has to be granted more, if all may be.
    fn grow(&self, who: Claimant, amount: u64) -> Option<u64> {
        let nobody = Default::default();
        let (granted, peers) = self.shares.get(&who.uid).unwrap_or(&nobody);
        let used: u64 = peers.values().sum();
        let held = peers.get(&who.peer).copied().unwrap_or(0);
        let all: u64 = self.shares.values().map(|(granted, _)| granted).sum();
        let holders = self.shares.iter();
        let mut n = holders
            .filter(|(&uid, (granted, _))| uid != OWNER && *granted != 0)
            .count() as u64;
        n += u64::from(*granted == 0);
        let by = if who.uid == OWNER {
            1
        } else {
            let log = (0..).find(|log| 1 << log > n).unwrap();
            (n + 1) * log + n + 1
        };
        // Between the peers of the user: claim + share <= (remaining + share) / 2.
        let fits = |grow: &u64| 2 * (amount + held) <= granted + grow - used + held;
        let grow = (0..=2 * (amount + held) + used).find(fits)?;
        if all > self.limit {
            // Over the limit already: what others were granted stays theirs.
            let left = self.limit.saturating_sub(all - granted);
            let need = 2 * amount + held + used;
            return (need <= left && grow == 0).then_some(0);
        }
        // Between users: claim + share <= (remaining + share) / A.
        let fits = grow == 0 || (grow + granted) * by <= self.limit - all + granted;
        fits.then_some(grow)
    }

    fn claim(&mut self, who: Claimant, amount: u64) -> bool {
        if amount == 0 {
            return true;
        }
        let Some(grow) = self.grow(who, amount) else {
            return false;
        };
        let share = self.shares.entry(who.uid).or_default();
        share.0 += grow;
        *share.1.entry(who.peer).or_default() += amount;
        true
    }

    fn release(&mut self, who: Claimant, amount: u64) {
        let share = self.shares.get_mut(&who.uid).unwrap();
        *share.1.get_mut(&who.peer).unwrap() -= amount;
        share.0 = share.0.min(2 * share.1.values().sum::<u64>());
    }

    fn used(&self) -> u64 {
        let peers = self.shares.values().flat_map(|(_, peers)| peers.values());
        peers.sum()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Claim(u64, u64),
    /// Part of what the peer holds, in 16ths.
    Release(u64, u64),
    Limit(u32),
    Sweep,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0..10u64, 1..80u64).prop_map(|(peer, amount)| Op::Claim(peer, amount)),
        8 => (0..10u64, 0..=16u64).prop_map(|(peer, part)| Op::Release(peer, part)),
        1 => (0..500u32).prop_map(Op::Limit),
        1 => Just(Op::Sweep),
    ];
    prop::collection::vec(op, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_model_grants_is_granted_and_all_comes_back(ops in ops()) {
        let mut account = Account::new(OWNER, limits(400));
        let mut model = Model { limit: 400, ..Model::default() };
        let mut held = BTreeMap::new();
        // Two own peers, and eight of three foreign users.
        let users = [OWNER, OWNER, 1, 1, 1, 2, 2, 3, 3, 3];
        for op in ops {
            match op {
                Op::Claim(peer, amount) => {
                    let who = who(users[peer as usize], peer);
                    let granted = claim(&mut account, who, &one(HANDLES, amount));
                    prop_assert_eq!(granted, model.claim(who, amount));
                    if granted {
                        *held.entry(peer).or_insert(0) += amount;
                        prop_assert!(account.used()[HANDLES] <= account.limit[HANDLES]);
                    }
                }
                Op::Release(peer, part) => {
                    let held = held.entry(peer).or_insert(0);
                    let amount = *held * part / 16;
                    *held -= amount;
                    if amount != 0 {
                        let who = who(users[peer as usize], peer);
                        account.release(who.peer, &one(HANDLES, amount));
                        model.release(who, amount);
                    }
                }
                Op::Limit(limit) => {
                    account.limit[HANDLES] = u64::from(limit);
                    model.limit = u64::from(limit);
                }
                Op::Sweep => account.sweep(),
            }
            check(&mut account);
            prop_assert_eq!(account.used()[HANDLES], model.used());
        }
        for (peer, amount) in held {
            if amount != 0 {
                account.release(peer, &one(HANDLES, amount));
            }
        }
        prop_assert_eq!((account.granted, account.used()), (NOTHING, NOTHING));
        prop_assert_eq!(account.foreign, [0; RESOURCES]);
        account.sweep();
        prop_assert!(account.claims.is_empty() && account.shares.is_empty());
    }
}

#[test]
fn the_resources_are_independent() {
    let mut account = Account::new(OWNER, limits(1024));
    for resource in [SLICES, HANDLES, BYTES, FDS] {
        assert!(claim(&mut account, who(100, 1), &one(resource, 128)));
        assert!(!claim(&mut account, who(100, 1), &one(resource, 1)));
    }
    check(&mut account);
}
