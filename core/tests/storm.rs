// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Random commands of several threads on a few peers. Whatever happens, nobody is left with a
//! handle whose node died in silence, nobody is notified of one death twice, and in the end nothing
//! is left.
//!
//! The commands are random and so is the schedule; a seed that fails need not fail again. Models of
//! chosen interleavings are in `loom/`.

#![cfg(not(loom))]

mod common;

use std::collections::HashSet;
use std::sync::Mutex;

use bus1_core::abi::*;
use common::*;

const PEERS: usize = 4;
const THREADS: u64 = 3;
const COMMANDS: u32 = 800;

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn some<T: Copy>(&mut self, most: u64, of: &[T]) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| self.one(of)).collect()
    }
}

/// A peer, and the handles of whose nodes' end it was notified.
struct Member {
    client: Client,
    told: Mutex<HashSet<u64>>,
}

impl Member {
    /// Notes a notice. IDs that the user chose can come again, others not.
    fn note(&self, received: &Received) {
        let id = received.destination;
        if received.kind == MSG_NODE_DESTROY && id & HANDLE_FLAG_MANAGED != 0 {
            assert!(self.told.lock().unwrap().insert(id), "{id:#x} died twice");
        }
    }
}

/// The state of one thread.
struct Thread<'w> {
    members: &'w [Member],
    random: Random,
    /// IDs that it may use, by peer: all that it ever saw, valid or not.
    known: [Vec<u64>; PEERS],
}

impl Thread<'_> {
    fn act(&mut self) {
        let i = self.random.below(PEERS as u64) as usize;
        let member = &self.members[i];
        let client = &member.client;
        let random = &mut self.random;
        // Errors are as good as results here.
        match random.below(200) {
            0..=69 => {
                let to = random.some(4, &self.known[i]);
                let handles = random.some(3, &self.known[i]);
                let letter = Letter {
                    to: &to,
                    handles: &handles,
                    data: b"storm",
                    fds: random.one(&[&[][..], &[], &[1, 2]]),
                    flags: random.one(&[0, SEND_FLAG_CONTINUE]) | random.one(&[0, SEND_FLAG_ROOM]),
                };
                let _ = client.send(letter);
            }
            70..=149 => {
                let flags = random.one(&[0, 0, RECV_FLAG_INSTALL_FDS, RECV_FLAG_SEED]);
                if let Ok(received) = client.recv_with(flags, &Hooks::default()) {
                    member.note(&received);
                    if received.offset != OFFSET_INVALID && random.below(8) != 0 {
                        let _ = client.release_slice(received.offset);
                    }
                    self.known[i].extend(received.handles);
                }
            }
            150..=165 => {
                let _ = client.release(random.one(&self.known[i]));
            }
            166..=177 => {
                let j = random.below(PEERS as u64) as usize;
                let id = random.one(&self.known[i]);
                if let Ok(id) = client.transfer(id, &self.members[j].client) {
                    self.known[j].push(id);
                }
            }
            178..=189 => {
                let nodes = random.some(3, &[0, 4, 8, 12]);
                let _ = client.destroy_with(&nodes, random.below(2));
            }
            190..=195 => {
                let handles = random.some(2, &self.known[i]);
                let letter = Letter {
                    handles: &handles,
                    data: b"seed",
                    fds: &[3],
                    flags: SEND_FLAG_SEED,
                    ..Letter::default()
                };
                let _ = client.send(letter);
            }
            196..=198 => {
                let _ = client.flush(random.below(4));
            }
            _ => {
                if random.below(20) == 0 {
                    let _ = client.disconnect();
                }
            }
        }
        let known = &mut self.known[i];
        if known.len() > 60 {
            known.drain(..30);
        }
    }
}

fn storm(seed: u64) {
    let world = World::new([9000, 9000, 90000, 9000]);
    let member = |i| Member {
        client: world.open(1 + i as u32 % 2),
        told: Mutex::default(),
    };
    let members: Vec<Member> = (0..PEERS).map(member).collect();
    for from in &members {
        for to in &members {
            for node in [0, 4] {
                from.client.transfer(node, &to.client).unwrap();
            }
        }
    }
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            let members = &members;
            scope.spawn(move || {
                // The IDs that are there from the start.
                let ids = (1..10).map(|i| i << 3 | 3).chain([0, 4, 8, 12]);
                let ids: Vec<u64> = ids.collect();
                let mut thread = Thread {
                    members,
                    random: Random((seed << 8 | thread).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                    known: core::array::from_fn(|_| ids.clone()),
                };
                (0..COMMANDS).for_each(|_| thread.act());
            });
        }
    });
    for member in &members {
        let client = &member.client;
        while let Ok(received) = client.take() {
            member.note(&received);
        }
        // A transfer to itself finds every handle, and says INVALID where the node is dead.
        let own = |i: u64| [i << 3 | 1, i << 3 | 3];
        for id in (1..5000).flat_map(own) {
            if client.transfer(id, client) == Ok(HANDLE_INVALID) {
                let told = member.told.lock().unwrap().contains(&id);
                assert!(told, "seed {seed}: nobody said that {id:#x} is dead");
            }
        }
    }
    drop(members);
    world.end();
}

#[test]
fn storms_leave_nothing() {
    for seed in 1..=15 {
        storm(seed);
    }
}
