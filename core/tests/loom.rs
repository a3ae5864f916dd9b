// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Models of the order: the core itself, with every interleaving of a few commands.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p bus1-core --test loom
//! ```
//!
//! Each model runs whole commands of the real core in two or three threads, and looks at what the
//! receivers see. Locks, atomics and reference counts are loom's, so what is explored is every
//! order of these (with the weaker memory orders), not of statements. `LockedBy` and the counts
//! are checked on the way: an access that is not ordered, and a peer, node, handle, transaction or
//! message that is never freed, fail the model.
//!
//! # Covered
//!
//! - Consistency: two multicasts to the same two receivers, also while they are received.
//! - Causality: the triangle, with the news coming by message or by a plain flag.
//! - Atomicity: a multicast against the death of one destination, whole or partial; no result is
//!   written to the sender while anything is staged.
//! - Wake-ups: who looked, saw nothing and was not woken afterwards has nothing to receive.
//! - Handles: in messages and transfers against the death of the node, the owner's disconnect and
//!   the receiver's own release and flush.
//! - Counts: releases against each other and against messages in flight; one notice each.
//! - Conservation: disconnects and flushes against senders; every model ends with all zero.
//! - Two threads that receive from one peer; idle credit that is recalled.
//!
//! # Not covered
//!
//! - More than [`BOUND`] or [`DEEP`] preemptions in one run (`LOOM_MAX_PREEMPTIONS` raises both), or
//!   more than three threads and three queues. The proofs are in `docs/ordering.md`; `queue_tests.rs` has random
//!   schedules of more.
//! - Locks of the host: wake-ups are counted, not slept on. Payloads are a few bytes.
//! - The kernel's memory model: loom has that of C11 (without load buffering), which is what the shim
//!   maps the kernel's orders to.

#![cfg(loom)]

mod common;

use bus1_core::abi::*;
use bus1_core::bus::Limits;
use common::*;
use kernel::error::{code::*, Result};
use kernel::sync::atomic::{Atomic, Relaxed};
use loom::thread::{self, JoinHandle};

/// Preemptions of most models, and of those that are small.
const BOUND: usize = 2;
const DEEP: usize = 3;

/// Explores `f`.
fn model(name: &str, bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(bound));
    builder.max_branches = 100_000;
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = runs.clone();
    let start = std::time::Instant::now();
    builder.check(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        f();
    });
    println!("{name}: {runs:?} runs in {:?}", start.elapsed());
}

fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    thread::spawn(f)
}

fn data(all: &[Received]) -> Vec<&[u8]> {
    let data = all.iter().filter(|one| one.kind == MSG_DATA);
    data.map(|one| &one.data[..]).collect()
}

/// What a waiter saw before it would have gone to sleep.
struct Watch(Client, bool, u64);

impl Watch {
    fn look(client: &Client) -> Self {
        let wakes = client.wakes();
        Self(client.clone(), client.ready().readable, wakes)
    }

    /// When all is quiet.
    fn check(self) {
        let Self(client, saw, wakes) = self;
        let sleeps = !saw && client.wakes() == wakes;
        assert!(!(sleeps && client.ready().readable), "a wake-up was lost");
    }
}

/// Two receivers and two senders, with handles to node 0 of each receiver.
struct Square {
    world: World,
    r: Client,
    s: Client,
    a: Client,
    b: Client,
    /// The IDs of the nodes of `r` and `s`.
    from_a: [u64; 2],
    from_b: [u64; 2],
}

