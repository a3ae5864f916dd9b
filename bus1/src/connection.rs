// SPDX-License-Identifier: MIT OR Apache-2.0

//! One peer's commands as functions.
//!
//! All `unsafe` of the command interface that `bus1-ioctl` leaves is here.
//!
//! Invariant: nothing that a message borrows from the pool is released under it. Slices are
//! released only by their owner, and a flush, which would release all, needs the closed [`Gate`].
//!
//! Locks: `seed` is taken with no other lock held, and before the gate.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bus1_ioctl::{Commands, ExchangeArgs, SendArgs};
use bus1_uapi::{
    CmdHandleTransfer, CmdNodesDestroy, CmdPeerReset, CmdQuota, CmdRecv, Msg, CMD_HANDLE_RELEASE,
    CMD_HANDLE_TRANSFER, CMD_NODES_DESTROY, CMD_PEER_DISCONNECT, CMD_PEER_QUERY, CMD_PEER_RESET,
    CMD_QUOTA, CMD_RECV, CMD_SLICE_RELEASE, HANDLE_INVALID, NODES_DESTROY_FLAG_RELEASE_HANDLES,
    PEER_RESET_FLAG_FLUSH, PEER_RESET_FLAG_FLUSH_SEED,
};
use rustix::io::Errno as Raw;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::gate::{Closed, Gate};
use crate::limits::Limits;
use crate::transport::{PoolView, Transport};

/// One peer in this process, as the executor of its commands.
pub(crate) struct Connection {
    transport: Box<dyn Transport>,
    pub(crate) gate: Gate,
    /// The next ID to try for a node.
    next_node: AtomicU64,
    /// Serializes what touches the seed.
    seed: Mutex<()>,
}

/// A received message or notice, and the pool that its slice lies in.
pub(crate) struct Receipt {
    pub(crate) msg: Msg,
    pub(crate) pool: PoolView,
}

/// The outcome of an exchange.
pub(crate) struct Exchanged {
    /// Number of messages that it received, and the pool that their slices lie in; or the reason
    /// why there are none. It is 0 if none came in time.
    pub(crate) received: Result<Received>,
    /// True if there was a message to send and it was sent.
    pub(crate) sent: bool,
    /// Number of slices, the last ones, that were not given back.
    pub(crate) kept: usize,
}

/// The messages and notices that an exchange received.
#[derive(Clone, Copy)]
pub(crate) struct Received {
    pub(crate) n: usize,
    pub(crate) pool: PoolView,
}

/// The treatment of the owner's pins in a destruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pins {
    /// They stay, and the IDs in use, until they are released.
    Keep,
    /// They go with the nodes.
    Release,
}

/// Returns a reset that sets no limit.
fn keep_limits(flags: u64) -> CmdPeerReset {
    CmdPeerReset {
        flags,
        peer_flags: u64::MAX,
        max_slices: u32::MAX,
        max_handles: u32::MAX,
        max_inflight_bytes: u32::MAX,
        max_inflight_fds: u32::MAX,
    }
}

impl Connection {
    /// Starts to use a peer; IDs of nodes are tried from `first_node` on.
    pub(crate) fn new(transport: Box<dyn Transport>, first_node: u64) -> Self {
        Self {
            transport,
            gate: Gate::default(),
            next_node: AtomicU64::new(first_node),
            seed: Mutex::new(()),
        }
    }

    /// Returns the way to the host.
    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// Returns an ID for a node that was not returned before. It may be in use all the same.
    pub(crate) fn next_node(&self) -> u64 {
        self.next_node.fetch_add(4, Ordering::Relaxed) & !3
    }

    /// Keeps other users of the seed in this process waiting.
    pub(crate) fn lock_seed(&self) -> MutexGuard<'_, ()> {
        self.seed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// PEER_DISCONNECT: ends the peer.
    pub(crate) fn disconnect(&self) -> Result<()> {
        // SAFETY: the command takes no address.
        unsafe { self.transport.ioctl(CMD_PEER_DISCONNECT, 0) }
            .map_err(|errno| Error::from_command("PEER_DISCONNECT", errno))
    }

