// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Memory that a booking in an inbox may turn out to need, and the way to book.
//!
//! Nothing is allocated under the inbox lock. So a booking is tried; where memory is lacking, the
//! caller gets it without locks, and tries again.

use kernel::prelude::*;

use crate::bus::host::Host;
use crate::bus::object::{check, BlankMessage, Inbox, Message, Peer};
use crate::bus::order::Ring;
use crate::bus::pool::{AllocError, ExtentArray, GivenSlices};
use crate::bus::quota::{only, Claimant, LedgerReservation, Level, QuotaError, HANDLES};
use crate::errno::{EDQUOT, EXFULL};

/// The reason why a booking was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Final.
    Error(Error),
    /// By an account of this level, unless so many claimants return the credit that lies idle with
    /// them.
    UntilRecall(Level, u32),
    /// To be tried again with memory for the claimant's first claim.
    NeedsClaim,
    /// To be tried again with memory for so many slices.
    NeedsSlices(usize),
    /// To be tried again with memory for a message.
    NeedsMessage,
}

impl From<Error> for Denied {
    fn from(error: Error) -> Self {
        Denied::Error(error)
    }
}

impl From<QuotaError> for Denied {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Refused => Self::Error(EDQUOT),
            QuotaError::RefusedUntilRecall(level, keepers) => Self::UntilRecall(level, keepers),
            QuotaError::NeedsReservation => Self::NeedsClaim,
        }
    }
}

impl From<AllocError> for Denied {
    fn from(error: AllocError) -> Self {
        match error {
            AllocError::Full => Denied::Error(EXFULL),
            AllocError::NeedsMemory(n) => Denied::NeedsSlices(n),
        }
    }
}

/// Memory for a number of slices: for their extents, for the index of those that are given, and for
/// as many messages in the queue's ring.
///
/// Each message has a slice until it left the ring, so there is always a slot for it.
pub(crate) struct SliceReservation<H: Host> {
    pub(crate) extents: ExtentArray,
    pub(crate) given: GivenSlices,
    pub(crate) ring: Ring<Message<H>>,
}

impl<H: Host> SliceReservation<H> {
    /// Allocates memory for at least `n` slices.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(n: usize) -> Result<Self> {
        let extents = ExtentArray::new(n)?;
        Ok(Self {
            given: GivenSlices::new(extents.capacity())?,
            ring: Ring::new(extents.capacity())?,
            extents,
        })
    }
}

/// Memory that a booking turned out to need.
pub(crate) struct Reservations<H: Host> {
    pub(crate) ledger: LedgerReservation,
    pub(crate) slices: Option<SliceReservation<H>>,
    pub(crate) message: Option<BlankMessage<H>>,
}

impl<H: Host> Reservations<H> {
    fn none() -> Self {
        Self {
            ledger: LedgerReservation::default(),
            slices: None,
            message: None,
        }
    }

    /// Gets the memory that was lacking; fails if the denial is final.
    fn get(&mut self, denied: Denied) -> Result {
        match denied {
            Denied::Error(error) => return Err(error),
            Denied::UntilRecall(..) => return Err(EDQUOT),
            Denied::NeedsClaim => self.ledger = LedgerReservation::new()?,
            Denied::NeedsSlices(n) => self.slices = Some(SliceReservation::new(n)?),
            Denied::NeedsMessage => self.message = Some(BlankMessage::new()?),
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

    /// Books something that was denied once.
    #[cold]
    fn book_again<T>(
        &self,
        mut denied: Denied,
        mut book: impl FnMut(&mut Inbox<H>, Option<&mut Reservations<H>>) -> Result<T, Denied>,
    ) -> Result<T> {
        let mut reservations = Reservations::none();
        // Once on each level: a claim may need the one and then the other.
        let (mut recalled_peer, mut recalled_user) = (false, false);
        loop {
            match denied {
                Denied::UntilRecall(Level::Peer, keepers) if !recalled_peer => {
                    recalled_peer = true;
                    self.recall(Level::Peer, keepers);
                }
                Denied::UntilRecall(Level::User, keepers) if !recalled_user => {
                    recalled_user = true;
                    self.recall(Level::User, keepers);
                }
                denied => reservations.get(denied)?,
            }
            denied = match book(&mut self.inbox.lock(), Some(&mut reservations)) {
                Ok(booked) => return Ok(booked),
                Err(denied) => denied,
            };
        }
    }

    /// Takes back the credit of `keepers` claimants, or a few more: of this peer, or of its user's
    /// peers.
    pub(crate) fn recall(&self, level: Level, keepers: u32) {
        let mut recalled = 0;
        while recalled < keepers {
            let n = match level {
                Level::Peer => self.recall_some(),
                _ => self.bus.recall(&self.user),
            };
            if n == 0 {
                return;
            }
            recalled += n;
        }
    }

    /// Charges `n` handles.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN, EDQUOT, ENOMEM.
    pub(crate) fn charge_handles(&self, claimant: Claimant, n: usize) -> Result {
        let charges = only(HANDLES, n as u64);
        self.book(|inbox, reservations| {
            check(inbox.open)?;
            let reservation = reservations.map(|all| &mut all.ledger);
            inbox.ledger.claim(claimant, &charges, reservation)?;
            Ok(())
        })
    }
}
