// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A slice of a pool, and what lies where in it.

/// Offsets and sizes are multiples of this many bytes.
pub(crate) const UNIT: u64 = 8;

/// A reserved part of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Names it to the allocator.
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// The ID of the peer that is charged for it.
    pub(crate) payer: u64,
}

impl Slice {
    /// Returns where it ends.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// How much a message carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes of payload.
    pub(crate) n_bytes: u64,
    pub(crate) n_handles: usize,
    pub(crate) n_fds: usize,
}

impl Size {
    /// Returns where the parts of a slice are for a message of this size.
    ///
    /// Nothing overflows for at most 2^31 bytes and at most as many handles as a limit allows.
    #[inline]
    pub(crate) fn layout(&self) -> Layout {
        let handles = self.n_bytes.next_multiple_of(UNIT);
        let end = handles + 8 * self.n_handles as u64 + 4 * self.n_fds as u64;
        Layout {
            handles,
            size: end.next_multiple_of(UNIT).max(UNIT),
        }
    }
}

/// Where the parts of a slice are, relative to its start: payload, padding, handle IDs,
/// descriptors, padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where the handle IDs start. Descriptors follow them.
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
