// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Consistency, causality, atomicity.

use bus1_core::abi::*;
use kernel::error::{code::*, Result};
use kernel::sync::atomic::{Atomic, Relaxed};

use super::common::*;
use super::{data, model, spawn, Square, Watch, BOUND, DEEP};

#[test]
fn multicasts_are_received_in_one_order() {
    model("two multicasts", DEEP, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            from_b: [to_r, to_s],
        } = Square::new();
        let other = spawn(move || b.send(Letter::new(&[to_s, to_r], b"b")).unwrap());
        a.send(Letter::new(&from_a, b"a")).unwrap();
        other.join().unwrap();
        let (at_r, at_s) = (r.take_all(), s.take_all());
        assert_eq!(data(&at_r).len(), 2);
        assert_eq!(data(&at_r), data(&at_s));
        drop((r, s, a));
        world.end();
    });
}

#[test]
fn multicasts_are_received_in_one_order_while_they_are_sent() {
    model("two multicasts, received", BOUND, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            from_b: [to_r, to_s],
        } = Square::new();
        let one = spawn(move || b.send(Letter::new(&[to_s, to_r], b"b")).unwrap());
        let two = spawn(move || a.send(Letter::new(&from_a, b"a")).unwrap());
        let watch = Watch::look(&r);
        let mut at_r = r.take_all();
        let mut at_s = s.take_all();
        one.join().unwrap();
        two.join().unwrap();
        watch.check();
        at_r.extend(r.take_all());
        at_s.extend(s.take_all());
        assert_eq!(data(&at_r).len(), 2);
        assert_eq!(data(&at_r), data(&at_s));
        drop((r, s));
        world.end();
    });
}

#[test]
fn the_triangle() {
    model("triangle", DEEP, || {
        // A sends to B and C; C sends to B when it has the message.
        let Square {
            world,
            r: b,
            s: c,
            a,
            b: idle,
            from_a: [to_b, to_c],
            ..
        } = Square::new();
        let c_to_b = b.transfer(0, &c).unwrap();
        let sender = spawn(move || a.send(Letter::new(&[to_b, to_c], b"first")).unwrap());
        let told = c.take().is_ok();
        if told {
            c.send(Letter::new(&[c_to_b], b"then")).unwrap();
        }
        sender.join().unwrap();
        let at_b = b.take_all();
        let expected = [&b"first"[..], b"then"];
        assert_eq!(data(&at_b), expected[..1 + usize::from(told)]);
        drop((b, c, idle));
        world.end();
    });
}

#[test]
fn the_triangle_with_two_calls() {
    model("triangle of unicasts", DEEP, || {
        // A sends to B, then to C; C, on receipt, to B, which receives at any time.
        let Square {
            world,
            r: b,
            s: c,
            a,
            b: idle,
            from_a: [to_b, to_c],
            ..
        } = Square::new();
        let c_to_b = b.transfer(0, &c).unwrap();
        let sender = spawn(move || {
            a.send(Letter::new(&[to_b], b"first")).unwrap();
            a.send(Letter::new(&[to_c], b"news")).unwrap();
        });
        let receiver = spawn(move || (b.take_all(), b));
        if c.take().is_ok() {
            c.send(Letter::new(&[c_to_b], b"then")).unwrap();
        }
        sender.join().unwrap();
        let (mut at_b, b) = receiver.join().unwrap();
        at_b.extend(b.take_all());
        assert_eq!(data(&at_b)[0], b"first");
        drop((b, c, idle));
        world.end();
    });
}

#[test]
fn causality_through_a_flag() {
    model("side channel", DEEP, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            from_b: [to_r, _],
        } = Square::new();
        let flag = std::sync::Arc::new(Atomic::new(false));
        let set = flag.clone();
        let sender = spawn(move || {
            a.send(Letter::new(&from_a, b"first")).unwrap();
            set.store(true, Relaxed);
        });
        let seen = flag.load(Relaxed);
        b.send(Letter::new(&[to_r], b"then")).unwrap();
        sender.join().unwrap();
        let at_r = r.take_all();
        if seen {
            assert_eq!(data(&at_r), [&b"first"[..], b"then"]);
        }
        assert_eq!(data(&at_r).len(), 2);
        drop((r, s, b));
        world.end();
    });
}

/// Sends to `ids`; nothing may be staged at `victim` when a result is written.
fn send_watching(from: &Client, letter: Letter<'_>, victim: &Client) -> (Result, Vec<i32>) {
    let nothing_staged = || {
        assert_eq!(victim.info().staged, 0, "it could sleep now");
        Ok(())
    };
    let hooks = Hooks {
        write: Script::default().then(nothing_staged).then(nothing_staged),
        ..Hooks::default()
    };
    from.send_with(letter, &hooks)
}

