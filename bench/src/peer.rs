// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer by its bare commands, on either host: no registry of handles, no objects, one ioctl a
//! call. It is what a C program would do.

use std::ffi::c_void;
use std::io::IoSlice;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use anyhow::{Context, Result};
use bus1_uapi::{
    CmdExchange, CmdHandleTransfer, CmdRecv, CmdSend, Msg, CMD_EXCHANGE, CMD_HANDLE_RELEASE,
    CMD_HANDLE_TRANSFER, CMD_RECV, CMD_SEND, CMD_SLICE_RELEASE, DEADLINE_NEVER, DEADLINE_NOW,
    EXCHANGE_FLAG_SEND, HANDLE_INVALID,
};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::{open, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

/// The device.
const DEVICE: &str = "/dev/bus1";
/// Address space of a pool.
const POOL: usize = 1 << 32;
/// The ID that a peer gives its first node.
pub const NODE: u64 = 8;

/// Does commands, as `ioctl(2)` does.
pub trait Door: AsRawFd {
    /// One command.
    ///
    /// # Safety
    ///
    /// `arg` and what it points to are valid for what the command reads and writes.
    unsafe fn command(&self, cmd: u32, arg: *mut c_void) -> rustix::io::Result<()>;
}

/// A descriptor of `/dev/bus1`.
pub struct Device(OwnedFd);

impl Device {
    /// Opens one.
    pub fn open() -> Result<Self> {
        let fd = open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        Ok(Self(fd.context("cannot open /dev/bus1")?))
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A number and an argument, passed on as they are.
struct Command {
    cmd: u32,
    arg: *mut c_void,
}

// SAFETY: number and argument are passed on as they are; there is no result but the errno.
unsafe impl Ioctl for Command {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.cmd as Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.arg
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

impl Door for Device {
    unsafe fn command(&self, cmd: u32, arg: *mut c_void) -> rustix::io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { ioctl::ioctl(self.0.as_fd(), Command { cmd, arg }) }
    }
}

impl Door for bus1_embedded::Peer {
    unsafe fn command(&self, cmd: u32, arg: *mut c_void) -> rustix::io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.ioctl(cmd, arg.expose_provenance()) }
    }
}

/// A peer.
pub struct Peer<D = Device>(pub D);

/// The part of a message that is not its destinations.
#[derive(Clone, Copy, Default)]
pub struct Cargo<'a> {
    /// Payload.
    pub vecs: &'a [IoSlice<'a>],
    /// IDs of handles.
    pub handles: &'a [u64],
    /// Numbers of descriptors.
    pub fds: &'a [RawFd],
}

impl<'a> Cargo<'a> {
    /// Payload alone: one vector, or none where there is nothing in it.
    #[must_use]
    pub fn payload(vec: &'a [IoSlice<'a>; 1]) -> Self {
        Self {
            vecs: &vec[..usize::from(!vec[0].is_empty())],
            ..Self::default()
        }
    }
}

/// What an EXCHANGE does before it receives, and whether it waits for something to receive.
#[derive(Clone, Copy, Default)]
pub struct Exchange<'a> {
    /// Offsets of slices to give back first.
    pub slices: &'a [u64],
    /// Destinations and cargo of a message to send then.
    pub send: Option<(&'a [u64], Cargo<'a>)>,
    /// Sleep until there is a message.
    pub wait: bool,
}

/// Where a slice starts in memory, as a field of an argument.
fn pointer<T>(memory: &[T]) -> u64 {
    memory.as_ptr().expose_provenance() as u64
}

/// The argument of SEND.
fn send_command(to: &[u64], cargo: Cargo<'_>) -> CmdSend {
    CmdSend {
        flags: 0,
        ptr_destinations: pointer(to),
        ptr_errors: 0,
        n_destinations: to.len() as u64,
        ptr_vecs: pointer(cargo.vecs),
        n_vecs: cargo.vecs.len() as u64,
        ptr_handles: pointer(cargo.handles),
        n_handles: cargo.handles.len() as u64,
        ptr_fds: pointer(cargo.fds),
        n_fds: cargo.fds.len() as u64,
    }
}

impl Peer {
    /// Opens one on the device.
    pub fn open() -> Result<Self> {
        Ok(Self(Device::open()?))
    }

    /// Waits until there is something to receive.
    pub fn wait(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, None).context("poll")?;
        Ok(())
    }
}

