// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Work in one critical section, as a count of steps: it does not grow with the number of handles,
//! messages, nodes or parts, except where it says so.

#![cfg(all(debug_assertions, not(loom)))]

mod common;

use bus1_core::abi::*;
use bus1_core::bus::SLICES;

use common::*;
use kernel::work::most_under_lock;

/// Number of handles, messages, nodes and parts.
const N: u64 = 1000;
/// Most steps of a critical section: a chunk of 64, with a few steps for each.
const BOUND: u64 = 64 * 8;

/// Limits of which `N` messages with handles take a small part, and which are exact.
const LIMITS: [u32; 4] = [4095, 1 << 20, 1 << 30, 4095];

/// Returns a receiver and a sender of one user, and the sender's handles to `N` nodes of the
/// receiver.
fn scene() -> (World, Client, Client, Vec<u64>) {
    let world = World::new(LIMITS);
    let (r, s) = (world.open(1), world.open(1));
    let ids = (0..N).map(|n| r.transfer(4 * n, &s).unwrap()).collect();
    (world, r, s, ids)
}

/// Returns the most steps in which the memory of a pool and its queue grows to room for `n` slices:
/// three for each element that there was, and two for each message, of which there are no more.
fn growth(n: u64) -> u64 {
    5 * n.next_power_of_two() / 2 + 40
}

/// Runs `run`, and asserts that no critical section of it takes more than `bound` steps.
fn bounded<R>(what: &str, bound: u64, run: impl FnOnce() -> R) -> R {
    let (result, most) = most_under_lock(run);
    assert!(most <= bound, "{what}: {most} steps under a lock");
    assert!(most > 0, "{what}: nothing was counted");
    result
}

fn end(world: World, clients: [Client; 2]) {
    drop(clients);
    world.end();
}

#[test]
fn a_message_with_many_handles() {
    let (world, r, s, ids) = scene();
    let own: Vec<u64> = (0..N).map(|n| 4 * n).collect();
    let letter = Letter {
        handles: &own,
        ..Letter::new(&ids[..1], b"")
    };
    bounded("send", BOUND, || s.send(letter).unwrap());
    let received = bounded("recv", BOUND, || r.take().unwrap());
    assert_eq!(received.handles.len() as u64, N);
    bounded("info", BOUND, || assert_eq!(r.info().handles, 2 * N));
    bounded("flush", BOUND, || r.flush(PEER_RESET_FLAG_FLUSH).unwrap());
    end(world, [r, s]);
}

#[test]
fn many_messages() {
    let (world, r, s, ids) = scene();
    for id in &ids {
        s.send(Letter::new(&[*id], b"")).unwrap();
    }
    bounded("info", BOUND, || assert_eq!(r.info().queued, N));
    bounded("disconnect", BOUND, || r.disconnect().unwrap());
    end(world, [r, s]);
}

#[test]
fn many_parts_of_one_message() {
    let (world, r, s, ids) = scene();
    let other = world.open(2);
    let id = r.transfer(0, &other).unwrap();
    bounded("send", growth(N), || {
        s.send(Letter::new(&ids, b"")).unwrap()
    });
    // The sender that comes next finds all of them committed.
    let to = [id];
    let alone = Letter::new(&to, b"alone");
    bounded("the next", 60, || other.send(alone).unwrap());
    bounded("info", BOUND, || assert_eq!(r.info().queued, N + 1));
    let all = bounded("recv", 60, || r.take_all());
    assert_eq!(all.len() as u64, N + 1);
    drop(other);
    end(world, [r, s]);
}

#[test]
fn many_nodes_die() {
    for flags in [0, NODES_DESTROY_FLAG_RELEASE_HANDLES] {
        let (world, r, s, ids) = scene();
        s.send(Letter::new(&ids, b"")).unwrap();
        let own: Vec<u64> = (0..N).map(|n| 4 * n).collect();
        // Each node is looked at once, so that all are destroyed or none.
        bounded("destroy", N + 40, || r.destroy_with(&own, flags).unwrap());
        bounded("info", BOUND, || assert_eq!(s.info().queued, N));
        bounded("recv", BOUND, || s.take_all());
        bounded("flush", BOUND, || s.flush(PEER_RESET_FLAG_FLUSH).unwrap());
        end(world, [r, s]);
    }
}

#[test]
fn many_nodes_die_with_their_owner() {
    let (world, r, s, _) = scene();
    bounded("disconnect", BOUND, || r.disconnect().unwrap());
    bounded("disconnect", BOUND, || s.disconnect().unwrap());
    end(world, [r, s]);
}

