// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Callers that are killed while a call does work in proportion to its arguments.

#![cfg(not(loom))]

mod common;

use std::boxed::Box;
use std::cell::Cell;
use std::prelude::rust_2021::*;
use std::sync::Arc as Shared;

use bus1_core::abi::*;
use common::*;
use kernel::error::{code::*, Result};
use kernel::fault;

/// Most steps between two looks, as `KillCheck` in the core has it.
const STEPS: u64 = 64;
/// Receivers of a multicast.
const RECEIVERS: usize = 60;
/// Handles of a message.
const HANDLES: usize = 40;
/// Nodes of a destruction.
const NODES: usize = 300;
/// Loops of one call, each of which may end before its next look.
const LOOPS: u64 = 8;

/// A sender, receivers with a node each, and the sender's handles to these.
struct Scene {
    world: World,
    sender: Client,
    receivers: Vec<Client>,
    to: Vec<u64>,
}

impl Scene {
    fn new() -> Self {
        let world = World::new([1 << 20; 4]);
        let sender = world.open(1);
        let receivers: Vec<_> = (2..).take(RECEIVERS).map(|uid| world.open(uid)).collect();
        let to = receivers
            .iter()
            .map(|receiver| receiver.transfer(0, &sender).unwrap());
        let to = to.collect();
        Self {
            world,
            sender,
            receivers,
            to,
        }
    }

    fn end(self) {
        drop((self.sender, self.receivers));
        self.world.end();
    }
}

/// IDs of nodes that do not exist yet.
fn new_nodes(n: usize) -> Vec<u64> {
    (1..=n as u64).map(|i| 4 * i).collect()
}

fn multicast(scene: &Scene) -> Result {
    let handles = new_nodes(HANDLES);
    scene.sender.send(Letter {
        handles: &handles,
        ..Letter::new(&scene.to, &[7; 100])
    })
}

fn seed(scene: &Scene) -> Result {
    scene.sender.send(Letter {
        handles: &new_nodes(NODES),
        flags: SEND_FLAG_SEED,
        ..Letter::new(&[], b"seed")
    })
}

fn destruction(scene: &Scene) -> Result {
    scene.sender.destroy(&new_nodes(NODES))
}

/// Kills the caller of `act` at each of its looks. Returns the number of looks if it lives.
fn kill_at_each_look(prepare: fn(&Scene), act: fn(&Scene) -> Result) -> u64 {
    let scene = Scene::new();
    prepare(&scene);
    // Idle credit counts at the user's account, so only peers and files are compared.
    let (_, peers, files) = scene.world.state();
    let mut n = 1;
    loop {
        let (result, looks) = killed_at(Some(n), || act(&scene));
        if result.is_ok() {
            assert_eq!(looks, n - 1);
            break;
        }
        assert_eq!(
            (result, looks),
            (Err(EINTR), n),
            "it goes on after look {n}"
        );
        let (_, peers_now, files_now) = scene.world.state();
        assert!(
            peers_now == peers && files_now == files,
            "a trace of look {n}"
        );
        n += 1;
    }
    scene.end();
    n - 1
}

#[test]
fn a_killed_multicast_leaves_no_trace_and_has_few_steps_between_looks() {
    let looks = kill_at_each_look(|_| (), multicast);
    let (receivers, handles) = (RECEIVERS as u64, HANDLES as u64);
    // Handles are looked up, destinations are looked up, pinned and filled, and each handle is
    // linked for each.
    let steps = handles + 3 * receivers + receivers * handles;
    assert!(
        looks >= steps / STEPS - LOOPS,
        "{looks} looks in {steps} steps"
    );
}

#[test]
fn a_killed_seed_leaves_no_trace_and_has_few_steps_between_looks() {
    let looks = kill_at_each_look(|_| (), seed);
    // Looked up, linked, noted as own.
    let steps = 3 * NODES as u64;
    assert!(
        looks >= steps / STEPS - LOOPS,
        "{looks} looks in {steps} steps"
    );
}

#[test]
fn a_killed_receipt_of_a_seed_leaves_no_trace() {
    let prepare = |scene: &Scene| seed(scene).unwrap();
    let act = |scene: &Scene| {
        scene
            .sender
            .recv_with(RECV_FLAG_SEED, &Hooks::default())
            .map(drop)
    };
    let looks = kill_at_each_look(prepare, act);
    assert!(
        looks >= NODES as u64 / STEPS - LOOPS.min(1),
        "{looks} looks"
    );
}

#[test]
fn a_killed_destruction_leaves_no_trace_and_has_few_steps_between_looks() {
    let looks = kill_at_each_look(|_| (), destruction);
    let steps = NODES as u64;
    assert!(looks >= steps / STEPS, "{looks} looks in {steps} steps");
}

#[test]
fn a_copy_counts_by_its_length() {
    let scene = Scene::new();
    let long = [7; 12 << 10];
    let send = |to: &[u64]| scene.sender.send(Letter::new(to, &long)).unwrap();
    let ((), looks) = killed_at(None, || send(&scene.to));
    let steps = 2 * RECEIVERS as u64 * (12 / 4);
    assert!(
        looks >= steps / STEPS - LOOPS.min(2),
        "{looks} looks in {steps} steps"
    );
    scene.end();
}