impl<D: Door> Peer<D> {
    /// Gives a handle on the own node `id`, which is made if it is new, to another peer.
    pub fn transfer(&self, id: u64, to: &impl AsRawFd) -> Result<u64> {
        let mut transfer = CmdHandleTransfer {
            src_handle: id,
            dst_fd: to.as_raw_fd() as u64,
            dst_handle: HANDLE_INVALID,
            ..Default::default()
        };
        // SAFETY: the argument is ours, and points nowhere.
        unsafe {
            self.0
                .command(CMD_HANDLE_TRANSFER, (&raw mut transfer).cast())
        }
        .context("HANDLE_TRANSFER")?;
        Ok(transfer.dst_handle)
    }

    /// Sends to all of `to` in one transaction.
    pub fn try_send(&self, to: &[u64], cargo: Cargo<'_>) -> rustix::io::Result<()> {
        let mut send = send_command(to, cargo);
        // SAFETY: it points to slices that live until it returns, and are only read.
        unsafe { self.0.command(CMD_SEND, (&raw mut send).cast()) }
    }

    /// The same, for callers that expect no refusal.
    pub fn send(&self, to: &[u64], cargo: Cargo<'_>) -> Result<()> {
        self.try_send(to, cargo).context("SEND")
    }

    /// The next message, if there is one; `flags` are those of RECV.
    pub fn try_recv(&self, flags: u64) -> Result<Option<Msg>> {
        let mut recv = CmdRecv {
            flags,
            max_offset: POOL as u64,
            ..Default::default()
        };
        // SAFETY: the argument is ours, and points nowhere.
        match unsafe { self.0.command(CMD_RECV, (&raw mut recv).cast()) } {
            Ok(()) => Ok(Some(recv.msg)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno).context("RECV"),
        }
    }

    /// The next message, which is there.
    pub fn recv(&self, flags: u64) -> Result<Msg> {
        self.try_recv(flags)?
            .context("there is no message where one was expected")
    }

    /// Gives a slice back.
    pub fn release(&self, msg: &Msg) -> Result<()> {
        let mut offset = msg.offset;
        // SAFETY: the argument is ours, and points nowhere.
        unsafe { self.0.command(CMD_SLICE_RELEASE, (&raw mut offset).cast()) }
            .context("SLICE_RELEASE")
    }

    /// Gives slices back, sends, waits, and receives into `msgs`, in one call. Returns how many
    /// messages there were, at least one.
    pub fn exchange(&self, what: Exchange<'_>, msgs: &mut [Msg]) -> Result<usize> {
        let mut exchange = CmdExchange {
            size: CmdExchange::SIZE as u64,
            ptr_slices: pointer(what.slices),
            n_slices: what.slices.len() as u64,
            n_msgs: msgs.len() as u64,
            ptr_msgs: msgs.as_mut_ptr().expose_provenance() as u64,
            max_offset: POOL as u64,
            deadline: if what.wait {
                DEADLINE_NEVER
            } else {
                DEADLINE_NOW
            },
            ..Default::default()
        };
        if let Some((to, cargo)) = what.send {
            exchange.flags = EXCHANGE_FLAG_SEND;
            exchange.send = send_command(to, cargo);
        }
        // SAFETY: it points to slices that live until it returns; only `msgs` is written, which is
        // ours to write.
        unsafe { self.0.command(CMD_EXCHANGE, (&raw mut exchange).cast()) }.context("EXCHANGE")?;
        Ok(exchange.n_msgs as usize)
    }

    /// The same for one message; gives its slice.
    pub fn exchange_one(&self, what: Exchange<'_>) -> Result<u64> {
        let mut msg = [Msg::default()];
        self.exchange(what, &mut msg)?;
        Ok(msg[0].offset)
    }

    /// Drops one user reference of a handle.
    pub fn release_handle(&self, mut id: u64) -> Result<()> {
        // SAFETY: the argument is ours, and points nowhere.
        unsafe { self.0.command(CMD_HANDLE_RELEASE, (&raw mut id).cast()) }
            .context("HANDLE_RELEASE")
    }

    /// Receives a message that is there and gives its slice back.
    pub fn take(&self) -> Result<()> {
        let msg = self.recv(0)?;
        self.release(&msg)
    }
}

/// What of a message is behind its payload.
pub struct Tail {
    /// Where handles start.
    pub handles: u64,
    /// Where descriptors start.
    pub fds: u64,
}

impl Tail {
    /// Of a message with a slice.
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

    /// A 64-bit word of a slice that was received.
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
