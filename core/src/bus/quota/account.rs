// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Accounts: the amounts that each user holds of a limit, and whether a claim is granted.
//!
//! An [`Account`] has a limit per resource. Each user that claims of it holds a [`Share`], which is
//! divided between the claimants of that user: its sending peers at a peer's account, the peers
//! that receive from it at a user's, and the peers that it sends to where descriptors in flight are
//! charged. A claim is granted only if `claim + held <= (remaining + held) / A` both between the
//! users and between the claimants of one user:
//!
//! - foreign users divide by `A(n) = (n+1)·⌈log2(n+1)⌉ + (n+1)`, with n the foreign users that hold
//!   some, the claimant included; the owning user by 1 at a peer's account, and by 2 at a user's;
//! - the claimants of one user divide by 2 at a peer's account, and by `A(m)` at a user's, with m
//!   the claimants that hold some, this one included.
//!
//! Between the claimants of a user, the rest is the user's share less what they use. So the share
//! has to be `used + A·(claim + held) - held` before a claim. `docs/design.md` derives both.
//!
//! # Invariants
//!
//! - `granted` and `used` are the sums over all shares; the `used` of a share is the sum of the
//!   amounts that its claimants hold, and `holders` the number of those that hold some.
//! - A share that is not used is not granted: after everything was released all numbers are zero. A
//!   release lowers a share to as much as a single claimant would need for what is used of it.
//! - Entries of zeros may linger until others come; they count for nothing.
//!
//! # Locks
//!
//! None of its own; an account is guarded by the lock that it lies under.

use kernel::prelude::*;
use kernel::rbtree::{Entry, RBTree, RBTreeNodeReservation};

use crate::bus::quota::level::{divisor, Level};
use crate::bus::quota::resource::{Amounts, Limits, ALL, NOTHING, RESOURCES};
use crate::bus::quota::QuotaError;
use crate::bus::tree::find_unused;

/// The smallest limit of which claimants keep credit.
const CREDIT_FROM: u64 = 4096;
/// Claims of a share, granted or refused, that a recall has to wait for after one that did not help,
/// for each claimant whose credit was taken.
const CLAIMS_PER_RECALL: u32 = 64;

/// The amounts that a user holds of an account.
#[derive(Default)]
pub(crate) struct Share {
    granted: Amounts,
    used: Amounts,
    /// Claimants that hold some, by resource.
    holders: [u32; RESOURCES],
    /// It is not the owner's.
    foreign: bool,
    /// Claims until another recall may be tried; the last one did not help.
    recall_after: u32,
    /// Something came back since the last recall, except by recalls.
    is_relieved: bool,
}

impl Share {
    /// Makes a share of nothing, of the owner or of a foreign user.
    pub(super) fn new(foreign: bool) -> Self {
        Self {
            foreign,
            ..Self::default()
        }
    }
}

/// Memory for the share that a user's first claim makes.
pub(crate) type ShareReservation = RBTreeNodeReservation<u32, Share>;

/// Limits and the amounts held of them. If a limit is lowered, amounts beyond it stay.
pub(crate) struct Account {
    pub(super) level: Level,
    pub(super) owner: u32,
    pub(crate) limits: Amounts,
    /// Amounts that all users together were granted.
    granted: Amounts,
    /// Amounts that all claimants together hold, with their credit.
    pub(crate) used: Amounts,
    /// Number of foreign users that hold some, by resource.
    foreign: [u32; RESOURCES],
    pub(super) shares: RBTree<u32, Share>,
    /// Where the search for shares of zeros goes on.
    hand: Option<u32>,
}

/// Returns the amount of a resource that makes one batch of credit for each of `keepers`.
pub(crate) fn batch(limit: u64, keepers: u32) -> u64 {
    if limit < CREDIT_FROM {
        return 0;
    }
    (limit / 256).min(limit / (4 * u64::from(keepers.max(1))))
}

impl Account {
    /// Makes an account of which nothing is held.
    pub(crate) fn new(level: Level, owner: u32, limits: Limits) -> Self {
        Self {
            level,
            owner,
            limits,
            granted: NOTHING,
            used: NOTHING,
            foreign: [0; RESOURCES],
            shares: RBTree::new(),
            hand: None,
        }
    }

    /// Returns the amounts that the claimants of a user hold together.
    pub(crate) fn used_by(&self, uid: u32) -> Amounts {
        self.shares.get(&uid).map_or(NOTHING, |share| share.used)
    }

    /// Returns the size that a share has to have for a claim of one who holds `held`, and None if
    /// it may not. Where `keepers` is not 0, so many claimants are taken to hold nothing except
    /// idle credit, whichever are in the way. A number that overflows is more than any limit.
    fn size_for(
        &self,
        share: &Share,
        held: u64,
        amount: u64,
        r: usize,
        keepers: u32,
    ) -> Option<u64> {
        let (limit, have) = (self.limits[r], share.granted[r]);
        let idle = (2 * batch(limit, 1)).saturating_mul(u64::from(keepers));
        let keepers = if idle == 0 { 0 } else { keepers };
        let others = share.holders[r] - u32::from(held != 0);
        let by = self.level.between(others.saturating_sub(keepers) + 1);
        let need = amount.saturating_add(held.saturating_sub(idle));
        let others = (share.used[r] - held).saturating_sub(idle);
        let need = need.saturating_mul(by).saturating_add(others);
        // Less than the share has, if the limit was lowered since.
        let free = match keepers {
            0 => limit.saturating_sub(self.granted[r] - have),
            _ => limit,
        };
        if need <= have.min(free) {
            return Some(have);
        }
        let by = if share.foreign {
            let others = self.foreign[r] - u32::from(have != 0);
            divisor(others.saturating_sub(keepers) + 1)
        } else {
            self.level.own()
        };
        (need.saturating_mul(by) <= free).then_some(need)
    }

