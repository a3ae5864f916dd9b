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
use kernel::uaccess::{UserPtr, UserSlice};

use crate::bus::message::Files;
use crate::bus::{self, Peer};
use crate::device;
use crate::file::{self, Received};
use crate::pool::Pool;
use crate::waker::Waiters;

/// Most bytes in a message, as in one read or write.
const BYTES_MAX: u64 = 0x7fff_f000;
/// As many vectors need no allocation.
const FEW: usize = 4;

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
        let addr = usize::try_from(addr).map_err(|_| EFAULT)?;
        let size = 2 * if self.compat { 4 } else { size_of::<usize>() };
        let mut reader = UserSlice::new(UserPtr::from_addr(addr), n * size).reader();
        let mut payload = Payload::with_room(n)?;
        for _ in 0..n {
            let (start, len) = if self.compat {
                let [start, len] = reader.read::<[u32; 2]>()?;
                (u64::from(start), i64::from(len as i32))
            } else {
                let [start, len] = reader.read::<[usize; 2]>()?;
                (start as u64, len as isize as i64)
            };
            let len = u64::try_from(len).map_err(|_| EINVAL)?;
            payload.push(Range { start, len })?;
        }
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
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

/// The payload of a message in the sender's memory.
///
/// The vectors are read once, when it is made, and so is their sum. The kernel's own
/// import_iovec() would shorten what is too long, where we have to refuse.
pub(crate) struct Payload {
    few: [Range; FEW],
    many: KVec<Range>,
    n: usize,
    len: u64,
}

impl Payload {
    /// One without vectors yet.
    fn with_room(n: usize) -> Result<Self> {
        let many = if n > FEW {
            KVec::with_capacity(n, GFP_KERNEL)?
        } else {
            KVec::new()
        };
        Ok(Self {
            few: [Range { start: 0, len: 0 }; FEW],
            many,
            n: 0,
            len: 0,
        })
    }

    fn push(&mut self, range: Range) -> Result {
        if self.many.capacity() > 0 {
            self.many.push(range, GFP_KERNEL)?;
        } else {
            *self.few.get_mut(self.n).ok_or(EINVAL)? = range;
        }
        self.n += 1;
        self.len = self.len.saturating_add(range.len);
        Ok(())
    }

    fn ranges(&self) -> &[Range] {
        if self.many.is_empty() {
            &self.few[..self.n]
        } else {
            &self.many
        }
    }
}

impl bus::Payload<Kernel> for Payload {
    fn len(&self) -> u64 {
        self.len
    }

    fn copy_to(&mut self, pool: &Pool, offset: u64) -> Result {
        let mut at = offset;
        for range in self.ranges() {
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
