// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The quota of one peer: its own account, and the amounts that it draws for that from its user's.
//!
//! A claimant draws from both accounts at once. The amounts that it releases stay with it as
//! *credit*, up to two batches of 1/256 of a limit, the peer's or the user's, whichever is smaller.
//! So most messages are covered by credit and touch neither account. Limits below 4096 are booked
//! exactly. Nothing is drawn ahead of its use, so that many claimants that send little tie up
//! little.
//!
//! A claimant that may have credit is a *keeper*. Where there are more than 64 keepers, a batch is
//! a keeper's part of a quarter of the limit. A release applies the batch as it is then; a keeper
//! that releases nothing keeps what it has while others come. `docs/design.md` says how much can
//! lie idle.
//!
//! If an account refuses a draw, and idle credit could change that, the caller *recalls* that
//! credit ([`Ledger::recall`]) and tries once more. A recall that did not help is remembered in the
//! share of the user that asked for it, so refusals do not cost in proportion to claimants.
//!
//! # Invariants
//!
//! - A claim is in `keeping` if it may have credit, and otherwise in `claims`, where it has none.
//! - The user's account holds, for each sending user at this peer, what the share of that user uses
//!   of this peer's account.
//! - Claims of zeros may linger, until others come.
//!
//! # Locks
//!
//! Lies in the peer's inbox; takes the user's account lock.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use crate::bus::allocation::GFP_KEPT;
use crate::bus::quota::account::{batch, Account, ShareReservation};
use crate::bus::quota::level::Level;
use crate::bus::quota::resource::{
    add, covers, subtract, Amounts, Claimant, ALL, NOTHING, PEER_LIMITS,
};
use crate::bus::quota::user::User;
use crate::bus::quota::QuotaError;
use crate::bus::tree::find_unused;

/// Number of claimants that a recall takes credit from in one go.
pub(super) const RECALL_CHUNK: u32 = 64;

/// The amounts that a peer holds as a claimant.
#[derive(Default)]
pub(crate) struct Claim {
    pub(super) held: Amounts,
    /// The part of `held` that is not used.
    pub(super) credit: Amounts,
    uid: u32,
    /// The peer claimed since the claim was last looked at.
    recent: bool,
}

impl Claim {
    /// Returns the part of `amounts` that its credit does not cover.
    pub(super) fn lacks(&self, amounts: &Amounts) -> Amounts {
        core::array::from_fn(|r| amounts[r].saturating_sub(self.credit[r]))
    }
}

/// Memory for a claimant's first claim on both levels; and the levels at which credit was recalled
/// for the claim.
#[derive(Default)]
pub(crate) struct LedgerReservation {
    pub(crate) recalled: [bool; 3],
    claim: Option<RBTreeNodeReservation<u64, Claim>>,
    peer: Option<ShareReservation>,
    user: Option<ShareReservation>,
}

impl LedgerReservation {
    /// Allocates it, for a claim for which credit was `recalled` at these levels.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(recalled: [bool; 3]) -> Result<Self> {
        Ok(Self {
            recalled,
            claim: Some(RBTreeNodeReservation::new(GFP_KEPT)?),
            peer: Some(ShareReservation::new(GFP_KEPT)?),
            user: Some(ShareReservation::new(GFP_KEPT)?),
        })
    }
}

/// The charges of a peer, by claimant.
pub(crate) struct Ledger {
    /// The peer's charges, with its own limits.
    pub(crate) account: Account,
    pub(crate) user: Arc<User>,
    /// The peer's ID.
    pub(super) peer: u64,
    pub(super) claims: RBTree<u64, Claim>,
    pub(super) keeping: RBTree<u64, Claim>,
    /// Number of claims in `keeping`.
    pub(crate) keepers: u32,
    /// The most credit of each resource that a release leaves to a claimant: two batches, as they
    /// were at the last draw.
    most_credit: Amounts,
    /// Memory for the peer's entry among those of its user with credit, while it is not there.
    entry: Option<RBTreeNodeReservation<u64, ()>>,
    /// Places where the search for unused claims goes on: in `claims`, and in `keeping`.
    hands: [Option<u64>; 2],
    /// The youngest peer, by its ID, whose claim was dropped.
    youngest: u64,
    /// Waits for room in the peer's own account.
    pub(super) waits: u32,
    /// Something was given back to an account that has waits.
    pub(crate) due: bool,
}

