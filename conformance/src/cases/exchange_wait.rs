// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE that waits: alone, beside others that wait for the same peer, and to the end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Barrier};
use std::thread::yield_now;
use std::time::Instant;

use bus1_uapi as abi;

use super::Case;
use crate::client::Peer;
use crate::env::{Env, PATIENCE};
use crate::host::Errno as E;
use crate::sys::thread::{current, monotonic};

pub const CASES: &[Case] = &[
    case!(message_ends_the_wait, "9 exchange: sleeps until a message is ready"),
    case!(batch_ends_with_what_is_there, "9 exchange: a message is ready; batch receive"),
    case!(notices_end_the_wait, "9 exchange: a message is ready; 2: both are queue entries"),
    case!(any_part_ends_the_wait, "9 exchange: a message is ready; 3.3"),
    case!(far_deadlines, "9 exchange: until ... a timeout"),
    case!(disconnect_ends_every_wait, "9 exchange; 5 PEER_DISCONNECT"),
    case!(flush_ends_no_wait, "9 exchange; 5 PEER_RESET"),
    case!(own_peer_goes_on_meanwhile, "9 exchange; 2: it belongs to no process"),
    case!(one_message_ends_one_wait, "9 exchange: sleeps until a message is ready"),
    case!(as_many_waits_as_messages, "9 exchange; 4 poll: wake-ups are never lost"),
    case!(parts_end_as_many_waits, "9 exchange; 4 poll: wake-ups are never lost"),
    case!(refused_waiter_passes_it_on, "9 exchange; 5 RECV: the message stays"),
    case!(pollers_see_what_is_left, "4 poll: wake-ups are never lost; 9 exchange"),
    case!(pollers_and_waiters_share_the_work, "4 poll: wake-ups are never lost; 9 exchange"),
    case!(question_and_answer, "9 exchange: a round trip"),
    case!(multicasts_taken_back, "3.5: receivable as soon as ...; 9 exchange"),
    case!(timeouts_at_the_moment, "9 exchange: until a message is ready, a timeout"),
];

/// The payload of the next message, for which it waits.
fn wait(peer: &Peer) -> Vec<u8> {
    peer.exchange().room(1).patient().one().bytes
}

