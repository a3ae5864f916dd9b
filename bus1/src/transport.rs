// SPDX-License-Identifier: MIT OR Apache-2.0

//! The way to a host: one peer's commands, its pool, and its descriptor.
//!
//! Everything above this file is the same for all hosts.

use std::os::fd::BorrowedFd;

use crate::errno::Errno;
use crate::host::Host;

/// An open peer of some host. Dropping it closes it.
///
/// # Safety
///
/// Pool memory, as [`Transport::pool`] describes it, is readable at every offset where a received
/// slice lies, until the transport is dropped, a disconnect included. The bytes of a slice do not
/// change between its receipt and its release.
pub(crate) unsafe trait Transport: Send + Sync {
    /// Which host it is on.
    fn host(&self) -> Host;

    /// One command.
    ///
    /// # Safety
    ///
    /// `arg` is what `cmd` demands: an address of its structure, valid for reads and writes, and
    /// what this refers to is valid as its fields say.
    unsafe fn ioctl(&self, cmd: u32, arg: u64) -> Result<(), Errno>;

    /// Where the pool starts, and how much of it can be reached. Always the same once it succeeded.
    fn pool(&self) -> Result<(*const u8, u64), Errno>;

    /// The descriptor that shows readiness to `poll(2)` and that names the peer in commands.
    /// Always the same once it succeeded.
    fn fd(&self) -> Result<BorrowedFd<'_>, Errno>;
}
