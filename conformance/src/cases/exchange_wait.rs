// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE that waits: as the only waiter, beside other waiters of the same peer, and to the end.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread::yield_now;
use std::time::Instant;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, Peer};
use crate::env::{Env, PATIENCE};
use crate::host::Errno as E;
use crate::sys::thread::{current, monotonic};

/// Waits for the next message and returns its payload.
fn wait(peer: &Peer) -> Vec<u8> {
    peer.exchange().room(1).patient().expect_one().bytes
}

/// Runs `wait` in `n` threads, and `act` when all of them sleep there; returns their results. The
/// argument of `act` counts the threads that have returned.
fn while_asleep<T: Send>(
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
            env.wait_until_asleep(told.recv().unwrap());
        }
        act(&returned);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Returns when the count is reached. If that does not happen, disconnects `peer`, which ends all
/// its waits, and fails the case.
#[track_caller]
pub fn expect_count(count: &AtomicUsize, wanted: usize, peer: &Peer) {
    let started = Instant::now();
    while count.load(SeqCst) < wanted {
        if started.elapsed() > PATIENCE {
            let _ = peer.disconnect();
            panic!("a wake-up was lost: {} of {wanted}", count.load(SeqCst));
        }
        yield_now();
    }
}

#[case("abi.md#exchange-receive")]
fn message_ends_the_wait(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..20 {
        let got = while_asleep(env, 1, |_| wait(&a), |_| b.expect_sent(to, b"wake up"));
        assert_eq!(got, [b"wake up"]);
    }
}

#[case("abi.md#exchange-receive")]
fn batch_ends_with_the_last_ready_message(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..20 {
        let call = |_| a.exchange().room(8).patient().expect_messages().len();
        let got = while_asleep(env, 1, call, |_| {
            b.expect_sent(to, b"one");
            b.expect_sent(to, b"two");
        });
        assert!(got == [1] || got == [2], "{got:?}");
        a.expect_all();
    }
}

#[case("abi.md#exchange-receive")]
fn notices_end_the_wait(env: &Env) {
    let [a, b] = env.peers();
    let next = |_| a.exchange().room(1).patient().expect_one().msg;
    for _ in 0..5 {
        let (node, id) = a.node_for(&b);
        let got = while_asleep(env, 1, next, |_| b.release(id).unwrap())[0];
        assert_eq!((got.kind, got.destination), (abi::MSG_NODE_RELEASE, node));
        let (node, id) = b.node_for(&a);
        let got = while_asleep(env, 1, next, |_| b.destroy_and_release(&[node]).unwrap())[0];
        assert_eq!((got.kind, got.destination), (abi::MSG_NODE_DESTROY, id));
        let third = env.peer();
        let id = a.handle_of(&third);
        let got = while_asleep(env, 1, next, |_| third.close())[0];
        assert_eq!((got.kind, got.destination), (abi::MSG_NODE_DESTROY, id));
    }
}

#[case("abi.md#exchange-receive")]
fn any_part_ends_the_wait(env: &Env) {
    let [a, b, c] = env.peers();
    let to = [c.handle_of(&a), c.handle_of(&b)];
    for _ in 0..10 {
        let call = |i| wait([&a, &b][i]);
        let got = while_asleep(env, 2, call, |_| {
            c.message().to(&to).bytes(b"all").send().unwrap()
        });
        assert_eq!(got, [b"all"; 2]);
    }
}

#[case("abi.md#exchange-deadline")]
fn far_deadlines(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let max = i64::MAX as u64;
    for deadline in [monotonic() + (1 << 50), max - 1, max, max + 1, u64::MAX - 1] {
        let call = |_| a.exchange().room(1).until(deadline).expect_one().bytes;
        assert_eq!(
            while_asleep(env, 1, call, |_| b.expect_sent(to, b"early")),
            [b"early"]
        );
    }
}

#[case(
    "abi.md#exchange-disconnect",
    "abi.md#exchange-eshutdown",
    "abi.md#every-eshutdown-late"
)]
fn disconnect_ends_every_wait(env: &Env) {
    let a = env.peer();
    let deadlines = [
        abi::DEADLINE_NEVER,
        monotonic() + (1 << 50),
        abi::DEADLINE_NEVER,
    ];
    let call = |i: usize| a.exchange().room(i + 1).until(deadlines[i]).call();
    let got = while_asleep(env, 3, call, |_| a.disconnect().unwrap());
    assert_eq!(got, [Err(E::SHUTDOWN); 3]);
}

#[case("abi.md#exchange-disconnect")]
fn flush_ends_no_wait(env: &Env) {
    let [a, b] = env.peers();
    let got = while_asleep(
        env,
        1,
        |_| wait(&a),
        |returned| {
            for _ in 0..10 {
                a.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
                a.limit(Limits::all(100)).unwrap();
            }
            assert_eq!(returned.load(SeqCst), 0);
            let to = b.handle_of(&a);
            b.expect_sent(to, b"after it");
        },
    );
    assert_eq!(got, [b"after it"]);
}

