// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Peers that never talk to each other share nothing that they write: no lock, no count, no other
//! word, and not even a cache line.
//!
//! Each pair of peers is driven by a thread of its own, which opens it, so that its memory is its
//! own as far as the allocator goes. The shim's module `cachelines` says which accesses are
//! recorded.
//!
//! Of one user this holds for what fits the credit of a sender: 128 messages, 128 KiB of payload
//! and 512 handles under way at the default limits. More than that is booked on the user's account,
//! as are all descriptors.

#![cfg(not(loom))]

mod common;

use std::sync::Barrier;
use std::thread;

use bus1_core::abi::*;
use common::*;
use kernel::cachelines::{record, Lines};

/// Rounds until all memory and all credit is there that is used again.
const WARM_UP: u32 = 40;
/// Rounds that are recorded.
const ROUNDS: u32 = 50;
/// Messages that credit covers, in two batches of 1/256 of the limit.
const COVERED: usize = 2 * 16384 / 256;
/// Peers of different users are of this one and those that follow.
const USER: u32 = 1000;

/// Runs a pair's set-up and rounds in each of two threads, side by side, and gives the lines that
/// each wrote during the recorded rounds.
fn side_by_side<R: FnMut()>(world: World, set_up: impl Fn(&World, u32) -> R + Sync) -> [Lines; 2] {
    let together = Barrier::new(2);
    let one = |number| {
        let mut round = set_up(&world, number);
        (0..WARM_UP).for_each(|_| round());
        together.wait();
        let ((), lines) = record(|| (0..ROUNDS).for_each(|_| round()));
        // Memory that is dropped only now is no part of it.
        together.wait();
        lines
    };
    let lines = thread::scope(|scope| {
        let threads = [0, 1].map(|number| scope.spawn(move || one(number)));
        threads.map(|thread| thread.join().unwrap())
    });
    // With the peers that it has.
    drop(set_up);
    world.end();
    lines
}

fn bus() -> World {
    World::by_default()
}

#[track_caller]
fn assert_nothing_shared(lines: &[Lines; 2]) {
    for own in lines {
        // Otherwise nothing was recorded.
        let locked = own.names().filter(|name| name.contains("Inbox")).count();
        assert!(locked >= 2, "two inboxes have two lines at least: {own:?}");
    }
    let common = lines[0].common(&lines[1]);
    assert!(common.is_empty(), "both wrote to {common:#?}");
}

/// Two peers of one user that know a node of each other's.
struct Pair {
    peers: [Client; 2],
    /// By which each knows the other's.
    handles: [u64; 2],
}

/// The first node of each.
const NODE: u64 = 8;
/// A node of the first that the second does not know.
const NEW: u64 = 16;

impl Pair {
    fn open(world: &World, uid: u32) -> Self {
        let peers = [world.open(uid), world.open(uid)];
        let handles = [
            peers[1].transfer(NODE, &peers[0]).unwrap(),
            peers[0].transfer(NODE, &peers[1]).unwrap(),
        ];
        Self { peers, handles }
    }

    /// Sends from the first to the second, which gives the slice back.
    fn one_way(&self, data: &[u8], fds: &[i32]) {
        let [from, to] = &self.peers;
        let letter = Letter {
            fds,
            ..Letter::new(&self.handles[..1], data)
        };
        from.send(letter).unwrap();
        assert_eq!(to.take().unwrap().data, data);
    }

    /// Sends `n` messages before the first is received.
    fn burst(&self, n: usize, data: &[u8]) {
        let [from, to] = &self.peers;
        for _ in 0..n {
            from.send(Letter::new(&self.handles[..1], data)).unwrap();
        }
        for _ in 0..n {
            assert_eq!(to.take().unwrap().data, data);
        }
    }

    fn both_ways(&self, data: &[u8]) {
        self.one_way(data, &[]);
        let [to, from] = &self.peers;
        from.send(Letter::new(&self.handles[1..], data)).unwrap();
        assert_eq!(to.take().unwrap().data, data);
    }

    /// Sends a handle, which the second releases; then the owner is notified if nobody else has it.
    fn handle(&self, id: u64) {
        let [from, to] = &self.peers;
        let letter = Letter {
            handles: &[id],
            ..Letter::new(&self.handles[..1], b"")
        };
        from.send(letter).unwrap();
        to.release(to.take().unwrap().handles[0]).unwrap();
        for notice in from.take_all() {
            assert_eq!((notice.kind, notice.destination), (MSG_NODE_RELEASE, id));
        }
    }

    /// Sends from the first to both.
    fn multicast(&self, data: &[u8]) {
        let [from, to] = &self.peers;
        let both = [self.handles[0], NODE];
        from.send(Letter::new(&both, data)).unwrap();
        for peer in [from, to] {
            assert_eq!(peer.take().unwrap().data, data);
        }
    }

    /// Runs every operation of a peer that is in full swing.
    fn round(&self) {
        self.both_ways(b"");
        self.both_ways(&[1; 64]);
        self.both_ways(&[2; 32 << 10]);
        self.burst(16, &[4; 64]);
        self.burst(64, &[5; 512]);
        self.burst(COVERED, &[6; 16]);
        self.handle(NODE);
        self.handle(NEW);
        self.multicast(b"");
        self.multicast(&[3; 1000]);
    }
}

#[test]
fn pairs_of_two_users() {
    let lines = side_by_side(bus(), |world, number| {
        let pair = Pair::open(world, USER + number);
        move || {
            pair.round();
            pair.burst(2 * COVERED, b"");
            pair.one_way(b"", &[0, 1]);
        }
    });
    assert_nothing_shared(&lines);
}

#[test]
fn pairs_of_one_user() {
    let lines = side_by_side(bus(), |world, _| {
        let pair = Pair::open(world, USER);
        move || pair.round()
    });
    assert_nothing_shared(&lines);
}

/// The recorder finds a line that two peers do share: the tests above could fail.
#[test]
fn a_peer_that_both_send_to_is_seen() {
    let world = bus();
    let third = world.open(USER);
    let lines = side_by_side(world, move |world, number| {
        let (from, third) = (world.open(USER + 1 + number), third.clone());
        let handle = third.transfer(NODE, &from).unwrap();
        move || {
            from.send(Letter::new(&[handle], b"x")).unwrap();
            third.take().unwrap();
        }
    });
    let common = lines[0].common(&lines[1]);
    let inbox = |both: &(&str, &str)| both.0.contains("Inbox") && both.1.contains("Inbox");
    assert!(common.iter().any(inbox), "{common:#?}");
}

/// The account of a user whose peers do what their credit does not cover.
#[test]
fn a_user_account_that_both_use_is_seen() {
    let descriptor = |pair: &Pair| pair.one_way(b"", &[0]);
    let many = |pair: &Pair| pair.burst(COVERED + 1, b"");
    for round in [descriptor, many] {
        let lines = side_by_side(bus(), |world, _| {
            let pair = Pair::open(world, USER);
            move || round(&pair)
        });
        let common = lines[0].common(&lines[1]);
        let account = |both: &(&str, &str)| both.0.contains("UserAccount");
        assert!(common.iter().any(account), "{common:#?}");
    }
}
