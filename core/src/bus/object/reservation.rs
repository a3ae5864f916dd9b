// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Memory that a booking in an inbox may turn out to need, and the way to book.
//!
//! Nothing is allocated under the inbox lock. So a booking is tried; where memory is lacking, the
//! caller gets it without locks, and tries again.
//!
//! # Locks
//!
//! The inbox, for one attempt; the list of users with an account, to find a peer with credit.

use kernel::prelude::*;

use crate::bus::host::{Host, KillCheck};
use crate::bus::object::{check, Inbox, Message, Peer};
use crate::bus::order::Ring;
use crate::bus::pool::{AllocError, Extent};
use crate::bus::quota::{only, Claimant, LedgerReservation, Level, QuotaError, HANDLES};
use crate::errno::{EDQUOT, EXFULL};

/// The reason why a booking was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Final.
    Error(Error),
    /// By quota.
    Quota(QuotaError),
    /// By the pool.
    Pool(AllocError),
    /// To be tried again with memory for a message.
    NeedsMessage,
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Denied::Error(error)
    }
}

/// Memory for a number of slices: for their extents, and for as many messages in the queue's ring.
///
/// Each message has a slice until it left the ring, so there is always a slot for it.
pub(crate) struct SliceReservation<H: Host> {
    pub(crate) extents: KVVec<Extent>,
    pub(crate) ring: Ring<Message<H>>,
}

impl<H: Host> SliceReservation<H> {
    /// Allocates memory for `n` slices.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(n: usize) -> Result<Self> {
        Ok(Self {
            extents: Extent::new_array(n)?,
            ring: Ring::new(n)?,
        })
    }
}

/// Memory that a booking turned out to need.
pub(crate) struct Reservations<H: Host> {
    pub(crate) ledger: LedgerReservation,
    pub(crate) slices: Option<SliceReservation<H>>,
    pub(crate) message: Option<KBox<Message<H>>>,
}

impl<H: Host> Reservations<H> {
    /// Gets the memory that `peer` was lacking; fails if the denial is final.
    fn get(&mut self, peer: &Peer<H>, denied: Denied) -> Result {
        match denied {
            Denied::Error(error) => return Err(error),
            Denied::Quota(QuotaError::NeedsReservation) => {
                self.ledger = LedgerReservation::new(self.ledger.recalled)?
            }
            Denied::Quota(_) => return Err(EDQUOT),
            Denied::Pool(AllocError::Full) => return Err(EXFULL),
            Denied::Pool(AllocError::NeedsMemory(n)) => {
                self.slices = Some(SliceReservation::new(n)?)
            }
            // A peer that is disconnected by now has no pool, and denies the next attempt.
            Denied::NeedsMessage => {
                self.message = peer.pool().ok().map(Message::blank).transpose()?;
            }
        }
        Ok(())
    }
}

impl<H: Host> Peer<H> {
    /// Books something in the inbox: gets the memory that it turns out to need, and recalls idle
    /// credit before it takes a refusal of the user's account for an answer.
    ///
    /// # Errors
    ///
    /// EDQUOT, EXFULL, ENOMEM, and those of `book`.
    #[inline]
    pub(crate) fn book<T>(
        &self,
        mut book: impl FnMut(&mut Inbox<H>, Option<&mut Reservations<H>>) -> Result<T, Denied>,
    ) -> Result<T> {
        // Mostly nothing is lacking.
        let booked = book(&mut self.inbox.lock(), None);
        booked.or_else(|denied| self.book_again(denied, book))
    }

    /// Books something that was denied once: gets the memory that is lacking, or recalls credit,
    /// and tries again, until that is granted or refused for good.
    #[cold]
    fn book_again<T>(
        &self,
        mut denied: Denied,
        mut book: impl FnMut(&mut Inbox<H>, Option<&mut Reservations<H>>) -> Result<T, Denied>,
    ) -> Result<T> {
        let mut reservations = Reservations {
            ledger: LedgerReservation::default(),
            slices: None,
            message: None,
        };
        let booked = loop {
            let prepared = match denied {
                // Once on each level: a claim may need the one and then the other.
                Denied::Quota(QuotaError::RefusedUntilRecall(level, keepers))
                    if !reservations.ledger.recalled[level as usize] =>
                {
                    reservations.ledger.recalled[level as usize] = true;
                    self.recall(level, keepers)
                }
                denied => reservations.get(self, denied),
            };
            if let Err(error) = prepared {
                break Err(error);
            }
            denied = match book(&mut self.inbox.lock(), Some(&mut reservations)) {
                Ok(booked) => break Ok(booked),
                Err(denied) => denied,
            };
        };
        // A claim may have been given back, since something else was lacking.
        self.look_at_waits_if_due();
        booked
    }

    /// Takes back the credit of `keepers` claimants, or a few more: of this peer, or of its user's
    /// peers.
    ///
    /// # Errors
    ///
    /// EINTR if the caller was killed, after some of it.
    pub(crate) fn recall(&self, level: Level, keepers: u32) -> Result {
        let mut kill_check = KillCheck::default();
        let mut recalled = 0;
        while recalled < keepers {
            let n = match level {
                Level::Peer => self.recall_some(),
                _ => {
                    let peer = self.bus.peer_with_credit(&self.user, 0);
                    peer.map_or(0, |peer| peer.recall_some())
                }
            };
            if n == 0 {
                break;
            }
            recalled += n;
            kill_check.step::<H>(u64::from(n))?;
        }
        Ok(())
    }

    /// Charges one handle.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN, EDQUOT, ENOMEM.
    pub(crate) fn charge_handle(&self, claimant: Claimant) -> Result {
        let charges = only(HANDLES, 1);
        self.book(|inbox, reservations| {
            check(inbox.open)?;
            let reservation = reservations.map(|all| &mut all.ledger);
            let claimed = inbox.ledger.claim(claimant, &charges, reservation);
            claimed.map_err(Denied::Quota)
        })
    }
}
