// SPDX-License-Identifier: MIT OR Apache-2.0

//! A history with a process for each actor. An actor leaves its log in a memory file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use rustix::fs::{memfd_create, MemfdFlags};

use super::actor::Stage;
use super::log::{put_got, put_sent, Words};
use super::{join, play, Failed, History, Record, PATIENCE};
use crate::sys::process::{fork, Child, End};

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
    let options = stage.options.clone();
    // From now on only the actors have the peers.
    drop(stage.peers);
    let ends = wait(actors.iter_mut().map(|(child, _)| child).collect())?;
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
    Ok(join(&options, records))
}

/// Returns the actor's process.
fn run(stage: &Stage, actor: usize, mut file: &File) -> i32 {
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

/// Waits for all, in whatever order they end.
fn wait(mut children: Vec<&mut Child>) -> Result<Vec<End>, Failed> {
    let started = Instant::now();
    let mut ends = vec![None; children.len()];
    while ends.contains(&None) {
        for (end, child) in ends.iter_mut().zip(&mut children) {
            if end.is_none() {
                *end = child.try_wait();
            }
        }
        if started.elapsed() > PATIENCE {
            let still = ends.iter().filter(|end| end.is_none()).count();
            let seconds = PATIENCE.as_secs();
            return Err(Failed(format!(
                "{still} actors have not ended after {seconds} s"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(ends.into_iter().flatten().collect())
}
