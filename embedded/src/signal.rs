// SPDX-License-Identifier: MIT OR Apache-2.0

//! The waiters of one peer: threads that sleep on a futex, and an eventfd.
//!
//! # No wake-up is lost
//!
//! A waiter announces itself in `interest`, then looks whether the peer is ready. A sender makes
//! the peer ready, then looks at `interest`. Between the two steps each passes a sequentially
//! consistent fence, so at least one of them sees the other. A waiter that did not sleep in the end
//! may leave its announcement behind: that costs a system call. (The announcement of an eventfd
//! stays; [`event`](crate::event) orders its waiters and the senders from then on.)
//!
//! A thread that will sleep reads `sequence` before it announces itself, and sleeps only if
//! `sequence` has not changed since. A delivery takes the announcements of all threads away, then
//! changes `sequence`, then wakes: a thread whose announcement it took either does not fall asleep,
//! or is woken. So one system call wakes all that sleep, however many messages follow until they
//! run.

use std::ops::Range;
use std::sync::atomic::{fence, AtomicU32, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::Timespec;

use crate::event::Event;
use crate::eventfd::Eventfd;

/// Bit of [`Signal::interest`]: there is an eventfd.
const EVENT: u32 = 1;
/// Bit of [`Signal::interest`]: a thread may sleep on `sequence`.
const SLEEPER: u32 = 2;
/// Pauses between the first looks of a thread that waits, as powers of two. Then it sleeps. A
/// message that comes before that costs neither side a system call.
const PAUSES: Range<u32> = 4..10;

/// The result of one look of a waiter at its peer.
pub(crate) struct Look<T> {
    /// True if the wait is over.
    pub(crate) done: bool,
    /// The value that [`Signal::wait`] returns if it ends here.
    pub(crate) found: T,
}

/// The waiters of one peer.
pub(crate) struct Signal {
    interest: AtomicU32,
    /// Changes with every delivery to threads, which sleep on it.
    sequence: AtomicU32,
    event: Event,
}

impl Signal {
    /// Makes a signal that nobody waits for.
    pub(crate) fn new() -> Self {
        Self {
            interest: AtomicU32::new(0),
            sequence: AtomicU32::new(0),
            event: Event::new(),
        }
    }

    /// Returns the peer's eventfd, if it has one.
    pub(crate) fn event(&self) -> &Event {
        &self.event
    }

    /// Raises an eventfd from now on when the peer becomes ready. The caller then looks whether the
    /// peer is ready already, and raises it.
    pub(crate) fn attach(&self, eventfd: &Arc<Eventfd>) {
        self.event.attach(eventfd);
        self.interest.fetch_or(EVENT, SeqCst);
        fence(SeqCst);
    }

    /// Returns whether a thread may sleep, or there is an eventfd. For a sender that has just made
    /// the peer ready.
    pub(crate) fn is_awaited(&self) -> bool {
        fence(SeqCst);
        self.interest.load(SeqCst) != 0
    }

    /// Sleeps until `look` says that it is done, or until the deadline. Returns the last answer of
    /// `look`.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Look<T>,
    ) -> T {
        for pauses in PAUSES {
            let Look { done, found } = look();
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
            let Look { done, found } = look();
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if done || left.is_some_and(|left| left.is_zero()) {
                return found;
            }
            // A time that does not fit the system's type is as good as none.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match futex::wait(&self.sequence, futex::Flags::PRIVATE, seen, left.as_ref()) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                // There are no futexes: look again and again, and let others run.
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// Wakes all threads that sleep, and raises the eventfd.
    pub(crate) fn deliver(&self) {
        let interest = self.interest.fetch_and(!SLEEPER, SeqCst);
        if interest & SLEEPER != 0 {
            self.sequence.fetch_add(1, SeqCst);
            // It cannot fail: the word is there.
            let _ = futex::wake(&self.sequence, futex::Flags::PRIVATE, i32::MAX as u32);
        }
        if interest & EVENT != 0 {
            self.event.raise();
        }
    }
}