/// Runs `wait` in `n` threads, and `act` when all of them sleep there; gives what they return.
/// `act` is told how many have returned.
fn asleep<T: Send>(
    env: &Env,
    n: usize,
    wait: impl Fn(usize) -> T + Sync,
    act: impl FnOnce(&AtomicUsize),
) -> Vec<T> {
    let returned = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for i in 0..n {
            let (tell, told) = mpsc::channel();
            let (wait, returned) = (&wait, &returned);
            threads.push(scope.spawn(move || {
                tell.send(current()).unwrap();
                let result = wait(i);
                returned.fetch_add(1, SeqCst);
                result
            }));
            // One after the other, so that the first sleeps first.
            env.asleep(told.recv().unwrap());
        }
        act(&returned);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Returns when the count is there. If it does not come, `peer` is disconnected, so that nobody
/// waits for it any more, and the case fails.
#[track_caller]
fn reach(count: &AtomicUsize, wanted: usize, peer: &Peer) {
    let started = Instant::now();
    while count.load(SeqCst) < wanted {
        if started.elapsed() > PATIENCE {
            let _ = peer.disconnect();
            panic!("a wake-up was lost: {} of {wanted}", count.load(SeqCst));
        }
        yield_now();
    }
}

fn message_ends_the_wait(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..20 {
        let got = asleep(env, 1, |_| wait(&a), |_| b.say(to, b"wake up"));
        assert_eq!(got, [b"wake up"]);
    }
}

fn batch_ends_with_what_is_there(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..20 {
        let call = |_| a.exchange().room(8).patient().get().len();
        let got = asleep(env, 1, call, |_| {
            b.say(to, b"one");
            b.say(to, b"two");
        });
        assert!(got == [1] || got == [2], "{got:?}");
        a.drain();
    }
}

fn notices_end_the_wait(env: &Env) {
    let [a, b] = env.peers();
    let next = |_| a.exchange().room(1).patient().one().msg;
    for _ in 0..5 {
        let (node, id) = a.node_for(&b);
        let got = asleep(env, 1, next, |_| b.release(id).unwrap())[0];
        assert_eq!((got.kind, got.destination), (abi::MSG_NODE_RELEASE, node));
        let (node, id) = b.node_for(&a);
        let got = asleep(env, 1, next, |_| b.destroy_and_release(&[node]).unwrap())[0];
        assert_eq!((got.kind, got.destination), (abi::MSG_NODE_DESTROY, id));
        let third = env.peer();
        let id = a.handle_of(&third);
        let got = asleep(env, 1, next, |_| third.close())[0];
        assert_eq!((got.kind, got.destination), (abi::MSG_NODE_DESTROY, id));
    }
}

fn any_part_ends_the_wait(env: &Env) {
    let [a, b, c] = env.peers();
    let to = [c.handle_of(&a), c.handle_of(&b)];
    for _ in 0..10 {
        let call = |i| wait([&a, &b][i]);
        let got = asleep(env, 2, call, |_| c.message().to(&to).bytes(b"all").send().unwrap());
        assert_eq!(got, [b"all"; 2]);
    }
}

fn far_deadlines(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let max = i64::MAX as u64;
    for deadline in [monotonic() + (1 << 50), max - 1, max, max + 1, u64::MAX - 1] {
        let call = |_| a.exchange().room(1).until(deadline).one().bytes;
        assert_eq!(asleep(env, 1, call, |_| b.say(to, b"early")), [b"early"]);
    }
}

fn disconnect_ends_every_wait(env: &Env) {
    let a = env.peer();
    let deadlines = [abi::DEADLINE_NEVER, monotonic() + (1 << 50), abi::DEADLINE_NEVER];
    let call = |i: usize| a.exchange().room(i + 1).until(deadlines[i]).call();
    let got = asleep(env, 3, call, |_| a.disconnect().unwrap());
    assert_eq!(got, [Err(E::SHUTDOWN); 3]);
}

fn flush_ends_no_wait(env: &Env) {
    let [a, b] = env.peers();
    let got = asleep(
        env,
        1,
        |_| wait(&a),
        |returned| {
            for _ in 0..10 {
                a.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
                a.limit([100; 4]).unwrap();
            }
            assert_eq!(returned.load(SeqCst), 0);
            let to = b.handle_of(&a);
            b.say(to, b"after it");
        },
    );
    assert_eq!(got, [b"after it"]);
}

fn own_peer_goes_on_meanwhile(env: &Env) {
    let [a, b] = env.peers();
    let (to_a, to_b) = (b.handle_of(&a), a.handle_of(&b));
    let got = asleep(
        env,
        1,
        |_| wait(&a),
        |_| {
            for i in 0..20_u8 {
                a.say(to_b, &[i]);
                let offset = b.text(&[i]).msg.offset;
                b.exchange().release(&[offset]).get();
                a.query().unwrap();
                a.nothing();
            }
            b.say(to_a, b"end");
        },
    );
    assert_eq!(got, [b"end"]);
}

fn one_message_ends_one_wait(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for room in [1, 5] {
        let call = |_| a.exchange().room(room).patient().get().len();
        let got = asleep(env, 4, call, |returned| {
            for n in 1..=4 {
                b.say(to, b"for one");
                reach(returned, n, &a);
                assert_eq!(returned.load(SeqCst), n);
            }
        });
        assert_eq!(got, [1; 4]);
    }
}

fn as_many_waits_as_messages(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..10 {
        let mut got = asleep(
            env,
            6,
            |_| wait(&a),
            |returned| {
                for i in 0..4_u8 {
                    b.say(to, &[i]);
                }
                reach(returned, 4, &a);
                for i in 4..6_u8 {
                    b.say(to, &[i]);
                }
                reach(returned, 6, &a);
            },
        );
        got.sort_unstable();
        assert_eq!(got.concat(), [0, 1, 2, 3, 4, 5]);
    }
}

fn parts_end_as_many_waits(env: &Env) {
    let [a, b] = env.peers();
    let to: [u64; 5] = std::array::from_fn(|_| b.handle_of(&a));
    for _ in 0..10 {
        let got = asleep(
            env,
            5,
            |_| wait(&a),
            |returned| {
                b.message().to(&to).bytes(b"part").send().unwrap();
                reach(returned, 5, &a);
            },
        );
        assert_eq!(got, [b"part"; 5]);
    }
}

fn refused_waiter_passes_it_on(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..10 {
        let got = AtomicBool::new(false);
        // The first to sleep can't take anything.
        let results = asleep(
            env,
            2,
            |i| {
                let reach = if i == 0 { 0 } else { a.mapped() };
                let result = a.exchange().room(1).max_offset(reach).patient().call();
                got.fetch_or(i == 1, SeqCst);
                result
            },
            |returned| {
                b.say(to, b"too far for one");
                let started = Instant::now();
                while !got.load(SeqCst) {
                    if started.elapsed() > PATIENCE {
                        a.disconnect().unwrap();
                        panic!("the wake-up was not passed on");
                    }
                    yield_now();
                }
                // It may have been the other's turn.
                b.say(to, b"too far");
                reach(returned, 2, &a);
            },
        );
        assert_eq!(results, [Err(E::RANGE), Ok(())]);
        assert_eq!(a.drain().len(), 1);
    }
}

fn pollers_see_what_is_left(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..10 {
        let call = |i| match i % 2 {
            0 => a.door().poll(PATIENCE).readable,
            _ => wait(&a) == b"two",
        };
        let got = asleep(env, 4, call, |_| {
            b.message().to(&[to]).bytes(b"two").send().unwrap();
            b.message().to(&[to]).bytes(b"two").send().unwrap();
            // What is left wakes both pollers, whoever has the others.
            b.message().to(&[to]).bytes(b"two").send().unwrap();
        });
        assert_eq!(got, [true; 4]);
        a.text(b"two");
    }
}

fn pollers_and_waiters_share_the_work(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    const ALL: usize = 400;
    let taken = AtomicUsize::new(0);
    let poller = || loop {
        match a.recv() {
            Ok(message) if message.bytes == b"end" => break,
            Ok(message) => {
                a.release_slice(message.msg.offset).unwrap();
                taken.fetch_add(1, SeqCst);
            }
            Err(E::AGAIN) => assert!(a.wait(PATIENCE), "a wake-up was lost"),
            Err(errno) => panic!("RECV says {errno:?}"),
        }
    };
    let waiter = || {
        let mut held = Vec::new();
        loop {
            let message = a.exchange().release(&held).room(1).patient().one();
            if message.bytes == b"end" {
                break;
            }
            held = vec![message.msg.offset];
            taken.fetch_add(1, SeqCst);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(poller);
            scope.spawn(waiter);
        }
        for n in 1..=ALL {
            b.say(to, b"work");
            // Each by itself, so that the next wake-up hides no loss.
            if n % 4 == 0 {
                reach(&taken, n, &a);
            }
        }
        for _ in 0..4 {
            b.say(to, b"end");
        }
    });
    assert_eq!(taken.into_inner(), ALL);
}

