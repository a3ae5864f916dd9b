// SPDX-License-Identifier: MIT OR Apache-2.0

//! Senders that are stopped in the middle.
//!
//! The first sender runs under SCHED_IDLE, beside processes that use up all CPUs most of the time,
//! so it is preempted in the middle of commands for as long as these like. All senders are stopped
//! by SIGSTOP, which takes effect between commands, and go on, at random times. The last sender is
//! stopped for good when all other senders have ended: then the receivers must find everything that
//! was sent by calls that returned, and go on when they have.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::sys::process::{fork, Child, End};
use crate::sys::thread;

/// Time for which a CPU is used up, and then left to others.
const BUSY: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_millis(5);
/// Longest time in milliseconds that a sender is stopped, or goes on, in between.
const STOP: u64 = 10;
/// Longest wait for a stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns whether this sender runs under SCHED_IDLE.
pub fn is_idle(sender: usize) -> bool {
    sender == 0
}

/// Processes that leave no CPU idle, until they are dropped.
pub struct Hogs(Vec<Child>);

impl Hogs {
    /// Starts one process for each CPU.
    pub fn start() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self((0..cpus).map(|_| fork(use_up)).collect())
    }

    /// Returns the number of processes.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Uses up a CPU, mostly.
fn use_up() -> i32 {
    loop {
        let started = Instant::now();
        while started.elapsed() < BUSY {
            std::hint::spin_loop();
        }
        std::thread::sleep(PAUSE);
    }
}

/// Stops senders at random.
pub struct Stops {
    random: SmallRng,
    /// For each sender, the moment when it is stopped or goes on.
    next: Vec<Instant>,
    stopped: Vec<bool>,
}

impl Stops {
    /// Lets all go on for a while.
    pub fn new(senders: usize, seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            next: vec![Instant::now(); senders],
            stopped: vec![false; senders],
        }
    }

    /// Stops senders whose time has come, and lets others go on; except those that have ended.
    pub fn step(&mut self, actors: &[&mut Child], ends: &[Option<End>]) {
        let now = Instant::now();
        for (sender, child) in actors.iter().take(self.next.len()).enumerate() {
            if now < self.next[sender] || ends[sender].is_some() {
                continue;
            }
            let stops = !self.stopped[sender];
            child.signal(if stops { libc::SIGSTOP } else { libc::SIGCONT });
            self.stopped[sender] = stops;
            let millis = self.random.random_range(0..=STOP);
            self.next[sender] = now + Duration::from_millis(millis);
        }
    }
}

/// Stops a process for good, as far as it is concerned. False if it does not stop.
pub fn stop(child: &Child) -> bool {
    child.signal(libc::SIGSTOP);
    let started = Instant::now();
    while thread::state(child.pid()) != Some('T') {
        if started.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
