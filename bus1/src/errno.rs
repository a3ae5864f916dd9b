// SPDX-License-Identifier: MIT OR Apache-2.0

//! Error numbers of the system.

use std::fmt;
use std::io;

/// An error number of the system, as in `errno(3)`.
///
/// It is the reason behind an [`Error`](crate::Error), and prints as the system's own text.
///
/// ```
/// let errno = bus1::Errno::from_raw(28);
/// assert_eq!(errno.raw(), 28);
/// assert!(errno.to_string().contains("No space left on device"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// Makes an error of this number, which is not checked.
    #[must_use]
    pub const fn from_raw(errno: i32) -> Self {
        Self(errno)
    }

    /// Returns the number: positive, if it came from the system.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        io::Error::from_raw_os_error(errno.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from(*self).fmt(f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

impl std::error::Error for Errno {}
