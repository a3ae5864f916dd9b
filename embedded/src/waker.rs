// SPDX-License-Identifier: MIT OR Apache-2.0

//! Wake-ups: threads that wait for a peer, and its eventfd.
//!
//! The core wakes in the middle of a command. A system call there would delay what is left of it, and
//! the woken thread would run into the locks that this takes. So inside a [`Scope`], which every
//! command is, a wake-up is only noted, and delivered when the command is over or about to sleep.
//!
//! # No wake-up is lost
//!
//! Whoever is interested announces it in `interest`, then looks whether the peer is ready. Whoever
//! makes it ready does so first, then looks at `interest`. Between the two steps of each stands a
//! sequentially consistent fence, so at least one of them sees the other. An announcement may be left
//! behind by one who did not sleep: that costs a system call.
//!
//! A thread that will sleep reads `sequence` before it announces itself, and sleeps only if that has not
//! changed since. A delivery takes the announcement of all away, then changes `sequence`, then
//! wakes: whose announcement it took either does not fall asleep, or is woken. So one
//! system call wakes those who sleep, however many messages follow until they run.
//!
//! Whoever lowers the eventfd looks again afterwards, and raises it if the peer is ready after
//! all. `raised` and the eventfd change together under a lock, so a wake-up comes either before
//! the lowering, and that look sees what it was for, or after it, and raises.
//!
//! Lock: `raised` alone, held across the system call that it describes; never taken inside the
//! core.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{fence, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bus1_core::abi::DEADLINE_NEVER;
use bus1_core::bus::host;
use kernel::error::code::ETIMEDOUT;
use kernel::error::Result;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::{clock_gettime, ClockId, Timespec};

/// Bit of [`Signal::interest`]: there is an eventfd.
const EVENT: u32 = 1;
/// Bit of [`Signal::interest`]: somebody may sleep on `sequence`.
const SLEEPER: u32 = 2;
/// Pauses between the first looks of a thread that waits, as powers of two. Then it sleeps: what comes
/// until then costs nobody a system call.
const PAUSES: Range<u32> = 4..10;

/// Whom to wake for one peer.
#[derive(Default)]
pub(crate) struct Signal {
    interest: AtomicU32,
    /// Changes with every delivery to threads; they sleep on it.
    sequence: AtomicU32,
    /// Whether the eventfd is readable.
    raised: Mutex<bool>,
    /// Weak, because others may refer to a peer long after it was closed.
    event: OnceCell<Weak<OwnedFd>>,
}

impl Signal {
    /// From now on makes the eventfd readable when the peer becomes ready. The caller then looks
    /// whether it is already.
    pub(crate) fn attach(&self, event: &Arc<OwnedFd>) {
        if self.event.set(Arc::downgrade(event)).is_ok() {
            self.interest.fetch_or(EVENT, SeqCst);
            fence(SeqCst);
        }
    }

    /// Whether there is an eventfd, and it is readable.
    pub(crate) fn is_raised(&self) -> bool {
        self.interest.load(SeqCst) & EVENT != 0 && *self.raised.lock()
    }

    /// Makes the eventfd readable.
    pub(crate) fn raise(&self) {
        let mut raised = self.raised.lock();
        if let (false, Some(event)) = (*raised, self.event()) {
            // It cannot fail: the counter is 0.
            let _ = rustix::io::write(&*event, &1u64.to_ne_bytes());
            *raised = true;
        }
    }

    /// Makes the eventfd unreadable. The caller then looks whether the peer is ready after all,
    /// and raises it again.
    pub(crate) fn lower(&self) {
        let mut raised = self.raised.lock();
        if let (true, Some(event)) = (*raised, self.event()) {
            // It cannot fail: the counter is 1.
            let _ = rustix::io::read(&*event, &mut [0u8; 8]);
            *raised = false;
        }
    }

    fn event(&self) -> Option<Arc<OwnedFd>> {
        self.event.get().and_then(Weak::upgrade)
    }

