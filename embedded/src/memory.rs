// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory of a caller: arguments, results and payload.
//!
//! Addresses are plain numbers, as in an ioctl. [`Direct`] trusts them, [`Checked`] lets the system
//! check each. Either way payload is copied once, from the sender's memory to the pool.
//!
//! Invariant: no reference to a caller's memory or to pool memory is ever made, because another
//! thread may write to either at the same time; bytes are moved through raw pointers.

use std::ptr;

use bus1_core::bus;
use kernel::error::{code::*, Result};
use rustix::io::Errno;
use smallvec::{smallvec, SmallVec};

use crate::error::to_core;
use crate::host::Embedded;
use crate::pool::{Pool, Span};

/// Most bytes of one payload, as for read(2).
const PAYLOAD_MAX: u64 = 0x7fff_f000;

/// Vectors that are imported without an allocation.
const INLINE: usize = 8;

/// A way to reach addresses of this process.
pub(crate) trait Memory: Copy {
    /// Fills `to` from `addr`. EFAULT.
    fn read(self, addr: u64, to: &mut [u8]) -> Result;

    /// Stores `from` at `addr`. EFAULT, and then a part of it may have been stored.
    fn write(self, addr: u64, from: &[u8]) -> Result;

    /// Fills `to` from `vecs`, which have exactly as many bytes. EFAULT.
    fn gather(self, vecs: &[libc::iovec], to: Span<'_>) -> Result;
}

/// Addresses that the caller vouches for. Only null is caught (EFAULT).
#[derive(Clone, Copy)]
pub(crate) struct Direct(());

impl Direct {
    /// Trusts the addresses of one command.
    ///
    /// # Safety
    ///
    /// Until the command is over, its argument and the memory that the argument refers to are valid
    /// for the reads and writes of the command.
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

/// Returns the address as a number of this machine. EFAULT if it is none, or null.
fn address(addr: u64) -> Result<usize> {
    match usize::try_from(addr) {
        Ok(addr) if addr != 0 => Ok(addr),
        _ => Err(EFAULT),
    }
}

impl Memory for Direct {
    #[inline]
    fn read(self, addr: u64, to: &mut [u8]) -> Result {
        if !to.is_empty() {
            let from = ptr::with_exposed_provenance::<u8>(address(addr)?);
            // SAFETY: `Direct::new` promised that the source can be read; `to` is ours.
            unsafe { ptr::copy(from, to.as_mut_ptr(), to.len()) };
        }
        Ok(())
    }

    #[inline]
    fn write(self, addr: u64, from: &[u8]) -> Result {
        if !from.is_empty() {
            let to = ptr::with_exposed_provenance_mut::<u8>(address(addr)?);
            // SAFETY: `Direct::new` promised that the destination can be written.
            unsafe { ptr::copy(from.as_ptr(), to, from.len()) };
        }
        Ok(())
    }

    fn gather(self, vecs: &[libc::iovec], to: Span<'_>) -> Result {
        let mut at = 0;
        for vec in vecs.iter().filter(|vec| vec.iov_len > 0) {
            let from = vec.iov_base.cast::<u8>();
            if from.is_null() {
                return Err(EFAULT);
            }
            assert!(vec.iov_len <= to.len() - at, "more payload than announced");
            // SAFETY: `Direct::new` promised that the source can be read. The destination lies in
            // the span, as just checked, and no other thread writes there: the core reserved it for
            // this payload.
            unsafe { ptr::copy(from, to.as_mut_ptr().add(at), vec.iov_len) };
            at += vec.iov_len;
        }
        Ok(())
    }
}

/// Any addresses: the system reads and writes them on our behalf, so a bad one is EFAULT.
#[derive(Clone, Copy)]
pub(crate) struct Checked;

/// Returns one piece of memory as the system calls take it.
fn vector(base: usize, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(base),
        iov_len: len,
    }
}

/// Returns the outcome of a transfer of `expected` bytes that returned `moved`.
fn outcome(moved: libc::ssize_t, expected: usize) -> Result {
    match usize::try_from(moved) {
        Ok(moved) if moved == expected => Ok(()),
        // It stopped in the middle, at an address without memory.
        Ok(_) => Err(EFAULT),
        Err(_) => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(EFAULT, |errno| to_core(Errno::from_raw_os_error(errno)))),
    }
}

