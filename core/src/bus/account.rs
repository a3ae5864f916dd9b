// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Who holds how much of what, and whether a claim may be granted.
//!
//! An [`Account`] has a limit per resource. Users that send to its owner hold a [`Share`] of it, and
//! within a share every sending peer holds its part. A claim is granted only if
//! `claim + held <= (remaining + held) / A` on both levels:
//!
//! - between users, `A(n) = (n+1)·⌈log2(n+1)⌉ + (n+1)`, with n the foreign users that hold some, the
//!   claimant included; for the owning user A is 1;
//! - between the peers of one user, `A = 2`, where what remains is the user's share less what its
//!   peers use. So a share has to be `used + 2·claim + held` before a claim.
//!
//! # Invariants
//!
//! - `granted` is the sum of all shares' `granted`; a share's `used` is the sum of what its peers hold.
//! - What a peer holds includes its credit, which it was granted and does not use at the moment; see
//!   `ledger.rs`.
//! - A share that is not used is not granted: after everything was released all numbers are zero.
//!   A release lowers a share to twice its use, which is what a single peer would need.
//! - Entries of zeros may linger, until the next sweep; they count for nothing.
//!
//! # Locks
//!
//! None of its own; an account is guarded by the lock that it lies under.

use kernel::prelude::*;
use kernel::rbtree::{Entry, RBTree, RBTreeNodeReservation};

use super::inbox::Denied;
use super::sieve::sieve;
use super::user::User;
use super::GFP_KEPT;

/// How many resources there are.
pub const RESOURCES: usize = 4;
/// The index of each.
pub(super) const ALL: [usize; RESOURCES] = [0, 1, 2, 3];
/// Amounts of every resource.
pub type Amounts = [u64; RESOURCES];

/// Index of slices in [`Amounts`].
pub const SLICES: usize = 0;
/// Index of handles in [`Amounts`].
pub const HANDLES: usize = 1;
/// Index of bytes in flight in [`Amounts`].
pub const BYTES: usize = 2;
/// Index of descriptors in flight in [`Amounts`].
pub const FDS: usize = 3;

/// Nothing at all.
pub const NOTHING: Amounts = [0; RESOURCES];

/// Some of one resource.
pub(super) fn only(resource: usize, amount: u64) -> Amounts {
    let mut amounts = NOTHING;
    amounts[resource] = amount;
    amounts
}

/// Adds to each.
pub(super) fn add(to: &mut Amounts, amounts: &Amounts) {
    for r in ALL {
        to[r] += amounts[r];
    }
}

/// Limits of a user or a peer.
pub type Limits = [u32; RESOURCES];

/// What a user may have unless the administrator says otherwise.
pub const DEFAULT_LIMITS: Limits = [16384, 65536, 16 << 20, 4096];

/// The user and the peer that a charge is booked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// The user.
    pub uid: u32,
    /// The peer.
    pub peer: u64,
}

/// What a user holds of an account.
#[derive(Default)]
pub(super) struct Share {
    granted: Amounts,
    used: Amounts,
    /// It is not the owner's.
    foreign: bool,
}

/// What a peer holds of an account.
#[derive(Default)]
pub(super) struct Claim {
    pub(super) held: Amounts,
    /// The part of it that is not used.
    pub(super) credit: Amounts,
    /// Whether it may have credit.
    pub(super) keeps: bool,
    uid: u32,
}

/// Memory for the entries that a claimant's first claim makes.
pub(super) struct Room(
    RBTreeNodeReservation<u32, Share>,
    RBTreeNodeReservation<u64, Claim>,
);

impl Room {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(
            RBTreeNodeReservation::new(GFP_KEPT)?,
            RBTreeNodeReservation::new(GFP_KEPT)?,
        ))
    }
}

/// The entries of a closed account.
pub(super) type Books = (RBTree<u32, Share>, RBTree<u64, Claim>);

/// Limits and what is held of them.
pub(super) struct Account {
    owner: u32,
    pub(super) limit: Amounts,
    /// What all claimants together were granted.
    pub(super) granted: Amounts,
    /// How many foreign users hold some.
    foreign: [u32; RESOURCES],
    shares: RBTree<u32, Share>,
    claims: RBTree<u64, Claim>,
    /// How many peers may come until a sweep is worth its time.
    sweep_in: usize,
    /// The youngest peer, by its ID, that was swept.
    newest: u64,
    /// How many claimants may have credit.
    pub(super) keepers: u32,
}

/// The divisor between users, when `n` foreign ones hold some.
fn divisor(n: u32) -> u64 {
    let m = u64::from(n) + 1;
    let log = u64::from(u64::BITS - (m - 1).leading_zeros());
    m * log + m
}

impl Account {
    pub(super) fn new(owner: u32, limits: Limits) -> Self {
        Self {
            owner,
            limit: limits.map(u64::from),
            granted: NOTHING,
            foreign: [0; RESOURCES],
            shares: RBTree::new(),
            claims: RBTree::new(),
            sweep_in: 32,
            newest: 0,
            keepers: 0,
        }
    }

    /// What all claimants together use.
    pub(super) fn used(&self) -> Amounts {
        let mut sum = NOTHING;
        for (_, claim) in self.claims() {
            for r in ALL {
                sum[r] += claim.held[r] - claim.credit[r];
            }
        }
        sum
    }

    /// Everybody's entries.
    pub(super) fn claims(&self) -> impl Iterator<Item = (Claimant, &Claim)> {
        self.claims.iter().map(|(&peer, claim)| {
            (
                Claimant {
                    uid: claim.uid,
                    peer,
                },
                claim,
            )
        })
    }

