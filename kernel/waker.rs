// SPDX-License-Identifier: GPL-2.0-only

//! Waiters for one peer: in poll, epoll, select or io_uring, and in EXCHANGE.
//!
//! The queue is part of the peer. A waiter holds the bus1 file, or (epoll) is taken off the queue
//! before the file is released; the file holds the peer. So none is left when the peer goes.
//! EXCHANGE waiters are exclusive: each wake-up wakes at most one.
//!
//! # Memory order
//!
//! A waiter joins the queue and then looks at the peer; a waker changes the peer and then looks at
//! the queue. Between the two each passes a full barrier (`smp_mb()` here, `poll_wait()` or
//! `prepare_to_wait_event()` there), so one of them sees the other and no wake-up is lost.

use core::ptr;

use kernel::bindings::{self, file, poll_table_struct, TASK_INTERRUPTIBLE};
use kernel::prelude::*;
use kernel::sync::{static_lock_class, Arc};
use kernel::types::Opaque;

use crate::bus;
use crate::closer::Closer;
use crate::sleep;

const READABLE: u32 = bindings::POLLIN | bindings::POLLRDNORM;
const WRITABLE: u32 = bindings::POLLOUT | bindings::POLLWRNORM;
const HANGUP: u32 = bindings::POLLHUP;

/// The part of a peer that the kernel host has: its wait queue, and the closer of its files.
#[pin_data]
pub(crate) struct Waiters {
    /// For the files that the peer sends.
    pub(crate) closer: Arc<Closer>,
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue has a lock of its own and may be used from any thread.
unsafe impl Send for Waiters {}
// SAFETY: A wait queue has a lock of its own and may be shared between threads.
unsafe impl Sync for Waiters {}

impl Waiters {
    pub(crate) fn new(closer: Arc<Closer>) -> impl PinInit<Self> {
        let (name, key) = (c"bus1::waiters", static_lock_class!());
        pin_init!(Self {
            closer,
            // SAFETY: The place is valid for writing; name and key are static.
            head <- Opaque::ffi_init(move |head| unsafe {
                bindings::__init_waitqueue_head(head, name.as_char_ptr(), key.as_ptr())
            }),
        })
    }

    /// Puts the caller of poll into the queue.
    ///
    /// # Safety
    ///
    /// `file` is valid and holds the peer; `table` is null or valid.
    pub(crate) unsafe fn join(&self, file: *mut file, table: *mut poll_table_struct) {
        // SAFETY: By the caller; the queue is initialised.
        unsafe { bindings::poll_wait(file, self.head.get(), table) };
    }

    /// Returns the answer of poll.
    pub(crate) fn events(ready: bus::Ready) -> u32 {
        match ready {
            bus::Ready { hangup: true, .. } => HANGUP,
            bus::Ready { readable: true, .. } => WRITABLE | READABLE,
            _ => WRITABLE,
        }
    }

    /// Wakes all waiters, because the peer was disconnected.
    pub(crate) fn hang_up(&self) {
        // It takes the queue's lock, as a task that joins does: so it needs no barrier.
        // SAFETY: The queue is initialised, and a poll wake-up may go without a key.
        unsafe { bindings::__wake_up(self.head.get(), TASK_INTERRUPTIBLE, 0, ptr::null_mut()) };
    }
}

impl bus::Waker for Waiters {
    /// Wakes all waiters that are not exclusive, and one that is. With the hint that the caller
    /// sleeps next, the scheduler may prefer to run the woken task on this CPU.
    ///
    /// The wake-up has no key, so that every waiter looks again: io_uring would report the key, and
    /// that may be over by then.
    fn wake(&self, hint: bus::WakeHint) {
        let head = self.head.get();
        // The `kernel` crate's own function takes an argument in 7.3 and none in 7.2.
        // SAFETY: It has no requirements.
        unsafe { bindings::smp_mb() };
        if !self.is_awaited() {
            return;
        }
        // SAFETY: The queue is initialised. A poll wake-up may go without a key.
        unsafe {
            if hint == bus::WakeHint::Sleeps {
                bindings::__wake_up_sync_key(head, TASK_INTERRUPTIBLE, ptr::null_mut());
            } else {
                bindings::__wake_up(head, TASK_INTERRUPTIBLE, 1, ptr::null_mut());
            }
        }
    }

    fn is_awaited(&self) -> bool {
        // SAFETY: The queue is initialised. Its `next` is read as waitqueue_active() does: without
        // the lock, hence volatile, and for nothing except a comparison.
        unsafe {
            let list = &raw mut (*self.head.get()).head;
            !ptr::eq((&raw const (*list).next).read_volatile(), list)
        }
    }

    fn wait(&self, ready: &mut dyn FnMut() -> bool, deadline: u64) -> Result {
        // SAFETY: The queue is initialised, and lies in the peer, which the caller holds.
        unsafe { sleep::wait_in(self.head.get(), ready, deadline) }
    }
}
