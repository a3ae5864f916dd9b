// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The address space of one pool: the parts that are in use, and the layout of a slice.
//!
//! The memory itself is the host's. Nothing here knows of messages or peers.

mod allocator;
mod given;
mod slice;

pub(crate) use allocator::{Allocator, Extent};
pub(crate) use slice::{Size, Slice, UNIT};

/// The reason why a slice cannot be reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AllocError {
    /// No free extent of that length was found.
    Full,
    /// To be tried again once there is memory for so many extents.
    NeedsMemory(usize),
}
