// SPDX-License-Identifier: GPL-2.0

//! Those who wait for one peer in poll, epoll, select or io_uring.
//!
//! The queue is part of the peer. A waiter holds the bus1 file, or (epoll) is taken off the queue
//! before the file is released; the file holds the peer. So none is left when the peer goes.
//!
//! # Memory order
//!
//! A waiter joins the queue and then looks at the peer; a waker changes the peer and then looks at
//! the queue. Between the two each passes a full barrier ([`Waiters::wake_up`] here, `poll_wait()`
//! there), so one of them sees the other and no wake-up is lost.

use core::ptr;

use kernel::bindings;
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::static_lock_class;
use kernel::types::Opaque;

use crate::bus;

const READABLE: u32 = bindings::POLLIN | bindings::POLLRDNORM;
const WRITABLE: u32 = bindings::POLLOUT | bindings::POLLWRNORM;
const HANGUP: u32 = bindings::POLLHUP;

/// The wait queue of a peer.
#[pin_data]
pub(crate) struct Waiters {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue has a lock of its own and may be used from any thread.
unsafe impl Send for Waiters {}
// SAFETY: As above.
unsafe impl Sync for Waiters {}

impl Waiters {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writing; name and key are static.
                unsafe {
                    bindings::__init_waitqueue_head(
                        slot,
                        c"bus1::waiters".as_char_ptr(),
                        static_lock_class!().as_ptr(),
                    )
                }
            }),
        })
    }

    /// Joins the queue, if `table` wants that.
    ///
    /// # Safety
    ///
    /// `table` is null or a valid poll table, and `file` is what is polled and holds `self` until
    /// it is released.
    pub(crate) unsafe fn join(&self, file: &File, table: *mut bindings::poll_table_struct) {
        // SAFETY: The queue is initialised, and lives as long as the file does.
        unsafe { bindings::poll_wait(file.as_ptr(), self.head.get(), table) }
    }

    /// What poll answers.
    pub(crate) fn events(ready: bus::Ready) -> u32 {
        match ready {
            bus::Ready { hangup: true, .. } => HANGUP,
            bus::Ready { readable: true, .. } => WRITABLE | READABLE,
            _ => WRITABLE,
        }
    }

    /// Wakes everybody, because the peer was disconnected.
    pub(crate) fn hang_up(&self) {
        self.wake_up(0);
    }

    /// Wakes those who wait: of those who wait exclusively `exclusive`, or all if that is 0.
    ///
    /// It does not say what for, so that everybody looks again: io_uring would report what it is
    /// told, and that may be over by then.
    fn wake_up(&self, exclusive: i32) {
        let head = self.head.get();
        // SAFETY: A barrier has no requirements.
        unsafe { bindings::smp_mb() };
        // SAFETY: The queue is initialised. Its `next` is read as waitqueue_active() does: without
        // the lock, hence volatile, and for nothing but a comparison.
        let idle = unsafe {
            let list = &raw mut (*head).head;
            ptr::eq((&raw const (*list).next).read_volatile(), list)
        };
        if !idle {
            let mode = bindings::TASK_INTERRUPTIBLE;
            // SAFETY: The queue is initialised, and a poll wake-up may go without a key.
            unsafe { bindings::__wake_up(head, mode, exclusive, ptr::null_mut()) };
        }
    }
}

impl bus::Waker for Waiters {
    fn wake(&self) {
        self.wake_up(1);
    }
}
