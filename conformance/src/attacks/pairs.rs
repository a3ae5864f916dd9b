// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pairs of peers of one user that have nothing to do with each other.

use std::time::{Duration, Instant};

use super::{ratio, Report};
use crate::client::Peer;
use crate::env::Env;
use crate::sys::process::{fork, Child, End};

/// Messages of a pair in one round.
const MESSAGES: usize = 128 << 10;
/// Rounds, of which the fastest counts.
const ROUNDS: usize = 7;

/// Has a process send bursts of messages from one peer to another of the same user.
fn start(pair: &[Peer; 2], to: u64, burst: usize) -> Child {
    fork(|| {
        let [receiver, sender] = pair;
        for _ in 0..MESSAGES / burst {
            for _ in 0..burst {
                sender
                    .message()
                    .to(&[to])
                    .bytes(b"8 bytes.")
                    .send()
                    .unwrap();
            }
            for _ in 0..burst {
                let msg = receiver.receive().max_offset(1 << 32).header().unwrap();
                receiver.release_slice(msg.offset).unwrap();
            }
        }
        0
    })
}

/// The time that two pairs take at once, at default limits, and the time of one pair.
pub fn measure(env: &Env, report: &mut Report) {
    let pairs: [[Peer; 2]; 2] = [env.peers(), env.peers()];
    let to = pairs
        .each_ref()
        .map(|[receiver, sender]| sender.handle_of(receiver));
    let run = |pairs: &[[Peer; 2]], burst| {
        let started = Instant::now();
        let children: Vec<_> = pairs
            .iter()
            .zip(to)
            .map(|(pair, to)| start(pair, to, burst))
            .collect();
        for child in children {
            assert_eq!(child.wait(), End::Exit(0));
        }
        started.elapsed()
    };
    for burst in [16, 64] {
        let [mut one, mut two] = [Duration::MAX; 2];
        for _ in 0..ROUNDS {
            one = one.min(run(&pairs[..1], burst));
            two = two.min(run(&pairs, burst));
        }
        let what = format!("two pairs of one user to one pair, bursts of {burst}");
        report.figure(what, ratio(two, one));
    }
}
