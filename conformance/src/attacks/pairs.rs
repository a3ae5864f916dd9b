// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pairs of peers of one user that have nothing to do with each other.

use std::time::{Duration, Instant};

use super::{ratio, Report};
use crate::client::Peer;
use crate::env::Env;
use crate::sys::process::{fork, Child, End};

/// Messages of a pair in one round.
const MESSAGES: usize = 8 << 10;
/// Rounds, of which the fastest counts.
const ROUNDS: usize = 4;

/// A receiver and a sender of one user.
struct Pair {
    receiver: Peer,
    sender: Peer,
    to: u64,
}

impl Pair {
    fn new(env: &Env, user: u32) -> Self {
        let (receiver, sender) = (env.peer_of(user), env.peer_of(user));
        let to = sender.handle_of(&receiver);
        Self {
            receiver,
            sender,
            to,
        }
    }

    /// Has a process send bursts of messages, and receive each burst.
    fn start(&self, burst: usize) -> Child {
        fork(|| {
            let all = self.receiver.door().pool_size();
            for _ in 0..MESSAGES / burst {
                for _ in 0..burst {
                    let message = self.sender.message().to(&[self.to]);
                    message.bytes(b"8 bytes.").send().unwrap();
                }
                for _ in 0..burst {
                    let msg = self.receiver.receive().max_offset(all).header().unwrap();
                    self.receiver.release_slice(msg.offset).unwrap();
                }
            }
            0
        })
    }
}

/// Runs pairs at once, each in a process of its own, and returns the time until all have ended.
fn run(pairs: &[&Pair], burst: usize) -> Duration {
    let started = Instant::now();
    let children: Vec<_> = pairs.iter().map(|pair| pair.start(burst)).collect();
    for child in children {
        assert_eq!(child.wait(), End::Exit(0));
    }
    started.elapsed()
}

/// The time that two pairs of one user take at once, at default limits, in relation to that of one
/// pair; and as much for pairs of two users, which share no account.
pub fn measure(env: &Env, report: &mut Report) {
    let [first, second, stranger] = [0, 0, 1].map(|user| Pair::new(env, user));
    for burst in [16, 64] {
        let [mut alone, mut of_one, mut of_two] = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            alone = alone.min(run(&[&first], burst));
            of_one = of_one.min(run(&[&first, &second], burst));
            of_two = of_two.min(run(&[&first, &stranger], burst));
        }
        for (users, two) in [("one user", of_one), ("two users", of_two)] {
            let what = format!("two pairs of {users} to one pair, bursts of {burst}");
            report.figure(what, ratio(two, alone));
        }
    }
}
