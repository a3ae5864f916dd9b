// SPDX-License-Identifier: MIT OR Apache-2.0

//! Storms: hundreds of peers, random commands from everywhere, workers that die at random. When all
//! is over, every counter has to be back where it began.
//!
//! On the kernel every worker is a process, and dies by SIGKILL; embedded it is a thread, and
//! drops its peers. A few peers, the hubs, belong to all workers at once and outlive them.

mod processes;
mod threads;
mod verify;
mod worker;

use std::fmt;

use crate::client::Peer;
use crate::host::{Bus, Kind};

/// The size of a storm.
#[derive(Clone, Debug)]
pub struct Options {
    /// Processes or threads.
    pub workers: usize,
    /// Peers of each worker.
    pub peers: usize,
    /// Commands of each worker.
    pub rounds: u64,
    /// Commands of all workers between two deaths; 0 for none.
    pub kill_every: u64,
    /// The number that all chances come from.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 8,
            peers: 32,
            rounds: 20_000,
            kill_every: 2_000,
            seed: 1,
        }
    }
}

/// Counts of a storm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Commands given.
    pub commands: u64,
    /// Workers that died.
    pub deaths: u64,
}

/// Description of a failure.
#[derive(Debug)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Users that take part.
const USERS: u32 = 4;
/// Peers that outlive all workers.
const HUBS: usize = 4;
/// The hubs' node.
const HUB_NODE: u64 = 8;

/// The place of the storm.
struct Place<'a> {
    bus: &'a dyn Bus,
    first_user: u32,
    options: Options,
    hubs: Vec<Peer>,
}

impl Place<'_> {
    fn user(&self, n: u32) -> u32 {
        self.first_user + n % USERS
    }
}

/// Runs a storm with the users `first_user` and on, and checks that nothing is left.
pub fn run(bus: &dyn Bus, first_user: u32, options: &Options) -> Result<Summary, Failed> {
    if options.workers == 0 || options.peers == 0 {
        return Err(Failed(
            "it takes at least one worker with one peer".to_owned(),
        ));
    }
    crate::sys::process::allow_many_descriptors();
    let users: Vec<u32> = (0..USERS).map(|n| first_user + n).collect();
    let before = verify::room(bus, &users)?;
    let hubs: Result<Vec<Peer>, _> = (0..HUBS as u32)
        .map(|n| bus.open(users[n as usize]).map(Peer::new))
        .collect();
    let hubs = hubs.map_err(|errno| Failed(format!("cannot open a peer: {errno:?}")))?;
    let place = Place {
        bus,
        first_user,
        options: options.clone(),
        hubs,
    };
    let summary = match bus.kind() {
        Kind::Kernel => processes::run(&place)?,
        Kind::Embedded => threads::run(&place)?,
    };
    for hub in place.hubs {
        verify::survivor(hub)?;
    }
    verify::nothing_left(bus)?;
    let after = verify::room(bus, &users)?;
    if after != before {
        return Err(Failed(format!(
            "users could claim {before:?} before and {after:?} after"
        )));
    }
    verify::nothing_left(bus)?;
    Ok(summary)
}
