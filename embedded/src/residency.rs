// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parts of a pool that have memory, and those of them that are in use.
//!
//! Memory is made in granules before it is written, so that a system without memory reports an
//! error and not a signal. It is given back in chunks that nothing pins. To make it again is
//! expensive, so the lowest chunks keep theirs: those below [`KEPT`] always (their pins are not
//! even counted), and as many more, up to [`KEPT_MOST`], as were seen to be given back and needed
//! again.
//!
//! # Concurrency
//!
//! `pins` of a chunk counts, and carries [`LEAVING`] while its memory is given back. The bit is
//! set only on a count of 0 and only under `leaving`; a pin that meets it waits for that lock, and
//! then finds the granules missing. Lock: `leaving` only, held across the system call.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use once_cell::sync::OnceCell;
use parking_lot::Mutex;

/// The unit in which memory is made.
const GRANULE: u64 = 16 << 10;
/// The unit in which memory is given back: a word of granules.
const CHUNK: u64 = GRANULE * u64::BITS as u64;
/// Chunks whose counts are made together.
const SEGMENT: u64 = 64;
/// The offset below which memory is never given back.
const KEPT: u64 = 4 << 20;
/// The offset from which memory is given back in any case.
const KEPT_MOST: u64 = 64 << 20;

/// Flag of [`Chunk::pins`].
const LEAVING: u32 = 1 << 31;

#[derive(Default)]
struct Chunk {
    /// The granules that have memory, by bit.
    resident: AtomicU64,
    /// The number of pins, and [`LEAVING`].
    pins: AtomicU32,
    /// True if memory was ever given back.
    left: AtomicBool,
}

/// The memory of one pool. Ranges are in bytes and not empty.
pub(crate) struct Residency {
    /// Made for parts of the address space that are used, and kept from then on.
    segments: Box<[OnceCell<Box<[Chunk]>>]>,
    /// The offset below which chunks keep their memory. It only grows.
    kept: AtomicU64,
    leaving: Mutex<()>,
}

impl Residency {
    /// Makes the state of a pool of `size` bytes, none of which have memory.
    pub(crate) fn new(size: u64) -> Self {
        Self {
            segments: (0..size.div_ceil(CHUNK * SEGMENT))
                .map(|_| OnceCell::new())
                .collect(),
            kept: AtomicU64::new(KEPT),
            leaving: Mutex::new(()),
        }
    }

    fn chunk(&self, number: u64) -> &Chunk {
        let segment = self.segments[(number / SEGMENT) as usize]
            .get_or_init(|| (0..SEGMENT).map(|_| Chunk::default()).collect());
        &segment[(number % SEGMENT) as usize]
    }

    /// Returns the chunks that a range touches.
    fn chunks(range: &Range<u64>) -> Range<u64> {
        range.start / CHUNK..range.end.div_ceil(CHUNK)
    }

    /// Returns the chunks of a range whose pins are counted.
    fn counted(range: &Range<u64>) -> Range<u64> {
        (range.start.max(KEPT) / CHUNK)..range.end.max(KEPT).div_ceil(CHUNK)
    }

