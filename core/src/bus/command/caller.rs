// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The task that makes a call, as two traits of the host: [`Caller`] reads arguments and writes
//! results, [`Installed`] takes back or keeps the descriptors that it was given.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::host::{Host, Payload};
use crate::bus::object::Peer;

/// Descriptors that were given numbers in the receiver, and may still be taken back.
///
/// Dropping it without [`Installed::keep`] closes them.
pub trait Installed {
    /// Returns the numbers of the descriptors, in the order of the files.
    fn numbers(&self) -> &[i32];
    /// Makes the descriptors final: nothing closes them any more.
    fn keep(self);
}

/// The memory and the descriptors of the task that made a call.
///
/// Addresses are the caller's. None of the methods is called with a lock held or with anything
/// staged, so all of them may sleep.
pub trait Caller<H: Host> {
    /// Payload described by an iovec array.
    type Payload: Payload<H>;
    /// Descriptors given to the caller.
    type Installed: Installed;

    /// Reads `to.len()` bytes at `addr`.
    ///
    /// # Errors
    ///
    /// EFAULT.
    fn read(&self, addr: u64, to: &mut [u8]) -> Result;

    /// Writes `from` at `addr`.
    ///
    /// # Errors
    ///
    /// EFAULT.
    fn write(&self, addr: u64, from: &[u8]) -> Result;

    /// Imports `n` (at most 1024) iovecs at `addr`, in the caller's own layout of `struct iovec`.
    ///
    /// # Errors
    ///
    /// EFAULT, also for a range outside user memory; EINVAL as readv(2) for a negative length;
    /// EMSGSIZE beyond 0x7ffff000 bytes in all.
    fn payload(&self, addr: u64, n: usize) -> Result<Self::Payload>;

    /// Takes references to the files behind `fds`, at most 256.
    ///
    /// # Errors
    ///
    /// EBADF; EOPNOTSUPP for a kind that must not travel; EDQUOT if the host still has too many
    /// files to close that the caller's user sent; ENOMEM.
    fn files(&self, fds: &[i32]) -> Result<H::Files>;

    /// Finds the peer behind `fd`.
    ///
    /// # Errors
    ///
    /// EBADF; EOPNOTSUPP if the file is not a peer.
    fn peer(&self, fd: i32) -> Result<Arc<Peer<H>>>;

    /// Gives the caller a close-on-exec descriptor for each file: all, or none.
    ///
    /// # Errors
    ///
    /// EMFILE, ENOMEM or the refusal of a security module.
    fn install(&self, files: H::Files) -> Result<Self::Installed>;
}