fn question_and_answer(env: &Env) {
    let [client, server] = env.peers();
    let (to_server, to_client) = (client.handle_of(&server), server.handle_of(&client));
    const ROUNDS: u32 = 500;
    let ask = |peer: &Peer, to, bytes: &[u8], held: &mut Vec<u64>| {
        let message = peer.message().to(&[to]).bytes(bytes);
        let got = peer.exchange().release(held).send(message).room(1).patient().one();
        *held = vec![got.msg.offset];
        got.bytes
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let first = server.exchange().room(1).patient().one();
            let (mut bytes, mut held) = (first.bytes, vec![first.msg.offset]);
            for _ in 1..ROUNDS {
                bytes = ask(&server, to_client, &bytes, &mut held);
            }
            server.say(to_client, &bytes);
        });
        let mut held = Vec::new();
        for i in 0..ROUNDS {
            assert_eq!(ask(&client, to_server, &i.to_ne_bytes(), &mut held), i.to_ne_bytes());
        }
    });
    client.nothing();
    server.nothing();
}

/// Receives one message a call, and counts it, until one says that it is over.
fn count_until_the_end(peer: &Peer, taken: &AtomicUsize) {
    let mut held = Vec::new();
    loop {
        let mut exchange = peer.exchange().release(&held).room(1).patient();
        match exchange.call() {
            Ok(()) => (),
            // The case has failed already.
            Err(E::SHUTDOWN) => break,
            Err(errno) => panic!("EXCHANGE says {errno:?}"),
        }
        let message = exchange.messages().remove(0);
        if message.bytes == b"end" {
            break;
        }
        held = vec![message.msg.offset];
        taken.fetch_add(1, SeqCst);
    }
}