impl Ledger {
    /// Makes the ledger of the peer of this user and ID.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(user: &Arc<User>, peer: u64) -> Result<Self> {
        let limits = core::array::from_fn(|r| PEER_LIMITS[r].min(user.limits[r]));
        Ok(Self {
            account: Account::new(Level::Peer, user.uid, limits),
            user: user.clone(),
            peer,
            claims: RBTree::new(),
            keeping: RBTree::new(),
            keepers: 0,
            most_credit: NOTHING,
            entry: Some(RBTreeNodeReservation::new(GFP_KEPT)?),
            hands: [None; 2],
            youngest: 0,
            waits: 0,
            due: false,
        })
    }

    /// Returns the user that the peer belongs to.
    pub(crate) fn owner(&self) -> u32 {
        self.user.uid
    }

    /// Sets one of the peer's limits. Credit that was granted under the old one is to be recalled,
    /// of as many claimants as this returns.
    pub(crate) fn set_limit(&mut self, resource: usize, limit: u32) -> u32 {
        self.account.limits[resource] = u64::from(limit);
        self.keepers
    }

    /// Grants all of `amounts` on both levels, or nothing.
    ///
    /// # Errors
    ///
    /// The errors of [`QuotaError`].
    #[inline]
    pub(crate) fn claim(
        &mut self,
        claimant: Claimant,
        amounts: &Amounts,
        reservation: Option<&mut LedgerReservation>,
    ) -> Result<(), QuotaError> {
        if let Some(claim) = self.keeping.get_mut(&claimant.peer) {
            if covers(&claim.credit, amounts) {
                subtract(&mut claim.credit, amounts);
                claim.recent = true;
                return Ok(());
            }
        }
        let none = &mut LedgerReservation::default();
        self.draw(claimant, amounts, reservation.unwrap_or(none))
    }

    /// Gives back amounts that the peer of this ID was granted before.
    #[inline]
    pub(crate) fn release(&mut self, peer: u64, amounts: &Amounts) {
        if let Some(claim) = self.keeping.get_mut(&peer) {
            add(&mut claim.credit, amounts);
            if covers(&self.most_credit, &claim.credit) {
                return;
            }
            let mut excess = NOTHING;
            for r in ALL {
                if claim.credit[r] > self.most_credit[r] {
                    excess[r] = claim.credit[r] - self.most_credit[r] / 2;
                }
            }
            subtract(&mut claim.credit, &excess);
            return self.release_exactly(peer, &excess);
        }
        self.release_exactly(peer, amounts);
    }

    /// Gives back amounts of a claimant that are not kept as credit. After a recall the claimant
    /// keeps nothing until its next draw, which makes it a keeper again.
    #[cold]
    fn release_exactly(&mut self, peer: u64, amounts: &Amounts) {
        let Some(claim) = self.claim_mut(peer) else {
            return debug_assert!(false, "release by one that holds nothing");
        };
        let (uid, held) = (claim.uid, claim.held);
        subtract(&mut claim.held, amounts);
        self.give_back(uid, &held, amounts, false);
    }

    /// Gives back amounts, on both levels, of a claimant that held `held` with them. See
    /// [`Account::release`] for `recall`.
    #[cold]
    fn give_back(&mut self, uid: u32, held: &Amounts, amounts: &Amounts, recall: bool) {
        let here = self.account.used_by(uid);
        self.account.release(uid, held, amounts, recall);
        let mut books = self.user.account.lock();
        books.account.release(uid, &here, amounts, recall);
        self.due |= self.waits | books.waits != 0;
    }

    /// Claims from both accounts the amounts that the claimant's credit lacks.
    #[cold]
    fn draw(
        &mut self,
        claimant: Claimant,
        amounts: &Amounts,
        reservation: &mut LedgerReservation,
    ) -> Result<(), QuotaError> {
        let Claimant { uid, peer } = claimant;
        let Some(claim) = self.claim_mut(peer) else {
            let memory = reservation.claim.take();
            self.enter(claimant, memory.ok_or(QuotaError::NeedsReservation)?);
            return self.draw(claimant, amounts, reservation);
        };
        let (held, drawn) = (claim.held, claim.lacks(amounts));
        self.grant(uid, &held, &drawn, reservation)?;
        if self.most_credit != NOTHING {
            self.keep(peer);
        }
        if let Some(claim) = self.claim_mut(peer) {
            add(&mut claim.held, &drawn);
            add(&mut claim.credit, &drawn);
            subtract(&mut claim.credit, amounts);
            claim.recent = true;
        }
        Ok(())
    }

    /// Claims from both accounts: all of it, or nothing.
    fn grant(
        &mut self,
        uid: u32,
        held: &Amounts,
        amounts: &Amounts,
        reservation: &mut LedgerReservation,
    ) -> Result<(), QuotaError> {
        let (peers, keepers) = (&mut self.account, self.keepers);
        let grown = peers.check(uid, held, amounts, &mut reservation.peer, keepers)?;
        let here = peers.used_by(uid);
        let mut books = self.user.account.lock();
        let has_waits = self.waits | books.waits != 0;
        let (keepers, users) = (books.keepers, &mut books.account);
        let users_grown = users.check(uid, &here, amounts, &mut reservation.user, keepers)?;
        let [at_peer, at_user, _] = reservation.recalled;
        users.grant(uid, &here, amounts, &users_grown, at_user);
        // One more may keep some now.
        let (here, all) = (self.keepers + 1, keepers + 1);
        self.most_credit = core::array::from_fn(|r| match has_waits {
            // All that is given back has to pass the accounts.
            true => 0,
            false => 2 * batch(peers.limits[r], here).min(batch(users.limits[r], all)),
        });
        drop(books);
        peers.grant(uid, held, amounts, &grown, at_peer);
        Ok(())
    }

    /// Returns the entry of the peer of this ID; None if it never claimed, or was dropped since.
    fn claim_mut(&mut self, peer: u64) -> Option<&mut Claim> {
        let keeping = self.keeping.get_mut(&peer);
        keeping.or_else(|| self.claims.get_mut(&peer))
    }

    /// Makes the entry of a claimant.
    fn enter(&mut self, claimant: Claimant, memory: RBTreeNodeReservation<u64, Claim>) {
        if claimant.peer > self.youngest {
            self.forget_a_few();
        }
        let claim = Claim {
            uid: claimant.uid,
            ..Claim::default()
        };
        self.claims.insert(memory.into_node(claimant.peer, claim));
    }

    /// Drops a few claims of nothing, and takes the credit of a few claimants: of those that have
    /// not claimed since the last look.
    ///
    /// That makes room for a new peer, and not for one that comes again: otherwise peers that send
    /// in turn would be dropped before their next turn. IDs distinguish them: a peer that comes
    /// again is older than some that were dropped before, so it was open then.
    fn forget_a_few(&mut self) {
        let idle = |claim: &mut Claim| !core::mem::take(&mut claim.recent);
        let unused = |claim: &mut Claim| idle(claim) && claim.held == NOTHING;
        let found = find_unused(&mut self.claims, &mut self.hands[0], unused);
        for &peer in found.iter().flatten() {
            self.claims.remove(&peer);
            self.youngest = self.youngest.max(peer);
        }
        let found = find_unused(&mut self.keeping, &mut self.hands[1], idle);
        for &peer in found.iter().flatten() {
            self.take_credit(peer);
        }
    }

    /// Lets a claimant keep credit from now on, unless waits began since the draw.
    fn keep(&mut self, peer: u64) {
        let mut books = self.user.account.lock();
        if books.waits != 0 {
            return;
        }
        let Some(claim) = self.claims.remove_node(&peer) else {
            return;
        };
        self.keeping.insert(claim);
        self.keepers += 1;
        books.keepers += 1;
        if let Some(entry) = self.entry.take() {
            books.with_credit.insert(entry.into_node(self.peer, ()));
        }
    }

    /// Returns the credit of a claimant, to both accounts, and lets it keep none.
    fn take_credit(&mut self, peer: u64) {
        let Some(claim) = self.keeping.get_mut(&peer) else {
            return;
        };
        let (uid, held) = (claim.uid, claim.held);
        let credit = core::mem::replace(&mut claim.credit, NOTHING);
        subtract(&mut claim.held, &credit);
        if let Some(claim) = self.keeping.remove_node(&peer) {
            self.claims.insert(claim);
        }
        self.keepers -= 1;
        self.give_back(uid, &held, &credit, true);
        let mut books = self.user.account.lock();
        books.keepers -= 1;
        if self.keepers == 0 {
            let entry = books.with_credit.remove_node(&self.peer);
            self.entry = entry.map(|entry| entry.into_reservation());
        }
    }

    /// Takes the credit of a few claimants. Returns their number, 0 if none has any.
    pub(crate) fn recall(&mut self) -> u32 {
        let mut n = 0;
        while let Some(first) = self.keeping.cursor_front().filter(|_| n < RECALL_CHUNK) {
            let peer = *first.current().0;
            self.take_credit(peer);
            n += 1;
        }
        n
    }

    /// Takes out everything that claimants hold here, once all credit is recalled. Nothing may be
    /// claimed or released after. The caller has the old ledger [end](Ledger::end) without locks.
    pub(crate) fn close(&mut self) -> Self {
        debug_assert!(self.keepers == 0);
        let closed = Account::new(Level::Peer, self.owner(), NOTHING);
        Self {
            account: core::mem::replace(&mut self.account, closed),
            user: self.user.clone(),
            claims: core::mem::replace(&mut self.claims, RBTree::new()),
            keeping: RBTree::new(),
            entry: self.entry.take(),
            ..*self
        }
    }

    /// Gives back to the user's account everything that claimants held here. The account is locked
    /// anew for each sending user, however many there are.
    pub(crate) fn end(self) {
        for &uid in self.account.shares.keys() {
            let used = self.account.used_by(uid);
            let mut books = self.user.account.lock();
            books.account.release(uid, &used, &used, false);
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
