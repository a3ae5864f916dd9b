// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Handles against the death of their node: in messages, by transfer, and across a flush.

use bus1_core::abi::*;
use kernel::error::code::*;
use loom::thread::JoinHandle;

use super::common::*;
use super::{model, spawn, Seen, Square, BOUND, DEEP};

/// `a` sends a node of `b` to `r`, which may hold it, and to `s`, which does, while `act` is done
/// in other threads. Then both have to agree. If `r` holds it, the owner's clock is ahead, too.
fn handle_model(name: &str, holds: bool, act: fn(&Client, &Client, u64) -> Vec<JoinHandle<()>>) {
    model(name, BOUND, move || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            ..
        } = Square::new();
        let carried = b.transfer(8, &a).unwrap();
        let mut at_r = 0;
        if holds {
            at_r = b.transfer(8, &r).unwrap();
            b.send(Letter::new(&[8], b"1")).unwrap();
            b.send(Letter::new(&[8], b"2")).unwrap();
        }
        let at_s = b.transfer(8, &s).unwrap();
        let threads = act(&b, &r, at_r);
        let letter = Letter {
            handles: &[carried],
            ..Letter::new(&from_a, b"")
        };
        a.send(letter).unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        let (seen_r, seen_s) = (Seen::new(&r.take_all()), Seen::new(&s.take_all()));
        seen_r.check();
        seen_s.check();
        assert!(seen_s.notices == [at_s]);
        // The order is the same for all: valid for both or for none.
        let valid = |seen: &Seen| seen.slot != Some(HANDLE_INVALID);
        assert_eq!(valid(&seen_s), seen_s.message_first);
        assert_eq!(valid(&seen_r), valid(&seen_s));
        drop((r, s, a, b));
        world.end();
    });
}

#[test]
fn a_handle_in_a_message_dies() {
    for holds in [false, true] {
        handle_model("handle and destruction", holds, |owner, _, _| {
            let owner = owner.clone();
            vec![spawn(move || owner.destroy(&[8]).unwrap())]
        });
        handle_model("handle and disconnect", holds, |owner, _, _| {
            let owner = owner.clone();
            vec![spawn(move || owner.disconnect().unwrap())]
        });
    }
}

#[test]
fn a_handle_in_a_message_dies_and_its_holder_lets_go() {
    handle_model("handle, destruction and release", true, |owner, r, id| {
        let (owner, r) = (owner.clone(), r.clone());
        vec![
            spawn(move || owner.destroy(&[8]).unwrap()),
            spawn(move || r.release(id).unwrap()),
        ]
    });
}

#[test]
fn a_handle_in_a_message_dies_by_two_hands() {
    handle_model(
        "handle, destruction and disconnect",
        false,
        |owner, _, _| {
            let (one, two) = (owner.clone(), owner.clone());
            vec![
                spawn(move || {
                    assert!(matches!(
                        one.destroy(&[8]),
                        Ok(()) | Err(ESHUTDOWN | ESTALE)
                    ))
                }),
                spawn(move || two.disconnect().unwrap()),
            ]
        },
    );
}

#[test]
fn a_handle_is_transferred_and_dies() {
    for holds in [false, true] {
        model("transfer and destruction", DEEP, move || {
            let world = World::default();
            let (o, p) = (world.open(1), world.open(2));
            let before = holds.then(|| o.transfer(0, &p).unwrap());
            let owner = o.clone();
            let death = spawn(move || owner.destroy(&[0]).unwrap());
            let id = match o.transfer(0, &p) {
                Ok(id) => id,
                error => panic!("{error:?}"),
            };
            death.join().unwrap();
            let mut told = p.take_all();
            match (id, before) {
                (HANDLE_INVALID, None) => assert_eq!(told, []),
                (id, before) => {
                    let expected = before.unwrap_or(id);
                    assert!(id == expected || id == HANDLE_INVALID && holds);
                    assert_eq!(told.len(), 1, "a silent dead handle");
                    assert_eq!(told.pop().unwrap().destination, expected);
                }
            }
            drop((o, p));
            world.end();
        });
    }
}

#[test]
fn a_flush_leaves_no_silent_handle() {
    model("flush and receipt", DEEP, || {
        // The seed pins node 0 of R, so the message is wanted until it is dropped.
        let world = World::default();
        let (r, s) = (world.open(1), world.open(2));
        let letter = Letter {
            handles: &[0],
            flags: SEND_FLAG_SEED,
            ..Letter::default()
        };
        r.send(letter).unwrap();
        let to_r = r.transfer(0, &s).unwrap();
        let letter = Letter {
            handles: &[8],
            to: &[to_r],
            ..Letter::default()
        };
        s.send(letter).unwrap();
        s.destroy(&[8]).unwrap();
        let other = r.clone();
        let flush = spawn(move || other.flush(PEER_RESET_FLAG_FLUSH).unwrap());
        let received = r.take();
        flush.join().unwrap();
        if let Ok(received) = received {
            let id = received.handles[0];
            let told = r.take_all().iter().any(|one| one.destination == id);
            let held = r.release(id).is_ok();
            assert!(told || !held, "a silent dead handle");
        }
        drop((r, s));
        world.end();
    });
}

#[test]
fn a_flush_keeps_what_is_made_after_it() {
    model("flush and transfer", BOUND, || {
        let world = World::default();
        let (r, s) = (world.open(1), world.open(2));
        let known = r.transfer(0, &s).unwrap();
        let other = r.clone();
        let flush = spawn(move || other.flush(PEER_RESET_FLAG_FLUSH).unwrap());
        let id = r.transfer(4, &s).unwrap();
        flush.join().unwrap();
        // It died with the flush, or it lives and dies with its owner.
        let mut told = s.take_all();
        r.disconnect().unwrap();
        told.extend(s.take_all());
        let mut told: Vec<u64> = told.iter().map(|one| one.destination).collect();
        let mut expected = vec![known];
        if id != HANDLE_INVALID {
            expected.push(id);
        }
        told.sort_unstable();
        expected.sort_unstable();
        assert_eq!(told, expected);
        drop((r, s));
        world.end();
    });
}