    /// PEER_QUERY: returns the peer's limits.
    pub(crate) fn query(&self) -> Result<Limits> {
        let mut arg = CmdPeerReset::default();
        // SAFETY: the structure has no pointers.
        unsafe { self.transport.command(CMD_PEER_QUERY, &mut arg) }
            .map_err(|errno| Error::from_command("PEER_QUERY", errno))?;
        Ok(Limits {
            slices: arg.max_slices,
            handles: arg.max_handles,
            inflight_bytes: arg.max_inflight_bytes,
            inflight_fds: arg.max_inflight_fds,
        })
    }

    /// QUOTA: returns the answer to a question whose size is filled in here.
    pub(crate) fn quota(&self, question: CmdQuota) -> Result<CmdQuota> {
        let mut arg = CmdQuota {
            size: CmdQuota::SIZE as u64,
            ..question
        };
        // SAFETY: the structure has no pointers.
        unsafe { self.transport.command(CMD_QUOTA, &mut arg) }
            .map_err(|errno| Error::from_command("QUOTA", errno))?;
        Ok(arg)
    }

    /// PEER_RESET: sets the peer's limits.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] for a limit above [`Limits::MAX`]: all-ones would mean to keep it.
    pub(crate) fn set_limits(&self, limits: Limits) -> Result<()> {
        let all = [
            limits.slices,
            limits.handles,
            limits.inflight_bytes,
            limits.inflight_fds,
        ];
        if all.iter().any(|&limit| limit > Limits::MAX) {
            return Err(Error::OutOfRange);
        }
        self.reset(CmdPeerReset {
            flags: 0,
            peer_flags: u64::MAX,
            max_slices: limits.slices,
            max_handles: limits.handles,
            max_inflight_bytes: limits.inflight_bytes,
            max_inflight_fds: limits.inflight_fds,
        })
    }

    /// PEER_RESET: releases all that the peer has.
    pub(crate) fn flush(&self, _closed: &Closed<'_>) -> Result<()> {
        self.reset(keep_limits(PEER_RESET_FLAG_FLUSH))
    }

    /// PEER_RESET: drops the seed. A message that was received from it is a copy.
    pub(crate) fn drop_seed(&self) -> Result<()> {
        let _alone = self.lock_seed();
        self.reset(keep_limits(PEER_RESET_FLAG_FLUSH_SEED))
    }

    fn reset(&self, mut arg: CmdPeerReset) -> Result<()> {
        // SAFETY: the structure has no pointers. It releases slices only under the closed gate.
        unsafe { self.transport.command(CMD_PEER_RESET, &mut arg) }
            .map_err(|errno| Error::from_command("PEER_RESET", errno))
    }

    /// HANDLE_RELEASE: drops one user reference.
    pub(crate) fn handle_release(&self, mut id: u64) -> Result<()> {
        // SAFETY: the command takes a pointer to a number.
        unsafe { self.transport.command(CMD_HANDLE_RELEASE, &mut id) }
            .map_err(|errno| Error::from_command("HANDLE_RELEASE", errno))
    }

    /// HANDLE_TRANSFER: gives a handle to the peer behind a descriptor. Returns the ID there, or
    /// `None` if the node is destroyed.
    pub(crate) fn handle_transfer(&self, id: u64, to: BorrowedFd<'_>) -> Result<Option<u64>> {
        let mut arg = CmdHandleTransfer {
            flags: 0,
            src_handle: id,
            dst_fd: to.as_raw_fd() as u64,
            dst_handle: HANDLE_INVALID,
        };
        // SAFETY: the structure has no pointers.
        unsafe { self.transport.command(CMD_HANDLE_TRANSFER, &mut arg) }
            .map_err(|errno| Error::from_command("HANDLE_TRANSFER", errno))?;
        Ok(Some(arg.dst_handle).filter(|&id| id != HANDLE_INVALID))
    }

