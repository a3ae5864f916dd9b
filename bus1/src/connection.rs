// SPDX-License-Identifier: MIT OR Apache-2.0

//! What all objects of one peer share: the way to the host, and its commands as functions.
//!
//! All `unsafe` of the command interface is here: structures are built from slices, whose lifetimes
//! last for the call.
//!
//! Invariants:
//! - [`Connection::objects`] counts the nodes, handles and messages of this peer in this process,
//!   and falls only after what they held was released.
//! - Nothing that a message borrows from the pool is released under it: slices are released by
//!   their owner alone, and a flush, which would release all, is refused while `objects` is not 0.
//!   The gate closes the gap between a receipt and its count; for a receipt that may sleep a count
//!   that is taken before does ([`Connection::keep_busy`]).
//!
//! Locks: `gate`, then the lock of `handles`. The gate is held shared across commands that bring
//! new objects, alone across a flush; so dropping an object takes the latter lock alone. Nobody
//! sleeps for a message with it.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use bus1_uapi::{
    CmdExchange, CmdHandleTransfer, CmdNodesDestroy, CmdPeerReset, CmdRecv, CmdSend, Msg,
    CMD_EXCHANGE, CMD_HANDLE_RELEASE, CMD_HANDLE_TRANSFER, CMD_NODES_DESTROY, CMD_PEER_DISCONNECT,
    CMD_PEER_QUERY, CMD_PEER_RESET, CMD_RECV, CMD_SEND, CMD_SLICE_RELEASE,
    EXCHANGE_FLAG_INSTALL_FDS, EXCHANGE_FLAG_SEND, HANDLE_INVALID,
    NODES_DESTROY_FLAG_RELEASE_HANDLES, PEER_RESET_FLAG_FLUSH, PEER_RESET_FLAG_FLUSH_SEED,
};
use rustix::io::Errno as Raw;

use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::registry::Registry;
use crate::transport::Transport;

/// One peer in this process.
pub(crate) struct Connection {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) handles: Registry,
    /// The next ID to try for a node.
    next_node: AtomicU64,
    objects: AtomicUsize,
    gate: RwLock<()>,
    /// Serializes what touches the seed.
    seed: Mutex<()>,
}

/// A message to send, as the command wants it.
pub(crate) struct Parts<'a> {
    pub(crate) vecs: &'a [IoSlice<'a>],
    pub(crate) handles: &'a [u64],
    pub(crate) fds: &'a [BorrowedFd<'a>],
}

/// How an exchange went.
pub(crate) struct Exchanged {
    /// How many messages came, or why none did. None came in time is 0.
    pub(crate) received: Result<usize>,
    /// Whether what there was to send was sent.
    pub(crate) sent: bool,
    /// How many slices, the last ones, were not given back.
    pub(crate) kept: usize,
    /// Where the pool starts, if messages came.
    pub(crate) pool: *const u8,
}

/// While it lives, nothing can flush the peer.
pub(crate) struct Busy<'a>(&'a Connection);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.object_gone();
    }
}

/// An address as the interface carries it.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// The address of a slice; 0 if there is nothing in it.
fn array<T>(slice: &[T]) -> u64 {
    if slice.is_empty() {
        0
    } else {
        address(slice.as_ptr())
    }
}

/// A reset that sets no limit.
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

/// The structure of SEND. `errors` is as long as `destinations`, or empty.
fn send_command(
    flags: u64,
    destinations: &[u64],
    errors: &mut [i32],
    parts: &Parts<'_>,
) -> CmdSend {
    assert!(errors.is_empty() || errors.len() == destinations.len());
    let ptr_errors = if errors.is_empty() {
        0
    } else {
        errors.as_mut_ptr().expose_provenance() as u64
    };
    CmdSend {
        flags,
        ptr_destinations: array(destinations),
        ptr_errors,
        n_destinations: destinations.len() as u64,
        // An `IoSlice` is laid out as an iovec, a `BorrowedFd` as a number.
        ptr_vecs: array(parts.vecs),
        n_vecs: parts.vecs.len() as u64,
        ptr_handles: array(parts.handles),
        n_handles: parts.handles.len() as u64,
        ptr_fds: array(parts.fds),
        n_fds: parts.fds.len() as u64,
    }
}

impl Connection {
    /// Starts to use a peer; IDs of nodes are tried from `first_node` on.
    pub(crate) fn new(transport: Box<dyn Transport>, first_node: u64) -> Self {
        Self {
            transport,
            handles: Registry::default(),
            next_node: AtomicU64::new(first_node),
            objects: AtomicUsize::new(0),
            gate: RwLock::new(()),
            seed: Mutex::new(()),
        }
    }

    /// An ID that was not given out before. It may be in use all the same.
    pub(crate) fn next_node(&self) -> u64 {
        self.next_node.fetch_add(4, Ordering::Relaxed) & !3
    }

