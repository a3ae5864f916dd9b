// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A slice of a pool, and its size.

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
    /// Returns the size of a slice for a message of this size: payload, padding, handle IDs,
    /// descriptors, padding. Never 0.
    ///
    /// Nothing overflows for at most 2^31 bytes and at most as many handles as a limit allows.
    #[inline]
    pub(crate) fn slice_size(&self) -> u64 {
        let padded = self.n_bytes.next_multiple_of(UNIT);
        let end = padded + self.n_charged() - self.n_bytes;
        end.next_multiple_of(UNIT).max(UNIT)
    }

    /// Returns the bytes of a slice for a message of this size, without padding.
    #[inline]
    pub(crate) fn n_charged(&self) -> u64 {
        self.n_bytes + 8 * self.n_handles as u64 + 4 * self.n_fds as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice_size(n_bytes: u64, n_handles: usize, n_fds: usize) -> u64 {
        let size = Size {
            n_bytes,
            n_handles,
            n_fds,
        };
        size.slice_size()
    }

    #[test]
    fn a_slice_is_never_empty() {
        assert_eq!(slice_size(0, 0, 0), 8);
    }

    #[test]
    fn handles_start_aligned_and_descriptors_are_padded() {
        assert_eq!(slice_size(1, 2, 0), 24);
        assert_eq!(slice_size(8, 1, 1), 24);
        assert_eq!(slice_size(9, 0, 3), 32);
        assert_eq!(slice_size(16, 0, 2), 24);
    }
}
