// SPDX-License-Identifier: MIT OR Apache-2.0

//! Charges come back exactly, on every way that a message can go.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;
use rand::{rngs::SmallRng, Rng, SeedableRng};

use super::quota::{claim_all, Resource};
use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::NOWHERE;

/// A receiver with room for little, a sender, and the sender's handle of it.
struct Pair {
    receiver: Peer,
    sender: Peer,
    to: u64,
    null: File,
}
const ALL: [Resource; 4] = [
    Resource::Slices,
    Resource::Handles,
    Resource::Bytes,
    Resource::Descriptors,
];

impl Pair {
    fn new(env: &Env) -> Self {
        let (receiver, sender) = (env.peer(), env.peer_of(1));
        receiver
            .limit(Limits {
                slices: 512,
                handles: 514,
                // For each slot 13: a byte, an ID, a number.
                bytes: 13 * 512,
                fds: 512,
            })
            .unwrap();
        let to = sender.handle_of(&receiver);
        let null = File::open("/dev/null").unwrap();
        Self {
            receiver,
            sender,
            to,
            null,
        }
    }

    /// Fills the receiver with messages that have some of everything; the sender may take an
    /// eighth.
    fn fill(&self) {
        let fd = self.null.as_raw_fd();
        let nodes: [u64; 4] = std::array::from_fn(|_| self.sender.new_node());
        let message = || {
            self.sender
                .message()
                .to(&[self.to])
                .bytes(&[3; 4])
                .handles(&nodes)
        };
        let mut sent = 0;
        while message().fds(&[fd; 4]).send().is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 16, "room for 64 of each");
    }

    /// Asserts that nothing is charged any more, by claiming everything.
    fn expect_empty(&self) {
        for resource in ALL {
            let taken = claim_all(resource, &self.sender, self.to);
            let most = match resource {
                Resource::Bytes => 13 * 64,
                _ => 64,
            };
            assert_eq!(taken, most, "{resource:?} are still charged");
            self.receive();
        }
    }

    /// Receives everything, and gives everything back.
    fn receive(&self) {
        for message in self.receiver.expect_all() {
            for id in message.handles {
                if id != abi::HANDLE_INVALID {
                    self.receiver.release(id).unwrap();
                }
            }
        }
        self.sender.expect_all();
    }
}

