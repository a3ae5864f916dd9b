// SPDX-License-Identifier: MIT OR Apache-2.0

//! Descriptors in flight.
//!
//! A file in flight is a descriptor of our own, so it takes one number of the process while it
//! waits; a sender can therefore meet EMFILE, which the kernel's host never reports here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use bus1_core::bus::host;
use kernel::error::{code::*, Result};
use rustix::fs::{fcntl_getfl, fstat, FileType, OFlags};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{sockopt::socket_domain, AddressFamily};

use crate::error::to_core;
use crate::registry;

/// The file behind a descriptor that was sent.
pub(crate) type File = Arc<OwnedFd>;

/// Borrows a number that a caller named. EBADF if it can be no descriptor.
///
/// # Safety
///
/// Whatever is done with it must be fine for a number that is not open, or is anything else.
pub(crate) unsafe fn borrow<'a>(fd: i32) -> Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(EBADF);
    }
    // SAFETY: it is not -1. For being open, the caller answers.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Takes a reference to the file behind `fd`.
pub(crate) fn take(fd: i32) -> Result<File> {
    // SAFETY: it is only duplicated, which fails with EBADF for a number that is not open.
    let named = unsafe { borrow(fd) }?;
    // Looked at is the duplicate: another thread may put something else behind the number.
    let file = fcntl_dupfd_cloexec(named, 0).map_err(to_core)?;
    if may_travel(file.as_fd())? {
        Ok(Arc::new(file))
    } else {
        Err(EOPNOTSUPP)
    }
}

/// Whether it was opened with O_PATH: a place in a file system and nothing else.
pub(crate) fn is_path(file: BorrowedFd<'_>) -> Result<bool> {
    Ok(fcntl_getfl(file).map_err(to_core)?.contains(OFlags::PATH))
}

/// Whether a file cannot keep another file of its kind alive, so that no cycle can come of it.
fn may_travel(file: BorrowedFd<'_>) -> Result<bool> {
    let stat = fstat(file).map_err(to_core)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => Ok(is_path(file)? || socket_domain(file) != Ok(AddressFamily::UNIX)),
        FileType::Unknown => Ok(is_path(file)? || may_travel_anonymous(file)),
        _ => Ok(true),
    }
}

/// The same for files without an inode of their own, which only their name tells apart. One whose
/// name cannot be read stays here.
fn may_travel_anonymous(file: BorrowedFd<'_>) -> bool {
    let link = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    match std::fs::read_link(link)
        .ok()
        .as_deref()
        .and_then(|name| name.to_str())
    {
        None | Some("anon_inode:[io_uring]") => false,
        Some("anon_inode:[eventfd]") => !registry::is_peer(file),
        Some(_) => true,
    }
}

/// Descriptors that a receiver was given, until they are final.
pub(crate) struct Installed {
    numbers: Vec<i32>,
    files: Vec<OwnedFd>,
}

impl Installed {
    /// Gives a number to each file: all or none.
    pub(crate) fn new(files: &[File]) -> Result<Self> {
        let files = files
            .iter()
            .map(|file| fcntl_dupfd_cloexec(file, 0))
            .collect::<Result<Vec<OwnedFd>, _>>()
            .map_err(to_core)?;
        Ok(Self {
            numbers: files.iter().map(AsRawFd::as_raw_fd).collect(),
            files,
        })
    }
}

impl host::Installed for Installed {
    fn numbers(&self) -> &[i32] {
        &self.numbers
    }

    fn keep(self) {
        for file in self.files {
            // From here on the number is the receiver's to close.
            let _ = file.into_raw_fd();
        }
    }
}
