// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Quota: the amounts that each claimant may hold, and those that it holds.
//!
//! Two levels are charged for a message that a peer receives: the peer's own limits ([`ledger`])
//! and those of its user, which the user's peers share ([`user`]). Both are an [`account`]. Nothing
//! here knows of messages, handles or queues: a claimant is a pair of numbers.

mod account;
mod ledger;
mod resource;
mod user;

pub(crate) use account::divisor;
pub(crate) use ledger::{Ledger, LedgerReservation};
pub(crate) use resource::{add, only, Claimant, NOTHING};
pub use resource::{Amounts, Limits, BYTES, DEFAULT_LIMITS, FDS, HANDLES, RESOURCES, SLICES};
pub(crate) use user::{SentFds, User};

/// The reason why a claim is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuotaError {
    /// The claim goes over a limit.
    Refused,
    /// The claim goes over the user's limits, unless the user's peers return the credit that lies
    /// idle with them.
    RefusedUntilRecall,
    /// The claimant has no entry yet: to be tried again with a reservation for it.
    NeedsReservation,
}
