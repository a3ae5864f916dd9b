// SPDX-License-Identifier: MIT OR Apache-2.0

//! An event loop's view of a peer: epoll(7) on its descriptor, on every host.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::Timespec;

use super::{Door, Errno};

/// An epoll instance that watches one door.
pub struct Poller(OwnedFd);

impl Poller {
    /// Watches `door` for `flags`: EPOLLIN for what can be received, with EPOLLET by edges.
    #[track_caller]
    pub fn new(door: &dyn Door, flags: EventFlags) -> Self {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        // SAFETY: it is the door's own, and open as long as the door is.
        let fd = unsafe { BorrowedFd::borrow_raw(door.fd()) };
        epoll::add(&poller, fd, EventData::new_u64(0), flags).unwrap();
        Self(poller)
    }

    /// Waits for an event, at most for `limit`; returns what it reports.
    #[track_caller]
    pub fn wait(&self, limit: Duration) -> Option<EventFlags> {
        let limit = Timespec::try_from(limit).expect("the timeout is too long");
        let mut events = Vec::<Event>::with_capacity(1);
        loop {
            match epoll::wait(&self.0, spare_capacity(&mut events), Some(&limit)) {
                Ok(_) => return events.first().map(|event| event.flags),
                Err(Errno::INTR) => (),
                Err(error) => panic!("epoll_wait: {error}"),
            }
        }
    }

    /// Returns the events that are reported now.
    #[track_caller]
    pub fn now(&self) -> Option<EventFlags> {
        self.wait(Duration::ZERO)
    }
}
