// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Room again: a refused SEND against what makes the room, and against what ends the wait. No
//! notice is lost, none comes twice, and nothing is left.

use bus1_core::abi::*;
use kernel::error::code::*;
use kernel::error::Result;

use super::common::*;
use super::{model, spawn, Watch, BOUND, DEEP};

fn send(from: &Client, to: u64) -> Result {
    from.send(Letter {
        flags: SEND_FLAG_ROOM,
        ..Letter::new(&[to], b"")
    })
}

/// Returns the number of notices of room for a handle.
fn rooms(all: &[Received], to: u64) -> usize {
    let notices = all.iter().filter(|one| one.kind == MSG_ROOM);
    notices
        .inspect(|one| assert_eq!(one.destination, to))
        .count()
}

/// Makes a receiver that is full, except for one slice that it is about to give back, and a sender.
fn full() -> (World, Client, Client, u64, u64) {
    let world = World::new([4, 64, 4000, 4]);
    let (r, s) = (world.open(1), world.open(1));
    let to = r.transfer(0, &s).unwrap();
    while s.send(Letter::new(&[to], b"")).is_ok() {}
    let offset = r.recv().unwrap().offset;
    (world, r, s, to, offset)
}

#[test]
fn a_refusal_and_a_release() {
    model("room: refusal and release", DEEP, || {
        let (world, r, s, to, offset) = full();
        let other = r.clone();
        let releaser = spawn(move || other.release_slice(offset).unwrap());
        let sent = send(&s, to);
        let watch = Watch::look(&s);
        releaser.join().unwrap();
        watch.check();
        assert!(sent == Ok(()) || sent == Err(EDQUOT));
        assert_eq!(rooms(&s.take_all(), to), usize::from(sent.is_err()));
        r.take_all();
        assert_eq!(rooms(&s.take_all(), to), 0);
        drop((r, s));
        world.end();
    });
}

#[test]
fn a_refusal_and_a_release_at_another_peer_of_the_user() {
    model("room: another peer", BOUND, || {
        let world = World::of([16, 64, 4000, 64], Some([1000, 1000, 4000, 64]));
        let [a, b, s] = [1, 1, 1].map(|uid| world.open(uid));
        let ids = [&a, &b].map(|to| to.transfer(0, &s).unwrap());
        s.send(Letter::new(&ids[..1], b"")).unwrap();
        let offset = a.recv().unwrap().offset;
        let releaser = spawn(move || a.release_slice(offset).unwrap());
        let sent = send(&s, ids[1]);
        releaser.join().unwrap();
        assert!(sent == Ok(()) || sent == Err(EDQUOT));
        assert_eq!(rooms(&s.take_all(), ids[1]), usize::from(sent.is_err()));
        drop((b, s));
        world.end();
    });
}

#[test]
fn a_refusal_and_the_end_of_the_node() {
    model("room: destruction", BOUND, || {
        let (world, r, s, to, _) = full();
        let other = r.clone();
        let owner = spawn(move || other.destroy(&[0]).unwrap());
        let sent = send(&s, to);
        owner.join().unwrap();
        let notices = rooms(&s.take_all(), to);
        match sent {
            Err(EDQUOT) => assert_eq!(notices, 1),
            sent => assert_eq!((sent, notices), (Err(EHOSTUNREACH), 0)),
        }
        drop((r, s));
        world.end();
    });
}

#[test]
fn a_refusal_and_the_end_of_the_handle() {
    model("room: release of the handle", BOUND, || {
        let (world, r, s, to, _) = full();
        let other = s.clone();
        let releaser = spawn(move || other.release(to).unwrap());
        let sent = send(&s, to);
        releaser.join().unwrap();
        assert!(sent == Err(ENXIO) || sent == Err(EDQUOT));
        assert_eq!(s.take_all(), []);
        r.take_all();
        assert_eq!(s.take_all(), []);
        drop((r, s));
        world.end();
    });
}

#[test]
fn a_release_and_the_end_of_the_handle() {
    model("room: notice and release of the handle", BOUND, || {
        let (world, r, s, to, offset) = full();
        assert_eq!(send(&s, to), Err(EDQUOT));
        let other = s.clone();
        let releaser = spawn(move || other.release(to).unwrap());
        r.release_slice(offset).unwrap();
        releaser.join().unwrap();
        assert_eq!(s.take_all(), []);
        drop((r, s));
        world.end();
    });
}

#[test]
fn two_that_make_room() {
    model("room: two releases", BOUND, || {
        let (world, r, s, to, offset) = full();
        let second = r.recv().unwrap().offset;
        assert_eq!(send(&s, to), Err(EDQUOT));
        let other = r.clone();
        let releaser = spawn(move || other.release_slice(offset).unwrap());
        r.release_slice(second).unwrap();
        releaser.join().unwrap();
        assert_eq!(rooms(&s.take_all(), to), 1);
        drop((r, s));
        world.end();
    });
}