    /// Sleeps until `look` gives something or the deadline has passed; then gives what it gave
    /// last.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> (bool, T),
    ) -> T {
        for pauses in PAUSES {
            let (done, found) = look();
            if done || deadline.is_some_and(|at| at <= Instant::now()) {
                return found;
            }
            for _ in 0..1 << pauses {
                std::hint::spin_loop();
            }
        }
        loop {
            let seen = self.sequence.load(SeqCst);
            self.interest.fetch_or(SLEEPER, SeqCst);
            fence(SeqCst);
            let (done, found) = look();
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if done || left.is_some_and(|left| left.is_zero()) {
                return found;
            }
            // A time that does not fit the system's type is as good as none.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match futex::wait(&self.sequence, futex::Flags::PRIVATE, seen, left.as_ref()) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                // No futexes: look again and again, but let others run.
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// Wakes all who wait, and raises the eventfd.
    fn deliver(&self) {
        let interest = self.interest.fetch_and(!SLEEPER, SeqCst);
        if interest & SLEEPER != 0 {
            self.sequence.fetch_add(1, SeqCst);
            // It cannot fail: the word is there.
            let _ = futex::wake(&self.sequence, futex::Flags::PRIVATE, i32::MAX as u32);
        }
        if interest & EVENT != 0 {
            self.raise();
        }
    }
}

/// The waker that the core has in a peer.
pub(crate) struct Waker(pub(crate) Arc<Signal>);

impl host::Waker for Waker {
    fn wake(&self, _yields: bool) {
        fence(SeqCst);
        if self.0.interest.load(SeqCst) != 0 {
            note(&self.0);
        }
    }

    /// Never for a signal: the system call that sleeps is started again.
    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: u64) -> Result {
        // What this very command sent is perhaps what is waited for.
        deliver_noted();
        let deadline = (deadline != DEADLINE_NEVER).then_some(deadline);
        // A time beyond the end of time is as good as none.
        let deadline = deadline.and_then(|at| {
            let left = Duration::from_nanos(at).saturating_sub(since_boot());
            Instant::now().checked_add(left)
        });
        let look = || {
            let ready = ready();
            (ready, ready)
        };
        if self.0.wait(deadline, look) {
            Ok(())
        } else {
            Err(ETIMEDOUT)
        }
    }
}

/// The clock that deadlines are of.
fn since_boot() -> Duration {
    // It has been running since the system started, so it is not negative.
    clock_gettime(ClockId::Monotonic)
        .try_into()
        .unwrap_or_default()
}

/// Where one thread is in its commands.
struct Here {
    /// Scopes that are open.
    depth: Cell<usize>,
    /// Whether something is in [`NOTED`].
    noted: Cell<bool>,
}

thread_local! {
    // Apart from what has to be dropped, so that it is there to the last and cheap to look at.
    static HERE: Here = const { Here { depth: Cell::new(0), noted: Cell::new(false) } };
    /// Wake-ups that wait for the end of the command.
    static NOTED: RefCell<Vec<Arc<Signal>>> = const { RefCell::new(Vec::new()) };
}

/// Delivers at the end of the outermost scope, or at once if there is none.
#[cold]
fn note(signal: &Arc<Signal>) {
    let noted = HERE.with(|here| {
        let scope = here.depth.get() != 0;
        // A thread that has already torn down its locals delivers at once.
        let noted = scope
            && NOTED
                .try_with(|all| enter(&mut all.borrow_mut(), signal))
                .is_ok();
        here.noted.set(here.noted.get() || noted);
        noted
    });
    if !noted {
        signal.deliver();
    }
}

/// Many entries for one peer come in a row: one wake-up does for all.
fn enter(all: &mut Vec<Arc<Signal>>, signal: &Arc<Signal>) {
    if !all.last().is_some_and(|last| Arc::ptr_eq(last, signal)) {
        all.push(signal.clone());
    }
}

/// Delivers what was noted, in the middle of a command. No lock of the core is held.
#[inline]
fn deliver_noted() {
    if HERE.with(|here| here.noted.replace(false)) {
        deliver_all();
    }
}

#[cold]
fn deliver_all() {
    let _ = NOTED.try_with(|all| {
        // Delivering calls nothing that could wake somebody.
        for signal in all.borrow_mut().drain(..) {
            signal.deliver();
        }
    });
}

/// While it lives, wake-ups by this thread are noted; when it goes, they are delivered.
pub(crate) struct Scope {
    // Not to be dropped by another thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl Scope {
    /// Opens a scope for this thread. They nest.
    #[inline]
    pub(crate) fn enter() -> Self {
        HERE.with(|here| here.depth.set(here.depth.get() + 1));
        Self {
            _here: std::marker::PhantomData,
        }
    }
}

impl Drop for Scope {
    #[inline]
    fn drop(&mut self) {
        let left = HERE.with(|here| {
            let left = here.depth.get() - 1;
            here.depth.set(left);
            left
        });
        if left == 0 {
            deliver_noted();
        }
    }
}
