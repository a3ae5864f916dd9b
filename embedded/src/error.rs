// SPDX-License-Identifier: MIT OR Apache-2.0

//! Error numbers, between the system calls, the core and the caller.

use kernel::error::Error;
use rustix::io::Errno;

/// Returns the core's form of an error that a system call reported.
pub(crate) fn to_core(errno: Errno) -> Error {
    Error::from_errno(-errno.raw_os_error())
}

/// Returns the caller's form of an error that the core reported.
pub(crate) fn to_errno(error: Error) -> Errno {
    Errno::from_raw_os_error(-error.to_errno())
}
