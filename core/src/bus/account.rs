// SPDX-License-Identifier: GPL-2.0 OR MIT

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
//! - A share that is not used is not granted: after everything was released all numbers are zero.
//!   A release lowers a share to twice its use, which is what a single peer would need.
//! - Entries of zeros may linger, until the next sweep; they count for nothing.
//!
//! # Locks
//!
//! None of its own; an account is guarded by the lock that it lies under.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};

use super::GFP_KEPT;

/// How many resources there are.
pub const RESOURCES: usize = 4;
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

/// Limits of a user or a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slices in the pool.
    pub slices: u32,
    /// Handles, nodes included.
    pub handles: u32,
    /// Payload bytes in flight.
    pub bytes: u32,
    /// Descriptors in flight.
    pub fds: u32,
}

impl Limits {
    /// What a user may have unless the administrator says otherwise.
    pub const DEFAULT: Limits = Limits {
        slices: 16384,
        handles: 65536,
        bytes: 16 << 20,
        fds: 4096,
    };

    /// The limits in the order of the indices.
    pub fn amounts(&self) -> Amounts {
        [self.slices, self.handles, self.bytes, self.fds].map(u64::from)
    }
}

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
}

/// What a peer holds of an account.
#[derive(Default)]
pub(super) struct Claim {
    pub(super) held: Amounts,
    /// Drawn from the user's account and not held at the moment; see `ledger.rs`.
    pub(super) credit: Amounts,
    /// Whether it may have credit.
    pub(super) keeps: bool,
    uid: u32,
}

/// Memory for the entries that a claimant's first claim makes.
pub(super) struct Room {
    share: RBTreeNodeReservation<u32, Share>,
    claim: RBTreeNodeReservation<u64, Claim>,
}

impl Room {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            share: RBTreeNodeReservation::new(GFP_KEPT)?,
            claim: RBTreeNodeReservation::new(GFP_KEPT)?,
        })
    }
}

/// Why a claim was not granted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It would go over the limits.
    Quota,
    /// It would go over the limits of the user, as the user's peers have drawn on them.
    Shared,
    /// The claimant is new: call again with a [`Room`].
    Room,
}