#[case("abi.md#charge-conserved")]
fn after_receipt_and_release(env: &Env) {
    let pair = Pair::new(env);
    for _ in 0..5 {
        pair.fill();
        pair.receive();
    }
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_receipt_without_install(env: &Env) {
    let pair = Pair::new(env);
    for _ in 0..5 {
        pair.fill();
        while let Ok(message) = pair.receiver.receive().flags(0).run() {
            pair.receiver.release_slice(message.msg.offset).unwrap();
            for id in message.handles {
                pair.receiver.release(id).unwrap();
            }
        }
    }
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_flush(env: &Env) {
    let mut pair = Pair::new(env);
    for _ in 0..5 {
        pair.fill();
        pair.receiver.recv().unwrap();
        pair.receiver.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        pair.sender.expect_all();
        pair.to = pair.sender.handle_of(&pair.receiver);
    }
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_destruction_of_the_node(env: &Env) {
    let mut pair = Pair::new(env);
    for _ in 0..5 {
        let node = pair.receiver.new_node();
        pair.to = pair.receiver.give(&pair.sender, node).unwrap();
        // One node more than `fill` counts on; it goes with the messages.
        pair.receiver
            .limit(Limits {
                handles: 516,
                ..Limits::KEEP
            })
            .unwrap();
        pair.fill();
        pair.receiver.destroy_and_release(&[node]).unwrap();
        pair.sender.expect_all();
    }
    pair.to = pair.sender.handle_of(&pair.receiver);
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_refused_sends(env: &Env) {
    let pair = Pair::new(env);
    let (dead_node, dead) = pair.receiver.node_for(&pair.sender);
    pair.receiver.destroy_and_release(&[dead_node]).unwrap();
    let fd = pair.null.as_raw_fd();
    for _ in 0..100 {
        let full = || {
            pair.sender
                .message()
                .bytes(&[1; 60])
                .handles(&[8, 12, 16])
                .fds(&[fd; 50])
        };
        assert_eq!(full().to(&[pair.to, dead]).send(), Err(E::HOSTUNREACH));
        assert_eq!(full().to(&[pair.to, UNKNOWN_ID]).send(), Err(E::NXIO));
        assert_eq!(full().to(&[pair.to, pair.to]).send(), Err(E::NOTUNIQ));
        assert_eq!(
            full().to(&[pair.to]).bytes(&[1; 640]).send(),
            Err(E::MSGSIZE)
        );
    }
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_faults(env: &Env) {
    let pair = Pair::new(env);
    let fd = pair.null.as_raw_fd();
    for round in 0..100 {
        let message = pair
            .sender
            .message()
            .to(&[pair.to])
            .handles(&[8, 12])
            .fds(&[fd; 60]);
        assert_eq!(
            message.vector(NOWHERE, 60).send(),
            Err(E::FAULT),
            "round {round}"
        );
    }
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_the_death_of_the_sender(env: &Env) {
    let mut pair = Pair::new(env);
    for _ in 0..5 {
        pair.fill();
        let next = env.peer_of(1);
        std::mem::replace(&mut pair.sender, next).close();
        pair.receive();
        // Nodes given to one sender after the other would add up.
        pair.receiver.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        pair.sender.expect_all();
        pair.to = pair.sender.handle_of(&pair.receiver);
    }
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_dead_handles(env: &Env) {
    let pair = Pair::new(env);
    for _ in 0..50 {
        let nodes: [u64; 8] = std::array::from_fn(|_| pair.sender.new_node());
        let send = || {
            pair.sender
                .message()
                .to(&[pair.to])
                .handles(&nodes)
                .send()
                .unwrap()
        };
        send();
        pair.sender.destroy_and_release(&nodes[..4]).unwrap();
        send();
        pair.sender.destroy_and_release(&nodes[4..]).unwrap();
        pair.receive();
    }
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_seeds(env: &Env) {
    let pair = Pair::new(env);
    let fd = pair.null.as_raw_fd();
    for _ in 0..20 {
        let seed = pair
            .receiver
            .message()
            .bytes(&[1; 50])
            .handles(&[0x900])
            .fds(&[fd; 20]);
        seed.seed().send().unwrap();
        let message = pair.receiver.recv_seed().unwrap();
        pair.receiver.release_slice(message.msg.offset).unwrap();
        pair.receiver.release(0x900).unwrap();
    }
    pair.receiver
        .flush(abi::PEER_RESET_FLAG_FLUSH_SEED)
        .unwrap();
    pair.receiver.destroy_and_release(&[0x900]).unwrap();
    pair.expect_empty();
}

#[case("abi.md#charge-conserved", "abi.md#charge-given")]
fn after_transfers(env: &Env) {
    let pair = Pair::new(env);
    for _ in 0..20 {
        let mut ids = Vec::new();
        while let Ok(id) = pair.sender.give(&pair.receiver, pair.sender.new_node()) {
            ids.push(id);
        }
        assert_eq!(ids.len(), 64);
        for id in ids {
            pair.receiver.release(id).unwrap();
        }
    }
    pair.sender.expect_all();
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_random_use(env: &Env) {
    let pair = Pair::new(env);
    let fd = pair.null.as_raw_fd();
    let mut random = SmallRng::seed_from_u64(11);
    let (mut offsets, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..5000 {
        match random.random_range(0..6) {
            0..3 => {
                let bytes = vec![1; random.random_range(0..30)];
                let nodes = random.random_range(0..20);
                let handles: Vec<_> = (0..random.random_range(0..6))
                    .map(|i| 4 * (nodes + i))
                    .collect();
                let fds = vec![fd; random.random_range(0..10)];
                let message = pair.sender.message().to(&[pair.to]).bytes(&bytes);
                match message.handles(&handles).fds(&fds).send() {
                    Ok(()) | Err(E::DQUOT) => (),
                    Err(errno) => panic!("SEND says {errno:?}"),
                }
            }
            3 => {
                let flags = if random.random() {
                    abi::RECV_FLAG_INSTALL_FDS
                } else {
                    0
                };
                if let Ok(message) = pair.receiver.receive().flags(flags).run() {
                    offsets.push(message.msg.offset);
                    ids.extend(message.handles);
                }
            }
            4 if !offsets.is_empty() => {
                let offset = offsets.swap_remove(random.random_range(0..offsets.len()));
                pair.receiver.release_slice(offset).unwrap();
            }
            _ if !ids.is_empty() => {
                let id = ids.swap_remove(random.random_range(0..ids.len()));
                pair.receiver.release(id).unwrap();
            }
            _ => (),
        }
    }
    offsets
        .into_iter()
        .for_each(|offset| pair.receiver.release_slice(offset).unwrap());
    ids.into_iter()
        .for_each(|id| pair.receiver.release(id).unwrap());
    pair.receive();
    pair.expect_empty();
}

#[case("abi.md#charge-conserved")]
fn after_the_receiver_is_closed_full(env: &Env) {
    // Its user's account must not remember a peer that is gone.
    let half = env.bus().user_limits().slices as usize / 2;
    let mut first = None;
    for _ in 0..3 {
        let [receiver, sender] = env.peers();
        let to = sender.handle_of(&receiver);
        let taken = claim_all(Resource::Slices, &sender, to);
        assert!(taken <= half);
        assert_eq!(*first.get_or_insert(taken), taken);
    }
}
