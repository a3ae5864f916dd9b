// SPDX-License-Identifier: GPL-2.0-only

//! The memory of the task that makes a call.
//!
//! Addresses are checked by the copy itself. Buffers in the kernel are slices, so it need not be
//! checked again that the copy stays within them, as copy_from_user() and `UserSlice` would: that
//! costs a message 15 % of its instructions.

use kernel::bindings;
use kernel::prelude::*;

use crate::glue;

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
pub(crate) unsafe fn copy_from(to: *mut [u8], addr: u64) -> Result {
    let addr = usize::try_from(addr).map_err(|_| EFAULT)?;
    // SAFETY: By the caller; the address is checked there.
    let left = unsafe { bindings::_copy_from_user(to.cast(), addr as *const c_void, to.len()) };
    if left != 0 {
        return Err(EFAULT);
    }
    Ok(())
}

/// Reads from user memory.
///
/// # Errors
///
/// EFAULT.
#[inline]
pub(crate) fn read(addr: u64, to: &mut [u8]) -> Result {
    // Most reads are of one number, for which there is a shorter way.
    if let Ok(to) = <&mut [u8; 8]>::try_from(&mut *to) {
        let mut number = 0;
        // SAFETY: It may be written; the address is checked there.
        let read = unsafe { glue::bus1_get_user(&mut number, addr) };
        *to = number.to_ne_bytes();
        return if read { Ok(()) } else { Err(EFAULT) };
    }
    // SAFETY: A reference may be written.
    unsafe { copy_from(to, addr) }
}

/// Writes to user memory.
///
/// # Errors
///
/// EFAULT.
#[inline]
pub(crate) fn write(addr: u64, from: &[u8]) -> Result {
    let addr = usize::try_from(addr).map_err(|_| EFAULT)?;
    let (to, from, len) = (addr as *mut c_void, from.as_ptr().cast(), from.len());
    // SAFETY: A reference may be read; the address is checked there.
    let left = unsafe { bindings::_copy_to_user(to, from, len) };
    if left != 0 {
        return Err(EFAULT);
    }
    Ok(())
}
