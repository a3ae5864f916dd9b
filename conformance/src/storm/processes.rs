// SPDX-License-Identifier: MIT OR Apache-2.0

//! A storm with a process for each worker. SIGKILL takes one after the other; another takes its
//! place and goes on where it stopped.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{memfd_create, MemfdFlags};

use super::worker::{Trouble, Worker};
use super::{Failed, Place, Summary};
use crate::sys::memory::Pages;
use crate::sys::process::{fork, Child, End};

/// Exit status of a worker that has reported a failure.
const GAVE_UP: i32 = 3;
/// Longest time without any command.
const SILENCE: Duration = Duration::from_secs(120);

struct Storm<'a> {
    place: &'a Place<'a>,
    /// For each worker, how many commands it has given.
    progress: Pages,
    report: File,
    lives: u64,
}

impl Storm<'_> {
    fn progress(&self, number: usize) -> &AtomicU64 {
        &self.progress.words()[number]
    }

    fn total(&self) -> u64 {
        let workers = 0..self.place.options.workers;
        workers
            .map(|number| self.progress(number).load(Ordering::Relaxed))
            .sum()
    }

    fn start(&mut self, number: usize) -> Child {
        self.lives += 1;
        let (life, this) = (self.lives, &*self);
        fork(|| match this.work(number, life) {
            Ok(()) => 0,
            Err(trouble) => {
                let line = format!("worker {number}: {trouble}\n");
                let _ = (&this.report).write_all(line.as_bytes());
                GAVE_UP
            }
        })
    }

    fn work(&self, number: usize, life: u64) -> Result<(), Trouble> {
        let mut worker = Worker::new(self.place, number, life)?;
        // The process may be killed at any time, so the count is shared; the counted commands need
        // no order.
        while self.progress(number).load(Ordering::Relaxed) < self.place.options.rounds {
            worker.step()?;
            self.progress(number).fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn why(&self, number: usize, end: End) -> Failed {
        let mut text = String::new();
        let mut report = &self.report;
        let read = report
            .seek(SeekFrom::Start(0))
            .and_then(|_| report.read_to_string(&mut text));
        match read {
            Ok(n) if n > 0 => Failed(text.trim_end().to_owned()),
            _ => Failed(format!("worker {number} ended with {end:?}")),
        }
    }
}

/// Runs all workers to their end.
pub fn run(place: &Place<'_>) -> Result<Summary, Failed> {
    let options = &place.options;
    let report = memfd_create("storm", MemfdFlags::CLOEXEC);
    let report = File::from(report.map_err(|errno| Failed(format!("memfd_create: {errno:?}")))?);
    let pages = (options.workers * size_of::<u64>()).div_ceil(crate::sys::memory::PAGE);
    let mut storm = Storm {
        place,
        progress: Pages::shared(pages),
        report,
        lives: 0,
    };
    let mut random = SmallRng::seed_from_u64(options.seed);
    let mut deaths = 0;
    let mut next_death = options.kill_every;
    let mut last = (0, Instant::now());

    let mut children: Vec<Option<Child>> = (0..options.workers)
        .map(|number| Some(storm.start(number)))
        .collect();
    while children.iter().any(Option::is_some) {
        for (number, slot) in children.iter_mut().enumerate() {
            match slot.as_mut().and_then(Child::try_wait) {
                None => (),
                Some(End::Exit(0)) => *slot = None,
                Some(end) => return Err(storm.why(number, end)),
            }
        }
        let total = storm.total();
        if total != last.0 {
            last = (total, Instant::now());
        } else if last.1.elapsed() > SILENCE {
            return Err(Failed(format!("no command for {} s", SILENCE.as_secs())));
        }
        if options.kill_every != 0 && total >= next_death {
            next_death += options.kill_every;
            let number = random.random_range(0..options.workers);
            if let Some(child) = children[number].take() {
                child.kill();
                match child.wait() {
                    End::Signal(libc::SIGKILL) => {
                        deaths += 1;
                        children[number] = Some(storm.start(number));
                    }
                    End::Exit(0) => (),
                    end => return Err(storm.why(number, end)),
                }
            }
        } else {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(Summary {
        commands: storm.total(),
        deaths,
    })
}
