// SPDX-License-Identifier: GPL-2.0-only

//! The task in whose ioctl the core runs: its memory and its descriptors.
//!
//! Addresses are checked by the copy itself. Buffers in the kernel are slices, so it need not be
//! checked again that the copy stays within them, as copy_from_user() would.

use kernel::bindings;
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;
use kernel::transmute::AsBytes;

use crate::bus::message::Files;
use crate::bus::{self, Caller, Peer};
use crate::device;
use crate::file::{self, Received};
use crate::glue;
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
#[inline]
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

impl Task {
    /// Reads one iovec: two numbers of the caller's own size.
    fn range(&self, addr: u64) -> Result<Range> {
        let (start, len) = if self.compat {
            let mut raw = [0_u32; 2];
            self.read(addr, AsBytes::as_bytes_mut(&mut raw))?;
            (u64::from(raw[0]), i64::from(raw[1] as i32))
        } else {
            let mut raw = [0_usize; 2];
            self.read(addr, AsBytes::as_bytes_mut(&mut raw))?;
            (raw[0] as u64, raw[1] as isize as i64)
        };
        let len = u64::try_from(len).map_err(|_| EINVAL)?;
        Ok(Range { start, len })
    }
}

impl Caller<Kernel> for Task {
    type Payload = Payload;
    type Installed = Received;

    #[inline]
    fn read(&self, addr: u64, to: &mut [u8]) -> Result {
        // Most reads are of one number, for which there is a shorter way.
        if let Ok(to) = <&mut [u8; 8]>::try_from(&mut *to) {
            let mut number = 0;
            // SAFETY: It may be written; the address is checked there.
            let read = unsafe { glue::bus1_get_user(&mut number, addr) };
            *to = number.to_ne_bytes();
            return if read { Ok(()) } else { Err(EFAULT) };
        }
        // SAFETY: A reference may be written.
        unsafe { copy_from_user(to, addr) }
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result {
        let addr = usize::try_from(addr).map_err(|_| EFAULT)?;
        let (to, from, len) = (addr as *mut c_void, from.as_ptr().cast(), from.len());
        // SAFETY: A reference may be read; the address is checked there.
        let left = unsafe { bindings::_copy_to_user(to, from, len) };
        if left != 0 {
            return Err(EFAULT);
        }
        Ok(())
    }

    fn payload(&self, addr: u64, n: usize) -> Result<Payload> {
        let size = if self.compat { 8 } else { size_of::<[usize; 2]>() as u64 };
        let payload = match n {
            0 => Payload { len: 0, ranges: Ranges::One(None) },
            1 => {
                let range = self.range(addr)?;
                Payload { len: range.len, ranges: Ranges::One(Some(range)) }
            }
            _ => {
                let (mut len, mut ranges) = (0_u64, KVVec::with_capacity(n, GFP_KERNEL)?);
                for i in 0..n as u64 {
                    let range = self.range(addr.checked_add(i * size).ok_or(EFAULT)?)?;
                    len = len.saturating_add(range.len);
                    ranges.push(range, GFP_KERNEL)?;
                }
                Payload { len, ranges: Ranges::Many(ranges) }
            }
        };
        if payload.len > BYTES_MAX {
            return Err(EMSGSIZE);
        }
        Ok(payload)
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

/// All iovecs. Most messages have one or none, which then lies in place.
enum Ranges {
    One(Option<Range>),
    Many(KVVec<Range>),
}

/// The payload of a message in the sender's memory.
///
/// The vectors are read once, when it is made, and so is their sum. The kernel's own
/// import_iovec() would shorten what is too long, where we have to refuse.
pub(crate) struct Payload {
    ranges: Ranges,
    len: u64,
}

impl bus::Payload<Kernel> for Payload {
    fn len(&self) -> u64 {
        self.len
    }

    fn copy_to(&mut self, pool: &Pool, offset: u64) -> Result {
        let ranges = match &self.ranges {
            Ranges::One(range) => range.as_slice(),
            Ranges::Many(ranges) => ranges,
        };
        let mut at = offset;
        for range in ranges {
            pool.pieces(at, range.len, |piece, done| {
                let addr = range.start.checked_add(done).ok_or(EFAULT)?;
                // SAFETY: The piece lies in pinned pages, and is ours to write.
                unsafe { copy_from_user(piece, addr) }
            })?;
            at += range.len;
        }
        Ok(())
    }
}