/// Limits and what is held of them.
pub(super) struct Account {
    owner: u32,
    limit: Amounts,
    granted: Amounts,
    foreign: [u32; RESOURCES],
    shares: RBTree<u32, Share>,
    claims: RBTree<u64, Claim>,
    entries: usize,
    sweep_at: usize,
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
            limit: limits.amounts(),
            granted: NOTHING,
            foreign: [0; RESOURCES],
            shares: RBTree::new(),
            claims: RBTree::new(),
            entries: 0,
            sweep_at: 32,
        }
    }

    pub(super) fn limit(&self) -> &Amounts {
        &self.limit
    }

    pub(super) fn set_limit(&mut self, resource: usize, limit: u32) {
        self.limit[resource] = u64::from(limit);
    }

    /// What all claimants together were granted.
    pub(super) fn granted(&self) -> &Amounts {
        &self.granted
    }

    /// What all claimants together use.
    pub(super) fn used(&self) -> Amounts {
        let mut sum = NOTHING;
        for share in self.shares.values() {
            for (sum, used) in sum.iter_mut().zip(share.used) {
                *sum += used;
            }
        }
        sum
    }

    /// What the claimant's peer holds; None if it never claimed or was swept.
    pub(super) fn claim_mut(&mut self, who: Claimant) -> Option<&mut Claim> {
        self.claims.get_mut(&who.peer)
    }

    /// How large the claimant's share would have to be, or why it may not.
    fn need(&self, r: usize, share: &Share, held: u64, amount: u64, own: bool) -> Option<u64> {
        let need = amount
            .checked_mul(2)?
            .checked_add(held)?
            .checked_add(share.used[r])?;
        let have = share.granted[r];
        // Less than it has, if the limit was lowered since.
        let free = self.limit[r].saturating_sub(self.granted[r] - have);
        if need <= have.min(free) {
            return Some(have);
        }
        let by = if own {
            1
        } else {
            divisor(self.foreign[r] + u32::from(have == 0))
        };
        (need.checked_mul(by)? <= free).then_some(need)
    }

    /// Whether the claim could be granted if up to `idle` were given back, and by whoever is in the
    /// way.
    pub(super) fn could(&self, who: Claimant, amounts: &Amounts, idle: &Amounts) -> bool {
        let (Some(share), Some(claim)) = (self.shares.get(&who.uid), self.claims.get(&who.peer))
        else {
            return true;
        };
        let own = who.uid == self.owner;
        (0..RESOURCES).all(|r| {
            let others = (self.granted[r] - share.granted[r]).saturating_sub(idle[r]);
            let need = amounts[r]
                .saturating_mul(2)
                .saturating_add(claim.held[r] + share.used[r]);
            let by = if own { 1 } else { divisor(1) };
            let need = need.saturating_sub(idle[r]).saturating_mul(by);
            amounts[r] == 0 || need <= self.limit[r].saturating_sub(others)
        })
    }

    /// Grants all of `amounts`, or nothing.
    pub(super) fn claim(
        &mut self,
        who: Claimant,
        amounts: &Amounts,
        room: &mut Option<Room>,
    ) -> Result<(), Refusal> {
        if self.claims.get(&who.peer).is_none() || self.shares.get(&who.uid).is_none() {
            let Some(Room { share, claim }) = room.take() else {
                return Err(Refusal::Room);
            };
            if self.shares.get(&who.uid).is_none() {
                self.shares
                    .insert(share.into_node(who.uid, Share::default()));
            }
            if self.claims.get(&who.peer).is_none() {
                let uid = who.uid;
                let fresh = Claim {
                    uid,
                    ..Claim::default()
                };
                self.claims.insert(claim.into_node(who.peer, fresh));
                self.entries += 1;
            }
        }

        let own = who.uid == self.owner;
        let (Some(share), Some(claim)) = (self.shares.get(&who.uid), self.claims.get(&who.peer))
        else {
            return Err(Refusal::Room);
        };
        let mut grown = share.granted;
        for (r, &amount) in amounts.iter().enumerate() {
            if amount != 0 {
                grown[r] = self
                    .need(r, share, claim.held[r], amount, own)
                    .ok_or(Refusal::Quota)?;
            }
        }

        let (Some(share), Some(claim)) = (
            self.shares.get_mut(&who.uid),
            self.claims.get_mut(&who.peer),
        ) else {
            return Err(Refusal::Room);
        };
        for (r, &amount) in amounts.iter().enumerate() {
            if amount == 0 {
                continue;
            }
            if share.granted[r] == 0 && !own {
                self.foreign[r] += 1;
            }
            self.granted[r] += grown[r] - share.granted[r];
            share.granted[r] = grown[r];
            share.used[r] += amount;
            claim.held[r] += amount;
        }
        Ok(())
    }

    /// Gives back what was granted before.
    pub(super) fn release(&mut self, who: Claimant, amounts: &Amounts) {
        let own = who.uid == self.owner;
        let (Some(share), Some(claim)) = (
            self.shares.get_mut(&who.uid),
            self.claims.get_mut(&who.peer),
        ) else {
            debug_assert!(false, "release by a claimant that holds nothing");
            return;
        };
        for (r, &amount) in amounts.iter().enumerate() {
            if amount == 0 {
                continue;
            }
            debug_assert!(claim.held[r] >= amount && share.used[r] >= amount);
            claim.held[r] -= amount;
            share.used[r] -= amount;
            let keep = share.granted[r].min(2 * share.used[r]);
            self.granted[r] -= share.granted[r] - keep;
            share.granted[r] = keep;
            if keep == 0 && !own {
                self.foreign[r] -= 1;
            }
        }
    }

    /// Whether so many entries gathered that a [`Account::sweep`] is worth its time.
    pub(super) fn crowded(&self) -> bool {
        self.entries >= self.sweep_at
    }

    /// Drops the entries of claimants that hold nothing. `idle` is told of each and may settle what
    /// it left aside.
    pub(super) fn sweep(&mut self, mut idle: impl FnMut(Claimant, &mut Claim)) {
        let mut cursor = self.claims.cursor_front_mut();
        while let Some(mut here) = cursor {
            let (&peer, claim) = here.current_mut();
            let uid = claim.uid;
            cursor = if claim.held == NOTHING {
                idle(Claimant { uid, peer }, claim);
                self.entries -= 1;
                let last = here.peek_next().is_none();
                let (next, _) = here.remove_current();
                // At the end the cursor falls back to the one before, which was seen already.
                next.filter(|_| !last)
            } else {
                here.move_next()
            };
        }
        let mut cursor = self.shares.cursor_front_mut();
        while let Some(here) = cursor {
            cursor = if here.current().1.used == NOTHING && here.current().1.granted == NOTHING {
                // A claim of this user that holds nothing is gone as well, so none dangles.
                let last = here.peek_next().is_none();
                let (next, _) = here.remove_current();
                next.filter(|_| !last)
            } else {
                here.move_next()
            };
        }
        self.sweep_at = 2 * self.entries + 32;
    }

    /// Takes all entries out.
    pub(super) fn clear(&mut self) -> (RBTree<u32, Share>, RBTree<u64, Claim>) {
        self.entries = 0;
        (
            core::mem::take(&mut self.shares),
            core::mem::take(&mut self.claims),
        )
    }

    /// Calls `each` with what every claimant holds or keeps as credit.
    pub(super) fn for_each(&mut self, mut each: impl FnMut(Claimant, &mut Claim)) {
        let mut cursor = self.claims.cursor_front_mut();
        while let Some(mut here) = cursor {
            let (&peer, claim) = here.current_mut();
            let uid = claim.uid;
            each(Claimant { uid, peer }, claim);
            cursor = here.move_next();
        }
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