    /// The entry of the peer of this ID; None if it never claimed or was swept.
    pub(super) fn claim_mut(&mut self, peer: u64) -> Option<&mut Claim> {
        self.claims.get_mut(&peer)
    }

    /// Whether the claim might be granted if all credit were taken back, whoever is in the way.
    pub(super) fn could_after_recall(&self, who: Claimant, amounts: &Amounts, user: &User) -> bool {
        let (Some(share), Some(claim)) = (self.shares.get(&who.uid), self.claims.get(&who.peer))
        else {
            return self.keepers != 0;
        };
        let by = if share.foreign { divisor(1) } else { 1 };
        let possible = ALL.iter().all(|&r| {
            // A share may have been granted twice what is used of it.
            let idle = 4 * u64::from(self.keepers) * user.batch[r];
            let others = (self.granted[r] - share.granted[r]).saturating_sub(idle);
            let need = amounts[r]
                .saturating_mul(2)
                .saturating_add(claim.held[r] + share.used[r]);
            let need = need.saturating_sub(idle).saturating_mul(by);
            amounts[r] == 0 || need <= self.limit[r].saturating_sub(others)
        });
        self.keepers != 0 && possible
    }

    /// Grants all of `amounts`, or nothing. `cover` has the last word, before anything changes.
    pub(super) fn claim(
        &mut self,
        who: Claimant,
        amounts: &Amounts,
        room: &mut Option<Room>,
        cover: impl FnOnce() -> Result<(), Denied>,
    ) -> Result<(), Denied> {
        let (Some(share), Some(claim)) = (
            self.shares.get_mut(&who.uid),
            self.claims.get_mut(&who.peer),
        ) else {
            self.enter(who, room.take().ok_or(Denied::Rooms)?);
            return self.claim(who, amounts, &mut None, cover);
        };
        let mut grown = share.granted;
        for r in ALL {
            // How large the share has to be. What overflows is more than any limit.
            let need = amounts[r]
                .saturating_mul(2)
                .saturating_add(claim.held[r] + share.used[r]);
            let have = share.granted[r];
            // Less than it has, if the limit was lowered since.
            let free = self.limit[r].saturating_sub(self.granted[r] - have);
            if amounts[r] == 0 || need <= have.min(free) {
                continue;
            }
            let n = self.foreign[r] + u32::from(have == 0);
            let by = if share.foreign { divisor(n) } else { 1 };
            if need.saturating_mul(by) > free {
                return Err(Denied::Quota);
            }
            grown[r] = need;
        }
        cover()?;
        for r in ALL {
            let first = share.granted[r] == 0 && grown[r] != 0;
            self.foreign[r] += u32::from(first && share.foreign);
            self.granted[r] += grown[r] - share.granted[r];
        }
        share.granted = grown;
        add(&mut share.used, amounts);
        add(&mut claim.held, amounts);
        Ok(())
    }

    /// Makes the entries of a claimant, as far as they are not there.
    fn enter(&mut self, who: Claimant, room: Room) {
        if let Entry::Vacant(place) = self.shares.entry(who.uid) {
            place.insert(
                Share {
                    foreign: who.uid != self.owner,
                    ..Share::default()
                },
                room.0,
            );
        }
        if let Entry::Vacant(place) = self.claims.entry(who.peer) {
            place.insert(
                Claim {
                    uid: who.uid,
                    ..Claim::default()
                },
                room.1,
            );
            self.sweep_in = self.sweep_in.saturating_sub(1);
        }
    }

    /// Gives back what the peer of this ID was granted before.
    pub(super) fn release(&mut self, peer: u64, amounts: &Amounts) {
        let claim = self.claims.get_mut(&peer);
        let share = claim
            .as_ref()
            .and_then(|claim| self.shares.get_mut(&claim.uid));
        let (Some(share), Some(claim)) = (share, claim) else {
            debug_assert!(
                *amounts == NOTHING,
                "release by a claimant that holds nothing"
            );
            return;
        };
        lower(share, claim, &mut self.granted, &mut self.foreign, amounts);
    }

    /// Takes the credit of all claimants. `each` is told of it.
    pub(super) fn settle(&mut self, mut each: impl FnMut(u64, &Amounts)) {
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

    /// Whether so many entries gathered that a [`Account::sweep`] is worth its time.
    pub(super) fn crowded(&self) -> bool {
        self.sweep_in == 0
    }

    /// Drops the entries of claimants that hold nothing.
    ///
    /// Who came again after a sweep gets room, or peers that send in turn would all be dropped before
    /// their next turn. Peers that come once and close get none. IDs tell them apart: who comes again
    /// is older than some that were dropped before, so it was open then.
    pub(super) fn sweep(&mut self) {
        let (known, mut again) = (self.newest, 0);
        sieve(
            &mut self.claims,
            |claim| claim.held != NOTHING,
            |node| {
                let (peer, _) = node.to_key_value();
                again += usize::from(peer <= known);
                self.newest = self.newest.max(peer);
            },
        );
        // A claim of a user who holds nothing is gone as well, so none dangles.
        sieve(&mut self.shares, |share| share.granted != NOTHING, drop);
        self.sweep_in = self.claims.iter().count() + 2 * again + 32;
    }

    /// Takes all entries out. `each` is told what the claimants held.
    pub(super) fn close(&mut self, mut each: impl FnMut(u64, &Amounts)) -> Books {
        for (&peer, claim) in self.claims.iter() {
            each(peer, &claim.held);
        }
        self.keepers = 0;
        (
            core::mem::take(&mut self.shares),
            core::mem::take(&mut self.claims),
        )
    }
}

/// Takes `amounts` from what a claimant holds, and with it from its user's share.
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
