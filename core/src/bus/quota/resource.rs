// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The resources that are counted, and amounts of them.

/// Number of resources.
pub const RESOURCES: usize = 4;

/// Amounts of every resource, by its index.
pub type Amounts = [u64; RESOURCES];
/// Limits of a user or a peer, by resource.
pub type Limits = Amounts;

/// Index of slices in [`Amounts`].
pub const SLICES: usize = 0;
/// Index of handles in [`Amounts`].
pub const HANDLES: usize = 1;
/// Index of bytes in flight in [`Amounts`].
pub const BYTES: usize = 2;
/// Index of descriptors in flight in [`Amounts`].
pub const FDS: usize = 3;

/// The index of each resource.
pub(crate) const ALL: [usize; RESOURCES] = [SLICES, HANDLES, BYTES, FDS];

/// Nothing at all.
pub(crate) const NOTHING: Amounts = [0; RESOURCES];

/// Limits that a peer starts with, as far as those of its user are not lower.
pub const PEER_LIMITS: Limits = [16384, 65536, 16 << 20, 4096];

/// Returns the limits of a user unless the administrator sets others, on a machine with this many
/// bytes of memory: eight times the slices and descriptors of a peer, 32 times its handles, and an
/// eighth of the memory in bytes.
///
/// A service that many peers of its own user register with holds a handle of each, and each of
/// those holds some, too. By the divisors between receiving peers, 300 of them need 32 times.
pub const fn user_limits(memory: u64) -> Limits {
    let [slices, handles, _, fds] = PEER_LIMITS;
    [8 * slices, 32 * handles, memory / 8, 8 * fds]
}

/// Returns `amount` of one resource and nothing of the others.
#[inline]
pub(crate) fn only(resource: usize, amount: u64) -> Amounts {
    let mut amounts = NOTHING;
    amounts[resource] = amount;
    amounts
}

/// Adds each of `amounts` to `to`.
#[inline]
pub(crate) fn add(to: &mut Amounts, amounts: &Amounts) {
    for r in ALL {
        to[r] += amounts[r];
    }
}

/// Subtracts each of `amounts`, which are at most as large, from `from`.
#[inline]
pub(crate) fn subtract(from: &mut Amounts, amounts: &Amounts) {
    for r in ALL {
        from[r] -= amounts[r];
    }
}

/// Returns whether `from` has at least as much of each resource.
#[inline]
pub(crate) fn covers(from: &Amounts, amounts: &Amounts) -> bool {
    ALL.iter().all(|&r| from[r] >= amounts[r])
}

/// The user and the peer that a charge is booked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) uid: u32,
    pub(crate) peer: u64,
}
