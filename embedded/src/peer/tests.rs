// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages that arrive between the decision that nothing is left and the answer that says so.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use bus1_core::abi::*;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::Timespec;

use super::{Answer, Checked, Errno};

#[path = "../../tests/common/mod.rs"]
mod common;
use common::{address, ioctl, Client};

thread_local! {
    /// The act that the next call of this thread runs between its decision and its answer.
    static BETWEEN: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Runs the act that the test set for this moment.
pub(super) fn between_decision_and_answer() {
    // Taken first: it makes calls itself.
    if let Some(act) = BETWEEN.with(RefCell::take) {
        act();
    }
}

/// An edge-triggered waiter.
struct Poller(OwnedFd);

impl Poller {
    fn new(client: &Client) -> Self {
        let poller = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&poller, client.peer.as_fd(), EventData::new_u64(0), flags).unwrap();
        Self(poller)
    }

    /// Returns whether there was an edge since it was asked last.
    fn had_edge(&self) -> bool {
        let mut events = Vec::<Event>::with_capacity(1);
        let now = Timespec::default();
        epoll::wait(&self.0, spare_capacity(&mut events), Some(&now)).unwrap();
        !events.is_empty()
    }
}

/// Receives by EXCHANGE without waiting; returns how many messages came.
fn exchange(client: &Client, room: usize, deadline: u64) -> Result<u64, Errno> {
    let mut msgs = vec![Msg::default(); room];
    let mut command = CmdExchange {
        size: CmdExchange::SIZE as u64,
        n_msgs: room as u64,
        ptr_msgs: address(&mut msgs[0]) as u64,
        max_offset: client.map.len() as u64,
        deadline,
        ..Default::default()
    };
    ioctl(&client.peer, CMD_EXCHANGE, address(&mut command)).map(|()| command.n_msgs)
}

fn flush(client: &Client) {
    let mut command = CmdPeerReset {
        flags: PEER_RESET_FLAG_FLUSH,
        peer_flags: u64::MAX,
        max_slices: u32::MAX,
        max_handles: u32::MAX,
        max_inflight_bytes: u32::MAX,
        max_inflight_fds: u32::MAX,
    };
    ioctl(&client.peer, CMD_PEER_RESET, address(&mut command)).unwrap();
}

/// Makes a node, as another thread of the owner does that has not brought the eventfd up to date
/// yet.
fn transfer_without_answer(owner: &Client, to: &Client) -> u64 {
    let mut command = CmdHandleTransfer {
        src_handle: 16,
        dst_fd: to.peer.as_raw_fd() as u64,
        dst_handle: HANDLE_INVALID,
        ..Default::default()
    };
    let arg = address(&mut command);
    let made = owner.peer.command(Checked, CMD_HANDLE_TRANSFER, arg);
    made.unwrap();
    command.dst_handle
}

/// The ways to find out that nothing is left.
struct Way {
    name: &'static str,
    /// Messages that are in the queue before.
    queued: usize,
    ask: fn(&Client),
}

const WAYS: &[Way] = &[
    Way {
        name: "RECV",
        queued: 0,
        ask: |owner| assert_eq!(owner.receive(), Err(Errno::AGAIN)),
    },
    Way {
        name: "EXCHANGE that does not wait",
        queued: 0,
        ask: |owner| assert_eq!(exchange(owner, 1, DEADLINE_NOW), Err(Errno::AGAIN)),
    },
    Way {
        name: "EXCHANGE that waits in vain",
        queued: 0,
        ask: |owner| assert_eq!(exchange(owner, 2, 1), Err(Errno::TIMEDOUT)),
    },
    Way {
        name: "EXCHANGE with room left",
        queued: 2,
        ask: |owner| assert_eq!(exchange(owner, 3, DEADLINE_NEVER), Ok(2)),
    },
    Way {
        name: "PEER_RESET",
        queued: 2,
        ask: flush,
    },
    Way {
        name: "poll",
        queued: 0,
        ask: |owner| assert!(!owner.peer.poll().any()),
    },
    Way {
        name: "wait",
        queued: 0,
        ask: |owner| assert!(!owner.peer.wait(Some(Duration::ZERO)).any()),
    },
];

/// The very interleaving: a wake-up that comes late leaves the eventfd raised on an empty queue; a
/// call decides that nothing is left; a message arrives, and its sender finds the eventfd raised.
#[test]
fn a_message_behind_the_decision_is_an_edge() {
    for way in WAYS {
        let bus = crate::Bus::new().unwrap();
        let (owner, sender) = (Client::new(&bus), Client::new(&bus));
        let handle = owner.transfer(8, &sender.peer).unwrap();
        let poller = Poller::new(&owner);
        for _ in 0..way.queued {
            sender.send(&[handle], &[b"before"], &[], &[]).unwrap();
        }
        owner.peer.0.signal.event().raise();
        assert!(poller.had_edge(), "{}", way.name);

        let (owner_too, sender_too) = (owner.clone(), sender.clone());
        BETWEEN.set(Some(Box::new(move || {
            // To a new node, because a flush destroys the first.
            let handle = transfer_without_answer(&owner_too, &sender_too);
            sender_too.send(&[handle], &[b"behind"], &[], &[]).unwrap();
        })));
        (way.ask)(&owner);
        assert!(BETWEEN.take().is_none(), "{}: the moment came", way.name);
        assert!(poller.had_edge(), "{}: the edge is lost", way.name);
        assert_eq!(owner.receive().unwrap().bytes, b"behind", "{}", way.name);
        assert_eq!(owner.receive(), Err(Errno::AGAIN));
        assert!(!poller.had_edge(), "{}: one message, one edge", way.name);
    }
}

#[test]
fn a_receipt_with_more_behind_it_costs_no_edge() {
    let bus = crate::Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    let poller = Poller::new(&owner);
    for _ in 0..5 {
        sender.send(&[handle], &[b"one of many"], &[], &[]).unwrap();
    }
    assert!(poller.had_edge());
    owner.receive().unwrap();
    assert_eq!(exchange(&owner, 1, DEADLINE_NOW), Ok(1));
    assert_eq!(exchange(&owner, 2, DEADLINE_NOW), Ok(2));
    assert!(!poller.had_edge(), "nobody was told that nothing is left");
}

#[test]
fn answers_are_distinguished() {
    let answer = |cmd, result| Answer::of(cmd, None, result);
    for cmd in [CMD_SEND, CMD_SLICE_RELEASE, CMD_PEER_QUERY] {
        assert_eq!(answer(cmd, Ok(())), Answer::Other);
    }
    assert_eq!(answer(CMD_RECV, Ok(())), Answer::Other);
    assert_eq!(answer(CMD_RECV, Err(Errno::FAULT)), Answer::Other);
    assert_eq!(answer(CMD_EXCHANGE, Err(Errno::RANGE)), Answer::Other);
    assert_eq!(answer(CMD_PEER_RESET, Err(Errno::INVAL)), Answer::Other);
    // Without knowledge of the room the safe answer is taken.
    assert_eq!(answer(CMD_EXCHANGE, Ok(())), Answer::NothingLeft);
}
