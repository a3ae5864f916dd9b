// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers of descriptors that a caller names, and the facts that the system knows about them.
//!
//! Nothing here duplicates or closes a caller's descriptor: to close any descriptor of a file drops
//! the POSIX record locks that the process has on the file.

use std::os::fd::{AsRawFd, BorrowedFd};

use kernel::error::{code::*, Result};
use rustix::fs::{fcntl_getfl, OFlags};

use crate::error::to_core;

/// Borrows a number that a caller named.
///
/// # Errors
///
/// EBADF if it can be no descriptor.
///
/// # Safety
///
/// The caller uses it only for calls that are harmless for a number that is not open, or that
/// refers to any file.
pub(crate) unsafe fn borrow<'a>(fd: i32) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(EBADF);
    }
    // SAFETY: it is not -1. For it being open, the caller answers.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Returns whether it was opened with O_PATH: then it is only a place in a file system.
///
/// # Errors
///
/// EBADF if it is not open.
pub(crate) fn is_path(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(fcntl_getfl(fd).map_err(to_core)?.contains(OFlags::PATH))
}

/// Returns the name that procfs gives to the file behind it; `None` without procfs.
pub(crate) fn link(fd: BorrowedFd<'_>) -> Option<String> {
    let link = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(link)
        .ok()?
        .into_os_string()
        .into_string()
        .ok()
}

/// Returns the ID that the system gave to the eventfd behind a descriptor; `None` if it is
/// no eventfd, or without procfs.
pub(crate) fn eventfd_id(fd: BorrowedFd<'_>) -> Option<u64> {
    let path = format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("eventfd-id:"))
        .and_then(|id| id.trim().parse().ok())
}