    /// Returns the amounts that a share grows to if all of `amounts` are granted to a claimant that
    /// holds `held`. See [`Account::size_for`] for `keepers`.
    ///
    /// # Errors
    ///
    /// The first resource that is refused.
    pub(super) fn grown(
        &self,
        share: &Share,
        held: &Amounts,
        amounts: &Amounts,
        keepers: u32,
    ) -> Result<Amounts, usize> {
        let mut grown = share.granted;
        for r in ALL.into_iter().filter(|&r| amounts[r] != 0) {
            let size = self.size_for(share, held[r], amounts[r], r, keepers);
            grown[r] = size.ok_or(r)?;
        }
        Ok(grown)
    }

    /// Checks whether all of `amounts` may be granted to a claimant of a user that holds `held`.
    /// Returns the amounts that the user's share grows to then, for [`Account::grant`] under the
    /// same lock. Changes nothing, except that a new user gets its entry from `reservation`.
    ///
    /// # Errors
    ///
    /// NeedsReservation; Refused; RefusedUntilRecall if that might help, of `keepers` claimants
    /// that may have credit. That is remembered, until a grant proves that the recall helped.
    pub(crate) fn check(
        &mut self,
        uid: u32,
        held: &Amounts,
        amounts: &Amounts,
        reservation: &mut Option<ShareReservation>,
        keepers: u32,
    ) -> Result<Amounts, QuotaError> {
        let Some(share) = self.shares.get(&uid) else {
            let reservation = reservation.take().ok_or(QuotaError::NeedsReservation)?;
            self.enter(uid, reservation);
            return self.check(uid, held, amounts, &mut None, keepers);
        };
        if let Ok(grown) = self.grown(share, held, amounts, 0) {
            return Ok(grown);
        }
        let helps = keepers != 0 && self.grown(share, held, amounts, keepers).is_ok();
        let Some(share) = self.shares.get_mut(&uid).filter(|_| helps) else {
            return Err(QuotaError::Refused);
        };
        if share.recall_after != 0 {
            share.recall_after -= 1;
            return Err(QuotaError::Refused);
        }
        share.recall_after = keepers.saturating_mul(CLAIMS_PER_RECALL);
        share.is_relieved = false;
        Err(QuotaError::RefusedUntilRecall(self.level, keepers))
    }

    /// Books a claim that [`Account::check`] found to fit, at once or after a `recall` that it made.
    /// So the recall helped, except perhaps where the user itself gave something back meanwhile:
    /// otherwise two of its calls, of which one takes the room of the other and gives it back, would
    /// have credit recalled for ever.
    pub(crate) fn grant(
        &mut self,
        uid: u32,
        held: &Amounts,
        amounts: &Amounts,
        grown: &Amounts,
        recall: bool,
    ) {
        let Some(share) = self.shares.get_mut(&uid) else {
            debug_assert!(false, "a grant to a user without an entry");
            return;
        };
        for r in ALL.into_iter().filter(|&r| amounts[r] != 0) {
            self.foreign[r] += u32::from(share.granted[r] == 0 && share.foreign);
            self.granted[r] += grown[r] - share.granted[r];
            self.used[r] += amounts[r];
            share.used[r] += amounts[r];
            share.holders[r] += u32::from(held[r] == 0);
        }
        share.granted = *grown;
        share.recall_after = match recall {
            true if share.is_relieved => share.recall_after / CLAIMS_PER_RECALL,
            true => 0,
            false => share.recall_after.saturating_sub(1),
        };
    }

    /// Makes the entry of a user, and drops a few that hold nothing.
    fn enter(&mut self, uid: u32, reservation: ShareReservation) {
        let unused = |share: &mut Share| share.used == NOTHING;
        let found = find_unused(&mut self.shares, &mut self.hand, unused);
        for uid in found.iter().flatten() {
            self.shares.remove(uid);
        }
        if let Entry::Vacant(vacant) = self.shares.entry(uid) {
            vacant.insert(Share::new(uid != self.owner), reservation);
        }
    }

    /// Gives back amounts of a claimant of a user that holds `held`, these included: credit that a
    /// `recall` takes, or what is not used any more.
    pub(crate) fn release(&mut self, uid: u32, held: &Amounts, amounts: &Amounts, recall: bool) {
        let Some(share) = self.shares.get_mut(&uid) else {
            debug_assert!(*amounts == NOTHING, "release by one that holds nothing");
            return;
        };
        share.is_relieved |= !recall;
        for r in ALL.into_iter().filter(|&r| amounts[r] != 0) {
            debug_assert!(held[r] >= amounts[r] && share.used[r] >= held[r]);
            self.used[r] -= amounts[r];
            share.used[r] -= amounts[r];
            share.holders[r] -= u32::from(held[r] == amounts[r]);
            let keep = share.granted[r].min(self.level.between(1) * share.used[r]);
            self.granted[r] -= share.granted[r] - keep;
            share.granted[r] = keep;
            self.foreign[r] -= u32::from(keep == 0 && share.foreign);
        }
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
