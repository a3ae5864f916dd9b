// SPDX-License-Identifier: MIT OR Apache-2.0

//! A history with a process for each actor. An actor leaves its log in a memory file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use rustix::fs::{memfd_create, MemfdFlags};

use super::actor::Stage;
use super::log::{put_got, put_sent, Actor, Words};
use super::shared::{Phase, Shared};
use super::stalls::{self, Hogs, Stops};
use super::{join, play, Failed, History, Options, Record, PATIENCE};
use crate::sys::process::{fork, Child, End};
use crate::sys::thread;

/// Exit status of an actor that gave up and has written why.
const GAVE_UP: i32 = 3;

/// Makes a history.
pub fn record(stage: Stage) -> Result<History, Failed> {
    let mut actors = Vec::new();
    for actor in 0..stage.peers.len() {
        let file = File::from(
            memfd_create("history", MemfdFlags::CLOEXEC).map_err(|errno| {
                Failed(format!(
                    "no memory for what actor {actor} writes down: {errno:?}"
                ))
            })?,
        );
        let child = fork(|| run(&stage, actor, &file));
        actors.push((child, file));
    }
    let Stage {
        peers,
        shared,
        options,
        ..
    } = stage;
    // From now on only the actors have the peers.
    drop(peers);
    let mut stopped = BTreeMap::new();
    let children = actors.iter_mut().map(|(child, _)| child).collect();
    let ends = match options.stalls {
        false => Wait::new(children).for_all(),
        true => wait_and_stop(children, &shared, &options, &mut stopped),
    }?;
    let mut records = Vec::new();
    for (actor, (end, (_, mut file))) in ends.into_iter().zip(actors).enumerate() {
        let failed = |why: String| Failed(format!("actor {actor}: {why}"));
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut bytes));
        read.map_err(|error| failed(error.to_string()))?;
        match end {
            End::Exit(0) => records.push(parse(&bytes)),
            End::Exit(GAVE_UP) => return Err(failed(String::from_utf8_lossy(&bytes).into_owned())),
            end => return Err(failed(format!("ended with {end:?}"))),
        }
    }
    Ok(History {
        stopped,
        ..join(&options, records)
    })
}

/// Returns the actor's process.
fn run(stage: &Stage, actor: usize, mut file: &File) -> i32 {
    if stage.options.stalls && stalls::is_idle(actor) {
        thread::be_idle();
    }
    let (bytes, status) = match play(stage, actor) {
        Ok((sent, got)) => {
            let mut words = Vec::new();
            put_sent(&mut words, &sent);
            put_got(&mut words, &got);
            (
                words.iter().flat_map(|word| word.to_ne_bytes()).collect(),
                0,
            )
        }
        Err(trouble) => (trouble.into_bytes(), GAVE_UP),
    };
    match file.write_all(&bytes) {
        Ok(()) => status,
        Err(_) => GAVE_UP,
    }
}

fn parse(bytes: &[u8]) -> Record {
    let words = bytes
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(word.try_into().expect("8")));
    let words: Vec<u64> = words.collect();
    let mut words = Words(&words);
    (words.sent(), words.got())
}

/// Waits for all, in whatever order they end, while senders are stopped as `stalls.rs` says.
fn wait_and_stop(
    children: Vec<&mut Child>,
    shared: &Shared,
    options: &Options,
    stopped: &mut BTreeMap<Actor, u32>,
) -> Result<Vec<End>, Failed> {
    let hogs = Hogs::start();
    let senders = options.senders;
    let mut wait = Wait::new(children);
    wait.stops = Some(Stops::new(senders, options.seed));
    wait.for_actors(|actor| actor < options.live_senders())?;
    wait.stops = None;
    for actor in options.live_senders()..senders {
        if !stalls::stop(wait.children[actor]) {
            return Err(Failed(format!("actor {actor} does not stop")));
        }
        stopped.insert(actor as Actor, shared.known()[actor]);
    }
    shared.enter(Phase::Stopped);
    wait.for_actors(|actor| actor < options.live_senders() || actor >= senders)?;
    shared.enter(Phase::Over);
    for child in &wait.children[options.live_senders()..senders] {
        child.signal(libc::SIGCONT);
    }
    let ends = wait.for_all()?;
    println!("history: beside {} hogs", hogs.count());
    Ok(ends)
}

/// A wait for the ends of actors.
struct Wait<'a> {
    children: Vec<&'a mut Child>,
    ends: Vec<Option<End>>,
    started: Instant,
    /// Stops senders meanwhile.
    stops: Option<Stops>,
}

impl<'a> Wait<'a> {
    fn new(children: Vec<&'a mut Child>) -> Self {
        Self {
            ends: vec![None; children.len()],
            children,
            started: Instant::now(),
            stops: None,
        }
    }

    /// Waits for some of them. When one gives up, the others do, too.
    fn for_actors(&mut self, wanted: impl Fn(usize) -> bool) -> Result<(), Failed> {
        loop {
            for (end, child) in self.ends.iter_mut().zip(&mut self.children) {
                if end.is_none() {
                    *end = child.try_wait();
                }
            }
            let mut ends = self.ends.iter().enumerate();
            if !ends.any(|(actor, end)| wanted(actor) && end.is_none()) {
                return Ok(());
            }
            if self.started.elapsed() > PATIENCE {
                let still = self.ends.iter().filter(|end| end.is_none()).count();
                let seconds = PATIENCE.as_secs();
                return Err(Failed(format!(
                    "{still} actors have not ended after {seconds} s"
                )));
            }
            let nap = match &mut self.stops {
                None => 20,
                Some(stops) => {
                    stops.step(&self.children, &self.ends);
                    1
                }
            };
            std::thread::sleep(Duration::from_millis(nap));
        }
    }

    /// Waits for all, in whatever order they end.
    fn for_all(mut self) -> Result<Vec<End>, Failed> {
        self.for_actors(|_| true)?;
        Ok(self.ends.into_iter().flatten().collect())
    }
}
