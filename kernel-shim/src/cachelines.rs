// SPDX-License-Identifier: MIT OR Apache-2.0

//! Records the cache lines that a thread writes, so a test can show that two
//! threads have none in common. Only with the feature `cachelines`; without it
//! the calls are nothing.
//!
//! Seen are the words of locks that are taken, data of locks and of `LockedBy`
//! that is borrowed to be changed, reference counts that go up or down, and
//! atomics that are written. Not seen is the memory that such data owns (nodes
//! of trees, elements of vectors), which only the holder of its lock changes,
//! and new memory, which no other thread knows yet.

/// Bytes of a cache line.
#[cfg(feature = "cachelines")]
const LINE: usize = 64;

#[cfg(feature = "cachelines")]
mod state {
    use core::cell::RefCell;

    std::thread_local! {
        /// The lines of the recording under way.
        pub(super) static WRITTEN: RefCell<Option<super::Lines>> = const { RefCell::new(None) };
    }
}

/// The cache lines that a thread wrote, each with the type that was first written there.
#[cfg(feature = "cachelines")]
#[derive(Debug, Default)]
pub struct Lines(std::collections::BTreeMap<usize, &'static str>);

#[cfg(feature = "cachelines")]
impl Lines {
    /// Returns the types in lines that both wrote, as the one and as the other names them.
    pub fn common(&self, other: &Self) -> std::vec::Vec<(&'static str, &'static str)> {
        let both = self.0.iter().filter_map(|(line, what)| {
            let others = other.0.get(line)?;
            Some((*what, *others))
        });
        both.collect()
    }

    /// Returns the names of all types that were written.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.values().copied()
    }
}

/// Runs `run`, and returns its result and the lines that this thread wrote meanwhile.
///
/// # Panics
///
/// Panics inside another `record`.
///
/// # Examples
///
/// ```
/// use kernel_shim::{cachelines::record, prelude::*, sync::Arc};
///
/// let (shared, own) = (Arc::new(1, GFP_KERNEL)?, Arc::new([0; 32], GFP_KERNEL)?);
/// let ((), lines) = record(|| drop(shared.clone()));
/// let ((), same) = record(|| drop(shared.clone()));
/// assert_eq!(lines.common(&same).len(), 1);
/// # drop(own);
/// # Ok::<(), Error>(())
/// ```
#[cfg(feature = "cachelines")]
pub fn record<R>(run: impl FnOnce() -> R) -> (R, Lines) {
    let before = state::WRITTEN.replace(Some(Lines::default()));
    assert!(before.is_none(), "a recording is under way");
    let result = run();
    (result, state::WRITTEN.take().unwrap_or_default())
}

/// Notes a write to `at`, which is part of a `T`.
#[inline]
pub(crate) fn wrote<T: ?Sized, W: ?Sized>(at: &W) {
    // A thread that ends drops values after its recording is gone.
    #[cfg(feature = "cachelines")]
    let _ = state::WRITTEN.try_with(|written| {
        if let Some(lines) = written.borrow_mut().as_mut() {
            let first = core::ptr::from_ref(at).addr();
            let last = first + size_of_val(at).max(1) - 1;
            for line in first / LINE..=last / LINE {
                lines.0.entry(line).or_insert(core::any::type_name::<T>());
            }
        }
    });
    #[cfg(not(feature = "cachelines"))]
    let _ = (at, core::marker::PhantomData::<T>);
}

#[cfg(all(test, feature = "cachelines", not(loom)))]
mod tests {
    use super::*;
    use crate::{
        new_mutex, new_spinlock,
        prelude::*,
        sync::{
            atomic::{Atomic, Full, Relaxed},
            Arc, LockedBy, Mutex, SpinLock,
        },
    };

    /// Checks that `write` writes to `what`, in every run.
    #[track_caller]
    fn writes<R>(what: &str, write: impl Fn() -> R) {
        let (_, one) = record(&write);
        let (_, two) = record(&write);
        let common = one.common(&two);
        assert!(
            common.iter().any(|(name, _)| name.contains(what)),
            "{common:?} has no {what}"
        );
    }

    #[test]
    fn locks_are_seen_with_the_data_that_is_changed() {
        let spin: Arc<SpinLock<[u64; 100]>> =
            Arc::pin_init(new_spinlock!([0; 100]), GFP_KERNEL).unwrap();
        writes("SpinLock", || drop(spin.lock()));
        writes("SpinLock", || drop(spin.try_lock()));
        let (_, looked) = record(|| spin.lock()[99]);
        let (_, changed) = record(|| spin.lock()[99] = 1);
        assert!(looked.0.len() <= 2, "{looked:?}");
        assert!(changed.0.len() >= 100 * 8 / LINE, "{changed:?}");

        let mutex: Arc<Mutex<u32>> = Arc::pin_init(new_mutex!(0), GFP_KERNEL).unwrap();
        let apart = std::boxed::Box::new(LockedBy::new(&mutex, 5));
        writes("Mutex", || drop(mutex.lock()));
        writes("LockedBy", || *apart.access_mut(&mut *mutex.lock()) += 1);
    }

    #[test]
    fn counts_are_seen_in_both_directions() {
        let arc = Arc::new(1_u16, GFP_KERNEL).unwrap();
        let mut more = None;
        let (_, up) = record(|| more = Some(arc.clone()));
        let (_, down) = record(|| drop(more));
        assert_eq!(up.common(&down), [("u16", "u16")]);
        let (_, read) = record(|| *arc);
        assert!(read.0.is_empty(), "{read:?}");
    }

    #[test]
    fn atomics_are_seen_when_they_are_written() {
        let word = Atomic::new(0_u64);
        writes("Atomic", || word.store(1, Relaxed));
        writes("Atomic", || word.xchg(2, Full));
        writes("Atomic", || word.cmpxchg(7, 8, Relaxed));
        writes("Atomic", || word.add(1_u64, Relaxed));
        writes("Atomic", || word.fetch_sub(1_u64, Relaxed));
        let (_, read) = record(|| word.load(Relaxed));
        assert!(read.0.is_empty(), "{read:?}");
    }

    #[test]
    fn a_thread_that_ends_writes_after_its_recording_is_gone() {
        std::thread_local! {
            static AT_END: core::cell::RefCell<Option<Arc<u8>>> =
                const { core::cell::RefCell::new(None) };
        }
        let arc = Arc::new(1_u8, GFP_KERNEL).unwrap();
        let shared = arc.clone();
        // Thread-locals are destroyed in the reverse order of their first use.
        let thread = std::thread::spawn(move || {
            AT_END.set(Some(shared));
            record(|| ());
        });
        // A panic of a destructor would have aborted the process.
        thread.join().unwrap();
        assert!(Arc::into_unique_or_drop(arc).is_some());
    }

    #[test]
    fn other_threads_and_other_times_are_not_seen() {
        let word = Atomic::new(0_u64);
        let write = || word.store(1, Relaxed);
        write();
        let ((), lines) = record(|| {
            std::thread::scope(|scope| {
                let _ = scope.spawn(write).join();
            });
        });
        write();
        assert!(
            !lines.names().any(|name| name.contains("Atomic")),
            "{lines:?}"
        );
    }
}