    /// Keeps the memory of a range until it is unpinned. If there is none, calls `make` for a range
    /// that covers all that is missing.
    ///
    /// # Errors
    ///
    /// The errors of `make`; then nothing was pinned.
    pub(crate) fn pin<E>(
        &self,
        range: Range<u64>,
        make: impl FnOnce(Range<u64>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.count_up(&range);
        let Some(missing) = self.missing(&range) else {
            return Ok(());
        };
        if let Err(error) = make(missing) {
            self.count_down(&range);
            return Err(error);
        }
        for number in Self::chunks(&range) {
            let made = granules(number * CHUNK, &range);
            self.chunk(number).resident.fetch_or(made, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Undoes one pin of the range, and calls `give_back` for memory that nothing pins any more.
    pub(crate) fn unpin(&self, range: Range<u64>, give_back: impl FnMut(Range<u64>)) {
        if let Some(idle) = self.count_down(&range) {
            self.give_back(idle, give_back);
        }
    }

    /// Counts a pin of each chunk, after which none of them leaves.
    fn count_up(&self, range: &Range<u64>) {
        for number in Self::counted(range) {
            // Acquire: sees the granules cleared by the thread that gave them back last.
            let before = self.chunk(number).pins.fetch_add(1, Ordering::AcqRel);
            if before & LEAVING != 0 {
                // It is left once the lock is free.
                drop(self.leaving.lock());
            }
        }
    }

    /// Takes one pin off each chunk. Returns a range of chunks that has all whose last pin it was.
    fn count_down(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let mut idle: Option<Range<u64>> = None;
        for number in Self::counted(range) {
            if self.chunk(number).pins.fetch_sub(1, Ordering::AcqRel) == 1 {
                idle = Some(idle.map_or(number, |idle| idle.start)..number + 1);
            }
        }
        idle
    }

    /// Returns a range that covers the granules of a pinned range that have no memory. Chunks that
    /// had memory before, and need it again, keep it from now on.
    fn missing(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let mut missing: Option<Range<u64>> = None;
        for number in Self::chunks(range) {
            let start = number * CHUNK;
            let wanted = granules(start, range);
            let lacking = wanted & !self.chunk(number).resident.load(Ordering::Acquire);
            if lacking == 0 {
                continue;
            }
            if self.chunk(number).left.load(Ordering::Relaxed) {
                let end = (start + CHUNK).min(KEPT_MOST);
                self.kept.fetch_max(end, Ordering::Relaxed);
            }
            let first = start + u64::from(lacking.trailing_zeros()) * GRANULE;
            let end = start + CHUNK - u64::from(lacking.leading_zeros()) * GRANULE;
            missing = Some(missing.map_or(first, |missing| missing.start)..end);
        }
        missing
    }

    /// Gives back the memory of those chunks among `idle` that no thread pinned in the meantime.
    fn give_back(&self, idle: Range<u64>, mut give_back: impl FnMut(Range<u64>)) {
        let _leaving = self.leaving.lock();
        let mut next = idle.start;
        while next < idle.end {
            // A run of chunks.
            let start = next;
            while next < idle.end && self.leave(next) {
                next += 1;
            }
            if start == next {
                next += 1;
                continue;
            }
            give_back(start * CHUNK..next * CHUNK);
            for number in start..next {
                self.chunk(number)
                    .pins
                    .fetch_and(!LEAVING, Ordering::AcqRel);
            }
        }
    }

    /// Marks a chunk as leaving, unless it is pinned, has no memory, or keeps it. Returns whether
    /// it did. The caller holds `leaving`.
    fn leave(&self, number: u64) -> bool {
        if number * CHUNK < self.kept.load(Ordering::Relaxed) {
            return false;
        }
        let chunk = self.chunk(number);
        let free = chunk
            .pins
            .compare_exchange(0, LEAVING, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if free && chunk.resident.swap(0, Ordering::AcqRel) == 0 {
            chunk.pins.fetch_and(!LEAVING, Ordering::AcqRel);
            return false;
        }
        if free {
            chunk.left.store(true, Ordering::Relaxed);
        }
        free
    }
}

/// Returns the granules of the chunk at `start` that a range touches, by bit.
fn granules(start: u64, range: &Range<u64>) -> u64 {
    let first = (range.start.max(start) - start) / GRANULE;
    let end = (range.end.min(start + CHUNK) - start).div_ceil(GRANULE);
    (u64::MAX >> (u64::from(u64::BITS) - (end - first))) << first
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins, and reports the range that had to be made.
    fn pin(books: &Residency, range: Range<u64>) -> Option<Range<u64>> {
        let mut made = None;
        let result: Result<(), ()> = books.pin(range, |range| {
            made = Some(range);
            Ok(())
        });
        result.unwrap();
        made
    }

    /// Unpins, and reports the start and the end of each range that was given back.
    fn unpin(books: &Residency, range: Range<u64>) -> Vec<(u64, u64)> {
        let mut given = Vec::new();
        books.unpin(range, |range| given.push((range.start, range.end)));
        given
    }

    #[test]
    fn memory_is_made_once_in_whole_granules() {
        let books = Residency::new(4 << 30);
        assert_eq!(pin(&books, 8..16), Some(0..GRANULE));
        assert_eq!(pin(&books, 16..GRANULE), None);
        assert_eq!(pin(&books, 0..GRANULE + 1), Some(GRANULE..2 * GRANULE));
        assert_eq!(
            pin(&books, 3 * CHUNK - 8..3 * CHUNK + 8),
            Some(3 * CHUNK - GRANULE..3 * CHUNK + GRANULE)
        );
        assert_eq!(pin(&books, CHUNK..2 * CHUNK), Some(CHUNK..2 * CHUNK));
        let end = 4 << 30;
        assert_eq!(pin(&books, end - 8..end), Some(end - GRANULE..end));
    }

    #[test]
    fn the_lowest_memory_stays() {
        let books = Residency::new(4 << 30);
        pin(&books, 0..KEPT);
        assert_eq!(unpin(&books, 0..KEPT), []);
        assert_eq!(pin(&books, 0..KEPT), None);
    }

    #[test]
    fn the_last_pin_gives_a_chunk_back() {
        let books = Residency::new(4 << 30);
        pin(&books, KEPT - 8..KEPT + 3 * CHUNK);
        assert_eq!(pin(&books, KEPT + CHUNK..KEPT + CHUNK + 8), None);
        assert_eq!(
            unpin(&books, KEPT - 8..KEPT + 3 * CHUNK),
            [(KEPT, KEPT + CHUNK), (KEPT + 2 * CHUNK, KEPT + 3 * CHUNK)]
        );
        assert_eq!(
            unpin(&books, KEPT + CHUNK..KEPT + CHUNK + 8),
            [(KEPT + CHUNK, KEPT + 2 * CHUNK)]
        );
        assert_eq!(pin(&books, KEPT..KEPT + 8), Some(KEPT..KEPT + GRANULE));
    }

    #[test]
    fn memory_that_is_needed_again_stays() {
        let books = Residency::new(4 << 30);
        let often = KEPT..KEPT + 2 * CHUNK;
        pin(&books, often.clone());
        assert_eq!(unpin(&books, often.clone()), [(often.start, often.end)]);
        assert_eq!(pin(&books, often.clone()), Some(often.clone()));
        assert_eq!(unpin(&books, often.clone()), []);
        assert_eq!(pin(&books, often), None);

        let high = KEPT_MOST..KEPT_MOST + CHUNK;
        for _ in 0..2 {
            pin(&books, high.clone());
            assert_eq!(unpin(&books, high.clone()), [(high.start, high.end)]);
        }
    }

    #[test]
    fn a_failure_leaves_nothing_pinned() {
        let books = Residency::new(4 << 30);
        assert_eq!(books.pin(KEPT..KEPT + 8, |_| Err(7)), Err(7));
        assert_eq!(pin(&books, KEPT..KEPT + 8), Some(KEPT..KEPT + GRANULE));
        assert_eq!(unpin(&books, KEPT..KEPT + 8), [(KEPT, KEPT + CHUNK)]);
    }

    #[test]
    fn threads_that_pin_never_lose_memory() {
        // The granules of one chunk that have memory, as the system would know it.
        let memory = AtomicU64::new(0);
        let books = Residency::new(4 << 30);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (memory, books) = (&memory, &books);
                scope.spawn(move || {
                    let start = KEPT_MOST + thread * GRANULE;
                    let range = start..start + GRANULE;
                    let bit = granules(KEPT_MOST, &range);
                    for _ in 0..20_000 {
                        let made: Result<(), ()> = books.pin(range.clone(), |made| {
                            memory.fetch_or(granules(KEPT_MOST, &made), Ordering::SeqCst);
                            Ok(())
                        });
                        made.unwrap();
                        assert_ne!(memory.load(Ordering::SeqCst) & bit, 0);
                        books.unpin(range.clone(), |_| memory.store(0, Ordering::SeqCst));
                    }
                });
            }
        });
        assert_eq!(memory.load(Ordering::SeqCst), 0);
    }
}
