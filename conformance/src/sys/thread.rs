// SPDX-License-Identifier: MIT OR Apache-2.0

//! Threads: whether one sleeps, and signals to it; the clock that deadlines are of.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{clock_gettime, ClockId};

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Returns the number of the calling thread.
pub fn current() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Returns the system call that a thread, of this process or another, sleeps in.
fn sleeps_in(tid: i32) -> Option<libc::c_long> {
    // Of one that runs it says so; of one that has ended there is nothing.
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    let call = text.split_whitespace().next()?.parse().ok()?;
    // Negative is none: it was not the thread that wanted to sleep.
    (call >= 0).then_some(call)
}

/// Returns when the thread sleeps in a system call that fits. Panics if it does not within
/// `patience`.
#[track_caller]
pub fn wait_until_asleep(tid: i32, fits: impl Fn(libc::c_long) -> bool, patience: Duration) {
    let started = Instant::now();
    while !sleeps_in(tid).is_some_and(&fits) {
        assert!(
            started.elapsed() < patience,
            "the thread {tid} does not sleep"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Returns how often the calling thread slept so far, other than because another thread ran in its
/// place.
pub fn sleeps() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: It has room for the result, and zeroes are a value as well.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    usage.ru_nvcsw
}

/// Returns the state of a thread, of this process or another, as `/proc` names it; None if it is
/// gone.
pub fn state(tid: i32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    // Behind the name, which may contain anything.
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Has the calling thread run only where no other thread wants the CPU.
///
/// # Panics
///
/// Panics if the system refuses.
pub fn be_idle() {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &param) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Number of runs of [`handle_signal`]'s handler in this process.
static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Returns the number of signals that were handled in this process.
pub fn handled() -> u32 {
    HANDLED.load(Ordering::Relaxed)
}

/// From now on the process handles that signal, by counting it. With `restart` system calls go on
/// after it (`SA_RESTART`).
pub fn handle_signal(signal: libc::c_int, restart: bool) {
    // SAFETY: zeroes are a valid value, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
    // SAFETY: the handler only counts.
    let result = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    assert_eq!(result, 0, "sigaction: {}", std::io::Error::last_os_error());
}

/// Sends a signal to one thread of this process.
pub fn send_signal(tid: i32, signal: libc::c_int) {
    // SAFETY: a plain system call with integers.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) };
    assert_eq!(result, 0, "tgkill: {}", std::io::Error::last_os_error());
}
