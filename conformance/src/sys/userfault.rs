// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory whose first access stalls until the case lets it go: userfaultfd(2).
//!
//! A caller of the bus that names such memory sleeps in the page fault, for as long as a test
//! wants.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::memory::{Pages, PAGE};

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct WriteProtect {
    range: Range,
    mode: u64,
}

const API: u64 = 0xaa;
const FEATURE_WRITE_PROTECT: u64 = 1 << 0;
const MODE_MISSING: u64 = 1 << 0;
const MODE_WRITE_PROTECT: u64 = 1 << 1;
const PROTECT: u64 = 1 << 0;

/// Encodes `_IOWR(0xaa, nr, size)`.
const fn iowr(nr: u32, size: usize) -> u64 {
    ((0b11 << 30) | ((size as u32) << 16) | (0xaa << 8) | nr) as u64
}

const IOCTL_API: u64 = iowr(0x3f, size_of::<Api>());
const IOCTL_REGISTER: u64 = iowr(0x00, size_of::<Register>());
const IOCTL_COPY: u64 = iowr(0x03, size_of::<Copy>());
const IOCTL_WRITE_PROTECT: u64 = iowr(0x06, size_of::<WriteProtect>());

/// The accesses that stall.
enum Stalls {
    /// Any access, with the later content of the page.
    Access(Pages),
    /// Writing.
    Write,
}

/// A page that stalls its first reader or writer.
pub struct StallingPage {
    pages: Pages,
    uffd: OwnedFd,
    stalls: Stalls,
}

impl StallingPage {
    /// Returns a page that stalls any access, and turns out to begin with `content`. Needs root, or
    /// `vm.unprivileged_userfaultfd`.
    pub fn new(content: &[u8]) -> Self {
        let source = Pages::new(1);
        source.poke(0, content);
        Self::register(Pages::new(1), MODE_MISSING, Stalls::Access(source))
    }

    /// Returns a page that begins with `content`, and stalls when it is written to.
    pub fn on_write(content: &[u8]) -> Self {
        let pages = Pages::new(1);
        pages.poke(0, content);
        let page = Self::register(pages, MODE_WRITE_PROTECT, Stalls::Write);
        page.protect(PROTECT);
        page
    }

    fn register(pages: Pages, mode: u64, stalls: Stalls) -> Self {
        // SAFETY: the system call makes a descriptor that is known only here.
        let uffd = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK);
            assert!(fd >= 0, "userfaultfd: {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd as i32)
        };
        let page = Self {
            pages,
            uffd,
            stalls,
        };
        let features = if mode == MODE_WRITE_PROTECT {
            FEATURE_WRITE_PROTECT
        } else {
            0
        };
        page.ioctl(
            IOCTL_API,
            &mut Api {
                api: API,
                features,
                ioctls: 0,
            },
        );
        page.ioctl(
            IOCTL_REGISTER,
            &mut Register {
                range: page.range(),
                mode,
                ioctls: 0,
            },
        );
        page
    }

    fn range(&self) -> Range {
        Range {
            start: self.pages.addr(0),
            len: PAGE as u64,
        }
    }

    fn ioctl<T>(&self, cmd: u64, arg: &mut T) {
        // SAFETY: every command here takes the structure that it is called with, and writes only to
        // the structure and the page.
        let result = unsafe { libc::ioctl(self.uffd.as_raw_fd(), cmd as _, arg) };
        assert_eq!(
            result,
            0,
            "userfaultfd: {}",
            std::io::Error::last_os_error()
        );
    }

    fn protect(&self, mode: u64) {
        self.ioctl(
            IOCTL_WRITE_PROTECT,
            &mut WriteProtect {
                range: self.range(),
                mode,
            },
        );
    }

    /// Address of the byte at `at`.
    pub fn addr(&self, at: usize) -> u64 {
        self.pages.addr(at)
    }

    /// Waits until a task is stalled.
    pub fn wait_for_fault(&self) {
        let limit = Timespec::try_from(Duration::from_secs(30)).expect("a small number");
        let mut fds = [PollFd::from_borrowed_fd(self.uffd.as_fd(), PollFlags::IN)];
        let n = poll(&mut fds, Some(&limit)).expect("poll failed");
        assert_eq!(n, 1, "nobody touched the stalling page within 30 s");
    }

    /// Lets the access through.
    pub fn resume(&self) {
        match &self.stalls {
            Stalls::Access(source) => {
                let (dst, src) = (self.addr(0), source.addr(0));
                self.ioctl(
                    IOCTL_COPY,
                    &mut Copy {
                        dst,
                        src,
                        len: PAGE as u64,
                        mode: 0,
                        copied: 0,
                    },
                );
            }
            Stalls::Write => self.protect(0),
        }
    }

    /// Reads `len` bytes at `at`; only after [`StallingPage::resume`].
    pub fn peek(&self, at: usize, len: usize) -> Vec<u8> {
        self.pages.peek(at, len)
    }
}
