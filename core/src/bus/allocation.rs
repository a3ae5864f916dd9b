// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Flags of the core's allocations.

use kernel::alloc::Flags;

/// Flags to allocate memory that outlives the call. It is charged to the memory cgroup of the
/// caller; where that is at its limit the allocation fails, and nobody is killed for it.
pub(crate) const GFP_KEPT: Flags = crate::gfp::ACCOUNT_MAYFAIL;

/// Flags to allocate memory in proportion to the arguments of a call, which goes with the call. It
/// is charged as well: a task can stay in its call for as long as it likes.
pub(crate) const GFP_CALL: Flags = GFP_KEPT;