    /// Counts a new object. The caller holds the gate.
    pub(crate) fn object_made(&self) {
        self.objects.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an object out, when all that it held is released.
    pub(crate) fn object_gone(&self) {
        // Release: what the object did with the peer comes before a flush that saw the count.
        self.objects.fetch_sub(1, Ordering::Release);
    }

    /// Keeps flushes away while new objects come.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps flushes away, by having them refused and not by having them wait.
    pub(crate) fn keep_busy(&self) -> Busy<'_> {
        let _gate = self.enter();
        self.object_made();
        Busy(self)
    }

    /// Keeps other users of the seed in this process away.
    pub(crate) fn lock_seed(&self) -> MutexGuard<'_, ()> {
        self.seed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One command with a structure as its argument.
    ///
    /// # Safety
    ///
    /// `T` is the structure of `cmd`, and its pointers are valid as the command uses them.
    unsafe fn command<T>(&self, cmd: u32, arg: &mut T) -> Result<(), Errno> {
        let arg = (arg as *mut T).expose_provenance() as u64;
        // SAFETY: the address is that of a structure that is ours alone; the rest is promised.
        unsafe { self.transport.ioctl(cmd, arg) }
    }

    pub(crate) fn disconnect(&self) -> Result<()> {
        // SAFETY: the command takes no address.
        unsafe { self.transport.ioctl(CMD_PEER_DISCONNECT, 0) }
            .map_err(|errno| Error::from_command("PEER_DISCONNECT", errno))
    }

    pub(crate) fn query(&self) -> Result<Limits> {
        let mut arg = CmdPeerReset::default();
        // SAFETY: the structure has no pointers.
        unsafe { self.command(CMD_PEER_QUERY, &mut arg) }
            .map_err(|errno| Error::from_command("PEER_QUERY", errno))?;
        Ok(Limits {
            slices: arg.max_slices,
            handles: arg.max_handles,
            inflight_bytes: arg.max_inflight_bytes,
            inflight_fds: arg.max_inflight_fds,
        })
    }

