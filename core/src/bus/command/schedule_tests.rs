// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Random schedules of whole commands: SEND to one and to many, with handles and with CONTINUE,
//! NODES_DESTROY with and without release, HANDLE_TRANSFER, HANDLE_RELEASE, flush, disconnect, and
//! RECV, of peers with and without a seed. The commands are the real ones; a schedule is free to go
//! from one to another before each lock and each atomic access. Some calls stop for ever in the
//! middle.
//!
//! All is compared with the promises of `docs/ordering.md`, with everything that was received and
//! every call that returned before another began. What was sent by calls that returned is received,
//! though the stopped ones never run again. In the end they go on, and nothing is left.
//!
//! That the schedules find a broken order is tested as well: with each fault of `planted.rs`.

// Under loom there are no steps, and interleavings are loom's.
#![cfg(not(loom))]

use std::boxed::Box;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc as Shared, Mutex};
use std::vec::Vec;

use self::calls::{clean_up, Call};
use self::record::Record;
use crate::bus::planted::{plant, Fault};
use crate::bus::testing::{Letter, World};

#[cfg(test)]
pub(super) mod calls;
#[cfg(test)]
mod check;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod record;

/// A source of chance that is the same everywhere (xorshift64*).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Returns a number below `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Returns true once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }

    /// Takes a random choice out.
    fn draw<T>(&mut self, all: &mut Vec<T>) -> Option<T> {
        (!all.is_empty()).then(|| all.swap_remove(self.below(all.len())))
    }
}

/// Steps that all calls of a schedule may take together.
const MANY: u32 = 1 << 22;

/// A schedule.
struct Schedule {
    world: World,
    record: Shared<Mutex<Record>>,
    calls: Vec<Call>,
    chance: Chance,
    /// Most steps of a call before another has its turn.
    grain: usize,
    stops: bool,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let world = World::default();
        let mut record = Record::default();
        let peers = 2 + chance.below(4);
        for _ in 0..peers {
            record.add_party(world.open(1 + chance.below(3) as u32));
        }
        for peer in 0..peers {
            for n in 0..1 + chance.below(2) {
                record.add_node(peer, 8 * n as u64);
            }
        }
        // Seeds, which a flush leaves with their nodes.
        let mut seeds = Chance::new(!seed);
        for node in &mut record.nodes {
            if node.id == 0 && seeds.once_in(4) {
                record.parties[node.owner].client.seed(&[0], b"seed");
                node.seeded = true;
            }
        }
        for node in 0..record.nodes.len() {
            for peer in 0..peers {
                let (owner, id) = (record.nodes[node].owner, record.nodes[node].id);
                if owner == peer || chance.once_in(3) {
                    continue;
                }
                let to = record.parties[peer].client.clone();
                let given = record.parties[owner].client.transfer(id, &to).unwrap();
                record.gain(peer, given, node);
            }
        }
        // Some clocks are ahead of others.
        for party in &record.parties {
            for _ in 0..[0, 0, 3, 20][chance.below(4)] {
                party.client.send(Letter::new(&[0], b"tick")).unwrap();
                party.client.take().unwrap();
            }
        }
        let grain = [1, 3, 10, 40, 200][chance.below(5)];
        Self {
            world,
            record: Shared::new(Mutex::new(record)),
            calls: Vec::new(),
            grain,
            stops: chance.once_in(2),
            chance,
        }
    }

    /// Begins a call.
    fn call(&mut self, may_stop: bool, command: impl FnOnce() + Send + 'static) {
        let stops = may_stop && self.stops && self.chance.once_in(3);
        let stop = stops.then(|| self.chance.below(120) as u32);
        self.calls.push(Call::new(stop, Box::new(command)));
    }

    /// Begins a random command of a random peer.
    fn begin(&mut self) {
        let parties = self.record.lock().unwrap().parties.len();
        let me = self.chance.below(parties);
        let record = self.record.lock().unwrap();
        let party = &record.parties[me];
        if !party.open || party.resets {
            return;
        }
        let (busy, receives) = (party.busy != 0, party.receives);
        drop(record);
        match self.chance.below(100) {
            0..40 => self.send(me),
            40..65 if !receives => self.receive(me),
            65..78 => self.destroy(me),
            78..86 => self.transfer(me),
            86..95 => self.release(me),
            95..98 if !busy && !receives => self.reset(me, false),
            98.. if !busy && !receives => self.reset(me, true),
            _ => (),
        }
    }

    /// Lets calls take their steps, beginning some more of them. All that do not stop end.
    fn play(&mut self, mut commands: usize) {
        let mut steps = 0;
        loop {
            if commands > 0 && (self.calls.len() < 10 && self.chance.once_in(4)) {
                commands -= 1;
                self.begin();
            }
            let live: Vec<usize> = (0..self.calls.len())
                .filter(|&call| !self.calls[call].has_stopped())
                .collect();
            let Some(call) = self.chance.pick(&live) else {
                if commands == 0 {
                    return;
                }
                commands -= 1;
                self.begin();
                continue;
            };
            let burst = 1 + self.chance.below(self.grain) as u32;
            steps += burst;
            assert!(steps < MANY, "a call does not end");
            if self.calls[call].run(burst) {
                self.calls.swap_remove(call);
            }
        }
    }

    /// Receives everything that can be received. If all is over, there is nothing else in the queues.
    fn drain(&mut self, is_over: bool) {
        let record = &mut *self.record.lock().unwrap();
        for me in 0..record.parties.len() {
            let party = &record.parties[me];
            if !party.open || party.resets {
                continue;
            }
            let client = party.client.clone();
            // A seed or a message may hold handles that nobody wants, with their notices.
            let mut is_exact = is_over && !record.nodes.iter().any(|node| node.seeded);
            let queued = client.info().queued;
            for n in 0.. {
                let look = record.look(me);
                let Ok(received) = client.take() else {
                    record.found_nothing(me, &look);
                    assert!(n == queued || !is_exact, "unwanted entries are kept");
                    break;
                };
                is_exact &= received.handles.is_empty();
                record.receive(me, look, received);
            }
        }
    }

    /// Releases everything that is held.
    fn release_all(&mut self) {
        let record = &mut *self.record.lock().unwrap();
        for me in 0..record.parties.len() {
            let refs = record.parties[me].refs.clone();
            for (id, refs) in refs {
                let own = &record.nodes[refs.node];
                let pins = u64::from(own.owner == me && own.pinned);
                for _ in pins..refs.n {
                    record.drop_ref(me, id);
                    assert_eq!(record.parties[me].client.release(id), Ok(()));
                }
            }
        }
    }

    /// Runs the whole schedule.
    fn run(&mut self) {
        let commands = 4 + self.chance.below(30);
        self.play(commands);
        self.drain(false);
        self.calls.iter_mut().for_each(Call::go_on);
        self.play(0);
        self.drain(true);
        self.record.lock().unwrap().check();
        self.release_all();
        self.drain(true);
        self.record.lock().unwrap().check_releases();
        self.record.lock().unwrap().parties.clear();
        self.world.clone().end();
    }
}

