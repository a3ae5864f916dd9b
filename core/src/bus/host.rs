// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The services that the core needs from the machine that it runs on.
//!
//! A host lends memory, descriptors and wake-ups, and moves bytes. It knows nothing of order,
//! rights or quota, except that it holds charges. [`Host`] names the types of one host. The other
//! half of a host, which reads arguments and writes results, is [`Caller`](crate::bus::Caller).
//!
//! # Rules for hosts
//!
//! - [`Pool::write`], [`Pool::retain`], and [`Pool::unpin`] for up to 4096 bytes that the pool may
//!   retain, are called with spin locks held: they must not call back into the core, nor sleep where
//!   a spin lock forbids that. Everything else is called without any lock of the core.
//! - The last reference to a [`Host::Pool`] or [`Host::Files`] is never dropped under a lock.

use kernel::prelude::*;

use crate::bus::quota::KeptCharges;

/// The types of one host.
pub trait Host: Sized + Send + Sync + 'static {
    /// The memory of one peer's pool; a clone is another reference to the same memory.
    type Pool: Pool;
    /// The files of a message.
    type Files: Files;
    /// Wakes the waiters of one peer.
    type Waker: Waker;

    /// Returns whether the running task is being killed, so that it will never see the result of
    /// its call. False on a host that cannot tell.
    fn is_killed() -> bool {
        false
    }

    /// Returns the real user ID of the running task. None on a host that cannot tell.
    fn uid() -> Option<u32>;
}

/// The steps of a call in loops that have no small bound. Every 64 steps it looks whether the
/// caller was killed. A step is one look-up, one link, or 4096 bytes of a copy.
///
/// All such loops stand before the first staging: a call that ends in one leaves no trace.
#[derive(Default)]
pub(crate) struct KillCheck {
    steps: u64,
}

impl KillCheck {
    const STEPS: u64 = 64;

    /// Takes `n` steps.
    ///
    /// # Errors
    ///
    /// EINTR if the caller was killed; nobody sees it.
    #[inline]
    pub(crate) fn step<H: Host>(&mut self, n: u64) -> Result {
        self.steps += n;
        if self.steps < Self::STEPS {
            return Ok(());
        }
        self.steps = 0;
        (!H::is_killed()).then_some(()).ok_or(EINTR)
    }
}

/// The descriptors of a message in flight: the files behind them, in the order in which the
/// receiver gets their numbers. A clone is another reference to the same files.
///
/// The end of a file can take as long as its maker likes, and no call may wait for that: a host
/// sees to it when the last reference is dropped.
pub trait Files: Clone + Send + Sync + 'static {
    /// Returns the number of files.
    fn count(&self) -> usize;
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

    /// Undoes one [`Pool::pin`] of exactly this range. The host may give memory that nothing
    /// pins back to the system at any time. Memory beyond what the pool may retain goes back at
    /// once, for which the owner's call may sleep.
    fn unpin(&self, offset: u64, len: u64);

    /// Undoes one [`Pool::pin`] for a message that failed. None of its memory is retained if the
    /// host charges the sender for it, except for pages that the owner has in use.
    fn abandon(&self, offset: u64, len: u64) {
        self.unpin(offset, len);
    }

    /// Lets the pool retain memory below `end` when nothing pins it. It is for a host that charges
    /// memory to the senders. `end` only grows. Called with spin locks held.
    fn retain(&self, _end: u64) {}

    /// Holds on to charges for memory that stays pinned, until the last reference to the pool is
    /// dropped; mappings are such references. Called at most once.
    fn keep(&self, kept: KeptCharges);

    /// Stores `bytes` at `offset`, in a pinned range.
    fn write(&self, offset: u64, bytes: &[u8]);

    /// Copies `len` bytes at `offset` to `to_offset` of another pool; both ranges are pinned.
    fn copy(&self, offset: u64, len: u64, to: &Self, to_offset: u64);
}

/// Wakes the waiters of one peer.
pub trait Waker: Send + Sync + 'static {
    /// Wakes waiters, because the queue may have become readable or the peer was disconnected.
    /// They look again by [`Peer::ready`](crate::bus::Peer::ready).
    fn wake(&self, hint: WakeHint);

    /// Returns whether a waiter may be enlisted, for a task that has just slept here: a waiter that
    /// enlisted before the task's wake-up is seen; one that enlists later looks for itself.
    fn is_awaited(&self) -> bool {
        true
    }

    /// Sleeps until `ready`, at most until `deadline`, in nanoseconds of the monotonic clock;
    /// [`DEADLINE_NEVER`](crate::abi::DEADLINE_NEVER) is for ever. May return for no reason.
    ///
    /// A wake-up may wake only one of the tasks that sleep here, also if that task gives up at
    /// the same moment: so a task that slept wakes another if there still is something.
    ///
    /// # Errors
    ///
    /// ETIMEDOUT; ERESTARTSYS if there is a signal to be handled first.
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: u64) -> Result;
}

/// The next step of the caller of a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeHint {
    /// It keeps the CPU.
    Continues,
    /// It is about to sleep, so the woken task can take its place.
    Sleeps,
}

/// Payload of a message, still in the sender's memory.
pub trait Payload<H: Host> {
    /// Returns its length in bytes.
    fn len(&self) -> u64;

    /// Returns whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies all of it to `offset` of `pool`, in a pinned range. Called at most once. May sleep
    /// on user memory.
    ///
    /// # Errors
    ///
    /// EFAULT if it cannot be read.
    fn copy_to(&mut self, pool: &H::Pool, offset: u64) -> Result;
}
