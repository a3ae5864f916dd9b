// SPDX-License-Identifier: GPL-2.0

//! The task in whose ioctl the core runs: its memory and its descriptors.
//!
//! Addresses are checked by the copy itself. Buffers in the kernel are slices, so it need not be
//! checked again that the copy stays within them, as copy_from_user() would.

use core::mem::size_of;

use kernel::bindings;
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;
use kernel::transmute::FromBytes;

use crate::bus::few::Few;
use crate::bus::message::Files;
use crate::bus::{self, Peer};
use crate::device;
use crate::file::{self, Received};
use crate::pool::Pool;
use crate::waker::Waiters;

/// Most bytes in a message, as in one read or write.
const BYTES_MAX: u64 = 0x7fff_f000;

/// The host of the kernel module.
pub(crate) struct Kernel;

impl bus::Host for Kernel {
    type Pool = Pool;
    type File = ARef<File>;
    type Waker = Waiters;
}

/// Copies from user memory. EFAULT.
///
/// # Safety
///
/// `to` may be written.
unsafe fn copy_from_user(to: *mut [u8], addr: u64) -> Result {
    let addr = usize::try_from(addr).map_err(|_| EFAULT)?;
    // SAFETY: By the caller; the address is checked there.
    let left = unsafe { bindings::_copy_from_user(to.cast(), addr as *const c_void, to.len()) };
    if left != 0 {
        return Err(EFAULT);
    }
    Ok(())
}

/// The running task, in an ioctl.
pub(crate) struct Task {
    /// It is a 32-bit program on a 64-bit kernel.
    pub(crate) compat: bool,
}

impl bus::Caller<Kernel> for Task {
    type Payload = Payload;
    type Installed = Received;

    fn read(&self, addr: u64, to: &mut [u8]) -> Result {
        // SAFETY: A reference may be written.
        unsafe { copy_from_user(to, addr) }
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result {
        let addr = usize::try_from(addr).map_err(|_| EFAULT)?;
        let (to, from, len) = (addr as *mut c_void, from.as_ptr().cast(), from.len());
        // SAFETY: A reference may be read; the address is checked there.
        if unsafe { bindings::_copy_to_user(to, from, len) } != 0 {
            return Err(EFAULT);
        }
        Ok(())
    }

    fn payload(&self, addr: u64, n: usize) -> Result<Payload> {
        let size = 2 * if self.compat { 4 } else { size_of::<usize>() };
        let mut ranges = Few::with_capacity(n, GFP_KERNEL)?;
        let mut sum = 0_u64;
        for i in 0..n {
            // Two numbers of the caller's own size.
            let mut raw = [0; 16];
            let addr = addr.checked_add((i * size) as u64).ok_or(EFAULT)?;
            self.read(addr, &mut raw[..size])?;
            let (start, len) = if self.compat {
                let [start, len] = <[u32; 2]>::from_bytes_copy(&raw[..size]).ok_or(EFAULT)?;
                (u64::from(start), i64::from(len as i32))
            } else {
                let [start, len] = <[usize; 2]>::from_bytes_copy(&raw[..size]).ok_or(EFAULT)?;
                (start as u64, len as isize as i64)
            };
            let len = u64::try_from(len).map_err(|_| EINVAL)?;
            ranges.push(Range { start, len }, GFP_KERNEL)?;
            sum = sum.saturating_add(len);
        }
        if sum > BYTES_MAX {
            return Err(EMSGSIZE);
        }
        Ok(Payload { ranges, len: sum })
    }

    fn file(&self, fd: i32) -> Result<ARef<File>> {
        file::get_cargo(fd)
    }

    fn peer(&self, fd: i32) -> Result<Arc<Peer<Kernel>>> {
        device::peer_of(&*file::get(fd)?)
    }

    fn install(&self, files: &Files<Kernel>) -> Result<Received> {
        Received::install(files.as_slice())
    }
}

/// What one iovec says.
struct Range {
    start: u64,
    len: u64,
}

/// The payload of a message in the sender's memory.
///
/// The vectors are read once, when it is made, and so is their sum. The kernel's own
/// import_iovec() would shorten what is too long, where we have to refuse.
pub(crate) struct Payload {
    ranges: Few<Range>,
    len: u64,
}

impl bus::Payload<Kernel> for Payload {
    fn len(&self) -> u64 {
        self.len
    }

    fn copy_to(&mut self, pool: &Pool, offset: u64) -> Result {
        let mut at = offset;
        for range in self.ranges.iter() {
            pool.pieces(at, range.len, |piece, done| {
                let addr = range.start.checked_add(done).ok_or(EFAULT)?;
                // SAFETY: The piece lies in a pinned page, and is ours to write.
                unsafe { copy_from_user(piece, addr) }
            })?;
            at += range.len;
        }
        Ok(())
    }
}
