// SPDX-License-Identifier: GPL-2.0-only

//! Flags of allocations that the `kernel` crate lacks.

use core::mem;

use kernel::alloc::Flags;
use kernel::bindings;

/// Charged to the memory cgroup of the task. Where that or the machine is short of memory, the
/// allocation fails after some effort, without a warning: no process is killed for it.
pub(crate) const ACCOUNT_MAYFAIL_BITS: u32 = bindings::GFP_KERNEL_ACCOUNT
    | 1 << bindings::___GFP_RETRY_MAYFAIL_BIT
    | 1 << bindings::___GFP_NOWARN_BIT;

/// [`ACCOUNT_MAYFAIL_BITS`] for the allocators of the `kernel` crate.
// SAFETY: `Flags` has one field, of this type and for any bits, and the compiler checks that it is
// as large.
pub(crate) const ACCOUNT_MAYFAIL: Flags =
    unsafe { mem::transmute::<u32, Flags>(ACCOUNT_MAYFAIL_BITS) };
