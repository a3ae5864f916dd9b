// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer by its bare commands, on either host: no registry of handles, no objects, one ioctl a
//! call. It is what a C program would do.

use std::ffi::c_void;
use std::io::IoSlice;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;

use anyhow::{Context, Result};
use bus1_ioctl::{Commands, Device, ExchangeArgs, Execute, SendArgs};
use bus1_uapi::{
    CmdHandleTransfer, CmdPeerReset, CmdRecv, Msg, CMD_HANDLE_RELEASE, CMD_HANDLE_TRANSFER,
    CMD_PEER_RESET, CMD_RECV, CMD_SLICE_RELEASE, DEADLINE_NEVER, DEADLINE_NOW, HANDLE_INVALID,
};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

/// Address space of a pool.
const POOL: usize = 1 << 32;
/// The ID that a peer gives its first node.
pub const NODE: u64 = 8;

/// A peer of either host: it executes commands, and has a number that names it in them.
pub trait Endpoint: Execute + AsRawFd {}

impl<E: Execute + AsRawFd> Endpoint for E {}

/// A peer of the embedded host.
pub struct Embedded(pub bus1_embedded::Peer);

impl AsRawFd for Embedded {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Execute for Embedded {
    unsafe fn ioctl(&self, cmd: u32, arg: usize) -> rustix::io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.0.ioctl(cmd, arg) }
    }
}

/// A peer.
pub struct Peer<E = Device>(pub E);

/// The part of a message that is not its destinations.
#[derive(Clone, Copy, Default)]
pub struct Cargo<'a> {
    /// Payload.
    pub vecs: &'a [IoSlice<'a>],
    /// IDs of handles.
    pub handles: &'a [u64],
    /// Descriptors.
    pub fds: &'a [BorrowedFd<'a>],
}

impl<'a> Cargo<'a> {
    /// Makes a cargo of payload only: one vector, or none where there is nothing in it.
    #[must_use]
    pub fn payload(vec: &'a [IoSlice<'a>; 1]) -> Self {
        Self {
            vecs: &vec[..usize::from(!vec[0].is_empty())],
            ..Self::default()
        }
    }
}

/// The steps of an EXCHANGE before it receives, and whether it waits for something to receive.
#[derive(Clone, Copy, Default)]
pub struct Exchange<'a> {
    /// Offsets of slices to give back first.
    pub slices: &'a [u64],
    /// Destinations and cargo of a message to send then.
    pub send: Option<(&'a [u64], Cargo<'a>)>,
    /// Sleep until there is a message.
    pub wait: bool,
}

impl<'a> Cargo<'a> {
    /// Returns the argument of SEND that takes it to `to`.
    fn send_args(self, to: &'a [u64]) -> SendArgs<'a> {
        SendArgs::new()
            .destinations(to)
            .payload(self.vecs)
            .handles(self.handles)
            .fds(self.fds)
    }
}

impl Peer {
    /// Opens one on the device, with limits that nothing here reaches.
    pub fn open() -> Result<Self> {
        Self::open_by_default()?.without_limits()
    }

    /// Opens one on the device, with the limits that it starts with.
    pub fn open_by_default() -> Result<Self> {
        Ok(Self(Device::open().context("cannot open /dev/bus1")?))
    }

    /// Waits until there is something to receive.
    pub fn wait(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, None).context("poll")?;
        Ok(())
    }
}

impl<E: Endpoint> Peer<E> {
    /// Raises its limits as far as that goes.
    pub fn without_limits(self) -> Result<Self> {
        let most = i32::MAX as u32;
        let mut limits = CmdPeerReset {
            flags: 0,
            peer_flags: u64::MAX,
            max_slices: most,
            max_handles: most,
            max_inflight_bytes: most,
            max_inflight_fds: most,
        };
        // SAFETY: the structure has no pointers.
        unsafe { self.0.command(CMD_PEER_RESET, &mut limits) }.context("PEER_RESET")?;
        Ok(self)
    }

    /// Gives a handle on the own node `id`, which is made if it is new, to another peer.
    pub fn transfer(&self, id: u64, to: &impl AsRawFd) -> Result<u64> {
        let mut transfer = CmdHandleTransfer {
            src_handle: id,
            dst_fd: to.as_raw_fd() as u64,
            dst_handle: HANDLE_INVALID,
            ..Default::default()
        };
        // SAFETY: the argument points nowhere.
        unsafe { self.0.command(CMD_HANDLE_TRANSFER, &mut transfer) }.context("HANDLE_TRANSFER")?;
        Ok(transfer.dst_handle)
    }