#[case("abi.md#concurrent-callers")]
fn own_peer_goes_on_meanwhile(env: &Env) {
    let [a, b] = env.peers();
    let (to_a, to_b) = (b.handle_of(&a), a.handle_of(&b));
    let got = while_asleep(
        env,
        1,
        |_| wait(&a),
        |_| {
            for i in 0..20_u8 {
                a.expect_sent(to_b, &[i]);
                let offset = b.expect_text(&[i]).msg.offset;
                b.exchange().release(&[offset]).expect_messages();
                a.query().unwrap();
                a.expect_nothing();
            }
            b.expect_sent(to_a, b"end");
        },
    );
    assert_eq!(got, [b"end"]);
}

#[case("abi.md#exchange-waiters")]
fn one_message_ends_one_wait(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for room in [1, 5] {
        let call = |_| a.exchange().room(room).patient().expect_messages().len();
        let got = while_asleep(env, 4, call, |returned| {
            for n in 1..=4 {
                b.expect_sent(to, b"for one");
                expect_count(returned, n, &a);
                assert_eq!(returned.load(SeqCst), n);
            }
        });
        assert_eq!(got, [1; 4]);
    }
}

#[case("abi.md#exchange-waiters")]
fn as_many_waits_as_messages(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..10 {
        let mut got = while_asleep(
            env,
            6,
            |_| wait(&a),
            |returned| {
                for i in 0..4_u8 {
                    b.expect_sent(to, &[i]);
                }
                expect_count(returned, 4, &a);
                for i in 4..6_u8 {
                    b.expect_sent(to, &[i]);
                }
                expect_count(returned, 6, &a);
            },
        );
        got.sort_unstable();
        assert_eq!(got.concat(), [0, 1, 2, 3, 4, 5]);
    }
}

#[case("abi.md#exchange-waiters")]
fn parts_end_as_many_waits(env: &Env) {
    let [a, b] = env.peers();
    let to: [u64; 5] = std::array::from_fn(|_| b.handle_of(&a));
    for _ in 0..10 {
        let got = while_asleep(
            env,
            5,
            |_| wait(&a),
            |returned| {
                b.message().to(&to).bytes(b"part").send().unwrap();
                expect_count(returned, 5, &a);
            },
        );
        assert_eq!(got, [b"part"; 5]);
    }
}

#[case("abi.md#exchange-passes")]
fn refused_waiter_passes_it_on(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..10 {
        let got = AtomicBool::new(false);
        // The first to sleep cannot take anything.
        let results = while_asleep(
            env,
            2,
            |i| {
                let reach = if i == 0 { 0 } else { a.mapped() };
                let result = a.exchange().room(1).max_offset(reach).patient().call();
                got.fetch_or(i == 1, SeqCst);
                result
            },
            |returned| {
                b.expect_sent(to, b"too far for one");
                let started = Instant::now();
                while !got.load(SeqCst) {
                    if started.elapsed() > PATIENCE {
                        a.disconnect().unwrap();
                        panic!("the wake-up was not passed on");
                    }
                    yield_now();
                }
                // It may have been the other's turn.
                b.expect_sent(to, b"too far");
                expect_count(returned, 2, &a);
            },
        );
        assert_eq!(results, [Err(E::RANGE), Ok(())]);
        assert_eq!(a.expect_all().len(), 1);
    }
}

#[case("abi.md#exchange-pollers")]
fn pollers_see_remaining_messages(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..10 {
        let call = |i| match i % 2 {
            0 => a.door().poll(PATIENCE).readable,
            _ => wait(&a) == b"two",
        };
        let got = while_asleep(env, 4, call, |_| {
            b.message().to(&[to]).bytes(b"two").send().unwrap();
            b.message().to(&[to]).bytes(b"two").send().unwrap();
            // The remaining messages wake both pollers, whichever waiters have the others.
            b.message().to(&[to]).bytes(b"two").send().unwrap();
        });
        assert_eq!(got, [true; 4]);
        a.expect_text(b"two");
    }
}

#[case("abi.md#exchange-waiters", "abi.md#exchange-pollers")]
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
            let message = a.exchange().release(&held).room(1).patient().expect_one();
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
            b.expect_sent(to, b"work");
            // Each by itself, so that the next wake-up hides no loss.
            if n % 4 == 0 {
                expect_count(&taken, n, &a);
            }
        }
        for _ in 0..4 {
            b.expect_sent(to, b"end");
        }
    });
    assert_eq!(taken.into_inner(), ALL);
}

#[case("abi.md#exchange-waiters")]
fn question_and_answer(env: &Env) {
    let [client, server] = env.peers();
    let (to_server, to_client) = (client.handle_of(&server), server.handle_of(&client));
    const ROUNDS: u32 = 500;
    let ask = |peer: &Peer, to, bytes: &[u8], held: &mut Vec<u64>| {
        let message = peer.message().to(&[to]).bytes(bytes);
        let got = peer
            .exchange()
            .release(held)
            .send(message)
            .room(1)
            .patient()
            .expect_one();
        *held = vec![got.msg.offset];
        got.bytes
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let first = server.exchange().room(1).patient().expect_one();
            let (mut bytes, mut held) = (first.bytes, vec![first.msg.offset]);
            for _ in 1..ROUNDS {
                bytes = ask(&server, to_client, &bytes, &mut held);
            }
            server.expect_sent(to_client, &bytes);
        });
        let mut held = Vec::new();
        for i in 0..ROUNDS {
            assert_eq!(
                ask(&client, to_server, &i.to_ne_bytes(), &mut held),
                i.to_ne_bytes()
            );
        }
    });
    client.expect_nothing();
    server.expect_nothing();
}
