// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A peer's books: its own account, and what it drew for that from its user's.
//!
//! A claimant draws from both accounts at once. What is released stays with it as credit, up to two
//! batches of 1/4096 of the user's limit, so most messages are covered by it and touch neither account;
//! limits below 4096 are booked exactly. Nothing is drawn ahead of its use, so that many claimants who
//! send little tie up little. Where the peer's account refuses a draw, all credit there is taken back;
//! where the user's does, the caller recalls all credit that lies idle with the user's peers
//! ([`Ledger::recall`]); then it is tried once more, unless that could not help. So credit keeps nobody
//! from anything.
//!
//! # Locks
//!
//! Lies in the peer's inbox; takes the user's account lock.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::{add, only, Account, Amounts, Books, Claimant, Limits, Room, ALL, NOTHING};
use super::inbox::Denied;
use super::user::User;

/// What a claimant's first claim needs on both levels: the peer's, and the user's.
pub(super) type Rooms = [Option<Room>; 2];

/// See the module.
pub(super) struct Ledger {
    pub(super) account: Account,
    user: Arc<User>,
}

impl Ledger {
    pub(super) fn new(user: Arc<User>, limits: Limits) -> Self {
        Self {
            account: Account::new(user.uid, limits),
            user,
        }
    }

    pub(super) fn set_limit(&mut self, resource: usize, limit: u32) {
        // Credit was granted under the old one.
        self.recall();
        self.account.limit[resource] = u64::from(limit);
    }

    /// Grants all of `amounts` on both levels, or nothing.
    pub(super) fn claim(
        &mut self,
        who: Claimant,
        amounts: &Amounts,
        rooms: Option<&mut Rooms>,
    ) -> Result<(), Denied> {
        if let Some(claim) = self.account.claim_mut(who.peer) {
            if covers(&claim.credit, amounts) {
                subtract(&mut claim.credit, amounts);
                return Ok(());
            }
        }
        self.draw(who, amounts, rooms.unwrap_or(&mut [None, None]))
    }

    /// Gives back what the peer of this ID was granted before.
    pub(super) fn release(&mut self, peer: u64, amounts: &Amounts) {
        for r in ALL {
            if amounts[r] != 0 {
                self.release_one(peer, r, amounts[r]);
            }
        }
    }

    /// The same for one resource.
    pub(super) fn release_one(&mut self, peer: u64, resource: usize, amount: u64) {
        let Some(claim) = self.account.claim_mut(peer) else {
            debug_assert!(false, "release by a claimant that holds nothing");
            return;
        };
        let credit = &mut claim.credit[resource];
        *credit += amount;
        // After a recall nothing is kept until the next draw, or it would not be known to lie idle.
        let keep = if claim.keeps {
            self.user.batch[resource]
        } else {
            0
        };
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

    /// Claims from both accounts what the claimant's credit lacks.
    #[cold]
    fn draw(&mut self, who: Claimant, amounts: &Amounts, rooms: &mut Rooms) -> Result<(), Denied> {
        if self.account.crowded() {
            self.recall();
            self.account.sweep();
        }
        let credit = self
            .account
            .claim_mut(who.peer)
            .map_or(NOTHING, |claim| claim.credit);
        let mut drawn = core::array::from_fn(|r| amounts[r].saturating_sub(credit[r]));
        let mut done = self.grant(who, &drawn, rooms);
        if done == Err(Denied::Quota) && self.account.could_after_recall(who, &drawn, &self.user) {
            self.recall();
            drawn = *amounts;
            done = self.grant(who, &drawn, rooms);
        }
        done?;
        // What was granted has an entry.
        let Some(claim) = self.account.claim_mut(who.peer) else {
            return Ok(());
        };
        add(&mut claim.credit, &drawn);
        subtract(&mut claim.credit, amounts);
        let fresh = u32::from(!core::mem::replace(&mut claim.keeps, true));
        self.account.keepers += fresh;
        self.user.account.lock().account.keepers += fresh;
        Ok(())
    }

    /// Claims from both accounts: all of it, or nothing.
    fn grant(&mut self, who: Claimant, amounts: &Amounts, rooms: &mut Rooms) -> Result<(), Denied> {
        let user = &self.user;
        let [own, room] = rooms;
        self.account.claim(who, amounts, own, || {
            let mut books = user.account.lock();
            let account = &mut books.account;
            if account.crowded() {
                account.sweep();
            }
            match account.claim(who, amounts, room, || Ok(())) {
                Err(Denied::Quota) if account.could_after_recall(who, amounts, user) => {
                    Err(Denied::Recall)
                }
                granted => granted,
            }
        })
    }

    /// Returns the credit of all claimants, to both accounts.
    pub(super) fn recall(&mut self) {
        let keepers = self.account.keepers;
        if keepers == 0 {
            return;
        }
        let mut books = self.user.account.lock();
        books.account.keepers -= keepers;
        self.account
            .settle(|peer, credit| books.account.release(peer, credit));
    }

    /// Gives back everything that anybody holds here. Nothing may be claimed or released after.
    /// Returns what is to be dropped without locks.
    pub(super) fn close(&mut self) -> Books {
        let mut books = self.user.account.lock();
        books.account.keepers -= self.account.keepers;
        self.account
            .close(|peer, held| books.account.release(peer, held))
    }
}

/// Whether there is enough of each resource.
fn covers(credit: &Amounts, amounts: &Amounts) -> bool {
    ALL.iter().all(|&r| credit[r] >= amounts[r])
}

fn subtract(from: &mut Amounts, amounts: &Amounts) {
    for r in ALL {
        from[r] -= amounts[r];
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
