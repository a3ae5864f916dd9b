// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory whose first access stalls until somebody says otherwise: userfaultfd(2).
//!
//! A caller of the bus that names such memory sleeps in the page fault, for as long as a test
//! wants.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::memory::{Pages, PAGE};

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRange {
    start: u64,
    len: u64,
}

#[repr(C)]
struct UffdioRegister {
    range: UffdioRange,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioZeropage {
    range: UffdioRange,
    mode: u64,
    zeropage: i64,
}

const UFFD_API: u64 = 0xaa;
const REGISTER_MODE_MISSING: u64 = 1;

/// Encodes `_IOWR(0xaa, nr, size)`.
const fn iowr(nr: u32, size: usize) -> u64 {
    ((0b11 << 30) | ((size as u32) << 16) | (0xaa << 8) | nr) as u64
}

const UFFDIO_API: u64 = iowr(0x3f, size_of::<UffdioApi>());
const UFFDIO_REGISTER: u64 = iowr(0x00, size_of::<UffdioRegister>());
const UFFDIO_ZEROPAGE: u64 = iowr(0x04, size_of::<UffdioZeropage>());

/// One page that stalls its first reader or writer.
pub struct StallingPage {
    pages: Pages,
    uffd: OwnedFd,
}

impl StallingPage {
    /// Makes one; needs root, or `vm.unprivileged_userfaultfd`.
    pub fn new() -> Self {
        let pages = Pages::new(1);
        // SAFETY: the system call makes a descriptor that nobody else knows.
        let uffd = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK);
            assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd as i32)
        };
        let page = Self { pages, uffd };
        let mut api = UffdioApi { api: UFFD_API, features: 0, ioctls: 0 };
        page.ioctl(UFFDIO_API, &mut api);
        let mut register =
            UffdioRegister { range: page.range(), mode: REGISTER_MODE_MISSING, ioctls: 0 };
        page.ioctl(UFFDIO_REGISTER, &mut register);
        page
    }

    fn range(&self) -> UffdioRange {
        UffdioRange { start: self.pages.addr(0), len: PAGE as u64 }
    }

    fn ioctl<T>(&self, cmd: u64, arg: &mut T) {
        // SAFETY: every command here takes the structure that it is called with.
        let result = unsafe { libc::ioctl(self.uffd.as_raw_fd(), cmd as _, arg) };
        assert_eq!(result, 0, "userfaultfd: {}", std::io::Error::last_os_error());
    }

    /// Address of the page.
    pub fn addr(&self) -> u64 {
        self.pages.addr(0)
    }

    /// Waits until somebody is stalled.
    pub fn wait_for_fault(&self) {
        let limit = Timespec::try_from(Duration::from_secs(30)).expect("a small number");
        let mut fds = [PollFd::from_borrowed_fd(self.uffd.as_fd(), PollFlags::IN)];
        let n = poll(&mut fds, Some(&limit)).expect("poll failed");
        assert_eq!(n, 1, "nobody touched the stalling page within 30 s");
    }

    /// Lets the access through; the page is zero.
    pub fn resume(&self) {
        let mut zero = UffdioZeropage { range: self.range(), mode: 0, zeropage: 0 };
        self.ioctl(UFFDIO_ZEROPAGE, &mut zero);
    }
}

impl Default for StallingPage {
    fn default() -> Self {
        Self::new()
    }
}
