// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The number of waits for room in each account: while there are any, no claimant keeps credit, so
//! that all that is given back passes the account, and the ledger notes that it did.
//!
//! # Locks and memory order
//!
//! A wait is counted before the account is asked for the last time whether it refuses, and whatever
//! is given back looks at the count under the account's lock. So the one is seen in the answer, or
//! the other in the count.

use crate::bus::quota::ledger::Ledger;
use crate::bus::quota::level::Level;
use crate::bus::quota::resource::{FDS, SLICES};
use crate::bus::quota::user::User;

impl Ledger {
    /// Counts a wait at the account of this level. Returns the number of claimants that keep credit
    /// there, which is to be recalled: there will not be more until the last wait ends.
    pub(crate) fn begin_wait(&mut self, level: Level) -> u32 {
        let mut books = self.user.account.lock();
        match level {
            Level::Peer => {
                self.waits += 1;
                self.keepers
            }
            _ => {
                books.waits += 1;
                books.keepers
            }
        }
    }

    /// Counts a wait less.
    pub(crate) fn end_wait(&mut self, level: Level) {
        let mut books = self.user.account.lock();
        match level {
            Level::Peer => self.waits -= 1,
            _ => books.waits -= 1,
        }
    }

    /// Returns whether something was given back, since the last call, to an account with waits.
    pub(crate) fn take_due(&mut self) -> bool {
        core::mem::take(&mut self.due)
    }

    /// Returns whether no message takes anything from the peer's account.
    pub(crate) fn is_idle(&self) -> bool {
        self.account.used[SLICES] == 0
    }
}

impl User {
    /// Returns whether no message takes anything from the account of the user's peers.
    pub(crate) fn is_idle(&self) -> bool {
        self.account.lock().account.used[SLICES] == 0
    }

    /// Returns whether the user has no descriptors in flight.
    pub(crate) fn sends_no_fds(&self) -> bool {
        self.account.lock().sent.used[FDS] == 0
    }
}