#[test]
fn a_multicast_is_whole_or_is_not() {
    for release in [0, NODES_DESTROY_FLAG_RELEASE_HANDLES] {
        model("multicast and destruction", BOUND, move || {
            // One of the destinations dies; a third peer's message may stand behind a part.
            let Square {
                world,
                r,
                s,
                a,
                b,
                from_a,
                from_b: [_, to_s],
            } = Square::new();
            let owner = r.clone();
            let death = spawn(move || owner.destroy_with(&[0], release).unwrap());
            let receiver = s.clone();
            let other = spawn(move || {
                b.send(Letter::new(&[to_s], b"b")).unwrap();
                // It may stand behind a part that will be taken back.
                Watch::look(&receiver)
            });
            let (result, _) = send_watching(&a, Letter::new(&from_a, b"a"), &s);
            death.join().unwrap();
            let watch = other.join().unwrap();
            watch.check();
            let (at_r, at_s) = (r.take_all(), s.take_all());
            let expected = match result {
                Ok(()) => 1,
                Err(error) => {
                    assert_eq!(error, EHOSTUNREACH);
                    0
                }
            };
            assert_eq!(data(&at_s).len(), 1 + expected);
            if release == 0 {
                // Every message that was sent is received, and before the notice.
                assert_eq!(data(&at_r).len(), expected);
                assert_eq!(at_r.last().unwrap().kind, MSG_NODE_DESTROY);
            } else {
                assert!(data(&at_r).len() <= expected);
            }
            drop((r, s, a));
            world.end();
        });
    }
}

#[test]
fn a_partial_multicast_names_its_receivers() {
    model("partial multicast and destruction", DEEP, || {
        // Two nodes of one peer, of which one dies, and one of another.
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a: [to_r, to_s],
            ..
        } = Square::new();
        let dying = r.transfer(4, &a).unwrap();
        let owner = r.clone();
        let death = spawn(move || owner.destroy(&[4]).unwrap());
        let letter = Letter {
            flags: SEND_FLAG_CONTINUE,
            to: &[to_r, dying, to_s],
            ..Letter::default()
        };
        let (result, errors) = send_watching(&a, letter, &s);
        assert_eq!(result, Ok(()));
        death.join().unwrap();
        let parts: Vec<_> = r
            .take_all()
            .iter()
            .filter(|one| one.kind == MSG_DATA)
            .map(|one| (one.destination, one.more))
            .collect();
        match errors[..] {
            [0, 0, 0] => assert_eq!(parts, [(0, true), (4, false)]),
            [0, 113, 0] => assert_eq!(parts, [(0, false)]),
            _ => panic!("{errors:?}"),
        }
        assert_eq!(s.take_all().len(), 1);
        drop((r, s, a, b));
        world.end();
    });
}

#[test]
fn two_calls_destroy_one_node() {
    model("two destructions", BOUND, || {
        let world = World::default();
        let (o, p) = (world.open(1), world.open(2));
        let id = o.transfer(0, &p).unwrap();
        let other = o.clone();
        let one = spawn(move || other.destroy(&[4, 0]));
        let results = [o.destroy(&[0, 8]), one.join().unwrap()];
        assert!(matches!(
            results,
            [Ok(()), Err(ESTALE)] | [Err(ESTALE), Ok(())]
        ));
        let all = p.take_all();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].destination, id);
        // The one that failed made no node.
        assert_eq!(o.info().nodes, 2);
        drop((o, p));
        world.end();
    });
}

/// Returns a peer whose nodes 0 and 8 its seed pins, so that a flush leaves them, and a sender to
/// both.
fn pinned() -> (World, Client, Client, [u64; 2]) {
    let world = World::default();
    let (r, s) = (world.open(1), world.open(2));
    let letter = Letter {
        handles: &[0, 8],
        flags: SEND_FLAG_SEED,
        ..Letter::default()
    };
    r.send(letter).unwrap();
    let ids = [0, 8].map(|id| r.transfer(id, &s).unwrap());
    (world, r, s, ids)
}

#[test]
fn a_flush_drops_what_was_sent_before() {
    model("flush and a look", DEEP, || {
        let (world, r, s, ids) = pinned();
        s.send(Letter::new(&ids, b"old")).unwrap();
        let other = r.clone();
        let flush = spawn(move || other.flush(PEER_RESET_FLAG_FLUSH).unwrap());
        r.ready();
        flush.join().unwrap();
        assert_eq!(r.take().err(), Some(EAGAIN));
        drop((r, s));
        world.end();
    });
}

#[test]
fn a_flush_drops_all_parts_or_none() {
    model("flush and a multicast", DEEP, || {
        let (world, r, s, ids) = pinned();
        let sender = spawn(move || {
            s.send(Letter::new(&ids, b"new")).unwrap();
            s
        });
        let other = r.clone();
        let flush = spawn(move || other.flush(PEER_RESET_FLAG_FLUSH).unwrap());
        r.ready();
        flush.join().unwrap();
        let s = sender.join().unwrap();
        assert!([0, 2].contains(&r.take_all().len()));
        drop((r, s));
        world.end();
    });
}
