// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory of one peer's pool, and the owner's view of it.
//!
//! It is shared memory of the system, mapped twice: writable for the core, read-only for the
//! owner. Nothing is mapped before the first message or the first look, so an idle peer costs
//! neither memory nor address space. It goes with the last of the peer, its messages and its
//! [`Map`]s.
//!
//! Invariant: no reference to pool memory is made here, since others may write at the same time.
//! The core hands out each range once, so two writers never meet; a reader may meet a writer
//! wherever it looks beyond its slices, and reads by volatile operations.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;

use bus1_core::bus;
use kernel::error::{code::*, Error, Result};
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use once_cell::sync::OnceCell;
use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use rustix::io::Errno;
use rustix::process::{getrlimit, Resource};

use crate::error::to_core;
use crate::residency::Residency;

/// Bytes of address space of a pool: 4 GiB, where two of them fit.
const SIZE: usize = if usize::BITS == 64 {
    1 << (usize::BITS / 2)
} else {
    64 << 20
};

/// The memory of a pool and its two mappings.
struct Mapped {
    writable: MmapRaw,
    readable: MmapRaw,
    residency: Residency,
}

impl Mapped {
    fn new() -> io::Result<Self> {
        // The system would send SIGXFSZ.
        if getrlimit(Resource::Fsize)
            .current
            .is_some_and(|most| most < SIZE as u64)
        {
            return Err(Errno::FBIG.into());
        }
        let file = File::from(memfd_create("bus1-pool", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, SIZE as u64)?;
        // Opened anew, for reading only, so that nobody can make the owner's mapping writable.
        // Without procfs it is read-only as long as nobody does.
        let reader = File::open(format!("/proc/thread-self/fd/{}", file.as_raw_fd()));
        let mut options = MmapOptions::new();
        options.len(SIZE).no_reserve_swap();
        Ok(Self {
            readable: options.map_raw_read_only(reader.as_ref().unwrap_or(&file))?,
            writable: options.map_raw(&file)?,
            residency: Residency::new(SIZE as u64),
        })
    }

    fn pin(&self, range: Range<u64>) -> Result {
        self.residency.pin(range, |range| {
            let made = self.writable.advise_range(
                Advice::PopulateWrite,
                range.start as usize,
                (range.end - range.start) as usize,
            );
            match made {
                // Before Linux 5.14 memory cannot be asked for; it comes with the first access.
                Err(error) if Errno::from_io_error(&error) != Some(Errno::INVAL) => Err(ENOMEM),
                _ => Ok(()),
            }
        })
    }

    fn unpin(&self, range: Range<u64>) {
        self.residency.unpin(range, |range| {
            // SAFETY: these bytes turn into zeros, under raw pointers only; nothing needs them.
            let given = unsafe {
                self.writable.unchecked_advise_range(
                    UncheckedAdvice::Remove,
                    range.start as usize,
                    (range.end - range.start) as usize,
                )
            };
            // Memory that cannot be given back now goes with the pool.
            let _ = given;
        });
    }
}

/// Returns the errno of memory that could not be made: ENOMEM, except where the process has no
/// descriptor left or may not have files of this size. The system's own may mean something else in
/// a command: at the limit on locked memory mmap(2) fails with EAGAIN.
fn failure(error: &io::Error) -> Error {
    match Errno::from_io_error(error) {
        Some(errno @ (Errno::MFILE | Errno::NFILE | Errno::FBIG)) => to_core(errno),
        _ => ENOMEM,
    }
}

/// The memory of a pool; a clone is another reference to the same memory.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    mapped: OnceCell<Mapped>,
    /// Charges that outlive the peer, until the last reference is dropped.
    kept: OnceCell<bus::KeptCharges>,
}

/// A range of a pool that is mapped and inside its bounds.
pub(crate) struct Span<'a> {
    start: *mut u8,
    len: usize,
    _pool: PhantomData<&'a Pool>,
}

impl Span<'_> {
    /// Returns the address of its start. All of it may be accessed as long as the span lives.
    pub(crate) fn as_mut_ptr(&self) -> *mut u8 {
        self.start
    }

    /// Returns its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Pool {
    /// Makes a pool without memory.
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    fn mapped(&self) -> Result<&Mapped> {
        self.0
            .mapped
            .get_or_try_init(|| Mapped::new().map_err(|error| failure(&error)))
    }

    /// Returns the range of `len` bytes at `offset`, which is pinned.
    ///
    /// # Panics
    ///
    /// Panics if the range is not in the pool, or nothing is pinned: the core never asks for that.
    pub(crate) fn span(&self, offset: u64, len: u64) -> Span<'_> {
        let mapped = self
            .0
            .mapped
            .get()
            .expect("a range is pinned before it is used");
        let Range { start, end } = range(offset, len).expect("a range lies inside its pool");
        Span {
            // The offset is inside the mapping, so there is no overflow.
            start: mapped.writable.as_mut_ptr().wrapping_add(start as usize),
            len: (end - start) as usize,
            _pool: PhantomData,
        }
    }
}

