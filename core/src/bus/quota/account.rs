// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Accounts: the amounts that each claimant holds, and the decision whether a claim is granted.
//!
//! An [`Account`] has a limit per resource. Users that send to its owner hold a [`Share`] of it,
//! and within a share every sending peer holds its part, a [`Claim`]. A claim is granted only if
//! `claim + held <= (remaining + held) / A` on both levels:
//!
//! - between users, `A(n) = (n+1)·⌈log2(n+1)⌉ + (n+1)`, with n the foreign users that hold some,
//!   the claimant included; for the owning user A is 1;
//! - between the peers of one user, `A = 2`, where the rest is the user's share less the use of its
//!   peers. So a share has to be `used + 2·claim + held` before a claim.
//!
//! # Invariants
//!
//! - `granted` is the sum of all shares' `granted`; a share's `used` is the sum of the amounts of
//!   its peers.
//! - The amounts of a peer include its credit, which it was granted and does not use at the moment;
//!   see [`ledger`](super::ledger).
//! - A share that is not used is not granted: after everything was released all numbers are zero. A
//!   release lowers a share to twice its use, as much as a single peer would need.
//! - Entries of zeros may linger, until the next sweep; they count for nothing.
//!
//! # Locks
//!
//! None of its own; an account is guarded by the lock that it lies under.

use kernel::prelude::*;
use kernel::rbtree::{Entry, RBTree, RBTreeNodeReservation};

use crate::bus::host::GFP_KEPT;
use crate::bus::quota::resource::{add, Amounts, Claimant, Limits, ALL, NOTHING, RESOURCES};
use crate::bus::quota::QuotaError;
use crate::bus::tree::retain;

/// Number of peers that may come until a first sweep.
const SWEEP_AT_LEAST: usize = 32;

/// The amounts that a user holds of an account.
#[derive(Default)]
pub(crate) struct Share {
    granted: Amounts,
    used: Amounts,
    /// It is not the owner's.
    foreign: bool,
}

/// The amounts that a peer holds of an account.
#[derive(Default)]
pub(crate) struct Claim {
    pub(crate) held: Amounts,
    /// The part of it that is not used.
    pub(crate) credit: Amounts,
    /// The peer may have credit.
    pub(crate) keeps: bool,
    uid: u32,
}

/// Memory for the entries that a claimant's first claim makes.
pub(crate) struct ClaimReservation {
    share: RBTreeNodeReservation<u32, Share>,
    claim: RBTreeNodeReservation<u64, Claim>,
}

impl ClaimReservation {
    /// Allocates it.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            share: RBTreeNodeReservation::new(GFP_KEPT)?,
            claim: RBTreeNodeReservation::new(GFP_KEPT)?,
        })
    }
}

/// Limits and the amounts held of them. If a limit is lowered, amounts beyond it stay.
pub(crate) struct Account {
    owner: u32,
    pub(crate) limits: Amounts,
    /// Amounts that all claimants together were granted.
    granted: Amounts,
    /// Number of foreign users that hold some, by resource.
    foreign: [u32; RESOURCES],
    shares: RBTree<u32, Share>,
    claims: RBTree<u64, Claim>,
    /// Number of peers that may come until a sweep is worth its time.
    sweep_in: usize,
    /// The youngest peer, by its ID, that was swept.
    youngest_swept: u64,
    /// Number of claimants that may have credit.
    pub(crate) keepers: u32,
}

/// Returns the divisor between users, when `n` foreign ones hold some.
pub(crate) fn divisor(n: u32) -> u64 {
    let m = u64::from(n) + 1;
    let log = u64::from(u64::BITS - (m - 1).leading_zeros());
    m * log + m
}

/// Returns the size that a share needs for a claim, before the divisor between users. A sum that
/// overflows is more than any limit.
fn share_needed(share: &Share, claim: &Claim, amount: u64, r: usize) -> u64 {
    let double = amount.saturating_mul(2);
    double.saturating_add(claim.held[r] + share.used[r])
}

impl Account {
    /// Makes an account of which nothing is held.
    pub(crate) fn new(owner: u32, limits: Limits) -> Self {
        Self {
            owner,
            limits: limits.map(u64::from),
            granted: NOTHING,
            foreign: [0; RESOURCES],
            shares: RBTree::new(),
            claims: RBTree::new(),
            sweep_in: SWEEP_AT_LEAST,
            youngest_swept: 0,
            keepers: 0,
        }
    }

