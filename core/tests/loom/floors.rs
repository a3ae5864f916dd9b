// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Receivers that pass undecided parts, while these are committed, killed, or die.
//!
//! A peer sends to itself and receives at once: that must succeed, whatever stands in its queue.

use bus1_core::abi::*;
use kernel::error::code::*;
use kernel::sync::atomic::{Atomic, Relaxed};

use super::common::*;
use super::{data, model, spawn, Seen, Square, BOUND, DEEP};

/// Has a peer send itself a message, and receive. Returns what came, which may have been sent
/// before.
fn pass(client: &Client) -> Received {
    client.send(Letter::new(&[0], b"own")).unwrap();
    client.take().expect("a message that was sent is kept back")
}

/// Has the clock of a peer be ahead of all others.
fn hurry(client: &Client) {
    for _ in 0..3 {
        pass(client);
    }
}

/// Returns the multicasts among the received entries.
fn multicasts(all: &[Received]) -> Vec<&[u8]> {
    let mut all = data(all);
    all.retain(|&data| data != b"own");
    all
}

#[test]
fn two_receivers_move_the_parts_of_one_multicast() {
    model("two receivers raise a floor", BOUND, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            from_b: [to_r, to_s],
        } = Square::new();
        let sender = spawn(move || a.send(Letter::new(&from_a, b"a")).unwrap());
        let other = s.clone();
        let receiver = spawn(move || pass(&other));
        let mut at_r = vec![pass(&r)];
        b.send(Letter::new(&[to_s, to_r], b"b")).unwrap();
        sender.join().unwrap();
        let mut at_s = vec![receiver.join().unwrap()];
        at_r.extend(r.take_all());
        at_s.extend(s.take_all());
        assert_eq!((at_r.len(), at_s.len()), (3, 3));
        assert_eq!(multicasts(&at_r), multicasts(&at_s));
        drop((r, s, b));
        world.end();
    });
}

#[test]
fn a_floor_is_raised_while_its_transaction_is_committed() {
    model("raise against commit", DEEP, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            ..
        } = Square::new();
        let sender = spawn(move || {
            a.send(Letter::new(&from_a, b"1")).unwrap();
            a.send(Letter::new(&from_a, b"2")).unwrap();
        });
        let mut at_r = vec![pass(&r)];
        at_r.extend(r.take_all());
        sender.join().unwrap();
        at_r.extend(r.take_all());
        assert_eq!(at_r.len(), 3);
        assert_eq!(multicasts(&at_r), [b"1", b"2"]);
        assert_eq!(multicasts(&s.take_all()), [b"1", b"2"]);
        drop((r, s, b));
        world.end();
    });
}

/// The multicast is committed at a timestamp far above the clock of the queue that the next message
/// is pushed to, where nobody has looked at it since.
#[test]
fn a_push_stands_behind_what_was_committed_before() {
    for received in [false, true] {
        model("push against commit", DEEP, move || {
            let Square {
                world,
                r,
                s,
                a,
                b,
                from_a,
                from_b: [to_r, _],
            } = Square::new();
            hurry(&s);
            let flag = std::sync::Arc::new(Atomic::new(false));
            let set = flag.clone();
            let sender = spawn(move || {
                a.send(Letter::new(&from_a, b"first")).unwrap();
                set.store(true, Relaxed);
            });
            // The news comes by a receipt, or beside the bus.
            let is_known = match received {
                true => s.take().is_ok(),
                false => flag.load(Relaxed),
            };
            b.send(Letter::new(&[to_r], b"then")).unwrap();
            sender.join().unwrap();
            let at_r = r.take_all();
            assert_eq!(at_r.len(), 2);
            assert!(!is_known || data(&at_r) == [&b"first"[..], b"then"]);
            drop((r, s, b));
            world.end();
        });
    }
}

/// One destination dies, or its owner leaves, while the other one passes its part.
#[test]
fn a_part_is_passed_while_its_transaction_is_killed() {
    let deaths: [fn(&Client); 2] = [
        |owner| owner.destroy(&[0]).unwrap(),
        |owner| owner.disconnect().unwrap(),
    ];
    for death in deaths {
        model("raise against kill", BOUND, move || {
            let Square {
                world,
                r,
                s,
                a,
                b,
                from_a,
                ..
            } = Square::new();
            let owner = r.clone();
            let dying = spawn(move || death(&owner));
            let other = s.clone();
            let receiver = spawn(move || pass(&other));
            let result = a.send(Letter::new(&from_a, b"a"));
            dying.join().unwrap();
            let mut at_s = vec![receiver.join().unwrap()];
            at_s.extend(s.take_all());
            let expected = match result {
                Ok(()) => 1,
                Err(error) => {
                    assert_eq!(error, EHOSTUNREACH);
                    0
                }
            };
            assert_eq!(multicasts(&at_s).len(), expected);
            if r.peer.check_open().is_ok() {
                let at_r = r.take_all();
                assert_eq!(data(&at_r).len(), expected);
                assert_eq!(at_r.last().unwrap().kind, MSG_NODE_DESTROY);
            }
            drop((r, s, a, b));
            world.end();
        });
    }
}

/// A holder passes the undecided notice of a node's death, which another message brings it. The
/// clocks of the holders are ahead of the owner's, or not.
#[test]
fn a_notice_is_passed_while_a_handle_of_its_node_comes() {
    for ahead in [false, true] {
        model("raise against death and linking", BOUND, move || {
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
            let at_r = b.transfer(8, &r).unwrap();
            if ahead {
                hurry(&r);
            }
            let owner = b.clone();
            let death = spawn(move || owner.destroy(&[8]).unwrap());
            let other = r.clone();
            let receiver = spawn(move || pass(&other));
            let letter = Letter {
                handles: &[carried],
                ..Letter::new(&from_a[..1], b"a")
            };
            a.send(letter).unwrap();
            death.join().unwrap();
            let mut seen_r = vec![receiver.join().unwrap()];
            seen_r.extend(r.take_all());
            seen_r.retain(|one| one.data != b"own");
            let seen = Seen::new(&seen_r);
            seen.check();
            assert_eq!(seen.slot != Some(HANDLE_INVALID), seen.message_first);
            assert_eq!(seen.notices, [at_r]);
            drop((r, s, a, b));
            world.end();
        });
    }
}
