// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's host: `/dev/bus1`.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use bus1_ioctl::{Commands, Device, Execute};
use bus1_uapi::{CmdPeerReset, CMD_PEER_QUERY};
use rustix::fs::{fstat, FileType};
use rustix::io::{fcntl_setfd, Errno as Raw, FdFlags};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::transport::{PoolView, Transport};

/// Address space of a whole pool.
const POOL: usize = if usize::BITS > 32 {
    1 << (usize::BITS / 2)
} else {
    256 << 20
};

/// The least that is worth mapping.
const POOL_MIN: usize = 1 << 20;

/// A peer of the kernel.
pub(crate) struct Kernel {
    map: Map,
    device: Device,
}

impl Kernel {
    /// Opens a new peer.
    pub(crate) fn open() -> Result<Self> {
        let device = Device::open().map_err(|errno| Error::Open(errno.into()))?;
        Self::map(device)
    }

    /// Takes over the peer behind a descriptor.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self> {
        let failed = |errno| Error::from_host("examining the descriptor", errno);
        let stat = fstat(&fd).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
            return Err(Error::NotAPeer);
        }
        let device = Device::from(fd);
        let mut limits = CmdPeerReset::default();
        // SAFETY: the structure is the one that the command demands. A driver other than bus1 knows
        // no command of this magic and refuses it.
        match unsafe { device.command(CMD_PEER_QUERY, &mut limits) } {
            Ok(()) => {}
            Err(Raw::SHUTDOWN) => return Err(Error::Disconnected),
            Err(_) => return Err(Error::NotAPeer),
        }
        // It has been inherited: programs that this one starts are not meant to have it.
        fcntl_setfd(&device, FdFlags::CLOEXEC).map_err(failed)?;
        Self::map(device)
    }

    fn map(device: Device) -> Result<Self> {
        match map_most(|len| Map::new(device.as_fd(), len)) {
            Ok(map) => Ok(Self { map, device }),
            Err(errno) => Err(Error::from_host("mapping the pool", errno)),
        }
    }
}

impl Execute for Kernel {
    unsafe fn ioctl(&self, cmd: u32, arg: usize) -> rustix::io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.device.ioctl(cmd, arg) }
    }
}

// SAFETY: the module keeps the pages of a received slice, and leaves them as they are, until it is
// released; a mapping outlives the disconnect.
unsafe impl Transport for Kernel {
    fn host(&self) -> Host {
        Host::Kernel
    }

    fn pool(&self) -> Result<PoolView> {
        Ok(PoolView {
            start: self.map.start.as_ptr().cast(),
            len: self.map.len as u64,
        })
    }

    fn fd(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.device.as_fd())
    }
}

/// Maps all of the pool; or half of it, and so on, as far as the process may have so much.
///
/// The limit is that on address space (ENOMEM) or, after `mlockall(2)`, that on locked memory
/// (EAGAIN, by the kernel, before the device is asked).
fn map_most<M>(mut map: impl FnMut(usize) -> Result<M, Raw>) -> Result<M, Raw> {
    let mut len = POOL;
    loop {
        match map(len) {
            Err(Raw::NOMEM | Raw::AGAIN) if len > POOL_MIN => len /= 2,
            result => return result,
        }
    }
}

/// A mapping of the pool, read-only. Unmapped when dropped.
struct Map {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: it is memory that belongs to no thread.
unsafe impl Send for Map {}
// SAFETY: the memory belongs to no thread, and it is only read.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the first `len` bytes.
    fn new(fd: BorrowedFd<'_>, len: usize) -> Result<Self, Raw> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address that the system chooses.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, flags, fd, 0) }?;
        let start = NonNull::new(start).ok_or(Raw::NOMEM)?;
        Ok(Self { start, len })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: it is our own mapping, and nothing refers to it any more: slices keep the
        // transport alive. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maps on a system that lets a process map up to `limit` bytes. Returns the length of the
    /// mapping, and the number of attempts.
    fn map_up_to(limit: usize, errno: Raw) -> (Result<usize, Raw>, u32) {
        let mut asked = 0;
        let mapped = map_most(|len| {
            asked += 1;
            if len <= limit {
                Ok(len)
            } else {
                Err(errno)
            }
        });
        (mapped, asked)
    }

    #[test]
    fn a_process_that_may_not_map_all_maps_less() {
        // At the limit on address space, and at that on locked memory.
        for errno in [Raw::NOMEM, Raw::AGAIN] {
            assert_eq!(map_up_to(POOL, errno), (Ok(POOL), 1));
            assert_eq!(map_up_to(POOL - 1, errno), (Ok(POOL / 2), 2));
            assert_eq!(map_up_to(8 << 20, errno).0, Ok(8 << 20));
            assert_eq!(map_up_to(POOL_MIN, errno).0, Ok(POOL_MIN));
            assert_eq!(map_up_to(POOL_MIN - 1, errno).0, Err(errno));
        }
    }

    #[test]
    fn other_failures_are_not_tried_again() {
        for errno in [Raw::SHUTDOWN, Raw::NODEV, Raw::MFILE] {
            assert_eq!(map_up_to(8 << 20, errno), (Err(errno), 1));
        }
    }
}
