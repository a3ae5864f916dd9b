// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A user of the bus, as far as accounting goes.
//!
//! # Locks
//!
//! `account` (rank 4) guards what the user's peers were charged together, and the descriptors that
//! the user has in flight.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::{new_spinlock, Arc, SpinLock};

use crate::bus::allocation::GFP_KEPT;
use crate::bus::quota::account::{Account, ShareReservation};
use crate::bus::quota::level::Level;
use crate::bus::quota::resource::{add, only, subtract, Amounts, Claimant, Limits, BYTES, FDS};
use crate::bus::quota::QuotaError;
use crate::bus::tree::find_unused;
use crate::errno::EDQUOT;

/// A user's pools together may retain this part of its limit in bytes.
const RETAINED_DIVISOR: u64 = 8;

/// The part of a user that the account lock guards.
pub(crate) struct UserAccount {
    /// The charges of the user's peers, by sending user and, in a share, receiving peer.
    pub(crate) account: Account,
    /// Number of claimants that may have credit, over all peers.
    pub(crate) keepers: u32,
    /// Waits for room in the account.
    pub(super) waits: u32,
    /// The peers, by ID, where a claimant may have credit.
    pub(crate) with_credit: RBTree<u64, ()>,
    /// Bytes of memory that its peers' pools may retain when nothing pins them.
    pub(crate) retained: u64,
    /// Descriptors that this user sent and nobody received yet, by receiving user and, in a share,
    /// receiving peer.
    pub(crate) sent: Account,
    /// Descriptors in flight to each peer, by ID. Entries of zeros may linger.
    sent_to: RBTree<u64, u64>,
    /// Where the search for such entries goes on.
    hand: Option<u64>,
}

/// One user, by real user ID.
#[pin_data]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) limits: Limits,
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
            account: Account::new(Level::User, uid, limits),
            keepers: 0,
            waits: 0,
            with_credit: RBTree::new(),
            retained: 0,
            sent: Account::new(Level::Sender, uid, limits),
            sent_to: RBTree::new(),
            hand: None,
        };
        Arc::pin_init(
            pin_init!(Self {
                uid,
                limits,
                account <- new_spinlock!(books, "bus1::account"),
            }),
            GFP_KEPT,
        )
    }

    /// Grants one of the user's pools up to `n_bytes` more to retain, until [`KeptCharges`] gives
    /// them back. Returns how many.
    pub(crate) fn retain(&self, n_bytes: u64) -> u64 {
        let mut books = self.account.lock();
        let most = self.limits[BYTES] / RETAINED_DIVISOR;
        let granted = n_bytes.min(most - books.retained);
        books.retained += granted;
        granted
    }
}

/// Charges for the memory of a pool whose peer was disconnected, until this is dropped: what stays
/// pinned takes from the user's limits, and what is retained from what its other pools may retain.
pub struct KeptCharges {
    user: Arc<User>,
    amounts: Amounts,
    retained: u64,
}

impl KeptCharges {
    /// Takes `amounts`, which the user is charged for and will not be any more, from its limits.
    pub(crate) fn new(user: &Arc<User>, amounts: Amounts, retained: u64) -> Self {
        subtract(&mut user.account.lock().account.limits, &amounts);
        Self {
            user: user.clone(),
            amounts,
            retained,
        }
    }
}

impl Drop for KeptCharges {
    fn drop(&mut self) {
        let mut books = self.user.account.lock();
        add(&mut books.account.limits, &self.amounts);
        books.retained -= self.retained;
    }
}

/// Memory for the first descriptors that a user sends to a peer.
struct SentReservation {
    share: Option<ShareReservation>,
    peer: Option<RBTreeNodeReservation<u64, u64>>,
}

impl UserAccount {
    /// Returns the number of descriptors in flight to a peer.
    pub(crate) fn sent_to(&self, peer: u64) -> u64 {
        self.sent_to.get(&peer).copied().unwrap_or(0)
    }

    /// Charges `n` descriptors that are sent to `to`.
    fn charge_sent(
        &mut self,
        to: Claimant,
        n: u64,
        reservation: &mut SentReservation,
    ) -> Result<(), QuotaError> {
        let (held, amounts) = (only(FDS, self.sent_to(to.peer)), only(FDS, n));
        let share = &mut reservation.share;
        let grown = self.sent.check(to.uid, &held, &amounts, share, 0)?;
        if self.sent_to.get(&to.peer).is_none() {
            let memory = reservation.peer.take();
            let memory = memory.ok_or(QuotaError::NeedsReservation)?;
            let found = find_unused(&mut self.sent_to, &mut self.hand, |n| *n == 0);
            for peer in found.iter().flatten() {
                self.sent_to.remove(peer);
            }
            self.sent_to.insert(memory.into_node(to.peer, 0));
        }
        self.sent.grant(to.uid, &held, &amounts, &grown, false);
        self.add_sent_to(to.peer, |sent| sent + n);
        Ok(())
    }

    fn add_sent_to(&mut self, peer: u64, add: impl FnOnce(u64) -> u64) {
        if let Some(sent) = self.sent_to.get_mut(&peer) {
            *sent = add(*sent);
        }
    }
}

/// Descriptors in flight, charged to the user that sent them, until this is dropped.
pub(crate) struct SentFds {
    user: Arc<User>,
    to: Claimant,
    n: u64,
}

impl SentFds {
    /// Charges `n` descriptors that are sent to the peer `to` to the user.
    ///
    /// # Errors
    ///
    /// EDQUOT if the user has too many in flight; ENOMEM.
    pub(crate) fn charge(user: &Arc<User>, to: Claimant, n: usize) -> Result<Self> {
        let n = n as u64;
        let mut reservation = SentReservation {
            share: None,
            peer: None,
        };
        loop {
            let charged = user.account.lock().charge_sent(to, n, &mut reservation);
            match charged {
                Ok(()) => break,
                Err(QuotaError::NeedsReservation) => {
                    reservation.share = Some(ShareReservation::new(GFP_KEPT)?);
                    reservation.peer = Some(RBTreeNodeReservation::new(GFP_KEPT)?);
                }
                Err(_) => return Err(EDQUOT),
            }
        }
        Ok(Self {
            user: user.clone(),
            to,
            n,
        })
    }
}

impl Drop for SentFds {
    fn drop(&mut self) {
        let mut books = self.user.account.lock();
        let (held, n) = (only(FDS, books.sent_to(self.to.peer)), only(FDS, self.n));
        books.sent.release(self.to.uid, &held, &n, false);
        books.add_sent_to(self.to.peer, |sent| sent - self.n);
    }
}