    /// Returns whether nobody holds anything.
    pub(crate) fn is_unused(&self) -> bool {
        self.granted == NOTHING
    }

    /// Sums up the amounts that all claimants use; takes time in proportion to their number.
    pub(crate) fn used(&self) -> Amounts {
        let mut sum = NOTHING;
        for claim in self.claims.values() {
            for r in ALL {
                sum[r] += claim.held[r] - claim.credit[r];
            }
        }
        sum
    }

    /// Returns the entry of the peer of this ID; None if it never claimed or was swept.
    #[inline]
    pub(crate) fn claim_mut(&mut self, peer: u64) -> Option<&mut Claim> {
        self.claims.get_mut(&peer)
    }

    /// Returns the entries of a claimant; None if it never claimed or was swept.
    fn entries(&self, claimant: Claimant) -> Option<(&Share, &Claim)> {
        let share = self.shares.get(&claimant.uid)?;
        Some((share, self.claims.get(&claimant.peer)?))
    }

    /// Returns whether a claim might be granted if all credit were taken back, whichever claimant
    /// is in the way. `batch` bounds the credit of one claimant.
    pub(crate) fn could_after_recall(
        &self,
        claimant: Claimant,
        amounts: &Amounts,
        batch: &Amounts,
    ) -> bool {
        if self.keepers == 0 {
            return false;
        }
        let Some((share, claim)) = self.entries(claimant) else {
            return true;
        };
        let by = if share.foreign { divisor(1) } else { 1 };
        ALL.iter().all(|&r| {
            // A share may have been granted twice its use.
            let idle = 4 * u64::from(self.keepers) * batch[r];
            let others = (self.granted[r] - share.granted[r]).saturating_sub(idle);
            let need = share_needed(share, claim, amounts[r], r);
            let need = need.saturating_sub(idle).saturating_mul(by);
            amounts[r] == 0 || need <= self.limits[r].saturating_sub(others)
        })
    }

    /// Checks whether all of `amounts` may be granted. Returns the amounts that the share of the
    /// claimant's user grows to then, for [`Account::grant`] under the same lock. Changes nothing,
    /// except that a new claimant gets its entries from `reservation`.
    ///
    /// # Errors
    ///
    /// Refused; NeedsReservation.
    pub(crate) fn check(
        &mut self,
        claimant: Claimant,
        amounts: &Amounts,
        reservation: &mut Option<ClaimReservation>,
    ) -> Result<Amounts, QuotaError> {
        let Some((share, claim)) = self.entries(claimant) else {
            let reservation = reservation.take().ok_or(QuotaError::NeedsReservation)?;
            self.enter(claimant, reservation);
            return self.check(claimant, amounts, &mut None);
        };
        let mut grown = share.granted;
        for r in ALL {
            let need = share_needed(share, claim, amounts[r], r);
            let have = share.granted[r];
            // Less than the share has, if the limit was lowered since.
            let free = self.limits[r].saturating_sub(self.granted[r] - have);
            if amounts[r] == 0 || need <= have.min(free) {
                continue;
            }
            let n = self.foreign[r] + u32::from(have == 0);
            let by = if share.foreign { divisor(n) } else { 1 };
            if need.saturating_mul(by) > free {
                return Err(QuotaError::Refused);
            }
            grown[r] = need;
        }
        Ok(grown)
    }

    /// Books a claim that [`Account::check`] found to fit.
    pub(crate) fn grant(&mut self, claimant: Claimant, amounts: &Amounts, grown: &Amounts) {
        let share = self.shares.get_mut(&claimant.uid);
        let claim = self.claims.get_mut(&claimant.peer);
        let (Some(share), Some(claim)) = (share, claim) else {
            debug_assert!(false, "a grant to a claimant without entries");
            return;
        };
        for r in ALL {
            let first = share.granted[r] == 0 && grown[r] != 0;
            self.foreign[r] += u32::from(first && share.foreign);
            self.granted[r] += grown[r] - share.granted[r];
        }
        share.granted = *grown;
        add(&mut share.used, amounts);
        add(&mut claim.held, amounts);
    }

