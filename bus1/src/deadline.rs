// SPDX-License-Identifier: MIT OR Apache-2.0

//! Until when to wait.

use std::time::Duration;

use bus1_uapi::{DEADLINE_NEVER, DEADLINE_NOW};
use rustix::time::{clock_gettime, ClockId};

/// Until when to wait for something to receive: nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// Not at all.
    pub(crate) const NOW: Self = Self(DEADLINE_NOW);

    /// The deadline of a wait without an end.
    pub(crate) const NEVER: Self = Self(DEADLINE_NEVER);

    /// Returns the time at which `timeout`, counted from now, is over. One beyond the end of time
    /// is as good as none.
    pub(crate) fn after(timeout: Duration) -> Self {
        if timeout.is_zero() {
            return Self::NOW;
        }
        // The clock has been running since the system started, so it is not negative.
        let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        u64::try_from(now.saturating_add(timeout).as_nanos()).map_or(Self::NEVER, Self)
    }

    /// Returns the number that EXCHANGE takes.
    pub(crate) fn raw(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_lie_ahead() {
        assert_eq!(Deadline::after(Duration::ZERO), Deadline::NOW);
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        let near = Deadline::after(Duration::from_secs(1)).raw();
        let far = Deadline::after(Duration::from_secs(3600)).raw();
        assert!(far - near >= 3_599_000_000_000, "{near} {far}");
        assert!(Deadline::after(Duration::from_nanos(1)).raw() > 1);
    }
}
