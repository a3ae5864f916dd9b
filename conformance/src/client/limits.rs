// SPDX-License-Identifier: MIT OR Apache-2.0

//! The four limits of a peer or a user.

use bus1_uapi as abi;

/// The four limits of a peer or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slices.
    pub slices: u32,
    /// Handles.
    pub handles: u32,
    /// Bytes in flight.
    pub bytes: u32,
    /// Descriptors in flight.
    pub fds: u32,
}

impl Limits {
    /// Keeps every limit as it is, in PEER_RESET.
    pub const KEEP: Self = Self::all(u32::MAX);

    /// Limits that a new peer starts with.
    pub const DEFAULT: Self = Self {
        slices: 16384,
        handles: 65536,
        bytes: 16 << 20,
        fds: 4096,
    };

    /// The highest limits.
    pub const MOST: Self = Self::all(i32::MAX as u32);

    /// Returns the same number for all of them.
    pub const fn all(limit: u32) -> Self {
        Self {
            slices: limit,
            handles: limit,
            bytes: limit,
            fds: limit,
        }
    }

    /// Returns the four numbers, to be changed one by one.
    pub fn each_mut(&mut self) -> [&mut u32; 4] {
        [
            &mut self.slices,
            &mut self.handles,
            &mut self.bytes,
            &mut self.fds,
        ]
    }

    /// Returns the argument of PEER_RESET that sets these limits and flushes nothing.
    pub fn reset(self) -> abi::CmdPeerReset {
        abi::CmdPeerReset {
            flags: 0,
            peer_flags: u64::MAX,
            max_slices: self.slices,
            max_handles: self.handles,
            max_inflight_bytes: self.bytes,
            max_inflight_fds: self.fds,
        }
    }
}

impl From<abi::CmdPeerReset> for Limits {
    fn from(arg: abi::CmdPeerReset) -> Self {
        Self {
            slices: arg.max_slices,
            handles: arg.max_handles,
            bytes: arg.max_inflight_bytes,
            fds: arg.max_inflight_fds,
        }
    }
}