    /// Sends to all of `to` in one transaction.
    pub fn try_send(&self, to: &[u64], cargo: Cargo<'_>) -> rustix::io::Result<()> {
        self.0.send(&mut cargo.send_args(to))
    }

    /// Sends to all of `to` in one transaction, for callers that expect no refusal.
    pub fn send(&self, to: &[u64], cargo: Cargo<'_>) -> Result<()> {
        self.try_send(to, cargo).context("SEND")
    }

    /// Receives the next message, if there is one; `flags` are those of RECV.
    pub fn try_recv(&self, flags: u64) -> Result<Option<Msg>> {
        let mut recv = CmdRecv {
            flags,
            max_offset: POOL as u64,
            ..Default::default()
        };
        // SAFETY: the argument points nowhere.
        match unsafe { self.0.command(CMD_RECV, &mut recv) } {
            Ok(()) => Ok(Some(recv.msg)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno).context("RECV"),
        }
    }

    /// Receives the next message, which is there.
    pub fn recv(&self, flags: u64) -> Result<Msg> {
        self.try_recv(flags)?
            .context("there is no message where one was expected")
    }

    /// Gives a slice back.
    pub fn release(&self, msg: &Msg) -> Result<()> {
        let mut offset = msg.offset;
        // SAFETY: the argument points nowhere, and a pool is read by copies.
        unsafe { self.0.command(CMD_SLICE_RELEASE, &mut offset) }.context("SLICE_RELEASE")
    }

    /// Gives slices back, sends, waits, and receives into `msgs`, in one call. Returns how many
    /// messages there were, at least one.
    pub fn exchange(&self, what: Exchange<'_>, msgs: &mut [Msg]) -> Result<usize> {
        let deadline = if what.wait {
            DEADLINE_NEVER
        } else {
            DEADLINE_NOW
        };
        let mut args =
            ExchangeArgs::new()
                .release(what.slices)
                .receive(msgs, POOL as u64, deadline);
        if let Some((to, cargo)) = what.send {
            args = args.send(cargo.send_args(to));
        }
        // SAFETY: a pool is read by copies.
        unsafe { self.0.exchange(&mut args) }.context("EXCHANGE")
    }

    /// Gives slices back, sends, waits, and receives one message, in one call. Returns its slice.
    pub fn exchange_one(&self, what: Exchange<'_>) -> Result<u64> {
        let mut msg = [Msg::default()];
        self.exchange(what, &mut msg)?;
        Ok(msg[0].offset)
    }

    /// Drops one user reference of a handle.
    pub fn release_handle(&self, mut id: u64) -> Result<()> {
        // SAFETY: the argument points nowhere.
        unsafe { self.0.command(CMD_HANDLE_RELEASE, &mut id) }.context("HANDLE_RELEASE")
    }

    /// Receives a message that is there and gives its slice back.
    pub fn take(&self) -> Result<()> {
        let msg = self.recv(0)?;
        self.release(&msg)
    }
}

/// The offsets of the parts of a message behind its payload.
pub struct Tail {
    /// Offset of the handles.
    pub handles: u64,
    /// Offset of the descriptors.
    pub fds: u64,
}

impl Tail {
    /// Returns those of a message with a slice.
    #[must_use]
    pub fn of(msg: &Msg) -> Self {
        let handles = msg.offset + msg.n_bytes.next_multiple_of(8);
        Self {
            handles,
            fds: handles + msg.n_handles * size_of::<u64>() as u64,
        }
    }
}

/// The pool of a peer of the device, mapped to be read. Unmapped when dropped.
pub struct Pool(NonNull<c_void>);

impl Pool {
    /// Maps all of it.
    pub fn map(peer: &Peer) -> Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address that the system chooses.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                POOL,
                ProtFlags::READ,
                flags,
                &peer.0,
                0,
            )
        }
        .context("cannot map the pool")?;
        Ok(Self(NonNull::new(start).context("mmap gave null")?))
    }

    /// Returns a 64-bit word of a slice that was received.
    #[must_use]
    pub fn word(&self, offset: u64) -> u64 {
        assert!(offset <= POOL as u64 - 8 && offset.is_multiple_of(8));
        // SAFETY: in bounds and aligned; the slice does not change until it is released.
        unsafe {
            self.0
                .cast::<u8>()
                .add(offset as usize)
                .cast::<u64>()
                .read()
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        let _ = unsafe { munmap(self.0.as_ptr(), POOL) };
    }
}
