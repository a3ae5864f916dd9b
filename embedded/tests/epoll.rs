// SPDX-License-Identifier: MIT OR Apache-2.0

//! Event loops: a receiver that drains its peer and then waits in epoll(7) loses no message, level-
//! or edge-triggered. A lost edge is a timeout of the wait.

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use bus1_embedded::{Bus, Errno, Usage};
use common::Client;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::Timespec;

/// Messages of the edge-triggered run. Without optimization a message takes many times as long.
const BY_EDGE: u32 = if cfg!(debug_assertions) {
    60_000
} else {
    300_000
};
/// Messages of the level-triggered run, which has less to lose.
const BY_LEVEL: u32 = BY_EDGE / 6;
/// Longest pause of the sender between two messages, in spins. A round of the receiver takes about
/// as long, so that messages arrive at every point of it.
const PAUSE_MAX: u32 = 400;
/// Longest wait for an event that has to come.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A poller of one peer.
struct Poller(OwnedFd);

impl Poller {
    fn new(client: &Client, trigger: EventFlags) -> Self {
        let poller = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let flags = EventFlags::IN | trigger;
        epoll::add(&poller, client.peer.as_fd(), EventData::new_u64(0), flags).unwrap();
        Self(poller)
    }

    /// Waits for an event; fails the test if none comes.
    fn expect_event(&self, client: &Client) {
        let mut events = Vec::<Event>::with_capacity(1);
        epoll::wait(&self.0, spare_capacity(&mut events), Some(&PATIENCE)).unwrap();
        assert!(
            !events.is_empty(),
            "no event within {PATIENCE:?}, while the peer says {:?}",
            client.peer.poll()
        );
    }
}

/// Returns numbers below `end` without any pattern.
fn below(state: &mut u32, end: u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state % end
}

/// Sends all messages, each after a pause of random length.
fn send_at_random_pace(sender: &Client, handle: u64, messages: u32) {
    let mut state = 0x2545_f491;
    for number in 0..messages {
        for _ in 0..below(&mut state, PAUSE_MAX) {
            std::hint::spin_loop();
        }
        if below(&mut state, 64) == 0 {
            thread::sleep(Duration::from_micros(50));
        }
        loop {
            match sender.send(&[handle], &[&number.to_ne_bytes()], &[], &[]) {
                // The receiver is slower than the quota allows.
                Err(Errno::DQUOT) => thread::yield_now(),
                // The receiver failed, and says why.
                Err(Errno::HOSTUNREACH) => return,
                result => break result.unwrap(),
            }
        }
    }
}

/// Disconnects its peer, so that the sender ends with the receiver.
struct Disconnect<'a>(&'a Client);

impl Drop for Disconnect<'_> {
    fn drop(&mut self) {
        self.0.disconnect().unwrap();
    }
}

/// Receives until nothing is left, waits for the next event, and so on, until all has come.
fn every_message_causes_an_event(trigger: EventFlags, messages: u32) {
    let bus = Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    let poller = Poller::new(&owner, trigger);
    thread::scope(|scope| {
        let _disconnect = Disconnect(&owner);
        scope.spawn(|| send_at_random_pace(&sender, handle, messages));
        let mut next = 0_u32;
        while next < messages {
            poller.expect_event(&owner);
            loop {
                match owner.receive() {
                    Ok(received) => {
                        assert_eq!(received.bytes, next.to_ne_bytes());
                        owner.release_slice(received.msg.offset).unwrap();
                        next += 1;
                    }
                    Err(Errno::AGAIN) => break,
                    Err(errno) => panic!("{errno}"),
                }
            }
        }
    });
    drop((owner, sender));
    assert_eq!(bus.usage(), Usage::default());
}

#[test]
fn level_triggered_events_are_not_lost() {
    every_message_causes_an_event(EventFlags::empty(), BY_LEVEL);
}

#[test]
fn edge_triggered_events_are_not_lost() {
    every_message_causes_an_event(EventFlags::ET, BY_EDGE);
}
