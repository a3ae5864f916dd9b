// SPDX-License-Identifier: MIT OR Apache-2.0

//! Threads that wait: no wake-up is lost, whichever way they wait. A lost one hangs the test.

mod common;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bus1_embedded::abi::MSG_NODE_RELEASE;
use bus1_embedded::{Bus, Errno, Usage};
use common::Client;
use rustix::event::{poll, PollFd, PollFlags};

const ROUNDS: u32 = 2_000;

/// Waits by futex.
fn by_wait(client: &Client) {
    client.peer.wait(None);
}

/// Waits by poll(2).
fn by_poll(client: &Client) {
    let fd = client.peer.as_fd();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
}

/// Waits, receives and releases.
fn next(client: &Client, wait: fn(&Client)) -> Vec<u8> {
    loop {
        wait(client);
        match client.receive() {
            Ok(received) => {
                client.release_slice(received.msg.offset).unwrap();
                return received.bytes;
            }
            Err(Errno::AGAIN) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// Sends a number to and fro; a wake-up is due for each message.
fn ping_pong(here: fn(&Client), there: fn(&Client)) {
    let bus = Bus::new().unwrap();
    let (ping, pong) = (Client::new(&bus), Client::new(&bus));
    let to_ping = ping.transfer(8, &pong.peer).unwrap();
    let to_pong = pong.transfer(8, &ping.peer).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                let ball = next(&pong, there);
                pong.send(&[to_ping], &[&ball], &[], &[]).unwrap();
            }
        });
        for round in 0..ROUNDS {
            let ball = round.to_ne_bytes();
            ping.send(&[to_pong], &[&ball], &[], &[]).unwrap();
            assert_eq!(next(&ping, here), ball);
        }
    });
    drop((ping, pong));
    assert_eq!(bus.usage(), Usage::default());
}

#[test]
fn ping_pong_by_wait() {
    ping_pong(by_wait, by_wait);
}

#[test]
fn ping_pong_by_poll() {
    ping_pong(by_poll, by_poll);
}

#[test]
fn ping_pong_by_either() {
    ping_pong(by_wait, by_poll);
}

#[test]
fn every_message_of_a_storm_finds_a_waiter() {
    const SENDERS: usize = 3;
    const EACH: usize = 2_000;
    let bus = Bus::new().unwrap();
    let owner = Client::new(&bus);
    let left = AtomicUsize::new(SENDERS * EACH);
    thread::scope(|scope| {
        for wait in [by_wait, by_wait, by_poll] {
            let (owner, left) = (&owner, &left);
            scope.spawn(move || loop {
                wait(owner);
                match owner.receive() {
                    // A sender left, and its handle with it.
                    Ok(received) if received.msg.kind == MSG_NODE_RELEASE => {}
                    Ok(received) => {
                        owner.release_slice(received.msg.offset).unwrap();
                        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                            // The others wait for what does not come.
                            owner.disconnect().unwrap();
                        }
                    }
                    Err(Errno::AGAIN) => {}
                    Err(Errno::SHUTDOWN) => break,
                    Err(errno) => panic!("{errno}"),
                }
            });
        }
        for _ in 0..SENDERS {
            let (bus, owner) = (&bus, &owner);
            scope.spawn(move || {
                let sender = Client::new(bus);
                let handle = owner.transfer(8, &sender.peer).unwrap();
                for _ in 0..EACH {
                    loop {
                        match sender.send(&[handle], &[b"drop"], &[], &[]) {
                            // The receivers are slower than the quota allows.
                            Err(Errno::DQUOT) => thread::yield_now(),
                            result => break result.unwrap(),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(left.into_inner(), 0);
    drop(owner);
    assert_eq!(bus.usage(), Usage::default());
}

#[test]
fn a_disconnect_wakes_all_waiters() {
    let bus = Bus::new().unwrap();
    for _ in 0..200 {
        let owner = Client::new(&bus);
        thread::scope(|scope| {
            for wait in [by_wait, by_wait, by_poll] {
                let owner = &owner;
                scope.spawn(move || {
                    while !owner.peer.poll().hangup {
                        wait(owner);
                    }
                });
            }
            owner.disconnect().unwrap();
        });
    }
}

#[test]
fn a_wait_ends_in_time() {
    let peer = Bus::new().unwrap().open().unwrap();
    for timeout in [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_millis(2),
    ] {
        let ready = peer.wait(Some(timeout));
        assert!(!ready.readable && !ready.hangup);
    }
}
