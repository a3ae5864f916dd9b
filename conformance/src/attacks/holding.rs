// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer that does much with its own nodes and handles, and the senders that wait for its lock
//! meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Report, Stop};
use crate::client::Peer;
use crate::env::Env;

/// Nodes of one peer and handles of another: nearly as many as default limits grant.
const MANY: usize = 32_000;
/// Rounds, of which the one with the shortest of the longest SENDs counts. Each call stands in the
/// way of a SEND in each round, so this leaves out other delays.
const ROUNDS: usize = 5;
/// Time of an action that takes no lock.
const IDLE: Duration = Duration::from_millis(20);

/// The time of a call, and that of the longest SEND to its peer meanwhile.
#[derive(Clone, Copy)]
struct Held {
    call: Duration,
    send: Duration,
}

/// Runs `act` beside a thread that sends from `sender` to `to` all the time, whether or not these
/// messages are granted.
fn beside(sender: &Peer, to: u64, act: impl FnOnce()) -> Held {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                let _ = sender.message().to(&[to]).send();
                longest = longest.max(started.elapsed());
            }
            longest
        });
        let guard = Stop(&stop);
        std::thread::sleep(Duration::from_millis(1));
        let started = Instant::now();
        act();
        let call = started.elapsed();
        drop(guard);
        let send = other.join().unwrap();
        Held { call, send }
    })
}

/// Measures the longest SEND to a peer that destroys many nodes, receives many handles, or shows many in its
/// fdinfo.
pub fn measure(env: &Env, report: &mut Report) {
    const CALLS: [&str; 4] = ["no call", "RECV", "a read of fdinfo", "NODES_DESTROY"];
    let mut best: [Option<Held>; 4] = [None; 4];
    for _ in 0..ROUNDS {
        let (owner, holder, sender) = (env.peer_of(0), env.peer_of(0), env.peer_of(1));
        let to = owner.handle_of(&holder);
        let (to_owner, to_holder) = (sender.handle_of(&owner), sender.handle_of(&holder));
        let nodes: Vec<u64> = (0..MANY).map(|_| owner.new_node()).collect();
        owner.message().to(&[to]).handles(&nodes).send().unwrap();
        let fdinfo = format!("/proc/self/fdinfo/{}", holder.fd());
        let held = [
            beside(&sender, to_holder, || std::thread::sleep(IDLE)),
            beside(&sender, to_holder, || {
                assert_eq!(holder.expect_data().handles.len(), MANY);
            }),
            beside(&sender, to_holder, || {
                std::fs::read_to_string(&fdinfo).unwrap();
            }),
            beside(&sender, to_owner, || owner.destroy(&nodes).unwrap()),
        ];
        for (best, held) in best.iter_mut().zip(held) {
            if best.is_none_or(|best| held.send < best.send) {
                *best = Some(held);
            }
        }
    }
    for (call, held) in CALLS.into_iter().zip(best.into_iter().flatten()) {
        let what = format!("longest SEND beside {call} with {MANY} nodes or handles");
        let value = format!("{:.2?}, the call {:.2?}", held.send, held.call);
        report.figure(what, value);
    }
}
