// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Quota: the amounts that each claimant may hold, and those that it holds.
//!
//! Two levels are charged for a message that a peer receives: the peer's own limits ([`ledger`])
//! and those of its user, which the user's peers share ([`user`]). For descriptors the sender's
//! user is a third. Each is an [`account`]. Nothing here knows of messages, handles or queues: a
//! claimant is a pair of numbers.

mod account;
mod ledger;
mod level;
mod query;
mod resource;
mod user;
mod waits;

pub(crate) use ledger::{Ledger, LedgerReservation};
pub(crate) use level::{divisor, Level};
pub(crate) use resource::{add, covers, only, Claimant, NOTHING};
pub use resource::{
    user_limits, Amounts, Limits, BYTES, FDS, HANDLES, PEER_LIMITS, RESOURCES, SLICES,
};
pub use user::KeptCharges;
pub(crate) use user::{SentFds, User};

/// The reason why a claim is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuotaError {
    /// The claim goes over a limit.
    Refused,
    /// The claim goes over a limit of this level, unless up to so many claimants return the credit
    /// that lies idle with them.
    RefusedUntilRecall(Level, u32),
    /// The claimant has no entry yet: to be tried again with a reservation for it.
    NeedsReservation,
}
