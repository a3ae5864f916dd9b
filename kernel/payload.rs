// SPDX-License-Identifier: GPL-2.0-only

//! The payload of a message in the sender's memory.
//!
//! The vectors are read once, when a [`Payload`] is made, and so is their sum. The kernel's own
//! import_iovec() would shorten a payload that is too long, where the bus has to refuse it.

use kernel::prelude::*;

use crate::bus;
use crate::glue;
use crate::host::Kernel;
use crate::pool::Pool;
use crate::user;

/// Most bytes in a message, as in one read or write.
const BYTES_MAX: u64 = 0x7fff_f000;

/// A part of the payload: one iovec.
struct Range {
    start: u64,
    /// As large as an `ssize_t` of the caller; negative ones are refused in [`Payload::import`].
    len: i64,
}

impl Range {
    /// Reads one iovec of the caller's own layout.
    ///
    /// # Errors
    ///
    /// EFAULT, also if the range lies outside of user memory.
    #[inline]
    fn read(addr: u64, compat: bool) -> Result<Self> {
        let mut range = Self { start: 0, len: 0 };
        // SAFETY: Both may be written; the address is checked there.
        let read = unsafe { glue::bus1_get_iovec(&mut range.start, &mut range.len, addr, compat) };
        read.then_some(range).ok_or(EFAULT)
    }
}

/// All parts. Most messages have one or none, which then lies in place.
enum Ranges {
    One(Option<Range>),
    Many(KVVec<Range>),
}

impl Ranges {
    /// Reads `n` iovecs.
    ///
    /// # Errors
    ///
    /// EFAULT, ENOMEM.
    #[inline]
    fn read(addr: u64, n: usize, compat: bool) -> Result<Self> {
        Ok(match n {
            0 => Self::One(None),
            1 => Self::One(Some(Range::read(addr, compat)?)),
            _ => {
                let size = if compat {
                    8
                } else {
                    size_of::<[usize; 2]>() as u64
                };
                let mut ranges = KVVec::with_capacity(n, GFP_KERNEL)?;
                for i in 0..n as u64 {
                    let addr = addr.checked_add(i * size).ok_or(EFAULT)?;
                    ranges.push(Range::read(addr, compat)?, GFP_KERNEL)?;
                }
                Self::Many(ranges)
            }
        })
    }

    #[inline]
    fn as_slice(&self) -> &[Range] {
        match self {
            Self::One(range) => range.as_slice(),
            Self::Many(ranges) => ranges,
        }
    }
}

/// The payload of a message.
pub(crate) struct Payload {
    ranges: Ranges,
    len: u64,
}

impl Payload {
    /// Reads `n` iovecs at `addr`; those of a 32-bit program if `compat`.
    ///
    /// # Errors
    ///
    /// In this order: EFAULT if one cannot be read or points outside of user memory, EINVAL if a
    /// length is negative, EMSGSIZE if they are too long in all. ENOMEM at any time.
    #[inline]
    pub(crate) fn import(addr: u64, n: usize, compat: bool) -> Result<Self> {
        let ranges = Ranges::read(addr, n, compat)?;
        let mut len = 0_u64;
        for range in ranges.as_slice() {
            len = len.saturating_add(u64::try_from(range.len).map_err(|_| EINVAL)?);
        }
        if len > BYTES_MAX {
            return Err(EMSGSIZE);
        }
        Ok(Self { ranges, len })
    }
}

impl bus::Payload<Kernel> for Payload {
    fn len(&self) -> u64 {
        self.len
    }

    fn copy_to(&mut self, pool: &Pool, offset: u64) -> Result {
        let mut at = offset;
        for range in self.ranges.as_slice() {
            let len = range.len as u64;
            pool.pieces(at, len, |piece, done| {
                let addr = range.start.checked_add(done).ok_or(EFAULT)?;
                // SAFETY: The piece lies in pinned pages, and is ours to write.
                unsafe { user::copy_from(piece, addr) }
            })?;
            at += len;
        }
        Ok(())
    }
}