/// Runs a schedule. Returns what it found, if anything.
fn found(seed: u64) -> Option<std::string::String> {
    let mut schedule = Schedule::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| schedule.run()));
    let Err(found) = result else {
        return None;
    };
    clean_up();
    if std::env::var("BUS1_SCHEDULE").is_ok() {
        schedule
            .record
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .print();
    }
    // Calls in the middle may hold locks that their own destructors take.
    core::mem::forget(schedule);
    let text = found.downcast_ref::<std::string::String>().cloned();
    Some(text.unwrap_or_else(|| {
        found
            .downcast_ref::<&str>()
            .map(|&text| text.into())
            .unwrap_or_default()
    }))
}

/// Number of schedules without a fault, and the most within which each fault has to be found.
const SCHEDULES: u64 = 20_000;

/// One schedule again is `BUS1_SCHEDULE=seed`, which prints its record too.
#[test]
fn whole_commands_keep_the_order() {
    let replayed = std::env::var("BUS1_SCHEDULE").map(|seed| seed.parse().unwrap());
    let seeds = replayed.map_or(1..SCHEDULES + 1, |seed: u64| seed..seed + 1);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = (0..threads).map(|first| {
        let seeds = seeds.clone().skip(first).step_by(threads);
        std::thread::spawn(move || {
            for seed in seeds {
                if let Some(found) = found(seed) {
                    panic!("schedule {seed}: {found}");
                }
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    assert!(results.iter().all(|result| result.is_ok()));
}

#[test]
fn each_planted_fault_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    for fault in Fault::ALL {
        plant(Some(fault));
        let seeds = 1..SCHEDULES + 1;
        let hit = seeds
            .into_iter()
            .find_map(|seed| Some((seed, found(seed)?)));
        plant(None);
        match hit {
            Some((seed, text)) => std::println!("{fault:?}: schedule {seed}: {text}"),
            None => missed.push(fault),
        }
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not found: {missed:?}");
}
