// SPDX-License-Identifier: MIT OR Apache-2.0

//! The time from SIGKILL to the end of a process that is in a large SEND.

use std::time::{Duration, Instant};

use super::{Report, Times};
use crate::client::Limits;
use crate::env::Env;
use crate::sys::process::{fork, End};

/// Destinations and handles of a message: as many as the attack was about, and fewer, which quota
/// grants.
const SHAPES: [Shape; 4] = [
    // The time that the end of a process takes anyhow.
    Shape::new(0, 0),
    Shape::new(8000, 65_536),
    Shape::new(8000, 8),
    Shape::new(100, 600),
];
/// Processes killed for each shape.
const KILLS: usize = 20;

struct Shape {
    destinations: usize,
    handles: usize,
}

impl Shape {
    const fn new(destinations: usize, handles: usize) -> Self {
        Self {
            destinations,
            handles,
        }
    }
}

/// Kills processes in the middle of SENDs with CONTINUE, at different moments.
pub fn measure(env: &Env, report: &mut Report) {
    for Shape {
        destinations,
        handles,
    } in SHAPES
    {
        let [receiver, sender] = env.peers();
        // As much as the user's limits grant.
        receiver.limit(Limits::MOST).unwrap();
        sender.limit(Limits::MOST).unwrap();
        let to: Vec<u64> = (0..destinations)
            .map(|_| sender.handle_of(&receiver))
            .collect();
        let carried: Vec<u64> = (0..handles).map(|_| sender.new_node()).collect();
        let call = || {
            sender
                .message()
                .to(&to)
                .handles(&carried)
                .proceed()
                .outcome()
        };
        let take_all = || {
            let mut taken = 0;
            while let Ok(msg) = receiver.receive().header() {
                taken += 1;
                receiver.release_slice(msg.offset).unwrap();
            }
            taken
        };
        let shape = format!("{destinations} destinations with {handles} handles");
        let started = Instant::now();
        let outcome = call();
        let took = started.elapsed();
        let result = outcome.result;
        let errno = outcome.errors.iter().find(|&&errno| errno != 0);
        let taken = take_all();
        report.figure(
            format_args!("one call, {shape}"),
            format_args!("{result:?} in {took:.1?}, {taken} messages, first error {errno:?}"),
        );
        let mut sent = 0;
        let mut kills = Vec::new();
        for kill in 0..KILLS {
            let child = fork(|| loop {
                call();
            });
            std::thread::sleep(Duration::from_millis(200 + 20 * kill as u64));
            let started = Instant::now();
            child.kill();
            assert_eq!(child.wait(), End::Signal(libc::SIGKILL));
            kills.push(started.elapsed());
            sent += take_all();
        }
        let what = format!("from SIGKILL to the end, {shape}, {sent} messages got through");
        report.figure(what, Times::from(kills));
    }
}
