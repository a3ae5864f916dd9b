// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Questions about quota that change nothing: the most that may be claimed, and the limit that
//! would refuse a claim.

use crate::bus::quota::account::{Account, Share};
use crate::bus::quota::ledger::{Ledger, RECALL_CHUNK};
use crate::bus::quota::level::{divisor, Level};
use crate::bus::quota::resource::{add, Amounts, Claimant, HANDLES, NOTHING};

impl Account {
    /// Returns the most of each resource that one claim of this user may be, where nobody holds
    /// anything except handles of the owner: `held` by the claimant that a claim of the owner is
    /// for, and one by each of `others`.
    pub(crate) fn most(&self, uid: u32, held: u64, others: u32) -> Amounts {
        let most = |limit: u64, held: u64, others: u32| {
            let other = u64::from(others);
            if uid != self.owner {
                let free = limit.saturating_sub(self.level.between(1) * (held + other));
                return free / (divisor(1) * self.level.between(1));
            }
            let share = (limit / self.level.own()).saturating_sub(other);
            (share / self.level.between(others + 1)).saturating_sub(held)
        };
        let mut all = self.limits.map(|limit| most(limit, 0, 0));
        all[HANDLES] = most(self.limits[HANDLES], held, others);
        all
    }

    /// Returns the first resource that would be refused to a claimant of a user that holds `held`.
    pub(crate) fn refuses(&self, uid: u32, held: &Amounts, amounts: &Amounts) -> Option<usize> {
        let none = Share::new(uid != self.owner);
        let share = self.shares.get(&uid).unwrap_or(&none);
        self.grown(share, held, amounts, 0).err()
    }
}

impl Ledger {
    /// Sums up the credit that lies idle with the next few claimants from `from` on, and moves
    /// `from` behind them: to None at the end.
    pub(crate) fn idle_from(&self, from: &mut Option<u64>) -> Amounts {
        let mut idle = NOTHING;
        for _ in 0..RECALL_CHUNK {
            let here = from.and_then(|from| self.keeping.cursor_lower_bound(&from));
            let Some(here) = here else {
                *from = None;
                break;
            };
            let (peer, claim) = here.current();
            add(&mut idle, &claim.credit);
            *from = peer.checked_add(1);
        }
        idle
    }

    /// Returns the most of each resource that one claim may be, where nobody holds anything except
    /// what a sender and a receiver hold in any case: the receiver its own node, and a sender of the
    /// same user the handle to that.
    pub(crate) fn most(&self, claimant: Claimant) -> Amounts {
        let Claimant { uid, peer } = claimant;
        let is_other = peer != self.peer;
        let here = self
            .account
            .most(uid, u64::from(!is_other), u32::from(is_other));
        let is_other = is_other && uid == self.owner();
        let books = self.user.account.lock();
        let all = books.account.most(uid, 1, u32::from(is_other));
        core::array::from_fn(|r| here[r].min(all[r]))
    }

    /// Returns the level and the resource that would refuse `amounts` now, credit not recalled.
    pub(crate) fn refuses(&self, claimant: Claimant, amounts: &Amounts) -> Option<(Level, usize)> {
        let Claimant { uid, peer } = claimant;
        let claim = self.keeping.get(&peer).or_else(|| self.claims.get(&peer));
        let (held, drawn) = claim.map_or((NOTHING, *amounts), |claim| {
            (claim.held, claim.lacks(amounts))
        });
        if let Some(r) = self.account.refuses(uid, &held, &drawn) {
            return Some((Level::Peer, r));
        }
        let here = self.account.used_by(uid);
        let books = self.user.account.lock();
        let refused = books.account.refuses(uid, &here, &drawn);
        refused.map(|r| (Level::User, r))
    }
}
