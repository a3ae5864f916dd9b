// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE waiters that race with commits and with their own deadlines.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Barrier;

use bus1_conformance_case::case;

use super::exchange_wait::expect_count;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::thread::monotonic;

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

#[case("ordering.md#ready", "abi.md#exchange-waiters")]
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
                multicaster.expect_all();
                victim.expect_all();
                over.wait();
            }
        });
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                start.wait();
                for _ in 0..3 {
                    unicaster.expect_sent(alone, b"waits behind it");
                    sent.fetch_add(1, SeqCst);
                }
                over.wait();
            }
        });
        for _ in 0..ROUNDS {
            start.wait();
            over.wait();
            // Nothing else is sent, so that nothing hides a loss.
            expect_count(&taken, sent.load(SeqCst), &a);
        }
        for _ in 0..3 {
            unicaster.expect_sent(alone, b"end");
        }
    });
    assert_eq!(taken.into_inner(), sent.into_inner());
}

#[case("abi.md#exchange-passes", "abi.md#exchange-etimedout")]
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
            b.expect_sent(to, b"at the moment");
            expect_count(&taken, round, &a);
            over.wait();
        }
        b.expect_sent(to, b"end");
    });
    assert_eq!(taken.into_inner(), ROUNDS);
}
