// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A slice of a pool, and its layout.

/// Offsets and sizes are multiples of this many bytes.
pub(crate) const UNIT: u64 = 8;

/// A reserved part of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Number of its extent in the allocator.
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Bytes in it that were charged.
    pub(crate) n_bytes: u32,
    /// The ID of the peer that is charged for it.
    pub(crate) payer: u64,
}

impl Slice {
    /// Returns the offset of its end.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// The size of a message, by its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes of payload.
    pub(crate) n_bytes: u64,
    pub(crate) n_handles: usize,
    pub(crate) n_fds: usize,
}

impl Size {
    /// Returns the layout of a slice for a message of this size.
    ///
    /// Nothing overflows for at most 2^31 bytes and at most as many handles as a limit allows.
    #[inline]
    pub(crate) fn layout(&self) -> Layout {
        let handles = self.n_bytes.next_multiple_of(UNIT);
        let end = handles + self.n_charged() - self.n_bytes;
        Layout {
            handles,
            size: end.next_multiple_of(UNIT).max(UNIT),
        }
    }

    /// Returns the bytes of a slice for a message of this size, without padding.
    #[inline]
    pub(crate) fn n_charged(&self) -> u64 {
        self.n_bytes + 8 * self.n_handles as u64 + 4 * self.n_fds as u64
    }
}

/// The layout of a slice, relative to its start: payload, padding, handle IDs, descriptors,
/// padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Start of the handle IDs. Descriptors follow them.
    pub(crate) handles: u64,
    /// Size of the whole, never 0.
    pub(crate) size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(n_bytes: u64, n_handles: usize, n_fds: usize) -> (u64, u64) {
        let size = Size {
            n_bytes,
            n_handles,
            n_fds,
        };
        let Layout { handles, size } = size.layout();
        (handles, size)
    }

    #[test]
    fn a_slice_is_never_empty() {
        assert_eq!(layout(0, 0, 0), (0, 8));
    }

    #[test]
    fn handles_start_aligned_and_descriptors_are_padded() {
        assert_eq!(layout(1, 2, 0), (8, 24));
        assert_eq!(layout(8, 1, 1), (8, 24));
        assert_eq!(layout(9, 0, 3), (16, 32));
        assert_eq!(layout(16, 0, 2), (16, 24));
    }
}
