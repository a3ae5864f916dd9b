// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The quota of one peer: its own account, and the amounts that it draws for that from its user's.
//!
//! A claimant draws from both accounts at once. The amounts that it releases stay with it as
//! credit, up to two batches of 1/4096 of the user's limit, so most messages are covered by it and
//! touch neither account; limits below 4096 are booked exactly. Nothing is drawn ahead of its use,
//! so that many claimants that send little tie up little. If the peer's account refuses a draw, all
//! credit there is taken back; if the user's does, the caller recalls all credit that lies idle
//! with the user's peers ([`Ledger::recall`]); then it is tried once more, unless that could not
//! help. So credit keeps nobody from anything.
//!
//! # Locks
//!
//! Lies in the peer's inbox; takes the user's account lock.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::quota::account::{Account, ClaimReservation};
use crate::bus::quota::resource::{
    add, covers, only, subtract, Amounts, Claimant, Limits, ALL, NOTHING,
};
use crate::bus::quota::user::User;
use crate::bus::quota::QuotaError;

/// Memory for a claimant's first claim on both levels.
#[derive(Default)]
pub(crate) struct LedgerReservation {
    peer: Option<ClaimReservation>,
    user: Option<ClaimReservation>,
}

impl LedgerReservation {
    /// Allocates it.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            peer: Some(ClaimReservation::new()?),
            user: Some(ClaimReservation::new()?),
        })
    }
}

/// The charges of a peer, by claimant.
pub(crate) struct Ledger {
    /// The peer's charges, with its own limits.
    pub(crate) account: Account,
    user: Arc<User>,
}

impl Ledger {
    /// Makes the ledger of a peer of this user, with limits of its own.
    pub(crate) fn new(user: Arc<User>, limits: Limits) -> Self {
        Self {
            account: Account::new(user.uid, limits),
            user,
        }
    }

    /// Returns the user that the peer belongs to.
    pub(crate) fn owner(&self) -> u32 {
        self.user.uid
    }

    /// Sets one of the peer's limits.
    pub(crate) fn set_limit(&mut self, resource: usize, limit: u32) {
        // Credit was granted under the old one.
        self.recall();
        self.account.limits[resource] = u64::from(limit);
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
        if let Some(claim) = self.account.claim_mut(claimant.peer) {
            if covers(&claim.credit, amounts) {
                subtract(&mut claim.credit, amounts);
                return Ok(());
            }
        }
        self.draw(claimant, amounts, reservation)
    }

    /// Gives back amounts that the peer of this ID was granted before.
    pub(crate) fn release(&mut self, peer: u64, amounts: &Amounts) {
        for r in ALL {
            if amounts[r] != 0 {
                self.release_one(peer, r, amounts[r]);
            }
        }
    }

    /// Gives back `amount` of one resource that the peer of this ID was granted before.
    pub(crate) fn release_one(&mut self, peer: u64, resource: usize, amount: u64) {
        let Some(claim) = self.account.claim_mut(peer) else {
            debug_assert!(false, "release by a claimant that holds nothing");
            return;
        };
        let credit = &mut claim.credit[resource];
        *credit += amount;
        // After a recall nothing is kept until the next draw, or it would not be known to lie idle.
        let batch = self.user.batch[resource];
        let keep = if claim.keeps { batch } else { 0 };
        if *credit > 2 * keep {
            let excess = only(resource, *credit - keep);
            *credit = keep;
            self.give_back(peer, &excess);
        }
    }

    #[cold]
    fn give_back(&mut self, peer: u64, excess: &Amounts) {
        self.account.release(peer, excess);
        self.user.account.lock().account.release(peer, excess);
    }

    /// Claims from both accounts the amounts that the claimant's credit lacks.
    #[cold]
    fn draw(
        &mut self,
        claimant: Claimant,
        amounts: &Amounts,
        reservation: Option<&mut LedgerReservation>,
    ) -> Result<(), QuotaError> {
        let none = &mut LedgerReservation::default();
        let reservation = reservation.unwrap_or(none);
        if self.account.is_crowded() {
            self.recall();
            self.account.sweep();
        }
        let claim = self.account.claim_mut(claimant.peer);
        let credit = claim.map_or(NOTHING, |claim| claim.credit);
        let mut drawn = core::array::from_fn(|r| amounts[r].saturating_sub(credit[r]));
        let mut done = self.grant(claimant, &drawn, reservation);
        let (account, batch) = (&self.account, &self.user.batch);
        if done == Err(QuotaError::Refused) && account.could_after_recall(claimant, &drawn, batch) {
            self.recall();
            drawn = *amounts;
            done = self.grant(claimant, &drawn, reservation);
        }
        done?;
        // A claimant that was granted something has an entry.
        let Some(claim) = self.account.claim_mut(claimant.peer) else {
            return Ok(());
        };
        add(&mut claim.credit, &drawn);
        subtract(&mut claim.credit, amounts);
        if !core::mem::replace(&mut claim.keeps, true) {
            self.account.keepers += 1;
            self.user.account.lock().account.keepers += 1;
        }
        Ok(())
    }

    /// Claims from both accounts: all of it, or nothing.
    fn grant(
        &mut self,
        claimant: Claimant,
        amounts: &Amounts,
        reservation: &mut LedgerReservation,
    ) -> Result<(), QuotaError> {
        let peers = &mut self.account;
        let grown = peers.check(claimant, amounts, &mut reservation.peer)?;
        let (mut books, batch) = (self.user.account.lock(), &self.user.batch);
        let users = &mut books.account;
        if users.is_crowded() {
            users.sweep();
        }
        let checked = users.check(claimant, amounts, &mut reservation.user);
        let users_grown = checked.map_err(|error| match error {
            QuotaError::Refused if users.could_after_recall(claimant, amounts, batch) => {
                QuotaError::RefusedUntilRecall
            }
            other => other,
        })?;
        users.grant(claimant, amounts, &users_grown);
        drop(books);
        peers.grant(claimant, amounts, &grown);
        Ok(())
    }

    /// Returns the credit of all claimants, to both accounts.
    pub(crate) fn recall(&mut self) {
        if self.account.keepers == 0 {
            return;
        }
        let mut books = self.user.account.lock();
        books.account.keepers -= self.account.keepers;
        let report = |peer, credit: &Amounts| books.account.release(peer, credit);
        self.account.take_credit(report);
    }

    /// Gives back everything that any claimant holds here. Nothing may be claimed or released
    /// after. Returns the old ledger, to be dropped without locks.
    pub(crate) fn close(&mut self) -> Self {
        let mut books = self.user.account.lock();
        books.account.keepers -= self.account.keepers;
        let report = |peer, held: &Amounts| books.account.release(peer, held);
        let account = self.account.close(report);
        drop(books);
        Self {
            account,
            user: self.user.clone(),
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
