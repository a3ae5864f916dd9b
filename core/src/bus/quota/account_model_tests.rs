// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Random claims and releases against a model that is written from nothing except the contract's
//! sentence: the grants of the model are granted, nothing else is, and all of it comes back.

use proptest::prelude::*;

use super::*;

/// The contract's sentence on both levels, for one resource.
#[derive(Default)]
struct Model {
    limit: u64,
    /// By user: the amount that it was granted, and the amount of each of its peers.
    shares: BTreeMap<u32, (u64, BTreeMap<u64, u64>)>,
}

impl Model {
    /// Returns the amount that the claimant's user has to be granted more, if all may be.
    fn grow(&self, claimant: Claimant, amount: u64) -> Option<u64> {
        let nobody = Default::default();
        let (granted, peers) = self.shares.get(&claimant.uid).unwrap_or(&nobody);
        let used: u64 = peers.values().sum();
        let held = peers.get(&claimant.peer).copied().unwrap_or(0);
        let all: u64 = self.shares.values().map(|(granted, _)| granted).sum();
        let holders = self.shares.iter();
        let mut n = holders
            .filter(|(&uid, (granted, _))| uid != OWNER && *granted != 0)
            .count() as u64;
        n += u64::from(*granted == 0);
        let by = if claimant.uid == OWNER {
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
    /// Part of the peer's amount, in 16ths.
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
    fn the_grants_of_the_model_are_granted_and_all_come_back(ops in ops()) {
        let mut account = Account::new(OWNER, limits(400));
        let mut model = Model { limit: 400, ..Model::default() };
        let mut held = BTreeMap::new();
        // Two own peers, and eight of three foreign users.
        let users = [OWNER, OWNER, 1, 1, 1, 2, 2, 3, 3, 3];
        for op in ops {
            match op {
                Op::Claim(peer, amount) => {
                    let claimant = claimant(users[peer as usize], peer);
                    let granted = claim(&mut account, claimant, &only(HANDLES, amount));
                    prop_assert_eq!(granted, model.claim(claimant, amount));
                    if granted {
                        *held.entry(peer).or_insert(0) += amount;
                        prop_assert!(account.used()[HANDLES] <= account.limits[HANDLES]);
                    }
                }
                Op::Release(peer, part) => {
                    let held = held.entry(peer).or_insert(0);
                    let amount = *held * part / 16;
                    *held -= amount;
                    if amount != 0 {
                        let claimant = claimant(users[peer as usize], peer);
                        account.release(claimant.peer, &only(HANDLES, amount));
                        model.release(claimant, amount);
                    }
                }
                Op::Limit(limit) => {
                    account.limits[HANDLES] = u64::from(limit);
                    model.limit = u64::from(limit);
                }
                Op::Sweep => account.sweep(),
            }
            assert_invariants(&mut account);
            prop_assert_eq!(account.used()[HANDLES], model.used());
        }
        for (peer, amount) in held {
            if amount != 0 {
                account.release(peer, &only(HANDLES, amount));
            }
        }
        prop_assert_eq!((account.granted, account.used()), (NOTHING, NOTHING));
        prop_assert_eq!(account.foreign, [0; RESOURCES]);
        account.sweep();
        prop_assert!(account.claims.is_empty() && account.shares.is_empty());
    }
}