    pub(crate) fn set_limits(&self, limits: Limits) -> Result<()> {
        if [
            limits.slices,
            limits.handles,
            limits.inflight_bytes,
            limits.inflight_fds,
        ]
        .iter()
        .any(|&limit| limit > Limits::MAX)
        {
            // All-ones would mean to keep a limit.
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

    /// Flushes, if nothing of the peer is in use in this process.
    pub(crate) fn flush(&self) -> Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        // Acquire: see `object_gone`.
        if self.objects.load(Ordering::Acquire) != 0 {
            return Err(Error::InUse);
        }
        self.reset(keep_limits(PEER_RESET_FLAG_FLUSH))?;
        self.handles.flushed();
        Ok(())
    }

    /// Drops the seed. What was received of it is a copy.
    pub(crate) fn drop_seed(&self) -> Result<()> {
        let _alone = self.lock_seed();
        self.reset(keep_limits(PEER_RESET_FLAG_FLUSH_SEED))
    }

    fn reset(&self, mut arg: CmdPeerReset) -> Result<()> {
        // SAFETY: the structure has no pointers.
        unsafe { self.command(CMD_PEER_RESET, &mut arg) }
            .map_err(|errno| Error::from_command("PEER_RESET", errno))
    }

    /// Drops one user reference.
    pub(crate) fn handle_release(&self, mut id: u64) -> Result<()> {
        // SAFETY: the command takes a pointer to a number.
        unsafe { self.command(CMD_HANDLE_RELEASE, &mut id) }
            .map_err(|errno| Error::from_command("HANDLE_RELEASE", errno))
    }

    /// Gives a handle to the peer behind a descriptor; gives the ID there, if the node is alive.
    pub(crate) fn handle_transfer(&self, id: u64, to: BorrowedFd<'_>) -> Result<Option<u64>> {
        let mut arg = CmdHandleTransfer {
            flags: 0,
            src_handle: id,
            dst_fd: to.as_raw_fd() as u64,
            dst_handle: HANDLE_INVALID,
        };
        // SAFETY: the structure has no pointers.
        unsafe { self.command(CMD_HANDLE_TRANSFER, &mut arg) }
            .map_err(|errno| Error::from_command("HANDLE_TRANSFER", errno))?;
        Ok(Some(arg.dst_handle).filter(|&id| id != HANDLE_INVALID))
    }

    pub(crate) fn nodes_destroy(&self, ids: &[u64], release: bool) -> Result<()> {
        let mut arg = CmdNodesDestroy {
            flags: if release {
                NODES_DESTROY_FLAG_RELEASE_HANDLES
            } else {
                0
            },
            ptr_nodes: array(ids),
            n_nodes: ids.len() as u64,
        };
        // SAFETY: the command reads as many numbers as there are.
        unsafe { self.command(CMD_NODES_DESTROY, &mut arg) }
            .map_err(|errno| Error::from_command("NODES_DESTROY", errno))
    }

    /// Gives a slice back.
    ///
    /// # Safety
    ///
    /// Nothing refers to it any more.
    pub(crate) unsafe fn slice_release(&self, mut offset: u64) -> Result<()> {
        // SAFETY: the command takes a pointer to a number.
        unsafe { self.command(CMD_SLICE_RELEASE, &mut offset) }
            .map_err(|errno| Error::from_command("SLICE_RELEASE", errno))
    }

    /// Sends. `errors` is as long as `destinations`, or empty.
    pub(crate) fn send(
        &self,
        flags: u64,
        destinations: &[u64],
        errors: &mut [i32],
        parts: &Parts<'_>,
    ) -> Result<()> {
        let mut arg = send_command(flags, destinations, errors, parts);
        // SAFETY: all arrays live through the call and are as long as said; `errors` is ours
        // alone, and the rest is only read.
        unsafe { self.command(CMD_SEND, &mut arg) }
            .map_err(|errno| Error::from_command("SEND", errno))
    }

    /// Receives; nothing if nothing is ready. The caller holds the gate until it has counted
    /// the message.
    pub(crate) fn recv(&self, flags: u64) -> Result<Option<(Msg, *const u8)>> {
        // Before the command, so that it cannot fail when the message is out of the queue.
        let (pool, len) = self
            .transport
            .pool()
            .map_err(|errno| Error::from_command("mapping the pool", errno))?;
        let mut arg = CmdRecv {
            flags,
            max_offset: len,
            ..Default::default()
        };
        // SAFETY: the structure has no pointers.
        match unsafe { self.command(CMD_RECV, &mut arg) } {
            Ok(()) => Ok(Some((arg.msg, pool))),
            Err(errno) => match Error::from_command("RECV", errno) {
                Error::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Gives slices back, sends to one destination, and receives up to `msgs.len()` messages, of which
    /// it waits for the first until `deadline`. Each may be nothing. Signals do not end it. The caller
    /// keeps the connection busy until it has counted the messages.
    ///
    /// At most `EXCHANGE_MAX` of each.
    ///
    /// # Safety
    ///
    /// Nothing refers to the slices any more.
    pub(crate) unsafe fn exchange(
        &self,
        slices: &[u64],
        send: Option<(u64, &Parts<'_>)>,
        msgs: &mut [Msg],
        deadline: u64,
    ) -> Exchanged {
        let mut exchanged = Exchanged {
            received: Ok(0),
            sent: false,
            kept: slices.len(),
            pool: std::ptr::null(),
        };
        let mut arg = CmdExchange {
            size: CmdExchange::SIZE as u64,
            flags: EXCHANGE_FLAG_INSTALL_FDS,
            ptr_slices: array(slices),
            n_slices: slices.len() as u64,
            n_msgs: msgs.len() as u64,
            ptr_msgs: msgs.as_mut_ptr().expose_provenance() as u64,
            deadline,
            ..Default::default()
        };
        let to = send.map(|(to, _)| to);
        if let Some((_, parts)) = send {
            arg.flags |= EXCHANGE_FLAG_SEND;
            arg.send = send_command(0, to.as_slice(), &mut [], parts);
        }
        // Before the command, so that it cannot fail when a message is out of the queue.
        match self.transport.pool() {
            Ok((pool, len)) => (exchanged.pool, arg.max_offset) = (pool, len),
            Err(errno) => {
                exchanged.received = Err(Error::from_command("mapping the pool", errno));
                return exchanged;
            }
        }
        let result = loop {
            // SAFETY: all arrays live through the loop and are as long as said; `msgs` is ours
            // alone, and the rest is only read. A call that failed left what is left of them.
            let errno = match unsafe { self.command(CMD_EXCHANGE, &mut arg) } {
                Ok(()) => break Ok(arg.n_msgs as usize),
                Err(errno) => errno,
            };
            match Raw::from_raw_os_error(errno.raw()) {
                // The rest of it, and nothing twice.
                Raw::INTR => {}
                // Somebody else gave that slice back, as who shares the peer must not.
                Raw::NXIO if arg.n_slices != 0 => {
                    arg.ptr_slices += 8;
                    arg.n_slices -= 1;
                }
                // Only when all else is done.
                Raw::AGAIN | Raw::TIMEDOUT => break Ok(0),
                _ => break Err(Error::from_command("EXCHANGE", errno)),
            }
        };
        exchanged.sent = send.is_some() && (result.is_ok() || arg.flags & EXCHANGE_FLAG_SEND == 0);
        exchanged.kept = if result.is_ok() {
            0
        } else {
            arg.n_slices as usize
        };
        exchanged.received = result;
        exchanged
    }
}
