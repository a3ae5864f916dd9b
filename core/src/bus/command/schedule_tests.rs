// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Random schedules of whole commands: SEND to one and to many, with handles and with CONTINUE,
//! NODES_DESTROY with and without release, HANDLE_TRANSFER, HANDLE_RELEASE, flush, disconnect, and
//! RECV. The commands are the real ones; a schedule is free to go from one to another before each
//! lock and each atomic access. Some calls stop for ever in the middle.
//!
//! All is compared with the promises of `docs/ordering.md`, with everything that was received and
//! every call that returned before another began. What was sent by calls that returned is received,
//! though the stopped ones never run again. In the end they go on, and nothing is left.
//!
//! That the schedules find a broken order is tested as well: with each fault of `planted.rs`.

use std::boxed::Box;
use std::collections::BTreeSet;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc as Shared, Mutex};
use std::vec::Vec;

use kernel::error::{code::*, Result};

use self::calls::{clean_up, Call};
use self::record::{Fact, Kind, NodeId, PeerId, Record, TxId};
use crate::abi::*;
use crate::bus::planted::{plant, Fault};
use crate::bus::testing::{Hooks, Letter, World};

mod calls;
mod check;
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

    /// Returns the IDs that a peer may name, with their nodes.
    fn named(&self, me: PeerId) -> Vec<(u64, NodeId)> {
        let record = self.record.lock().unwrap();
        let refs = record.parties[me].refs.iter();
        refs.map(|(&id, refs)| (id, refs.node)).collect()
    }

    /// Notes that a command of a peer begins which names these nodes, or that it ends.
    fn use_nodes(record: &mut Record, me: PeerId, nodes: &[NodeId], begins: bool) {
        for &node in nodes {
            let node = &mut record.nodes[node];
            if node.owner == me {
                node.users = node.users + usize::from(begins) - usize::from(!begins);
            }
        }
        let busy = &mut record.parties[me].busy;
        *busy = *busy + usize::from(begins) - usize::from(!begins);
    }

    fn send(&mut self, me: PeerId) {
        let mut all = self.named(me);
        let mut carried = all.clone();
        let n = [1, 1, 2, 2, 3, 5][self.chance.below(6)];
        let to: Vec<_> = (0..n).map_while(|_| self.chance.draw(&mut all)).collect();
        let n = [0, 0, 1, 1, 2][self.chance.below(5)];
        let handles: Vec<_> = (0..n)
            .map_while(|_| self.chance.draw(&mut carried))
            .collect();
        if to.is_empty() {
            return;
        }
        let partial = self.chance.once_in(3);
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        let nodes = |all: &[(u64, NodeId)]| all.iter().map(|&(_, node)| node).collect::<Vec<_>>();
        let (to_nodes, slots) = (nodes(&to), nodes(&handles));
        for &slot in &slots {
            let owner = record.nodes[slot].owner;
            let back = to_nodes.iter().any(|&to| record.nodes[to].owner == owner);
            record.nodes[slot].given_to_owner |= back;
        }
        let used = [&to_nodes[..], &slots].concat();
        Self::use_nodes(record, me, &used, true);
        let tx = record.begin(Kind::Send {
            to: to_nodes.clone(),
            slots,
            partial,
        });
        let (client, acts) = (record.parties[me].client.clone(), record.parties[me].acts);
        let shared = self.record.clone();
        let data = (tx as u32).to_ne_bytes();
        let command = move || {
            let ids = |all: &[(u64, NodeId)]| all.iter().map(|&(id, _)| id).collect::<Vec<_>>();
            let (to, handles) = (ids(&to), ids(&handles));
            let letter = Letter {
                handles: &handles,
                flags: u64::from(partial) * SEND_FLAG_CONTINUE,
                ..Letter::new(&to, &data)
            };
            let (result, errors) = client.send_with(letter, &Hooks::default());
            let record = &mut *shared.lock().unwrap();
            Self::use_nodes(record, me, &used, false);
            let acted = record.parties[me].acts != acts;
            sent(record, tx, &to_nodes, partial, result, &errors, acted);
        };
        drop(guard);
        self.call(true, command);
    }

    fn receive(&mut self, me: PeerId) {
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        record.parties[me].receives = true;
        let (look, client) = (record.look(me), record.parties[me].client.clone());
        let shared = self.record.clone();
        let command = move || {
            let taken = client.take();
            let record = &mut *shared.lock().unwrap();
            record.parties[me].receives = false;
            match taken {
                Ok(received) => record.receive(me, look, received),
                Err(error) => {
                    assert_eq!(error, EAGAIN, "RECV");
                    record.found_nothing(me, &look);
                }
            }
        };
        drop(guard);
        self.call(false, command);
    }

    fn destroy(&mut self, me: PeerId) {
        let mut own = self.named(me);
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        own.retain(|&(_, node)| record.nodes[node].owner == me);
        let n = 1 + self.chance.below(2);
        let doomed: Vec<_> = (0..n).map_while(|_| self.chance.draw(&mut own)).collect();
        if doomed.is_empty() {
            return;
        }
        let nodes: Vec<NodeId> = doomed.iter().map(|&(_, node)| node).collect();
        // A node that is released while a command is about to name it could be made anew.
        let is_free = |&node: &NodeId| record.nodes[node].users == 0;
        let release = nodes.iter().all(is_free) && self.chance.once_in(2);
        let tx = record.begin(Kind::Destroy(nodes.clone()));
        let mut pins = Vec::new();
        for &(id, node) in &doomed {
            record.nodes[node].dying = true;
            if release {
                pins.push((id, node, record.drop_pin(me, id)));
            }
        }
        Self::use_nodes(record, me, &nodes, true);
        let (client, acts) = (record.parties[me].client.clone(), record.parties[me].acts);
        let shared = self.record.clone();
        let command = move || {
            let ids: Vec<u64> = doomed.iter().map(|&(id, _)| id).collect();
            let flags = u64::from(release) * NODES_DESTROY_FLAG_RELEASE_HANDLES;
            let result = client.destroy_with(&ids, flags);
            let record = &mut *shared.lock().unwrap();
            Self::use_nodes(record, me, &nodes, false);
            let acted = record.parties[me].acts != acts;
            // The pins were dropped at any time until now.
            record.parties[me].acts += u64::from(release);
            if result.is_ok() {
                record.done(tx, BTreeSet::new());
                for &node in &nodes {
                    record.nodes[node].died_released |= release;
                }
                return;
            }
            assert!(result == Err(ESTALE) || acted && result == Err(ENXIO));
            record.refused(tx);
            for (id, node, pin) in pins {
                record.regain_pin(me, id, node, pin);
            }
        };
        drop(guard);
        self.call(true, command);
    }

    fn transfer(&mut self, me: PeerId) {
        let all = self.named(me);
        let Some((id, node)) = self.chance.pick(&all) else {
            return;
        };
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        let to = self.chance.below(record.parties.len());
        let party = &mut record.parties[to];
        if !party.open || party.resets {
            return;
        }
        party.busy += 1;
        let other = party.client.clone();
        record.nodes[node].given_to_owner |= record.nodes[node].owner == to;
        Self::use_nodes(record, me, &[node], true);
        let begin = record.now();
        let (client, acts) = (record.parties[me].client.clone(), record.parties[me].acts);
        let shared = self.record.clone();
        let command = move || {
            let result = client.transfer(id, &other);
            let record = &mut *shared.lock().unwrap();
            record.parties[to].busy -= 1;
            Self::use_nodes(record, me, &[node], false);
            match result {
                Ok(HANDLE_INVALID) => {
                    assert!(record.nodes[node].dying, "INVALID for a live node");
                    record.learn(Fact::Died(node));
                }
                Ok(given) => record.gain_since(to, given, node, begin),
                Err(error) => assert!(error == ENXIO && record.parties[me].acts != acts),
            }
        };
        drop(guard);
        self.call(true, command);
    }

    fn release(&mut self, me: PeerId) {
        let mut all = self.named(me);
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        // The pin of a node that may live stays.
        all.retain(|&(id, node)| {
            let own = &record.nodes[node];
            let is_pin = own.owner == me && record.parties[me].refs[&id].n == 1;
            !is_pin || own.death.is_some() && own.users == 0
        });
        let Some((id, node)) = self.chance.pick(&all) else {
            return;
        };
        record.drop_ref(me, id);
        let own = &record.nodes[node];
        let is_unpinned = own.owner == me && own.dying && !own.pinned;
        Self::use_nodes(record, me, &[node], true);
        let client = record.parties[me].client.clone();
        let shared = self.record.clone();
        let command = move || {
            let result = client.release(id);
            let record = &mut *shared.lock().unwrap();
            Self::use_nodes(record, me, &[node], false);
            // The reference was dropped at any time until now.
            record.parties[me].acts += 1;
            // The last reference of a node whose pin is dropped and that is about to die.
            let is_early = is_unpinned && result == Err(EBUSY);
            assert!(is_early || result == Ok(()), "HANDLE_RELEASE");
        };
        drop(guard);
        self.call(true, command);
    }

    /// Flushes or disconnects.
    fn reset(&mut self, me: PeerId, leave: bool) {
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        let party = &mut record.parties[me];
        party.resets = true;
        party.open = !leave;
        let client = party.client.clone();
        let mut nodes = Vec::new();
        for (id, node) in record.nodes.iter_mut().enumerate() {
            if node.owner == me && node.death.is_none() {
                node.dying = true;
                nodes.push(id);
            }
        }
        let tx = record.begin(Kind::Destroy(nodes));
        record.drop_all_refs(me);
        let shared = self.record.clone();
        let command = move || {
            let result = match leave {
                true => client.disconnect(),
                false => client.flush(PEER_RESET_FLAG_FLUSH),
            };
            assert_eq!(result, Ok(()));
            let record = &mut *shared.lock().unwrap();
            record.done(tx, BTreeSet::new());
            let now = record.now();
            let party = &mut record.parties[me];
            party.flushed = Some(now);
            party.resets = false;
        };
        drop(guard);
        self.call(true, command);
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

    /// Receives everything that can be received.
    fn drain(&mut self) {
        let record = &mut *self.record.lock().unwrap();
        for me in 0..record.parties.len() {
            let party = &record.parties[me];
            if !party.open || party.resets {
                continue;
            }
            let client = party.client.clone();
            loop {
                let look = record.look(me);
                let Ok(received) = client.take() else {
                    record.found_nothing(me, &look);
                    break;
                };
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
        self.drain();
        self.calls.iter_mut().for_each(Call::go_on);
        self.play(0);
        self.drain();
        self.record.lock().unwrap().check();
        self.release_all();
        self.drain();
        self.record.lock().unwrap().check_releases();
        self.record.lock().unwrap().parties.clear();
        self.world.clone().end();
    }
}

/// Notes the result of a SEND.
fn sent(
    record: &mut Record,
    tx: TxId,
    to: &[NodeId],
    partial: bool,
    result: Result,
    errors: &[i32],
    acted: bool,
) {
    const HOSTUNREACH: i32 = 113;
    const NXIO: i32 = 6;
    let dying = |record: &Record| {
        let dying = to.iter().copied();
        let dying = dying.filter(|&node| record.nodes[node].dying);
        dying.collect::<Vec<_>>()
    };
    match result {
        Ok(()) if partial => {
            let mut failed = BTreeSet::new();
            for (part, &error) in errors.iter().enumerate() {
                match error {
                    0 => continue,
                    HOSTUNREACH => {
                        assert!(record.nodes[to[part]].dying, "refused by a live node");
                        record.learn(Fact::Died(to[part]));
                    }
                    NXIO => assert!(acted, "a handle is gone"),
                    error => panic!("error {error} of a destination"),
                }
                failed.insert(part);
            }
            match failed.len() == to.len() {
                true => record.refused(tx),
                false => record.done(tx, failed),
            }
        }
        Ok(()) => record.done(tx, BTreeSet::new()),
        Err(error) => {
            record.refused(tx);
            match error {
                EHOSTUNREACH => match dying(record)[..] {
                    [] => panic!("refused by a live node"),
                    [only] => record.learn(Fact::Died(only)),
                    _ => (),
                },
                ENXIO => assert!(acted, "a handle is gone"),
                error => panic!("SEND says {error:?}"),
            }
        }
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