/// Returns the range of `len` bytes at `offset`. EINVAL if it is not inside a pool.
fn range(offset: u64, len: u64) -> Result<Range<u64>> {
    match offset.checked_add(len) {
        Some(end) if end <= SIZE as u64 => Ok(offset..end),
        _ => Err(EINVAL),
    }
}

impl bus::Pool for Pool {
    const SIZE: u64 = SIZE as u64;

    fn keep(&self, kept: bus::KeptCharges) {
        let first = self.0.kept.set(kept);
        debug_assert!(first.is_ok(), "charges are kept once");
    }

    fn pin(&self, offset: u64, len: u64) -> Result {
        let range = range(offset, len)?;
        let mapped = self.mapped()?;
        if range.is_empty() {
            return Ok(());
        }
        mapped.pin(range)
    }

    fn unpin(&self, offset: u64, len: u64) {
        if let (Some(mapped), Ok(range)) = (self.0.mapped.get(), range(offset, len)) {
            if !range.is_empty() {
                mapped.unpin(range);
            }
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let span = self.span(offset, bytes.len() as u64);
        // SAFETY: the span is as long as `bytes`, and no other thread writes there.
        unsafe { ptr::copy(bytes.as_ptr(), span.as_mut_ptr(), span.len()) };
    }

    fn copy(&self, offset: u64, len: u64, to: &Self, to_offset: u64) {
        let from = self.span(offset, len);
        let to = to.span(to_offset, len);
        // SAFETY: both spans have this length; no other thread writes to the second. They may be in
        // one pool.
        unsafe { ptr::copy(from.as_mut_ptr(), to.as_mut_ptr(), from.len()) };
    }
}

/// The owner's view of a pool: [`Map::len`] bytes of memory that can only be read.
///
/// It stands for the mapping that `mmap(2)` gives on the device. It outlives the peer, and does not
/// keep it connected. A slice stays as it is from RECV to SLICE_RELEASE; all other bytes change at
/// any time.
#[derive(Clone)]
pub struct Map(Pool);

impl Map {
    pub(crate) fn new(pool: Pool) -> Result<Self> {
        pool.mapped()?;
        Ok(Self(pool))
    }

    fn readable(&self) -> &MmapRaw {
        // It was mapped when the view was made.
        &self
            .0
             .0
            .mapped
            .get()
            .expect("a view is of mapped memory")
            .readable
    }

    /// Returns the address of offset 0. Reading beyond the slices that were received is allowed,
    /// and gives zeros or old bytes of this pool, which may change at the same time: such bytes
    /// must be read by volatile or atomic operations.
    pub fn as_ptr(&self) -> *const u8 {
        self.readable().as_ptr()
    }

    /// Returns the size of the address space in bytes: 4 GiB on 64-bit machines, otherwise 64 MiB.
    #[allow(clippy::len_without_is_empty)] // It never is.
    pub fn len(&self) -> usize {
        SIZE
    }

    /// Copies `to.len()` bytes at `offset`. Returns false, and copies nothing, if they are not all
    /// in the pool.
    ///
    /// Bytes that belong to no received slice may change while they are copied; then `to` may get
    /// some from before and some from after a change.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> bool {
        let Ok(range) = range(offset, to.len() as u64) else {
            return false;
        };
        // The range is inside the mapping, so there is no overflow.
        let from = self.as_ptr().wrapping_add(range.start as usize);
        // SAFETY: the range is inside the read-only mapping, which lives as long as `self`. Nothing
        // in the program writes to it, or refers to it.
        unsafe { copy_volatile(from, to) };
        true
    }
}

