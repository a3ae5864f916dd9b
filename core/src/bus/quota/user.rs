// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A user of the bus, as far as accounting goes.
//!
//! # Locks
//!
//! `account` (rank 4) guards the sum of the charges of the user's peers, and the descriptors that
//! the user has in flight.

use kernel::prelude::*;
use kernel::sync::{new_spinlock, Arc, SpinLock};

use crate::bus::host::GFP_KEPT;
use crate::bus::quota::account::Account;
use crate::bus::quota::resource::{Amounts, Limits, FDS};
use crate::errno::EDQUOT;

/// The part of a user that the account lock guards.
pub(crate) struct UserAccount {
    /// Sum of the charges of the user's peers.
    pub(crate) account: Account,
    /// Descriptors that this user sent and nobody received yet.
    pub(crate) sent_fds: u64,
}

/// One user, by real user ID.
#[pin_data]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) limits: Limits,
    /// Amounts of each resource that make one batch of credit.
    pub(crate) batch: Amounts,
    #[pin]
    pub(crate) account: SpinLock<UserAccount>,
}

impl User {
    /// Makes a user that holds nothing.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(uid: u32, limits: Limits) -> Result<Arc<Self>> {
        let books = UserAccount {
            account: Account::new(uid, limits),
            sent_fds: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                uid,
                limits,
                batch: limits.map(|limit| u64::from(limit / 4096)),
                account <- new_spinlock!(books, "bus1::account"),
            }),
            GFP_KEPT,
        )
    }

    /// Returns whether a recall could free anything.
    pub(crate) fn has_credit(&self) -> bool {
        self.account.lock().account.keepers != 0
    }
}

/// Descriptors in flight, charged to the user that sent them, until this is dropped.
pub(crate) struct SentFds {
    user: Arc<User>,
    n: u64,
}

impl SentFds {
    /// Charges `n` descriptors to the user.
    ///
    /// # Errors
    ///
    /// EDQUOT if the user has too many in flight.
    pub(crate) fn charge(user: &Arc<User>, n: usize) -> Result<Self> {
        let n = n as u64;
        let mut books = user.account.lock();
        if books.sent_fds + n > books.account.limits[FDS] {
            return Err(EDQUOT);
        }
        books.sent_fds += n;
        drop(books);
        Ok(Self {
            user: user.clone(),
            n,
        })
    }
}

impl Drop for SentFds {
    fn drop(&mut self) {
        self.user.account.lock().sent_fds -= self.n;
    }
}
