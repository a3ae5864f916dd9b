// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files that may travel with a message: those that cannot keep another file of their kind
//! alive, as on the device, where a ring of them would never be collected.
//!
//! The check looks at the caller's descriptor, not at a duplicate (see [`file`](crate::file)). So
//! another thread of the process may put another file behind the number between the check and the
//! moment the file is taken. The check is then deceived, without harm: on this host no
//! file keeps a peer, or a socket that carries a file, alive, so no ring can come of it.

use std::os::fd::BorrowedFd;

use kernel::error::{code::*, Result};
use rustix::fs::{fstat, FileType};
use rustix::net::{sockopt::socket_domain, AddressFamily};

use crate::descriptor::{self, is_path};
use crate::error::to_core;
use crate::file::File;
use crate::registry;

/// Takes a reference to the file behind `fd`. The descriptor, and the locks of the process on the
/// file, stay as they are, also on failure.
///
/// # Errors
///
/// EBADF if it is not open; EOPNOTSUPP if its kind must not travel; those of [`File::take`].
pub(crate) fn take(fd: i32) -> Result<File> {
    // SAFETY: it is only looked at, and named to the system, which fails with EBADF for a number
    // that is not open.
    let named = unsafe { descriptor::borrow(fd) }?;
    if may_travel(named)? {
        File::take(named)
    } else {
        Err(EOPNOTSUPP)
    }
}

/// Returns whether a file cannot keep another file of its kind alive.
fn may_travel(file: BorrowedFd<'_>) -> Result<bool> {
    let stat = fstat(file).map_err(to_core)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => Ok(is_path(file)? || socket_domain(file) != Ok(AddressFamily::UNIX)),
        FileType::Unknown => Ok(is_path(file)? || may_travel_anonymous(file)),
        _ => Ok(true),
    }
}

/// Returns whether a file without an inode of its own may travel. Only the name distinguishes such
/// files; a file whose name cannot be read stays here.
fn may_travel_anonymous(file: BorrowedFd<'_>) -> bool {
    match descriptor::link(file).as_deref() {
        None | Some("anon_inode:[io_uring]") => false,
        Some("anon_inode:[eventfd]") => !registry::is_peer(file),
        Some(_) => true,
    }
}
