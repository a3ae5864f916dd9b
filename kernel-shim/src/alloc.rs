// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory: boxes, vectors and their flags, as `kernel::alloc`.

pub mod kbox;
pub mod kvec;

pub use kbox::{Box, KBox, KVBox, VBox};
pub use kvec::{IntoIter, KVVec, KVec, VVec, Vec};

/// There is no memory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct AllocError;

/// Flags of an allocation. Accepted everywhere, without effect in user space.
#[derive(Clone, Copy, PartialEq)]
pub struct Flags(u32);

impl Flags {
    /// Returns whether all of `flags` are set.
    pub fn contains(self, flags: Flags) -> bool {
        (self & flags) == flags
    }
}

impl core::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl core::ops::BitAnd for Flags {
    type Output = Self;

    fn bitand(self, rhs: Self) -> Self {
        Self(self.0 & rhs.0)
    }
}

impl core::ops::Not for Flags {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// The flags there are. Their bits are this crate's own.
pub mod flags {
    use super::Flags;

    /// Zeroed memory.
    pub const __GFP_ZERO: Flags = Flags(1);
    /// No warning when there is no memory.
    pub const __GFP_NOWARN: Flags = Flags(2);
    /// May not sleep, may use reserves.
    pub const GFP_ATOMIC: Flags = Flags(4);
    /// May sleep.
    pub const GFP_KERNEL: Flags = Flags(8);
    /// May sleep, accounted to the caller's memory control group.
    pub const GFP_KERNEL_ACCOUNT: Flags = Flags(8 | 16);
    /// May not sleep.
    pub const GFP_NOWAIT: Flags = Flags(32);
}

/// The allocators that a box or a vector can name, as `kernel::alloc::allocator`.
pub mod allocator {
    use super::Allocator;

    /// Physically contiguous memory in the kernel.
    pub struct Kmalloc;
    /// Virtually contiguous memory in the kernel.
    pub struct Vmalloc;
    /// `Kmalloc`, or `Vmalloc` where that fails.
    pub struct KVmalloc;

    impl Allocator for Kmalloc {}
    impl Allocator for Vmalloc {}
    impl Allocator for KVmalloc {}
}

/// One of the allocators in [`allocator`]. A type of its own per allocator, so
/// that mixing them is an error here as it is in the kernel; all use the
/// process' allocator.
pub trait Allocator: sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::allocator::Kmalloc {}
    impl Sealed for super::allocator::Vmalloc {}
    impl Sealed for super::allocator::KVmalloc {}
}