/// Fills `to` with memory that may change at the same time: each word, or byte at the ends, is read
/// once.
///
/// # Safety
///
/// `to.len()` bytes at `from` are mapped. They are no memory of an object of the program: what
/// changes them writes to the same pages by another mapping, so here they change like memory that
/// is shared with another process.
unsafe fn copy_volatile(from: *const u8, to: &mut [u8]) {
    const WORD: usize = size_of::<usize>();
    let ahead = from.align_offset(WORD).min(to.len());
    let (head, rest) = to.split_at_mut(ahead);
    for (i, byte) in head.iter_mut().enumerate() {
        // SAFETY: it is among the bytes that the caller vouched for.
        *byte = unsafe { from.add(i).read_volatile() };
    }
    let from = from.wrapping_add(ahead);
    let mut words = rest.chunks_exact_mut(WORD);
    let mut at = from;
    for word in &mut words {
        // SAFETY: the word is among the bytes that the caller vouched for, and aligned, since
        // `from` is now.
        let bytes = unsafe { at.cast::<usize>().read_volatile() };
        word.copy_from_slice(&bytes.to_ne_bytes());
        at = at.wrapping_add(WORD);
    }
    for (i, byte) in words.into_remainder().iter_mut().enumerate() {
        // SAFETY: it is among the bytes that the caller vouched for.
        *byte = unsafe { at.add(i).read_volatile() };
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map")
            .field("start", &self.as_ptr())
            .field("len", &self.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::bus::Pool as _;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn read(pool: &Pool, offset: u64, len: usize) -> Vec<u8> {
        let mut to = vec![0xee; len];
        assert!(Map::new(pool.clone()).unwrap().read(offset, &mut to));
        to
    }

    #[test]
    fn written_bytes_are_read_through_the_other_mapping() {
        let pool = Pool::new();
        pool.pin(8, 16).unwrap();
        pool.write(8, b"sixteen bytes...");
        assert_eq!(read(&pool, 8, 16), b"sixteen bytes...");
        assert_eq!(read(&pool, 24, 8), [0; 8]);

        let other = Pool::new();
        other.pin(1 << 31, 16).unwrap();
        pool.copy(8, 16, &other, 1 << 31);
        assert_eq!(read(&other, 1 << 31, 16), b"sixteen bytes...");
    }

    #[test]
    fn every_alignment_is_copied_exactly() {
        let pool = Pool::new();
        let bytes: Vec<u8> = (1..=64).collect();
        pool.pin(0, 64).unwrap();
        pool.write(0, &bytes);
        for start in 0..17 {
            for end in start..=64 {
                assert_eq!(read(&pool, start as u64, end - start), bytes[start..end]);
            }
        }
    }

    #[test]
    fn released_memory_comes_back_as_zeros() {
        let pool = Pool::new();
        pool.pin(64 * MIB, 8 * MIB).unwrap();
        pool.write(64 * MIB, &vec![0xaa; 8 << 20]);
        pool.unpin(64 * MIB, 8 * MIB);
        assert_eq!(read(&pool, 64 * MIB, 8 << 20), vec![0; 8 << 20]);
        pool.pin(64 * MIB, 8 * MIB).unwrap();
        assert_eq!(read(&pool, 64 * MIB, 8 << 20), vec![0; 8 << 20]);
    }

    #[test]
    fn memory_that_cannot_be_made_is_enomem_or_a_limit_of_files() {
        for errno in [Errno::AGAIN, Errno::NOMEM, Errno::PERM, Errno::NOSYS] {
            assert_eq!(failure(&errno.into()), ENOMEM, "{errno:?}");
        }
        assert_eq!(failure(&io::Error::other("no errno")), ENOMEM);
        for errno in [Errno::MFILE, Errno::NFILE, Errno::FBIG] {
            assert_eq!(failure(&errno.into()), to_core(errno), "{errno:?}");
        }
    }

    #[test]
    fn bounds_are_checked() {
        let pool = Pool::new();
        assert_eq!(pool.pin(Pool::SIZE - 8, 16), Err(EINVAL));
        assert_eq!(pool.pin(u64::MAX - 7, 16), Err(EINVAL));
        pool.pin(Pool::SIZE - 8, 8).unwrap();
        let map = Map::new(pool).unwrap();
        assert!(map.read(Pool::SIZE - 8, &mut [0; 8]));
        assert!(!map.read(Pool::SIZE - 8, &mut [0; 9]));
        assert!(!map.read(u64::MAX, &mut [0; 1]));
    }

    #[test]
    fn the_view_cannot_be_made_writable() {
        let map = Map::new(Pool::new()).unwrap();
        // SAFETY: nothing except this test refers to the mapping, and protection only changes
        // what may be done with it.
        let outcome = unsafe {
            rustix::mm::mprotect(
                map.as_ptr().cast_mut().cast(),
                4096,
                rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE,
            )
        };
        assert_eq!(outcome, Err(Errno::ACCESS));
    }
}
