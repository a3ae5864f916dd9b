// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A peer's books: its own account, and what it drew for that from its user's.
//!
//! Every charge is booked on both levels. The user's account is shared by all peers of the user, so
//! a claimant's charges draw on it in batches of 1/4096 of the limit, and what is released
//! stays with the claimant as credit, up to two batches; limits below 4096 are booked exactly. Where a
//! batch is refused, just what is needed is asked for. Where that is refused, the caller recalls all
//! credit that lies idle with the user's peers ([`Ledger::recall`]) and tries once more, unless that
//! could not help. So batching keeps nobody from anything.
//!
//! # Locks
//!
//! Lies in the peer's inbox; takes the user's account lock.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::Arc;

use super::account::{
    Account, Amounts, Claim, Claimant, Limits, Refusal, Room, Share, NOTHING, RESOURCES,
};
use super::user::User;

/// What a claimant's first claim needs on both levels.
pub(super) struct Rooms {
    own: Option<Room>,
    user: Option<Room>,
}

impl Rooms {
    pub(super) const NONE: Rooms = Rooms {
        own: None,
        user: None,
    };

    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            own: Some(Room::new()?),
            user: Some(Room::new()?),
        })
    }
}

/// The memory of closed books.
pub(super) type Books = (RBTree<u32, Share>, RBTree<u64, Claim>);

/// See the module.
pub(super) struct Ledger {
    account: Account,
    user: Arc<User>,
}

impl Ledger {
    pub(super) fn new(user: Arc<User>, limits: Limits) -> Self {
        Self {
            account: Account::new(user.uid(), limits),
            user,
        }
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn set_limit(&mut self, resource: usize, limit: u32) {
        self.account.set_limit(resource, limit);
    }

    /// Grants all of `amounts` on both levels, or nothing.
    pub(super) fn claim(
        &mut self,
        who: Claimant,
        amounts: &Amounts,
        rooms: &mut Rooms,
    ) -> Result<(), Refusal> {
        if self.account.crowded() {
            let user = &self.user;
            self.account.sweep(|who, claim| settle(user, who, claim));
        }
        self.account.claim(who, amounts, &mut rooms.own)?;
        let drawn = match self.account.claim_mut(who) {
            Some(claim) => draw(&self.user, who, amounts, claim, &mut rooms.user),
            None => Err(Refusal::Room),
        };
        if drawn.is_err() {
            self.account.release(who, amounts);
        }
        drawn
    }

    /// Gives back what was granted before.
    pub(super) fn release(&mut self, who: Claimant, amounts: &Amounts) {
        self.account.release(who, amounts);
        if let Some(claim) = self.account.claim_mut(who) {
            add(&mut claim.credit, amounts);
            give_back(&self.user, who, claim);
        }
    }

    /// Returns the credit of all claimants to the user's account.
    pub(super) fn recall(&mut self) {
        let user = &self.user;
        self.account.for_each(|who, claim| settle(user, who, claim));
    }

    /// Gives back everything that anybody holds here. Nothing may be claimed or released after.
    /// Returns what is to be dropped without locks.
    pub(super) fn close(&mut self) -> Books {
        let user = &self.user;
        self.account.for_each(|who, claim| {
            let held = core::mem::replace(&mut claim.held, NOTHING);
            add(&mut claim.credit, &held);
            settle(user, who, claim);
        });
        self.account.clear()
    }
}

fn add(to: &mut Amounts, amounts: &Amounts) {
    for (to, amount) in to.iter_mut().zip(amounts) {
        *to += amount;
    }
}

fn subtract(from: &mut Amounts, amounts: &Amounts) {
    for (from, amount) in from.iter_mut().zip(amounts) {
        *from -= amount;
    }
}

/// Covers `amounts` from the claimant's credit, and what that lacks from the user's account.
fn draw(
    user: &User,
    who: Claimant,
    amounts: &Amounts,
    claim: &mut Claim,
    room: &mut Option<Room>,
) -> Result<(), Refusal> {
    if (0..RESOURCES).all(|r| claim.credit[r] >= amounts[r]) {
        subtract(&mut claim.credit, amounts);
        return Ok(());
    }
    let mut books = user.account.lock();
    let mut exact = NOTHING;
    for (r, exact) in exact.iter_mut().enumerate() {
        *exact = amounts[r].saturating_sub(claim.credit[r]);
    }
    let mut wanted = exact;
    for (r, wanted) in wanted.iter_mut().enumerate() {
        if *wanted != 0 {
            *wanted += user.batch(r);
        }
    }
    books.sweep_if_crowded();
    let drawn = match books.account.claim(who, &wanted, room) {
        Ok(()) => wanted,
        Err(Refusal::Quota) => match books.account.claim(who, &exact, room) {
            Ok(()) => exact,
            Err(refusal) => {
                // A share may have been granted twice what is used of it.
                let most = 4 * u64::from(books.keepers);
                let idle = core::array::from_fn(|r| most * user.batch(r));
                let could = books.account.could(who, &exact, &idle);
                return Err(if could { Refusal::Shared } else { refusal });
            }
        },
        Err(refusal) => return Err(refusal),
    };
    if !claim.keeps {
        claim.keeps = true;
        books.keepers += 1;
    }
    add(&mut claim.credit, &drawn);
    subtract(&mut claim.credit, amounts);
    Ok(())
}

/// Returns the credit that is more than the claimant may keep.
fn give_back(user: &User, who: Claimant, claim: &mut Claim) {
    let mut excess = NOTHING;
    for (r, excess) in excess.iter_mut().enumerate() {
        // After a recall nothing is kept until the next draw, or it would not be known to lie idle.
        let keep = if claim.keeps { user.batch(r) } else { 0 };
        if claim.credit[r] > 2 * keep {
            *excess = claim.credit[r] - keep;
        }
    }
    if excess == NOTHING {
        return;
    }
    subtract(&mut claim.credit, &excess);
    user.account.lock().account.release(who, &excess);
}

/// Returns all credit.
fn settle(user: &User, who: Claimant, claim: &mut Claim) {
    if !claim.keeps && claim.credit == NOTHING {
        return;
    }
    let mut books = user.account.lock();
    if core::mem::take(&mut claim.keeps) {
        books.keepers -= 1;
    }
    if claim.credit != NOTHING {
        books.account.release(who, &claim.credit);
        claim.credit = NOTHING;
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
