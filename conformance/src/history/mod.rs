// SPDX-License-Identifier: MIT OR Apache-2.0

//! The history checker: many senders and receivers at full speed, each of which logs its calls and
//! receipts, and a checker that compares all logs with the promises about order.
//!
//! On the kernel every actor is a process; embedded, a thread. See [`check`] for the promises,
//! `shared.rs` for the channel beside the bus.

mod actor;
mod check;
mod log;
mod payload;
mod processes;
mod receiver;
mod sender;
mod shared;
mod stalls;

use std::fmt;
use std::time::Duration;

use crate::client::Peer;
use crate::host::{Bus, Kind};

use actor::{Stage, Trouble};
pub use check::{check, Summary, Violation};
pub use log::History;
use shared::Shared;
pub use shared::SLOTS;
pub use stalls::Hogs;

/// The size of a history.
#[derive(Clone, Debug)]
pub struct Options {
    /// Processes or threads that send.
    pub senders: usize,
    /// Processes or threads that receive.
    pub receivers: usize,
    /// Multicasts that all senders make together.
    pub multicasts: usize,
    /// Nodes of each receiver that messages go to, at most [`SLOTS`].
    pub slots: usize,
    /// Parts that all senders make together at least; if it is not 0, `multicasts` does not matter.
    pub deliveries: usize,
    /// Senders are stopped in the middle: see `stalls.rs`. Only with processes.
    pub stalls: bool,
    /// The number that all chances come from.
    pub seed: u64,
}

impl Options {
    /// Returns whether a sender is stopped for good in the end: the last one.
    fn is_stopped(&self, sender: usize) -> bool {
        self.stalls && sender == self.senders - 1
    }

    /// Returns the number of senders that are not.
    fn live_senders(&self) -> usize {
        self.senders - usize::from(self.stalls)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            senders: 4,
            receivers: 6,
            multicasts: 100_000,
            slots: SLOTS,
            deliveries: 0,
            stalls: false,
            seed: 1,
        }
    }
}

/// The reason why there is no history.
#[derive(Debug)]
pub struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Opens all peers, and gives every actor its first handles.
fn set(bus: &dyn Bus, uid: u32, options: &Options) -> Result<Stage, Failed> {
    let (senders, receivers) = (options.senders, options.receivers);
    if senders == 0 || receivers == 0 || senders + receivers > 64 {
        let limits = "it takes at least one sender and one receiver, and at most 64 in all";
        return Err(Failed(limits.to_owned()));
    }
    if !(1..=SLOTS).contains(&options.slots) {
        return Err(Failed(format!("a receiver has 1 to {SLOTS} nodes")));
    }
    if options.stalls && (senders < 3 || bus.kind() != Kind::Kernel) {
        let limits = "stalls take three senders, each a process, so the kernel's host";
        return Err(Failed(limits.to_owned()));
    }
    let open = |_| bus.open(uid).map(Peer::new);
    let peers: Result<Vec<Peer>, _> = (0..senders + receivers).map(open).collect();
    let peers = peers.map_err(|errno| Failed(format!("cannot open a peer: {errno:?}")))?;
    let mut to_control = vec![vec![0; receivers]; senders + receivers];
    for (actor, handles) in to_control.iter_mut().enumerate() {
        for (r, handle) in handles.iter_mut().enumerate() {
            let given = peers[senders + r].give(&peers[actor], receiver::control_id());
            *handle = given.map_err(|errno| Failed(format!("HANDLE_TRANSFER says {errno:?}")))?;
        }
    }
    let shared = Shared::new(senders, receivers);
    let stage = Stage {
        peers,
        to_control,
        shared,
        options: options.clone(),
    };
    for r in 0..receivers {
        for slot in 0..SLOTS {
            receiver::renew(&stage, r, slot, 1).map_err(Failed)?;
        }
    }
    Ok(stage)
}

/// The log of one actor.
type Record = (Vec<log::Sent>, Vec<log::Got>);

/// Plays one actor.
fn play(stage: &Stage, actor: usize) -> Result<Record, Trouble> {
    let played = if actor < stage.options.senders {
        sender::play(stage, actor).map(|sent| (sent, Vec::new()))
    } else {
        receiver::play(stage, actor - stage.options.senders)
    };
    if played.is_err() {
        stage.shared.fail();
    }
    played
}

/// Joins the logs of all actors.
fn join(options: &Options, records: Vec<Record>) -> History {
    let (sent, got): (Vec<_>, Vec<_>) = records.into_iter().unzip();
    History {
        sent,
        got: got.into_iter().skip(options.senders).collect(),
        ..History::default()
    }
}

/// Makes a history with threads as actors.
///
/// # Panics
///
/// If an actor meets an error that no order explains.
pub fn record_in_threads(bus: &dyn Bus, uid: u32, options: &Options) -> History {
    let stage = set(bus, uid, options).unwrap_or_else(|failed| panic!("{failed}"));
    let records = std::thread::scope(|scope| {
        let stage = &stage;
        let actors = 0..options.senders + options.receivers;
        let threads: Vec<_> = actors
            .map(|actor| scope.spawn(move || play(stage, actor)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("an actor panicked"))
            .collect()
    });
    let records: Result<Vec<Record>, Trouble> = records;
    join(
        options,
        records.unwrap_or_else(|trouble| panic!("{trouble}")),
    )
}

/// Makes a history on a host: with processes on the kernel, with threads otherwise.
pub fn record(bus: &dyn Bus, uid: u32, options: &Options) -> Result<History, Failed> {
    match bus.kind() {
        Kind::Embedded if options.stalls => Err(Failed("threads cannot be stopped".to_owned())),
        Kind::Kernel => processes::record(set(bus, uid, options)?),
        Kind::Embedded => Ok(record_in_threads(bus, uid, options)),
    }
}

/// Longest time that a whole history may take.
const PATIENCE: Duration = Duration::from_secs(900);
