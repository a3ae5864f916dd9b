// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that is bad on purpose, and memory shared by processes.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{mmap_anonymous, mprotect, munmap, MapFlags, MprotectFlags, ProtFlags};

/// Size of a page on every machine that the suite runs on.
pub const PAGE: usize = 4096;

/// An address that no process can map.
pub const NOWHERE: u64 = 0x10;

/// Anonymous pages of our own.
pub struct Pages {
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: the pages are owned by the value, and all access goes through methods that copy bytes.
unsafe impl Send for Pages {}
// SAFETY: shared access only reads bytes, or is volatile (`poke`), or by atomics (`words`).
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `n` zeroed pages that can be read and written, private to this process.
    pub fn new(n: usize) -> Self {
        Self::map(n, MapFlags::PRIVATE)
    }

    /// Maps `n` zeroed pages that child processes share with this one.
    pub fn shared(n: usize) -> Self {
        Self::map(n, MapFlags::SHARED)
    }

    fn map(n: usize, flags: MapFlags) -> Self {
        let len = n * PAGE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, flags) };
        let base = NonNull::new(base.expect("no memory for the test")).expect("mmap returned null");
        Self { base, len }
    }

    /// Address of the byte at `at`; may be the one past the end.
    pub fn addr(&self, at: usize) -> u64 {
        assert!(at <= self.len);
        self.base.as_ptr().expose_provenance() as u64 + at as u64
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are no pages.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores `bytes` at `at`; other threads and the bus may read at the same time.
    pub fn poke(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len);
        let base = self.base.as_ptr().cast::<u8>();
        for (i, &byte) in bytes.iter().enumerate() {
            // SAFETY: in bounds by the assertion; the pages live as long as `self`.
            unsafe { base.add(at + i).write_volatile(byte) };
        }
    }

    /// Reads `len` bytes at `at`.
    pub fn peek(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= self.len);
        let base = self.base.as_ptr().cast::<u8>();
        // SAFETY: in bounds by the assertion; volatile, because the bus may have written.
        (at..at + len)
            .map(|i| unsafe { base.add(i).read_volatile() })
            .collect()
    }

    /// Returns the pages as atomic words, to be shared by processes.
    pub fn words(&self) -> &[AtomicU64] {
        let words = self.len / size_of::<AtomicU64>();
        // SAFETY: the pages are mapped, zeroed, page-aligned and live as long as `self`; users
        // of `words` use no other access to these pages.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), words) }
    }

    /// Changes the allowed accesses to the pages from byte `from` on; empty flags allow none.
    fn protect(&self, from: usize, flags: MprotectFlags) {
        assert!(from.is_multiple_of(PAGE) && from <= self.len);
        // SAFETY: our own pages; Rust refers to them only by `peek` and `poke`, which the
        // caller does not use on forbidden ones.
        unsafe {
            let start = self.base.as_ptr().cast::<u8>().add(from);
            mprotect(start.cast(), self.len - from, flags).expect("mprotect failed");
        }
    }

    /// Makes the pages from byte `from` on inaccessible.
    pub fn forbid(&self, from: usize) {
        self.protect(from, MprotectFlags::empty());
    }

    /// Makes all pages read-only.
    pub fn freeze(&self) {
        self.protect(0, MprotectFlags::READ);
    }

    /// Makes all pages writable again.
    pub fn thaw(&self) {
        self.protect(0, MprotectFlags::READ | MprotectFlags::WRITE);
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        let _ = unsafe { munmap(self.base.as_ptr(), self.len) };
    }
}

/// Returns a page that holds `bytes` and cannot be written: the bus can read from it, and a write
/// to it is EFAULT.
pub fn read_only(bytes: &[u8]) -> Pages {
    let pages = Pages::new(1);
    pages.poke(0, bytes);
    pages.freeze();
    pages
}

/// Returns a page that holds `bytes` at its very end, followed by nothing: returns it with the
/// address of the first byte.
pub fn before_hole(bytes: &[u8]) -> (Pages, u64) {
    let pages = Pages::new(2);
    let at = PAGE - bytes.len();
    pages.poke(at, bytes);
    pages.forbid(PAGE);
    let addr = pages.addr(at);
    (pages, addr)
}