#[test]
fn a_destination_that_refuses_costs_no_memory_in_proportion_to_the_handles() {
    let scene = Scene::new();
    for receiver in &scene.receivers {
        receiver
            .reset(0, [u32::MAX, 8, u32::MAX, u32::MAX])
            .unwrap();
    }
    let handles = new_nodes(HANDLES);
    let send = |n: usize| {
        fault::fail_after(None);
        let letter = Letter {
            handles: &handles,
            flags: SEND_FLAG_CONTINUE,
            ..Letter::new(&scene.to[..n], b"refused")
        };
        let (sent, errors) = scene.sender.send_with(letter, &Hooks::default());
        assert_eq!(sent, Ok(()));
        assert!(errors.iter().all(|&errno| errno == -EMSGSIZE.to_errno()));
        fault::count()
    };
    // The nodes are made, and the receivers' books know the sender.
    send(RECEIVERS);
    assert_eq!(send(RECEIVERS), send(RECEIVERS / 2));
    scene.end();
}

#[test]
fn a_recall_of_credit_has_few_steps_between_looks() {
    const CLAIMANTS: u32 = 300;
    let world = World::by_default();
    let receiver = world.open(1);
    let senders: Vec<_> = (0..CLAIMANTS).map(|i| world.open(2 + i)).collect();
    let to = |sender: &Client| receiver.transfer(0, sender).unwrap();
    let ids: Vec<_> = senders.iter().map(to).collect();
    for _ in 0..2 {
        for (sender, id) in senders.iter().zip(&ids) {
            sender.send(Letter::new(&[*id], b"credit")).unwrap();
        }
    }
    // Each of them still has a message in the queue, and so keeps its credit.
    for _ in &senders {
        receiver.take().unwrap();
    }
    // Lower limits have all credit taken back, also where the caller was killed.
    for killed in [None, Some(1)] {
        let limits = [8192, 32768, 8 << 20, 2048];
        let (result, looks) = killed_at(killed, || receiver.reset(0, limits));
        assert_eq!(result, Ok(()));
        assert!(
            looks >= u64::from(CLAIMANTS) / STEPS || killed.is_some(),
            "{looks} looks"
        );
    }
    drop((receiver, senders));
    world.end();
}

/// Senders that draw credit again as fast as it is recalled keep no peer from leaving, whether its
/// caller was killed or not.
#[test]
fn a_disconnect_ends_while_senders_draw_credit() {
    const CLAIMANTS: u32 = 80;
    const ROUNDS: u32 = 30;
    const MOST_LOOKS: u64 = 8;
    for killed in [None, Some(1)] {
        let world = World::by_default();
        let receiver = world.open(1);
        let senders: Vec<_> = (0..CLAIMANTS).map(|_| world.open(1)).collect();
        let to = |sender: &Client| receiver.transfer(0, sender).unwrap();
        let ids: Vec<_> = senders.iter().map(to).collect();
        let send_all = {
            let senders = Shared::new(senders);
            move || {
                for (sender, id) in senders.iter().zip(&ids) {
                    // Once the peer is closed that is refused.
                    let _ = sender.send(Letter::new(&[*id], b"credit"));
                }
            }
        };
        // All are known now, and the second message of each makes it keep credit.
        send_all();
        send_all();
        let mut left = ROUNDS;
        at_look(Some(Box::new(move || {
            if left != 0 {
                left -= 1;
                send_all();
            }
        })));
        let (result, looks) = killed_at(killed, || receiver.disconnect());
        at_look(None);
        assert_eq!(result, Ok(()));
        assert!(looks <= MOST_LOOKS, "{looks} looks");
        drop(receiver);
        world.end();
    }
}

#[test]
fn many_results_are_written_with_few_steps_between_looks() {
    const DESTINATIONS: u64 = 1000;
    let world = World::new([1 << 20; 4]);
    let sender = world.open(1);
    // Handles that it does not have.
    let to: Vec<u64> = (1..=DESTINATIONS).map(|i| 4 * i + 2).collect();
    let before = Cell::new(0);
    let send = || {
        let letter = Letter {
            flags: SEND_FLAG_CONTINUE,
            ..Letter::new(&to, b"")
        };
        let hooks = Hooks::at_write(|| {
            before.set(looks());
            Ok(())
        });
        sender.send_with(letter, &hooks).0
    };
    let (result, all) = killed_at(None, send);
    assert_eq!(result, Ok(()));
    let n = all - before.get();
    assert!(n >= DESTINATIONS / STEPS, "{n} looks while it writes");
    assert_eq!(killed_at(Some(all), send), (Err(EINTR), all));
    drop(sender);
    world.end();
}

#[test]
fn a_killed_reader_of_numbers_is_not_kept() {
    let scene = Scene::new();
    seed(&scene).unwrap();
    let (_, all) = killed_at(None, || scene.sender.info());
    let (_, few) = killed_at(Some(1), || scene.sender.info());
    // It looks before each 64 handles and entries, and before each 64 claimants of a peer.
    assert!(
        all >= NODES as u64 / STEPS + few && few <= LOOPS,
        "{all} looks, and {few} of a reader that is killed"
    );
    scene.end();
}
