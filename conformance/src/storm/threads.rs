// SPDX-License-Identifier: MIT OR Apache-2.0

//! A storm with a thread for each worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::worker::{Trouble, Worker};
use super::{Failed, Place, Summary};

/// Runs all workers to their end.
pub fn run(place: &Place<'_>) -> Result<Summary, Failed> {
    let commands = AtomicU64::new(0);
    let deaths = AtomicU64::new(0);
    let failed = AtomicBool::new(false);
    let work = |number| -> Result<(), Trouble> {
        let options = &place.options;
        let mut life = 0;
        let mut worker = Worker::new(place, number, life)?;
        for _ in 0..options.rounds {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            worker.step()?;
            let n = commands.fetch_add(1, Ordering::Relaxed) + 1;
            if options.kill_every != 0 && n.is_multiple_of(options.kill_every) {
                deaths.fetch_add(1, Ordering::Relaxed);
                life += 1;
                drop(worker);
                worker = Worker::new(place, number, life)?;
            }
        }
        Ok(())
    };
    let work = &|number| work(number).inspect_err(|_| failed.store(true, Ordering::Relaxed));
    let results: Vec<_> = std::thread::scope(|scope| {
        let numbers = 0..place.options.workers;
        let threads: Vec<_> = numbers
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for (number, result) in results.into_iter().enumerate() {
        match result {
            Ok(Ok(())) => (),
            Ok(Err(trouble)) => return Err(Failed(format!("worker {number}: {trouble}"))),
            Err(_) => return Err(Failed(format!("worker {number} panicked"))),
        }
    }
    Ok(Summary {
        commands: commands.into_inner(),
        deaths: deaths.into_inner(),
    })
}
