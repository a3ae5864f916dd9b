// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A user of the bus, as far as accounting goes.
//!
//! # Locks
//!
//! `account` (rank 4) guards what the user's peers were charged together, and the descriptors that
//! the user has in flight.

use kernel::prelude::*;
use kernel::sync::{new_spinlock, Arc, SpinLock};

use super::account::{Account, Amounts, Limits, FDS};
use super::GFP_KEPT;
use crate::errno::EDQUOT;

/// What a user's peers were charged together.
pub(super) struct UserAccount {
    pub(super) account: Account,
    /// Descriptors that this user sent and nobody received yet.
    pub(super) sent_fds: u64,
}

/// One user, by real user ID.
#[pin_data]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) limits: Limits,
    /// How much a claimant draws at once.
    pub(super) batch: Amounts,
    #[pin]
    pub(super) account: SpinLock<UserAccount>,
}

impl User {
    pub(super) fn new(uid: u32, limits: Limits) -> Result<Arc<Self>> {
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
}

/// Descriptors in flight, charged to the user who sent them, until this is dropped.
pub(super) struct SentFds {
    user: Arc<User>,
    n: u64,
}

impl SentFds {
    /// EDQUOT if the user has too many in flight.
    pub(super) fn charge(user: &Arc<User>, n: usize) -> Result<Self> {
        let n = n as u64;
        let mut books = user.account.lock();
        if books.sent_fds + n > books.account.limit[FDS] {
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