impl Memory for Checked {
    fn read(self, addr: u64, to: &mut [u8]) -> Result {
        let local = libc::iovec {
            iov_base: to.as_mut_ptr().cast(),
            iov_len: to.len(),
        };
        let remote = vector(usize::try_from(addr).map_err(|_| EFAULT)?, to.len());
        // SAFETY: `local` describes `to`, which is ours; `remote` is checked by the system.
        let moved =
            unsafe { libc::process_vm_readv(std::process::id() as i32, &local, 1, &remote, 1, 0) };
        outcome(moved, to.len())
    }

    fn write(self, addr: u64, from: &[u8]) -> Result {
        let local = libc::iovec {
            iov_base: from.as_ptr().cast_mut().cast(),
            iov_len: from.len(),
        };
        let remote = vector(usize::try_from(addr).map_err(|_| EFAULT)?, from.len());
        // SAFETY: `local` describes `from`, which is only read; `remote` is the memory that
        // the caller of the command named for the result, and the system checks it.
        let moved =
            unsafe { libc::process_vm_writev(std::process::id() as i32, &local, 1, &remote, 1, 0) };
        outcome(moved, from.len())
    }

    fn gather(self, vecs: &[libc::iovec], to: Span<'_>) -> Result {
        let local = libc::iovec {
            iov_base: to.as_mut_ptr().cast(),
            iov_len: to.len(),
        };
        // SAFETY: `local` describes the span, where the core reserved room for this payload and
        // no other thread writes; the remote vectors are checked by the system.
        let moved = unsafe {
            libc::process_vm_readv(
                std::process::id() as i32,
                &local,
                1,
                vecs.as_ptr(),
                vecs.len() as libc::c_ulong,
                0,
            )
        };
        outcome(moved, to.len())
    }
}

/// Payload in the memory of its sender.
pub(crate) struct Payload<M> {
    memory: M,
    vecs: SmallVec<[libc::iovec; INLINE]>,
    len: u64,
}

impl<M: Memory> Payload<M> {
    /// Reads `n` vectors at `addr`, and not yet the memory that they point to.
    ///
    /// # Errors
    ///
    /// EFAULT; EINVAL for a vector whose length is negative; EMSGSIZE for more than [`PAYLOAD_MAX`]
    /// bytes in all.
    pub(crate) fn import(memory: M, addr: u64, n: usize) -> Result<Self> {
        const WORD: usize = size_of::<usize>();
        const VEC: usize = size_of::<libc::iovec>();
        const { assert!(VEC == 2 * WORD) };

        let word = |bytes: &[u8]| {
            let mut word = [0; WORD];
            word.copy_from_slice(bytes);
            usize::from_ne_bytes(word)
        };
        let mut vecs = SmallVec::<[libc::iovec; INLINE]>::with_capacity(n);
        let (mut len, mut valid) = (0u64, true);
        let mut add = |raw: &[u8]| {
            let vec = vector(word(&raw[..WORD]), word(&raw[WORD..]));
            valid &= isize::try_from(vec.iov_len).is_ok();
            len = len.saturating_add(vec.iov_len as u64);
            vecs.push(vec);
        };
        if n == 1 {
            // Mostly.
            let mut raw = [0; VEC];
            memory.read(addr, &mut raw)?;
            add(&raw);
        } else {
            let mut raw: SmallVec<[u8; INLINE * VEC]> = smallvec![0; n * VEC];
            memory.read(addr, &mut raw)?;
            raw.chunks_exact(VEC).for_each(add);
        }
        if !valid {
            return Err(EINVAL);
        }
        if len > PAYLOAD_MAX {
            return Err(EMSGSIZE);
        }
        Ok(Self { memory, vecs, len })
    }
}

impl<M: Memory> bus::Payload<Embedded> for Payload<M> {
    fn len(&self) -> u64 {
        self.len
    }

    fn copy_to(&mut self, pool: &Pool, offset: u64) -> Result {
        if self.len == 0 {
            return Ok(());
        }
        self.memory.gather(&self.vecs, pool.span(offset, self.len))
    }
}
