// SPDX-License-Identifier: MIT OR Apache-2.0

//! The waker that the core has in a peer: how a command wakes waiters, and how EXCHANGE waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus1_core::abi::DEADLINE_NEVER;
use bus1_core::bus;
use kernel::error::code::ETIMEDOUT;
use kernel::error::Result;
use rustix::time::{clock_gettime, ClockId};

use crate::scope::{deliver_noted, note};
use crate::signal::{Look, Signal};

/// The core's way to the waiters of one peer.
pub(crate) struct Waker(pub(crate) Arc<Signal>);

impl bus::Waker for Waker {
    /// Wakes all waiters. The hint is of no use here: which thread runs next is the system's
    /// choice.
    fn wake(&self, _hint: bus::WakeHint) {
        if self.0.is_awaited() {
            note(&self.0);
        }
    }

    /// Waits, and never ends for a signal: the system call that sleeps is started again.
    fn wait(&self, is_ready: &mut dyn FnMut() -> bool, deadline: u64) -> Result {
        // The receivers of what this command sent may have to run before its answer comes.
        deliver_noted();
        let deadline = (deadline != DEADLINE_NEVER).then_some(deadline);
        // A time beyond the end of time is as good as none.
        let deadline = deadline.and_then(|at| {
            let left = Duration::from_nanos(at).saturating_sub(since_boot());
            Instant::now().checked_add(left)
        });
        let look = || {
            let found = is_ready();
            Look { done: found, found }
        };
        if self.0.wait(deadline, look) {
            Ok(())
        } else {
            Err(ETIMEDOUT)
        }
    }
}

/// Reads the clock that deadlines refer to.
fn since_boot() -> Duration {
    // It has been running since the system started, so it is not negative.
    clock_gettime(ClockId::Monotonic)
        .try_into()
        .unwrap_or_default()
}
