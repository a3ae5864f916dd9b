// SPDX-License-Identifier: MIT OR Apache-2.0

//! The time that all processes share.

/// Returns nanoseconds of the system's monotonic clock, which is the same in all processes.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
