// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of handles and nodes.

use std::fmt;

use bus1_uapi::{HANDLE_FLAG_MANAGED, HANDLE_FLAG_REMOTE, HANDLE_INVALID};

/// The ID of a handle or of an own node: a number with a meaning only for one peer.
///
/// It is a name and grants nothing: only a [`Handle`](crate::Handle) can be used. The same node has
/// another ID at every peer. IDs that the bus chose never come back after they were
/// released; own nodes have IDs that their owner chose.
///
/// ```
/// use bus1::HandleId;
///
/// let own = HandleId::from_raw(8);
/// assert!(!own.is_remote());
/// assert_eq!(own.to_string(), "0x8");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct HandleId(u64);

impl HandleId {
    /// No handle: the [destination](crate::Message::destination) of a seed.
    pub const INVALID: Self = Self(HANDLE_INVALID);

    /// Makes an ID of this number, which is not checked.
    #[must_use]
    pub const fn from_raw(id: u64) -> Self {
        Self(id)
    }

    /// Returns the number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Returns whether the bus chose the ID.
    #[must_use]
    pub const fn is_managed(self) -> bool {
        self.0 & HANDLE_FLAG_MANAGED != 0
    }

    /// Returns whether another peer owns the node.
    #[must_use]
    pub const fn is_remote(self) -> bool {
        self.0 & HANDLE_FLAG_REMOTE != 0
    }

    /// Returns whether an owner may choose it for a node.
    pub(crate) const fn is_own(self) -> bool {
        !self.is_managed() && !self.is_remote()
    }
}

impl fmt::Display for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::INVALID {
            f.write_str("none")
        } else {
            write!(f, "{:#x}", self.0)
        }
    }
}

impl fmt::Debug for HandleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleId({self})")
    }
}
