// SPDX-License-Identifier: GPL-2.0-only

//! The sleep of a task that waits in EXCHANGE: exclusive, interruptible, and until a deadline.
//!
//! # Memory order
//!
//! The task joins the queue and then looks whether it has to sleep; see `waker.rs`.

use kernel::bindings::{self, wait_queue_head, TASK_INTERRUPTIBLE};
use kernel::prelude::*;
use kernel::task::Task;
use kernel::types::Opaque;

use crate::abi::DEADLINE_NEVER;
use crate::glue;

/// Waits in a queue until the task is woken or `ready` holds. A task that is woken by something
/// else returns early.
///
/// # Errors
///
/// ETIMEDOUT at the deadline; ERESTARTSYS for a signal. Neither if `ready` holds by then.
///
/// # Safety
///
/// The queue is initialised and stays until this returns.
pub(crate) unsafe fn wait_in(
    head: *mut wait_queue_head,
    ready: &mut dyn FnMut() -> bool,
    deadline: u64,
) -> Result {
    let entry = Opaque::uninit();
    let entry = entry.get();
    // SAFETY: By the caller. The entry is ours to write, and stays where it is until it has left
    // the queue.
    let signal = unsafe {
        bindings::init_wait_entry(entry, bindings::WQ_FLAG_EXCLUSIVE as c_int);
        bindings::prepare_to_wait_event(head, entry, TASK_INTERRUPTIBLE as c_int)
    };
    let result = match signal {
        0 if ready() => Ok(()),
        0 => sleep(deadline),
        _ => Err(ERESTARTSYS),
    };
    // SAFETY: It was prepared. If it was woken it has left the queue already.
    unsafe { bindings::finish_wait(head, entry) };
    // A message that can be received goes before a signal and the deadline.
    result.or_else(|error| if ready() { Ok(()) } else { Err(error) })
}

/// Sleeps in the state in which the task is, until it is woken.
///
/// # Errors
///
/// ETIMEDOUT at the deadline.
fn sleep(deadline: u64) -> Result {
    if deadline == DEADLINE_NEVER {
        // SAFETY: All callers may sleep.
        unsafe { bindings::schedule() };
        return Ok(());
    }
    // SAFETY: All callers may sleep. The time namespace and the slack are the running task's own.
    let woken = unsafe {
        let mut at = glue::bus1_host_time(i64::try_from(deadline).unwrap_or(i64::MAX));
        let slack = (*Task::current_raw()).timer_slack_ns;
        bindings::schedule_hrtimeout_range(&mut at, slack, bindings::hrtimer_mode_HRTIMER_MODE_ABS)
    };
    (woken != 0).then_some(()).ok_or(ETIMEDOUT)
}