/// Parts that the peer does not want any more are passed one at a time.
#[test]
fn many_parts_that_nobody_wants() {
    let (world, r, s, ids) = scene();
    let own: Vec<u64> = (0..N).map(|n| 4 * n).collect();
    // The seed holds the handles on, so their notices are not withdrawn.
    let seed = Letter {
        handles: &ids,
        flags: SEND_FLAG_SEED,
        ..Letter::default()
    };
    s.send(seed).unwrap();
    r.destroy(&own).unwrap();
    for id in &ids[1..N as usize - 1] {
        s.release(*id).unwrap();
    }
    let first = bounded("recv", 60, || s.take().unwrap());
    let last = bounded("recv", 60, || s.take().unwrap());
    assert_eq!((first.destination, first.more), (ids[0], true));
    assert_eq!((last.destination, last.more), (ids[N as usize - 1], false));
    end(world, [r, s]);
}

/// Claimants that keep credit are counted, and theirs is taken back, a few at a time.
#[test]
fn many_claimants() {
    // Limits from which credit is kept.
    let world = World::new([1 << 20, 1 << 20, 1 << 30, 1 << 16]);
    let (r, s) = (world.open(1), world.open(2));
    let clients: Vec<Client> = (0..N).map(|_| world.open(1)).collect();
    for client in &clients {
        let id = r.transfer(0, client).unwrap();
        client.send(Letter::new(&[id], b"once")).unwrap();
        r.take().unwrap();
    }
    let info = bounded("info", BOUND, || r.info());
    assert_eq!(info.charged[SLICES], 0);
    bounded("disconnect", BOUND, || r.disconnect().unwrap());
    drop(clients);
    end(world, [r, s]);
}

/// The charges of many users at one peer go back to the account of its user a few at a time.
#[test]
fn many_users() {
    let world = World::new([1 << 20, 1 << 20, 1 << 30, 1 << 16]);
    let (r, s) = (world.open(1), world.open(2));
    let users = 10..10 + N as u32;
    let clients: Vec<Client> = users.map(|uid| world.open(uid)).collect();
    for client in &clients {
        let id = r.transfer(0, client).unwrap();
        client.send(Letter::new(&[id], b"once")).unwrap();
    }
    bounded("disconnect", BOUND, || r.disconnect().unwrap());
    drop(clients);
    end(world, [r, s]);
}

/// However many wait, the call that makes room looks at a few, or notifies them one at a time.
#[test]
fn many_waits_for_room() {
    let (world, r, s, ids) = scene();
    while s.send(Letter::new(&ids[..1], b"")).is_ok() {}
    let letter = Letter {
        flags: SEND_FLAG_CONTINUE | SEND_FLAG_ROOM,
        ..Letter::new(&ids, b"")
    };
    bounded("send", BOUND, || s.send(letter).unwrap());
    bounded("one release", BOUND, || r.take().unwrap());
    let few = s.info().queued;
    assert!((1..=8).contains(&few), "{few} were notified");
    // A sender that takes its notice and gives up has the next one notified.
    bounded("receipt of a notice", BOUND, || s.take().unwrap());
    assert_eq!(s.info().queued, few);
    bounded("all releases", BOUND, || r.take_all());
    assert_eq!(1 + s.take_all().len(), ids.len());
    end(world, [r, s]);
}

/// Slices that the user has released are passed a few at a time, as are all that it has.
#[test]
fn many_slices_are_released() {
    for keeps_last in [false, true] {
        let (world, r, s, ids) = scene();
        for _ in 0..N {
            s.send(Letter::new(&ids[..1], b"")).unwrap();
        }
        let mut all: Vec<u64> = (0..N).map(|_| r.recv().unwrap().offset).collect();
        if keeps_last {
            let last = all.pop();
            assert!(last.is_some());
        }
        for offset in all {
            r.release_slice(offset).unwrap();
        }
        bounded("flush", BOUND, || r.flush(PEER_RESET_FLAG_FLUSH).unwrap());
        assert_eq!(r.info().slices, 0);
        end(world, [r, s]);
    }
}

/// The memory of a pool and its queue grows in one critical section.
#[test]
fn memory_for_slices_grows() {
    let (world, r, s, ids) = scene();
    for n in 1..=N {
        let letter = Letter::new(&ids[..1], b"");
        // One extent is free.
        bounded("send", growth(n + 1), || s.send(letter).unwrap());
    }
    end(world, [r, s]);
}