    /// NODES_DESTROY: destroys own nodes at one point of the order.
    pub(crate) fn nodes_destroy(&self, ids: &[u64], pins: Pins) -> Result<()> {
        let mut arg = CmdNodesDestroy {
            flags: match pins {
                Pins::Keep => 0,
                Pins::Release => NODES_DESTROY_FLAG_RELEASE_HANDLES,
            },
            ptr_nodes: ids.as_ptr().expose_provenance() as u64,
            n_nodes: ids.len() as u64,
        };
        // SAFETY: the command reads as many numbers as there are.
        unsafe { self.transport.command(CMD_NODES_DESTROY, &mut arg) }
            .map_err(|errno| Error::from_command("NODES_DESTROY", errno))
    }

    /// SLICE_RELEASE: gives a slice back.
    ///
    /// # Safety
    ///
    /// Nothing refers to it any more.
    pub(crate) unsafe fn slice_release(&self, mut offset: u64) -> Result<()> {
        // SAFETY: the command takes a pointer to a number; the rest is the caller's promise.
        unsafe { self.transport.command(CMD_SLICE_RELEASE, &mut offset) }
            .map_err(|errno| Error::from_command("SLICE_RELEASE", errno))
    }

    /// SEND: sends a message.
    pub(crate) fn send(&self, mut message: SendArgs<'_>) -> Result<()> {
        self.transport
            .send(&mut message)
            .map_err(|errno| Error::from_command("SEND", errno))
    }

    /// RECV: receives the next event, without waiting; `None` if nothing is ready. The caller has
    /// entered the gate until it has counted the message.
    pub(crate) fn recv(&self, flags: u64) -> Result<Option<Receipt>> {
        // Before the command, so that it cannot fail when the message is out of the queue.
        let pool = self.transport.pool()?;
        let mut arg = CmdRecv {
            flags,
            max_offset: pool.len,
            ..Default::default()
        };
        // SAFETY: the structure has no pointers.
        match unsafe { self.transport.command(CMD_RECV, &mut arg) } {
            Ok(()) => Ok(Some(Receipt { msg: arg.msg, pool })),
            Err(Raw::AGAIN) => Ok(None),
            Err(errno) => Err(Error::from_command("RECV", errno)),
        }
    }

    /// EXCHANGE: gives slices back, sends, and receives up to `room.len()` messages, of which it
    /// waits for the first until `deadline`. Each may be nothing, and the former two at most
    /// `EXCHANGE_MAX`. Signals do not end it. The caller keeps the connection busy until it has
    /// counted the messages.
    ///
    /// # Safety
    ///
    /// Nothing refers to the slices any more.
    pub(crate) unsafe fn exchange(
        &self,
        slices: &[u64],
        message: Option<SendArgs<'_>>,
        room: &mut [Msg],
        deadline: Deadline,
    ) -> Exchanged {
        // Before the command, so that it cannot fail when a message is out of the queue.
        let pool = match self.transport.pool() {
            Ok(pool) => pool,
            Err(error) => {
                return Exchanged {
                    received: Err(error),
                    sent: false,
                    kept: slices.len(),
                }
            }
        };
        let mut args = ExchangeArgs::new()
            .release(slices)
            .receive(room, pool.len, deadline.raw())
            .install_fds();
        let sends = message.is_some();
        if let Some(message) = message {
            args = args.send(message);
        }
        let received = loop {
            // SAFETY: the caller's promise. A call that failed has taken what it released off the
            // argument.
            let errno = match unsafe { self.transport.exchange(&mut args) } {
                Ok(n) => break Ok(Received { n, pool }),
                Err(errno) => errno,
            };
            let only_receiving = args.slices_left() == 0 && !args.is_unsent();
            match errno {
                // The rest of it, and nothing twice.
                Raw::INTR => {}
                // The slice was given back by another user of the peer, which must not do that.
                Raw::NXIO if args.slices_left() != 0 => args.skip_slice(),
                // Of a step before the receipt the same numbers would be failures.
                Raw::AGAIN | Raw::TIMEDOUT if only_receiving => break Ok(Received { n: 0, pool }),
                errno => break Err(Error::from_command("EXCHANGE", errno)),
            }
        };
        Exchanged {
            received,
            sent: sends && !args.is_unsent(),
            kept: args.slices_left(),
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