    /// Makes the entries of a claimant, as far as they are not there.
    fn enter(&mut self, claimant: Claimant, reservation: ClaimReservation) {
        if let Entry::Vacant(vacant) = self.shares.entry(claimant.uid) {
            let share = Share {
                foreign: claimant.uid != self.owner,
                ..Share::default()
            };
            vacant.insert(share, reservation.share);
        }
        if let Entry::Vacant(vacant) = self.claims.entry(claimant.peer) {
            let claim = Claim {
                uid: claimant.uid,
                ..Claim::default()
            };
            vacant.insert(claim, reservation.claim);
            self.sweep_in = self.sweep_in.saturating_sub(1);
        }
    }

    /// Gives back amounts that the peer of this ID was granted before.
    pub(crate) fn release(&mut self, peer: u64, amounts: &Amounts) {
        let claim = self.claims.get_mut(&peer);
        let uid = claim.as_ref().map(|claim| claim.uid);
        let share = uid.and_then(|uid| self.shares.get_mut(&uid));
        let (Some(share), Some(claim)) = (share, claim) else {
            debug_assert!(*amounts == NOTHING, "release by one that holds nothing");
            return;
        };
        lower(share, claim, &mut self.granted, &mut self.foreign, amounts);
    }

    /// Takes the credit of all claimants, and reports each one's to `each`.
    pub(crate) fn take_credit(&mut self, mut each: impl FnMut(u64, &Amounts)) {
        self.keepers = 0;
        for (&peer, claim) in self.claims.iter_mut() {
            let (uid, credit) = (claim.uid, core::mem::replace(&mut claim.credit, NOTHING));
            if let Some(share) = self.shares.get_mut(&uid).filter(|_| claim.keeps) {
                claim.keeps = false;
                lower(share, claim, &mut self.granted, &mut self.foreign, &credit);
                each(peer, &credit);
            }
        }
    }

    /// Returns whether so many entries gathered that a [`Account::sweep`] is worth its time.
    pub(crate) fn is_crowded(&self) -> bool {
        self.sweep_in == 0
    }

    /// Drops the entries of claimants that hold nothing.
    ///
    /// A peer that comes again after a sweep gets more time until the next one, or peers that send
    /// in turn would all be dropped before their next turn. Peers that come once and close get
    /// none. IDs distinguish them: a peer that comes again is older than some that were dropped
    /// before, so it was open then.
    pub(crate) fn sweep(&mut self) {
        let (known, mut again) = (self.youngest_swept, 0);
        retain(
            &mut self.claims,
            |claim| claim.held != NOTHING,
            |node| {
                let (peer, _) = node.to_key_value();
                again += usize::from(peer <= known);
                self.youngest_swept = self.youngest_swept.max(peer);
            },
        );
        // A claim of a user that holds nothing is gone as well, so none dangles.
        retain(&mut self.shares, |share| share.granted != NOTHING, drop);
        self.sweep_in = self.claims.iter().count() + 2 * again + SWEEP_AT_LEAST;
    }

    /// Reports to `each` the amounts that each claimant held, and leaves an account of nothing.
    /// Returns the old account, to be dropped without locks.
    pub(crate) fn close(&mut self, mut each: impl FnMut(u64, &Amounts)) -> Self {
        for (&peer, claim) in self.claims.iter() {
            each(peer, &claim.held);
        }
        core::mem::replace(self, Self::new(self.owner, Limits::default()))
    }
}

/// Takes `amounts` from a claimant, and with it from its user's share.
fn lower(
    share: &mut Share,
    claim: &mut Claim,
    granted: &mut Amounts,
    foreign: &mut [u32; RESOURCES],
    amounts: &Amounts,
) {
    for r in ALL.into_iter().filter(|&r| amounts[r] != 0) {
        debug_assert!(claim.held[r] >= amounts[r] && share.used[r] >= amounts[r]);
        claim.held[r] -= amounts[r];
        share.used[r] -= amounts[r];
        let keep = share.granted[r].min(2 * share.used[r]);
        granted[r] -= share.granted[r] - keep;
        share.granted[r] = keep;
        foreign[r] -= u32::from(keep == 0 && share.foreign);
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
