// SPDX-License-Identifier: MIT OR Apache-2.0

//! The way to a host: one peer's commands, its pool, and its descriptor.
//!
//! Everything above this file is the same for all hosts.

use std::os::fd::BorrowedFd;

use bus1_ioctl::Execute;

use crate::error::Result;
use crate::host::Host;

/// A pool as the process sees it: memory that can only be read.
#[derive(Clone, Copy)]
pub(crate) struct PoolView {
    /// Address of offset 0.
    pub(crate) start: *const u8,
    /// Number of bytes that can be reached.
    pub(crate) len: u64,
}

/// An open peer of some host. Dropping it closes it.
///
/// # Safety
///
/// Pool memory, as [`Transport::pool`] describes it, is readable at every offset where a received
/// slice lies, until the transport is dropped, a disconnect included. The bytes of a slice do not
/// change between its receipt and its release.
pub(crate) unsafe trait Transport: Execute + Send + Sync {
    /// Returns the host that the peer is on.
    fn host(&self) -> Host;

    /// Returns the peer's pool, and maps it if that was not done before. It is always the same once
    /// it succeeded.
    ///
    /// # Errors
    ///
    /// The errors of [`Error::from_host`](crate::Error::from_host).
    fn pool(&self) -> Result<PoolView>;

    /// Returns the descriptor that shows readiness to `poll(2)` and that names the peer in
    /// commands. It is always the same once it succeeded.
    ///
    /// # Errors
    ///
    /// The errors of [`Error::from_host`](crate::Error::from_host).
    fn fd(&self) -> Result<BorrowedFd<'_>>;
}
