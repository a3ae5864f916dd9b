// SPDX-License-Identifier: GPL-2.0-only

//! The task in whose ioctl the core runs: its memory, the payload in it, and its descriptors.
//!
//! Addresses are checked by the copy itself. Buffers in the kernel are slices, so it need not be
//! checked again that the copy stays within them, as copy_from_user() and `UserSlice` would: that
//! costs a message 15 % of its instructions.
//!
//! The vectors of a payload are read once, when a [`Payload`] is made, and so is their sum. The
//! kernel's own import_iovec() would shorten a payload that is too long, where the bus has to
//! refuse it.

use kernel::bindings::{self, iovec};
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::{self, Caller};
use crate::closer::Cargo;
use crate::file::{self, Received};
use crate::gfp::ACCOUNT_MAYFAIL;
use crate::glue;
use crate::peer::{Kernel, Peer, PeerFile};
use crate::pool::Pool;

/// Most bytes in a message, as in one read or write.
const BYTES_MAX: u64 = 0x7fff_f000;

/// Returns the result of a copy from or to user memory.
///
/// # Errors
///
/// EFAULT.
#[inline]
fn copied(all: bool) -> Result {
    all.then_some(()).ok_or(EFAULT)
}

/// Copies from user memory.
///
/// # Errors
///
/// EFAULT.
///
/// # Safety
///
/// `to` may be written.
#[inline]
unsafe fn copy_from(to: *mut [u8], addr: u64) -> Result {
    let from = usize::try_from(addr).map_err(|_| EFAULT)? as *const c_void;
    // SAFETY: By the caller; the address is checked there.
    copied(unsafe { bindings::_copy_from_user(to.cast(), from, to.len()) } == 0)
}

/// The running task, in an ioctl.
pub(crate) struct Task<'a> {
    /// The file of the ioctl.
    pub(crate) file: &'a PeerFile<'a>,
    /// It is a 32-bit program on a 64-bit kernel.
    pub(crate) compat: bool,
}

impl Task<'_> {
    /// Reads one iovec of the caller's own layout.
    ///
    /// # Errors
    ///
    /// EFAULT, also if the range lies outside of user memory.
    #[inline]
    fn range(&self, addr: u64) -> Result<Range> {
        let mut start = 0;
        let mut len = 0;
        let read = glue::bus1_get_iovec(&mut start, &mut len, addr, self.compat);
        copied(read)?;
        Ok(Range { start, len })
    }

    /// Reads `n` iovecs.
    ///
    /// # Errors
    ///
    /// EFAULT, ENOMEM.
    #[inline]
    fn ranges(&self, addr: u64, n: usize) -> Result<Ranges> {
        if n <= 1 {
            let range = (n == 1).then(|| self.range(addr)).transpose()?;
            return Ok(Ranges::One(range));
        }
        let size = if self.compat { 8 } else { size_of::<iovec>() };
        let mut ranges = KVVec::with_capacity(n, ACCOUNT_MAYFAIL)?;
        for i in 0..n {
            let addr = addr.checked_add((i * size) as u64).ok_or(EFAULT)?;
            ranges.push(self.range(addr)?, ACCOUNT_MAYFAIL)?;
        }
        Ok(Ranges::Many(ranges))
    }
}

impl Caller<Kernel> for Task<'_> {
    type Payload = Payload;
    type Installed = Received;

    #[inline]
    fn read(&self, addr: u64, to: &mut [u8]) -> Result {
        // Most reads are of one number, for which there is a shorter way.
        if let Ok(to) = <&mut [u8; 8]>::try_from(&mut *to) {
            let mut number = 0;
            let read = glue::bus1_get_user(&mut number, addr);
            *to = number.to_ne_bytes();
            return copied(read);
        }
        // SAFETY: A reference may be written.
        unsafe { copy_from(to, addr) }
    }

    #[inline]
    fn write(&self, addr: u64, from: &[u8]) -> Result {
        let to = usize::try_from(addr).map_err(|_| EFAULT)? as *mut c_void;
        // SAFETY: A reference may be read; the address is checked there.
        copied(unsafe { bindings::_copy_to_user(to, from.as_ptr().cast(), from.len()) } == 0)
    }

    /// Reads `n` iovecs at `addr`.
    ///
    /// # Errors
    ///
    /// In this order: EFAULT if one cannot be read or points outside of user memory, EINVAL if a
    /// length is negative, EMSGSIZE if they are too long in all. ENOMEM at any time.
    #[inline]
    fn payload(&self, addr: u64, n: usize) -> Result<Payload> {
        let ranges = self.ranges(addr, n)?;
        let mut len = 0_u64;
        for range in ranges.as_slice() {
            len = len.saturating_add(u64::try_from(range.len).map_err(|_| EINVAL)?);
        }
        if len > BYTES_MAX {
            return Err(EMSGSIZE);
        }
        Ok(Payload { ranges, len })
    }

    fn files(&self, fds: &[i32]) -> Result<Cargo> {
        file::get_cargo(fds, self.file)
    }

    fn peer(&self, fd: i32) -> Result<Arc<Peer>> {
        self.file.peer_of(&*file::get(fd)?)
    }

    fn install(&self, files: Cargo) -> Result<Received> {
        Received::install(files)
    }
}

/// A part of the payload: one iovec.
struct Range {
    start: u64,
    /// As large as an `ssize_t` of the caller; negative ones are refused in [`Task::payload`].
    len: i64,
}

/// All parts. Most messages have one or none, which then lies in place.
enum Ranges {
    One(Option<Range>),
    Many(KVVec<Range>),
}

impl Ranges {
    #[inline]
    fn as_slice(&self) -> &[Range] {
        match self {
            Self::One(range) => range.as_slice(),
            Self::Many(ranges) => ranges,
        }
    }
}

/// The payload of a message in the sender's memory.
pub(crate) struct Payload {
    ranges: Ranges,
    len: u64,
}

impl bus::Payload<Kernel> for Payload {
    fn len(&self) -> u64 {
        self.len
    }

    fn copy_to(&mut self, pool: &Arc<Pool>, offset: u64) -> Result {
        let mut at = offset;
        for range in self.ranges.as_slice() {
            let len = range.len as u64;
            pool.pieces(at, len, |piece, done| {
                // A part may be as long as a payload; there are few parts.
                if done != 0 && glue::bus1_is_killed() {
                    return Err(EINTR);
                }
                let addr = range.start.checked_add(done).ok_or(EFAULT)?;
                // SAFETY: The piece lies in pinned pages, and is ours to write.
                unsafe { copy_from(piece, addr) }
            })?;
            at += len;
        }
        Ok(())
    }
}
