// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lets a test interleave calls on one thread: a hook of the thread runs before each lock is taken
//! and before each atomic access, and may switch to another call (a coroutine). Only with the
//! feature `steps`, and not under loom; otherwise everything here is nothing.
//!
//! A lock that another call of the thread holds runs the hook again until it is free, so the hook
//! has to come to the holder at some time. Each call has its own list of held locks; the test swaps
//! it in and out ([`swap`]).

#[cfg(all(feature = "steps", not(loom)))]
mod state {
    use core::cell::Cell;

    std::thread_local! {
        pub(super) static HOOK: Cell<Option<fn()>> = const { Cell::new(None) };
        /// Number of spin locks that the running call holds.
        pub(super) static HELD: Cell<usize> = const { Cell::new(0) };
    }
}

/// Runs `hook` before each step of this thread from now on, or nothing any more.
///
/// # Examples
///
/// ```
/// use kernel_shim::{steps, sync::atomic::{Atomic, Relaxed}};
/// use std::cell::Cell;
///
/// std::thread_local!(static STEPS: Cell<u32> = const { Cell::new(0) });
/// steps::set_hook(Some(|| STEPS.set(STEPS.get() + 1)));
/// assert_eq!(Atomic::new(7u32).load(Relaxed), 7);
/// steps::set_hook(None);
/// assert_eq!(STEPS.get(), 1);
/// ```
#[cfg(all(feature = "steps", not(loom)))]
pub fn set_hook(hook: Option<fn()>) {
    state::HOOK.set(hook);
}

/// The locks that a call holds; those that sleep do not count.
#[cfg(all(feature = "steps", not(loom)))]
#[derive(Default)]
pub struct Held {
    n: usize,
    #[cfg(debug_assertions)]
    list: crate::lockdep::Held,
}

#[cfg(all(feature = "steps", not(loom)))]
impl Held {
    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }
}

/// Exchanges the locks that the running call holds for those of another one.
#[cfg(all(feature = "steps", not(loom)))]
pub fn swap(held: &mut Held) {
    held.n = state::HELD.replace(held.n);
    #[cfg(debug_assertions)]
    crate::lockdep::swap(&mut held.list);
}

/// Runs the hook. False if there is none.
#[inline]
pub(crate) fn before() -> bool {
    #[cfg(all(feature = "steps", not(loom)))]
    // A thread that ends may take locks in a destructor, after its hook is gone.
    if let Ok(Some(hook)) = state::HOOK.try_with(core::cell::Cell::get) {
        hook();
        return true;
    }
    false
}

/// A held lock, which is counted if it is a spin lock; dropping it takes it off.
pub(crate) struct Counted {
    #[cfg(all(feature = "steps", not(loom)))]
    n: usize,
}

impl Counted {
    #[inline]
    pub(crate) fn new(spins: bool) -> Self {
        #[cfg(all(feature = "steps", not(loom)))]
        {
            let n = usize::from(spins);
            let _ = state::HELD.try_with(|held| held.set(held.get() + n));
            Self { n }
        }
        #[cfg(not(all(feature = "steps", not(loom))))]
        {
            let _ = spins;
            Self {}
        }
    }
}

#[cfg(all(feature = "steps", not(loom)))]
impl Drop for Counted {
    fn drop(&mut self) {
        let _ = state::HELD.try_with(|held| held.set(held.get() - self.n));
    }
}
