// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's host: `/dev/bus1`.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::{self, NonNull};

use bus1_uapi::{CmdPeerReset, CMD_PEER_QUERY};
use rustix::fs::{fstat, open, FileType, Mode, OFlags};
use rustix::io::{fcntl_setfd, Errno as Raw, FdFlags};
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::transport::Transport;

/// The device.
const PATH: &str = "/dev/bus1";

/// Address space of a whole pool.
const POOL: usize = if usize::BITS > 32 {
    1 << (usize::BITS / 2)
} else {
    256 << 20
};

/// The least that is worth mapping.
const POOL_MIN: usize = 1 << 20;

/// Whether the device is there. It may still refuse to be opened.
pub(crate) fn is_present() -> bool {
    Path::new(PATH).exists()
}

/// A peer of the kernel.
pub(crate) struct Kernel {
    map: Map,
    fd: OwnedFd,
}

impl Kernel {
    /// A new peer.
    pub(crate) fn open() -> Result<Self> {
        let fd = open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::Open(errno.into()))?;
        Self::map(fd)
    }

    /// The peer behind a descriptor.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let failed = |errno: Raw| Error::Os {
            call: "examining the descriptor",
            errno: errno.into(),
        };
        let stat = fstat(&fd).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
            return Err(Error::NotAPeer);
        }
        let mut limits = CmdPeerReset::default();
        // SAFETY: the structure is what the command demands. A driver other than bus1 knows
        // no command of this magic and refuses it.
        match unsafe { command(fd.as_fd(), CMD_PEER_QUERY, (&raw mut limits).cast()) } {
            Ok(()) => {}
            Err(Raw::SHUTDOWN) => return Err(Error::Disconnected),
            Err(_) => return Err(Error::NotAPeer),
        }
        // Inheriting is over: programs that this one starts are not meant to have it.
        fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(failed)?;
        Self::map(fd)
    }

    fn map(fd: OwnedFd) -> Result<Self> {
        match Map::new(fd.as_fd()) {
            Ok(map) => Ok(Self { map, fd }),
            Err(Raw::SHUTDOWN) => Err(Error::Disconnected),
            Err(errno) => Err(Error::Os {
                call: "mapping the pool",
                errno: errno.into(),
            }),
        }
    }
}

// SAFETY: the module keeps the pages of a received slice, and leaves them as they are, until it is
// released; a mapping outlives the disconnect.
unsafe impl Transport for Kernel {
    fn host(&self) -> Host {
        Host::Kernel
    }

    unsafe fn ioctl(&self, cmd: u32, arg: u64) -> Result<(), Errno> {
        let arg = match usize::try_from(arg) {
            Ok(arg) => ptr::with_exposed_provenance_mut(arg),
            Err(_) => return Err(Raw::FAULT.into()),
        };
        // SAFETY: the caller's promise.
        unsafe { command(self.fd.as_fd(), cmd, arg) }.map_err(Errno::from)
    }

    fn pool(&self) -> Result<(*const u8, u64), Errno> {
        Ok((self.map.start.as_ptr().cast(), self.map.len as u64))
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        Ok(self.fd.as_fd())
    }
}

/// The pool, read-only. Unmapped when dropped.
struct Map {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: it is memory that belongs to no thread.
unsafe impl Send for Map {}
// SAFETY: likewise, and it is only read.
unsafe impl Sync for Map {}

impl Map {
    /// As much of the pool as the process has address space for.
    fn new(fd: BorrowedFd<'_>) -> Result<Self, Raw> {
        let mut len = POOL;
        loop {
            // SAFETY: a new mapping, at an address that the system chooses.
            let mapped = unsafe {
                mmap(
                    ptr::null_mut(),
                    len,
                    ProtFlags::READ,
                    MapFlags::SHARED | MapFlags::NORESERVE,
                    fd,
                    0,
                )
            };
            match mapped {
                Ok(start) => {
                    let start = NonNull::new(start).ok_or(Raw::NOMEM)?;
                    return Ok(Self { start, len });
                }
                Err(Raw::NOMEM) if len > POOL_MIN => len /= 2,
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: it is our own mapping, and nothing refers to it any more: slices keep the
        // transport alive. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

/// A command with its number and argument as they are.
struct Command {
    cmd: u32,
    arg: *mut c_void,
}

// SAFETY: number and argument are passed on as they are; the result is nothing but the errno.
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

/// # Safety
///
/// As for [`Transport::ioctl`].
unsafe fn command(fd: BorrowedFd<'_>, cmd: u32, arg: *mut c_void) -> Result<(), Raw> {
    // SAFETY: the caller's promise.
    unsafe { ioctl::ioctl(fd, Command { cmd, arg }) }
}