impl Square {
    fn new() -> Self {
        let world = World::default();
        let [r, s, a, b] = [1, 1, 2, 2].map(|uid| world.open(uid));
        let handles = |to: &Client| [&r, &s].map(|owner| owner.transfer(0, to).unwrap());
        Self {
            from_a: handles(&a),
            from_b: handles(&b),
            world,
            r,
            s,
            a,
            b,
        }
    }
}

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
                // What was sent is received, and before the notice.
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
fn a_partial_multicast_says_who_got_it() {
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
    model("two destructions", DEEP, || {
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

/// Where the message and the notice were in what was received.
struct Seen {
    slot: Option<u64>,
    notices: Vec<u64>,
    message_first: bool,
}

impl Seen {
    fn new(all: &[Received]) -> Self {
        let message = all.iter().position(|one| one.kind == MSG_DATA);
        let notice = all.iter().position(|one| one.kind == MSG_NODE_DESTROY);
        let notices = all.iter().filter(|one| one.kind == MSG_NODE_DESTROY);
        Self {
            slot: message.map(|i| all[i].handles[0]),
            notices: notices.map(|one| one.destination).collect(),
            message_first: message.is_some_and(|m| notice.is_none_or(|n| m < n)),
        }
    }

    /// An ID comes before the notice with this ID, nothing after it.
    fn check(&self) {
        match self.slot {
            Some(HANDLE_INVALID) => assert!(!self.message_first || self.notices.is_empty()),
            Some(id) => {
                assert!(self.message_first);
                assert_eq!(self.notices, [id], "a silent dead handle");
            }
            None => (),
        }
    }
}

/// `a` sends a node of `b` to `r`, which may hold it, and to `s`, which does; then `act` is done in
/// other threads; then both have to agree.
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
        let at_r = if holds { b.transfer(8, &r).unwrap() } else { 0 };
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

/// The number of release notices for node 0.
fn releases(all: &[Received]) -> usize {
    let notices = all.iter().filter(|one| one.kind == MSG_NODE_RELEASE);
    notices
        .inspect(|one| assert_eq!(one.destination, 0))
        .count()
}

#[test]
fn two_holders_let_go() {
    model("two releases", DEEP, || {
        let world = World::default();
        let [o, p, q] = [1, 2, 3].map(|uid| world.open(uid));
        let ids = [&p, &q].map(|to| o.transfer(0, to).unwrap());
        let other = spawn(move || q.release(ids[1]).unwrap());
        p.release(ids[0]).unwrap();
        let watch = Watch::look(&o);
        other.join().unwrap();
        watch.check();
        assert_eq!(releases(&o.take_all()), 1);
        drop((o, p));
        world.end();
    });
}

#[test]
fn a_reference_in_flight_is_one() {
    model("release and receipt", DEEP, || {
        // P passes its handle on and lets go of it; Q lets go of whatever it gets; the owner looks.
        let world = World::default();
        let [o, p, q] = [1, 2, 3].map(|uid| world.open(uid));
        let id = o.transfer(0, &p).unwrap();
        let to_q = q.transfer(0, &p).unwrap();
        let sender = spawn(move || {
            let letter = Letter {
                handles: &[id],
                to: &[to_q],
                ..Letter::default()
            };
            p.send(letter).unwrap();
            p.release(id).unwrap();
        });
        let let_go = |q: &Client| {
            for received in q.take_all() {
                q.release(received.handles[0]).unwrap();
            }
        };
        let owner = o.clone();
        let looker = spawn(move || owner.take_all());
        let_go(&q);
        let mut seen = looker.join().unwrap();
        sender.join().unwrap();
        let_go(&q);
        seen.extend(o.take_all());
        assert_eq!(releases(&seen), 1);
        drop((o, q));
        world.end();
    });
}

#[test]
fn a_release_notice_is_withdrawn_or_received() {
    model("release and transfer", DEEP, || {
        // The last holder lets go while the owner gives the node anew, and receives.
        let world = World::default();
        let [o, p, q] = [1, 2, 3].map(|uid| world.open(uid));
        let id = o.transfer(0, &p).unwrap();
        let releaser = spawn(move || p.release(id).unwrap());
        let owner = o.clone();
        let looker = spawn(move || releases(&owner.take_all()));
        let again = o.transfer(0, &q).unwrap();
        let early = looker.join().unwrap();
        releaser.join().unwrap();
        assert!(early <= 1);
        // Q holds it now.
        assert_eq!(releases(&o.take_all()), 0);
        q.release(again).unwrap();
        assert_eq!(releases(&o.take_all()), 1);
        drop((o, q));
        world.end();
    });
}

#[test]
fn a_receiver_leaves() {
    for to_both in [false, true] {
        model("send and disconnect", BOUND, move || {
            let Square {
                world,
                r,
                s,
                a,
                b,
                from_a,
                ..
            } = Square::new();
            let leaver = r.clone();
            let leave = spawn(move || leaver.disconnect().unwrap());
            let letter = Letter {
                handles: &[8],
                fds: &[1],
                ..Letter::new(&from_a[..1 + usize::from(to_both)], b"x")
            };
            let sent = a.send(letter);
            leave.join().unwrap();
            assert!(matches!(sent, Ok(()) | Err(EHOSTUNREACH)));
            // Nobody holds the node of a message that was refused, or that vanished.
            let expected = usize::from(sent.is_ok() && to_both);
            assert_eq!(s.take_all().len(), expected);
            assert_eq!(world.files(), 0);
            drop((r, s, a, b));
            world.end();
        });
    }
}

#[test]
fn a_sender_leaves() {
    model("disconnect and send", BOUND, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            ..
        } = Square::new();
        let leaver = a.clone();
        let leave = spawn(move || leaver.disconnect().unwrap());
        let letter = Letter {
            handles: &[8],
            ..Letter::new(&from_a, b"x")
        };
        let sent = a.send(letter);
        leave.join().unwrap();
        assert!(matches!(sent, Ok(()) | Err(ESHUTDOWN)));
        for client in [&r, &s] {
            let all = client.take_all();
            assert_eq!(data(&all).len(), usize::from(sent.is_ok()));
            let seen: Vec<_> = all
                .into_iter()
                .filter(|one| one.kind != MSG_NODE_RELEASE)
                .collect();
            Seen::new(&seen).check();
        }
        drop((r, s, a, b));
        world.end();
    });
}

#[test]
fn two_threads_receive_from_one_peer() {
    model("two receivers", DEEP, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            ..
        } = Square::new();
        for data in [b"1", b"2"] {
            let letter = Letter {
                handles: &[8],
                ..Letter::new(&from_a[..1], data)
            };
            a.send(letter).unwrap();
        }
        let other = r.clone();
        let one = spawn(move || other.take().unwrap());
        let two = r.take().unwrap();
        let one = one.join().unwrap();
        let mut data = [&one.data[..], &two.data];
        data.sort();
        assert_eq!(data, [b"1", b"2"]);
        assert_eq!(one.handles, two.handles);
        assert_eq!(r.recv(), Err(EAGAIN));
        drop((r, s, a, b));
        world.end();
    });
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

#[test]
fn idle_credit_is_recalled() {
    model("recall", DEEP, || {
        let world = World::new(Limits {
            slices: 4096,
            handles: 4096,
            bytes: 8192,
            fds: 4096,
        });
        // Two peers of one user; two foreign users send to one each, the second all it may.
        let [r, s, a, b] = [1, 1, 2, 3].map(|uid| world.open(uid));
        let to_r = r.transfer(0, &a).unwrap();
        let to_s = s.transfer(0, &b).unwrap();
        let receiver = r.clone();
        let other = spawn(move || {
            a.send(Letter::new(&[to_r], b"x")).unwrap();
            receiver.take().unwrap();
        });
        let most = [0; 1024];
        let sent = b.send(Letter::new(&[to_s], &most));
        assert!(matches!(sent, Ok(()) | Err(EDQUOT)));
        other.join().unwrap();
        s.take_all();
        assert_eq!(b.send(Letter::new(&[to_s], &most)), Ok(()));
        drop((r, s, b));
        world.end();
    });
}
