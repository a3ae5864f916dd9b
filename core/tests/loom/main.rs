// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Models of the order: the core itself, with every interleaving of a few commands.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p bus1-core --test loom
//! ```
//!
//! Each model runs whole commands of the real core in two or three threads, and looks at what the
//! receivers see. Locks, atomics and reference counts are loom's, so what is explored is every
//! order of these (with the weaker memory orders), not of statements. `LockedBy` and the counts
//! are checked on the way: an access that is not ordered, and a peer, node, handle, transaction or
//! message that is never freed, fail the model.
//!
//! # Covered
//!
//! - Consistency: two multicasts to the same two receivers, also while they are received.
//! - Causality: the triangle, with the news coming by message or by a plain flag.
//! - Atomicity: a multicast against the death of one destination, whole or partial; no result is
//!   written to the sender while anything is staged.
//! - Floors: receivers that pass undecided parts while these are committed or killed, or their
//!   node dies; each message whose SEND returned is received at once.
//! - Wake-ups: who looked, saw nothing and was not woken afterwards has nothing to receive.
//! - Handles: in messages and transfers against the death of the node, the owner's disconnect and
//!   the receiver's own release and flush.
//! - Counts: releases against each other and against messages in flight; one notice each.
//! - Conservation: disconnects and flushes against senders; every model ends with all zero.
//! - Room: a refused SEND against what makes room and against what ends its wait.
//! - Two threads that receive from one peer; idle credit that is recalled.
//!
//! # Not covered
//!
//! - More than [`BOUND`] or [`DEEP`] preemptions in one run (`LOOM_MAX_PREEMPTIONS` raises both),
//!   or more than three threads and three queues. The proofs are in `docs/ordering.md`;
//!   `queue_tests.rs` and `command/schedule_tests.rs` have random schedules of more.
//! - A Release or Acquire that is too weak: the locks order nearly everything here by themselves.
//!   Models without locks are in `transaction_tests.rs` and `destroy_tests.rs`, those whose name
//!   has `loom_`.
//! - Locks of the host: wake-ups are counted, not slept on. Payloads are a few bytes.
//! - The kernel's memory model: loom has that of C11 (without load buffering), which is what the
//!   shim maps the kernel's orders to.

#![cfg(loom)]

#[path = "../common/mod.rs"]
mod common;
mod counts;
mod floors;
mod handles;
mod order;
mod room;

use bus1_core::abi::*;
use common::*;
use loom::thread::{self, JoinHandle};

/// Preemptions of most models, and of those that are small.
const BOUND: usize = 2;
const DEEP: usize = 3;

/// Explores `f`.
fn model(name: &str, bound: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(bound));
    builder.max_branches = 100_000;
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = runs.clone();
    let start = std::time::Instant::now();
    builder.check(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        f();
    });
    println!("{name}: {runs:?} runs in {:?}", start.elapsed());
}

fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    thread::spawn(f)
}

fn data(all: &[Received]) -> Vec<&[u8]> {
    let data = all.iter().filter(|one| one.kind == MSG_DATA);
    data.map(|one| &one.data[..]).collect()
}

/// State that a waiter saw before it would have gone to sleep.
struct Watch(Client, bool, u64);

impl Watch {
    fn look(client: &Client) -> Self {
        let wakes = client.wakes();
        Self(client.clone(), client.ready().readable, wakes)
    }

    /// Checks the watch when all is quiet.
    fn check(self) {
        let Self(client, saw, wakes) = self;
        let sleeps = !saw && client.wakes() == wakes;
        assert!(!(sleeps && client.ready().readable), "a wake-up was lost");
    }
}

/// Two receivers and two senders, with handles to node 0 of each receiver.
struct Square {
    world: World,
    r: Client,
    s: Client,
    a: Client,
    b: Client,
    /// The IDs of the nodes of `r` and `s`.
    from_a: [u64; 2],
    from_b: [u64; 2],
}

impl Square {
    fn new() -> Self {
        let world = World::default();
        let [r, s, a, b] = [1, 1, 2, 2].map(|uid| world.open(uid));
        let handles = |to: &Client| [&r, &s].map(|owner| owner.transfer(0, to).unwrap());
        Self {
            from_a: handles(&a),
            from_b: handles(&b),
            world,
            r,
            s,
            a,
            b,
        }
    }
}

/// Places of the message and the notice among the received entries.
struct Seen {
    slot: Option<u64>,
    notices: Vec<u64>,
    message_first: bool,
}

impl Seen {
    fn new(all: &[Received]) -> Self {
        let message = all.iter().position(|one| one.kind == MSG_DATA);
        let notice = all.iter().position(|one| one.kind == MSG_NODE_DESTROY);
        let notices = all.iter().filter(|one| one.kind == MSG_NODE_DESTROY);
        Self {
            slot: message.map(|i| all[i].handles[0]),
            notices: notices.map(|one| one.destination).collect(),
            message_first: message.is_some_and(|m| notice.is_none_or(|n| m < n)),
        }
    }

    /// Checks that an ID comes before the notice with this ID, and nothing after it.
    fn check(&self) {
        match self.slot {
            Some(HANDLE_INVALID) => assert!(!self.message_first || self.notices.is_empty()),
            Some(id) => {
                assert!(self.message_first);
                assert_eq!(self.notices, [id], "a silent dead handle");
            }
            None => (),
        }
    }
}
