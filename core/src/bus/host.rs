// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What the core asks of the machine it runs on.
//!
//! A host lends memory, descriptors and wake-ups, and moves bytes. It knows nothing of order,
//! rights or quota. [`Host`] names the types of one host; [`Caller`] is one call by one user of
//! it: where arguments are read from and results go.
//!
//! # Rules for hosts
//!
//! - [`Pool::write`], and [`Pool::unpin`] for up to 4096 bytes, are called with spin locks held: they
//!   must not call back into the core, nor sleep where a spin lock forbids that (in user space it does not,
//!   it only makes others spin). Everything else is called without any lock
//!   of the core.
//! - The last reference to a [`Host::Pool`] or a [`Host::File`] is never dropped under a lock.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::message::Files;
use super::peer::Peer;

/// The types of one host.
pub trait Host: Sized + Send + Sync + 'static {
    /// The memory of one peer's pool; a clone is another reference to the same memory.
    type Pool: Pool;
    /// A descriptor in flight: the file behind it, not its number.
    type File: Send + Sync + 'static;
    /// Wakes those who wait for one peer.
    type Waker: Waker;
}

/// Memory that senders fill and the owner reads.
///
/// It is addressed by offset, from 0 to [`Pool::SIZE`]. Memory is zeroed when it enters the pool.
pub trait Pool: Clone + Send + Sync + Unpin + 'static {
    /// Bytes of address space; a multiple of 8.
    const SIZE: u64;

    /// Makes sure there is memory behind `len` bytes at `offset`, and keeps it there until as
    /// many calls of [`Pool::unpin`] for the range. New memory is charged to the calling task.
    /// May sleep, but not on user memory. On error nothing stays pinned.
    fn pin(&self, offset: u64, len: u64) -> Result;

    /// Undoes one [`Pool::pin`] of exactly this range. Memory that nothing pins may be given back
    /// to the system, whenever the host likes.
    fn unpin(&self, offset: u64, len: u64);

    /// Stores `bytes` at `offset`, in a pinned range.
    fn write(&self, offset: u64, bytes: &[u8]);

    /// Copies `len` bytes at `offset` to `to_offset` of another pool; both ranges are pinned.
    fn copy(&self, offset: u64, len: u64, to: &Self, to_offset: u64);
}

/// Wakes those who wait for one peer.
pub trait Waker: Send + Sync + 'static {
    /// Something changed: the queue may have become readable or the peer was disconnected.
    /// Waiters look again by [`Peer::ready`]. `yields` is a hint: the caller is about to sleep, so
    /// one who is woken can take its place.
    fn wake(&self, yields: bool);

    /// Whether somebody may be waiting. Asked by one who has just slept here: who enlisted before its
    /// wake-up is seen; who enlists later looks for itself.
    fn is_awaited(&self) -> bool {
        true
    }

    /// Sleeps until `ready`, at most until `deadline`, in nanoseconds of the monotonic clock;
    /// [`DEADLINE_NEVER`](crate::abi::DEADLINE_NEVER) is for ever. ETIMEDOUT; ERESTARTSYS if there is a
    /// signal to be handled first. May return for no reason.
    ///
    /// Of those who sleep here a wake-up may wake one alone, also if that one just gives up: so
    /// whoever slept wakes another if there still is something.
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: u64) -> Result;
}

/// Payload of a message, still in the sender's memory.
pub trait Payload<H: Host> {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves all of it to `offset` of `pool`, in a pinned range. Called at most once. May sleep on
    /// user memory. EFAULT if it cannot be read.
    fn copy_to(&mut self, pool: &H::Pool, offset: u64) -> Result;
}

/// Descriptors that were given numbers in the receiver, but may still be taken back.
///
/// Dropping it without [`Installed::keep`] closes them.
pub trait Installed {
    /// The numbers, in the order of the files.
    fn numbers(&self) -> &[i32];
    /// Makes them final.
    fn keep(self);
}

/// One call on the binary interface: the memory and the descriptors of its caller.
///
/// Addresses are the caller's. None of the methods is called with a lock held or with anything
/// staged, so all of them may sleep.
pub trait Caller<H: Host> {
    /// Payload described by an iovec array.
    type Payload: Payload<H>;
    /// Descriptors given to the caller.
    type Installed: Installed;

    /// Reads `to.len()` bytes at `addr`. EFAULT.
    fn read(&self, addr: u64, to: &mut [u8]) -> Result;

    /// Writes `from` at `addr`. EFAULT.
    fn write(&self, addr: u64, from: &[u8]) -> Result;

    /// Imports `n` (at most 1024) iovecs at `addr`, in the caller's own layout of `struct iovec`.
    /// EFAULT, EINVAL as readv(2) for a negative length, EMSGSIZE beyond 0x7ffff000 bytes in all.
    fn payload(&self, addr: u64, n: usize) -> Result<Self::Payload>;

    /// Takes a reference to the file behind `fd`. EBADF, EOPNOTSUPP for a kind that must not
    /// travel.
    fn file(&self, fd: i32) -> Result<H::File>;

    /// Finds the peer behind `fd`. EBADF, EOPNOTSUPP if it is not one.
    fn peer(&self, fd: i32) -> Result<Arc<Peer<H>>>;

    /// Gives the caller a close-on-exec descriptor for each file: all, or none and EMFILE, ENOMEM or
    /// the refusal of a security module.
    fn install(&self, files: &Files<H>) -> Result<Self::Installed>;
}
