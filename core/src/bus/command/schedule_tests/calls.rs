// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Calls that take their steps on one thread, in the order that a schedule says.
//!
//! A call is a coroutine. It may be left before each lock that it takes and before each atomic
//! access, also while it holds locks; another call that wants these waits.

use std::boxed::Box;
use std::cell::Cell;

use generator::{Generator, Gn};
use kernel::steps;

/// Words of a call's stack.
const STACK: usize = 1 << 15;

std::thread_local! {
    /// Steps that the running call may still take.
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// A command under way.
pub(in crate::bus::command) struct Call {
    coroutine: Generator<'static, (), ()>,
    held: steps::Held,
    /// Steps until it stops, if it does. It does not stop with a lock held: spin locks are held
    /// without preemption.
    stop: Option<u32>,
}

/// Runs before each step of a call.
fn step() {
    match LEFT.get() {
        // A command that failed a check goes on to the end of its destructors.
        _ if std::thread::panicking() => (),
        #[allow(deprecated)]
        0 => generator::yield_with(()),
        left => LEFT.set(left - 1),
    }
}

impl Call {
    /// Makes a call that runs `command`, and stops for ever after `stop` steps.
    pub(in crate::bus::command) fn new(
        stop: Option<u32>,
        command: Box<dyn FnOnce() + Send>,
    ) -> Self {
        Self {
            #[allow(deprecated)] // The only kind that can be left from within the core.
            coroutine: Gn::new_opt(STACK, command),
            held: steps::Held::default(),
            stop,
        }
    }

    /// Takes at most this number of steps. True if the call ended.
    pub(in crate::bus::command) fn run(&mut self, steps: u32) -> bool {
        let steps = steps.min(self.stop.unwrap_or(steps));
        self.stop = self.stop.map(|stop| stop - steps);
        LEFT.set(steps);
        steps::swap(&mut self.held);
        steps::set_hook(Some(step));
        self.coroutine.resume();
        steps::set_hook(None);
        steps::swap(&mut self.held);
        self.coroutine.is_done()
    }

    /// Returns whether it has stopped.
    pub(super) fn has_stopped(&self) -> bool {
        self.stop == Some(0) && self.is_preemptible()
    }

    /// Returns whether it has returned.
    pub(in crate::bus::command) fn has_returned(&self) -> bool {
        self.coroutine.is_done()
    }

    /// Returns whether it holds no spin lock.
    pub(in crate::bus::command) fn is_preemptible(&self) -> bool {
        self.held.is_empty()
    }

    /// Lets a call that has stopped go on.
    pub(super) fn go_on(&mut self) {
        self.stop = None;
    }
}

/// Makes the thread fit for the next schedule, after a call panicked.
pub(super) fn clean_up() {
    steps::set_hook(None);
    steps::swap(&mut steps::Held::default());
}