fn multicasts_taken_back(env: &Env) {
    let [a, victim, multicaster, unicaster] = env.peers();
    let to: [u64; 2] = std::array::from_fn(|_| multicaster.handle_of(&a));
    let alone = unicaster.handle_of(&a);
    const ROUNDS: usize = 300;
    let (taken, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (start, over) = (Barrier::new(3), Barrier::new(3));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| count_until_the_end(&a, &taken));
        }
        // Multicasts that are taken back if the other is fast, and what waits behind them.
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                let (node, dead) = victim.node_for(&multicaster);
                std::thread::scope(|scope| {
                    start.wait();
                    scope.spawn(|| victim.destroy_and_release(&[node]).unwrap());
                    match multicaster.message().to(&[to[0], dead, to[1]]).send() {
                        Ok(()) => sent.fetch_add(2, SeqCst),
                        Err(errno) => {
                            assert_eq!(errno, E::HOSTUNREACH);
                            sent.load(SeqCst)
                        }
                    };
                });
                multicaster.drain();
                victim.drain();
                over.wait();
            }
        });
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                start.wait();
                for _ in 0..3 {
                    unicaster.say(alone, b"waits behind it");
                    sent.fetch_add(1, SeqCst);
                }
                over.wait();
            }
        });
        for _ in 0..ROUNDS {
            start.wait();
            over.wait();
            // Nothing else is sent, so that nothing hides a loss.
            reach(&taken, sent.load(SeqCst), &a);
        }
        for _ in 0..3 {
            unicaster.say(alone, b"end");
        }
    });
    assert_eq!(taken.into_inner(), sent.into_inner());
}

fn timeouts_at_the_moment(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    const ROUNDS: usize = 300;
    let taken = AtomicUsize::new(0);
    let (start, over) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| count_until_the_end(&a, &taken));
        scope.spawn(|| {
            for round in 0..ROUNDS as u64 {
                start.wait();
                // About as long as it takes the other to send.
                let deadline = monotonic() + 2_000 * (round % 50);
                let mut exchange = a.exchange().room(1).until(deadline);
                match exchange.call() {
                    Ok(()) => {
                        let offset = exchange.messages()[0].msg.offset;
                        a.release_slice(offset).unwrap();
                        taken.fetch_add(1, SeqCst);
                    }
                    Err(errno) => assert!(errno == E::TIMEDOUT || errno == E::SHUTDOWN),
                }
                // It does not come back for what it left.
                over.wait();
            }
        });
        for round in 1..=ROUNDS {
            start.wait();
            b.say(to, b"at the moment");
            reach(&taken, round, &a);
            over.wait();
        }
        b.say(to, b"end");
    });
    assert_eq!(taken.into_inner(), ROUNDS);
}
