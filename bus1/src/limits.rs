// SPDX-License-Identifier: MIT OR Apache-2.0

//! Limits of a peer.

/// Limits of a peer: the amounts that others, and it itself, may store there.
///
/// They are a safety net; a sender meets them as [`Error::Quota`](crate::Error::Quota). A single
/// sender of the peer's own user can take half of the part that is free, one of another user an
/// eighth. The limits of the *user* hold as well; [`Peer::usage`](crate::Peer::usage) tells them.
///
/// ```
/// use bus1::{Host, Peer};
///
/// let peer = Peer::open_on(Host::Embedded)?;
/// let mut limits = peer.limits()?;
/// limits.inflight_bytes = 64 << 10;
/// peer.set_limits(limits)?;
/// assert_eq!(peer.limits()?.inflight_bytes, 64 << 10);
/// # Ok::<(), bus1::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages that may wait or be held, in number.
    pub slices: u32,
    /// Handles, own nodes included, and those in waiting messages, in number.
    pub handles: u32,
    /// Bytes of messages that wait or are held: payload, 8 for each handle, 4 for each descriptor.
    pub inflight_bytes: u32,
    /// Descriptors in waiting messages, in number.
    pub inflight_fds: u32,
}

impl Limits {
    /// The largest value of each limit.
    pub const MAX: u32 = i32::MAX as u32;
}
