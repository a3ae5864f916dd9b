// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The kinds of accounts, and the divisors of each.

/// The kind of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The account of a receiving peer.
    Peer,
    /// The account of a receiving user.
    User,
    /// The account of a sending user, for its descriptors in flight.
    Sender,
}

impl Level {
    /// Returns the divisor of the owning user.
    pub(crate) fn own(self) -> u64 {
        match self {
            Self::Peer => 1,
            Self::User | Self::Sender => 2,
        }
    }

    /// Returns the divisor between the claimants of one user, when `n` of them hold some.
    pub(crate) fn between(self, n: u32) -> u64 {
        match self {
            Self::Peer => 2,
            Self::User | Self::Sender => divisor(n),
        }
    }
}

/// Returns `A(n)`: the divisor between users, or claimants, `n` of which hold some.
pub(crate) fn divisor(n: u32) -> u64 {
    let m = u64::from(n) + 1;
    let log = u64::from(u64::BITS - (m - 1).leading_zeros());
    m * log + m
}
