// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Random claims and releases against a model that is written from nothing except the contract's
//! sentence: the grants of the model are granted, nothing else is, and all of it comes back.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// The contract's sentence, between users and between the claimants of one, for one resource.
struct Model {
    level: Level,
    limit: u64,
    /// By user: the amount that it was granted, and the amount of each of its claimants.
    shares: BTreeMap<u32, (u64, BTreeMap<u64, u64>)>,
}

/// `A(n)`, by the letter.
fn by_the_letter(n: u64) -> u64 {
    let log = (0..).find(|log| 1 << log > n).unwrap();
    (n + 1) * log + n + 1
}

impl Model {
    fn new(level: Level, limit: u64) -> Self {
        Self {
            level,
            limit,
            shares: BTreeMap::new(),
        }
    }

    /// Returns the amount that the claimant's user has to be granted more, if all may be.
    fn grow(&self, claimant: Claimant, amount: u64) -> Option<u64> {
        let nobody = Default::default();
        let (granted, claims) = self.shares.get(&claimant.uid).unwrap_or(&nobody);
        let used: u64 = claims.values().sum();
        let held = claims.get(&claimant.peer).copied().unwrap_or(0);
        let all: u64 = self.shares.values().map(|(granted, _)| granted).sum();
        let mut n = 0;
        for (&uid, (granted, _)) in &self.shares {
            n += u64::from(uid != OWNER && *granted != 0);
        }
        n += u64::from(*granted == 0);
        let others = claims
            .iter()
            .filter(|(&id, &n)| id != claimant.peer && n != 0);
        let (between, own) = match self.level {
            Level::Peer => (2, 1),
            _ => (by_the_letter(others.count() as u64 + 1), 2),
        };
        let by = if claimant.uid == OWNER {
            own
        } else {
            by_the_letter(n)
        };
        // Between the claimants of the user: claim + share <= (remaining + share) / A.
        let fits = |grow: &u64| between * (amount + held) <= granted + grow - used + held;
        let grow = (between * (amount + held) + used).saturating_sub(granted + held);
        assert!(fits(&grow) && (grow == 0 || !fits(&(grow - 1))));
        if all > self.limit {
            // Over the limit already: what others were granted stays theirs.
            let left = self.limit.saturating_sub(all - granted);
            let need = between * (amount + held) + used - held;
            return (need <= left && grow == 0).then_some(0);
        }
        // Between users: claim + share <= (remaining + share) / A.
        let fits = grow == 0 || (grow + granted) * by <= self.limit - all + granted;
        fits.then_some(grow)
    }

    fn claim(&mut self, claimant: Claimant, amount: u64) -> bool {
        if amount == 0 {
            return true;
        }
        let Some(grow) = self.grow(claimant, amount) else {
            return false;
        };
        let share = self.shares.entry(claimant.uid).or_default();
        share.0 += grow;
        *share.1.entry(claimant.peer).or_default() += amount;
        true
    }

    fn release(&mut self, claimant: Claimant, amount: u64) {
        let share = self.shares.get_mut(&claimant.uid).unwrap();
        *share.1.get_mut(&claimant.peer).unwrap() -= amount;
        let single = if self.level == Level::Peer { 2 } else { 4 };
        share.0 = share.0.min(single * share.1.values().sum::<u64>());
    }

    fn used(&self) -> u64 {
        let claims = self.shares.values().flat_map(|(_, claims)| claims.values());
        claims.sum()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Claim(u64, u64),
    /// Part of the claimant's amount, in 16ths.
    Release(u64, u64),
    Limit(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0..10u64, 1..80u64).prop_map(|(peer, amount)| Op::Claim(peer, amount)),
        8 => (0..10u64, 0..=16u64).prop_map(|(peer, part)| Op::Release(peer, part)),
        1 => (0..500u64).prop_map(Op::Limit),
    ];
    prop::collection::vec(op, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_grants_of_the_model_are_granted_and_all_come_back(
        ops in ops(),
        level in prop_oneof![Just(Level::Peer), Just(Level::User)],
    ) {
        let mut bench = Bench::new(level, 400);
        let mut model = Model::new(level, 400);
        // Two own claimants, and eight of three foreign users.
        let users = [OWNER, OWNER, 1, 1, 1, 2, 2, 3, 3, 3];
        for op in ops {
            match op {
                Op::Claim(peer, amount) => {
                    let claimant = claimant(users[peer as usize], peer);
                    let granted = bench.claim(claimant, &only(HANDLES, amount));
                    prop_assert_eq!(granted, model.claim(claimant, amount));
                    prop_assert!(!granted || bench.account.used[HANDLES] <= model.limit);
                }
                Op::Release(peer, part) => {
                    let claimant = claimant(users[peer as usize], peer);
                    let amount = bench.held(claimant)[HANDLES] * part / 16;
                    if amount != 0 {
                        bench.release(claimant, &only(HANDLES, amount));
                        model.release(claimant, amount);
                    }
                }
                Op::Limit(limit) => {
                    bench.account.limits[HANDLES] = limit;
                    model.limit = limit;
                }
            }
            bench.assert_invariants();
            prop_assert_eq!(bench.account.used[HANDLES], model.used());
        }
        bench.end();
    }
}
