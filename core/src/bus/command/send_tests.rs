// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Steps of other calls between the steps of a multicast.

use std::vec::Vec;

use super::*;
use crate::abi::{
    MSG_DATA, MSG_NODE_DESTROY, NODES_DESTROY_FLAG_RELEASE_HANDLES, PEER_RESET_FLAG_FLUSH,
};
use crate::bus::testing::{Client, Letter, Test, World};

/// Two receivers with a node 0 each, and a sender.
struct Scene {
    world: World,
    to: [Client; 2],
    from: Client,
    ids: [u64; 2],
}

/// A multicast of nothing to both.
struct Staged<'p> {
    parts: Vec<Pending<'p, Test>>,
    transaction: Arc<Transaction>,
    /// The timestamp that was chosen in step 2.
    top: u64,
}

impl Scene {
    fn new() -> Self {
        let world = World::default();
        let to = [world.open(1), world.open(2)];
        let from = world.open(3);
        let ids = [0, 1].map(|i: usize| to[i].transfer(0, &from).unwrap());
        Self {
            world,
            to,
            from,
            ids,
        }
    }

    /// Steps 1 and 2.
    fn stage(&self) -> Staged<'_> {
        let from = &self.from.peer;
        let transaction = from.transaction().unwrap();
        let mut resolver = Resolver::new(from);
        let nothing = Resolved {
            handles: KVVec::new(),
            files: None,
            size: Size::default(),
        };
        let (mut parts, mut top) = (Vec::new(), 0);
        for (part, &id) in self.ids.iter().enumerate() {
            let handle = resolver.find(id).unwrap();
            let mut pending = Pending::new(from, Some(handle));
            pending.reserve(&nothing, true).unwrap();
            pending.pin().unwrap();
            top = pending.stage(&transaction, part as u32, top).unwrap();
            parts.push(pending);
        }
        Staged {
            parts,
            transaction,
            top,
        }
    }

    fn readable(&self) -> [bool; 2] {
        [0, 1].map(|i: usize| self.to[i].ready().readable)
    }

    fn end(self) {
        for client in &self.to {
            let info = client.info();
            assert_eq!((info.queued, info.staged, info.slices), (0, 0, 0));
            assert_eq!(info.charged[0], 0);
        }
        drop((self.from, self.to));
        self.world.end();
    }
}

impl Staged<'_> {
    /// Carries out step 3.
    fn raise(&self) -> u64 {
        let timestamp = self.top;
        for pending in &self.parts {
            pending.raise(timestamp);
        }
        timestamp
    }

    /// Takes all parts back; which of the destinations failed.
    fn unstage(mut self) -> Vec<bool> {
        let mut failed = Vec::new();
        for pending in self.parts.iter_mut() {
            pending.unstage();
            failed.push(pending.is_gone());
        }
        failed
    }
}

#[test]
fn all_parts_appear_at_once() {
    let scene = Scene::new();
    let staged = scene.stage();
    assert_eq!(scene.readable(), [false, false]);
    let timestamp = staged.raise();
    assert_eq!(scene.readable(), [false, false]);
    assert_eq!(scene.to[0].recv(), Err(EAGAIN));
    assert!(staged.transaction.commit(timestamp));
    assert_eq!(scene.readable(), [true, true]);
    drop(staged);
    for client in &scene.to {
        assert_eq!(client.take_all().len(), 1);
    }
    scene.end();
}

/// Something that makes the second destination vanish.
const DEATHS: [fn(&Scene) -> Result; 4] = [
    |scene| scene.to[1].destroy(&[0]),
    |scene| scene.to[1].destroy_with(&[0], NODES_DESTROY_FLAG_RELEASE_HANDLES),
    |scene| scene.to[1].disconnect(),
    |scene| scene.to[1].flush(PEER_RESET_FLAG_FLUSH),
];

#[test]
fn a_destination_that_dies_kills_what_is_staged() {
    for death in DEATHS {
        for raised in [false, true] {
            let scene = Scene::new();
            let staged = scene.stage();
            let timestamp = if raised { staged.raise() } else { 4 };
            death(&scene).unwrap();
            assert!(!staged.transaction.commit(timestamp));
            assert_eq!(staged.unstage(), [false, true]);
            assert_eq!(scene.to[0].recv(), Err(EAGAIN));
            if scene.to[1].peer.check_open().is_ok() {
                let all = scene.to[1].take_all();
                assert!(all.iter().all(|one| one.kind == MSG_NODE_DESTROY));
            }
            scene.end();
        }
    }
}

#[test]
fn a_destination_that_dies_after_the_commit_has_it_before() {
    let scene = Scene::new();
    let staged = scene.stage();
    let timestamp = staged.raise();
    assert!(staged.transaction.commit(timestamp));
    scene.to[1].destroy(&[0]).unwrap();
    drop(staged);
    assert_eq!(scene.to[0].take_all().len(), 1);
    let all = scene.to[1].take_all().into_iter();
    let kinds: Vec<u64> = all.map(|one| one.kind).collect();
    assert_eq!(kinds, [MSG_DATA, MSG_NODE_DESTROY]);
    scene.end();
}

#[test]
fn a_waiter_behind_a_part_that_is_taken_back_is_woken() {
    let scene = Scene::new();
    let staged = scene.stage();
    // Behind it, and so not ready, though its sender woke the receiver.
    let letter = Letter::new(&scene.ids[..1], b"behind");
    scene.from.send(letter).unwrap();
    assert!(!scene.to[0].ready().readable);
    scene.to[1].destroy(&[0]).unwrap();
    assert!(!scene.to[0].ready().readable);
    let before = scene.to[0].wakes();
    staged.unstage();
    assert!(scene.to[0].ready().readable);
    assert!(scene.to[0].wakes() > before, "a wake-up is missing");
    assert_eq!(scene.to[0].take().unwrap().data, b"behind");
    scene.to[1].take_all();
    scene.end();
}

#[test]
fn a_part_that_is_staged_later_is_later() {
    // The second multicast starts when the first has raised one clock of two.
    let scene = Scene::new();
    let first = scene.stage();
    let timestamp = message_after(first.top);
    let raise = |i: usize| scene.to[i].peer.inbox.lock().queue.raise(timestamp);
    raise(0);
    scene.from.send(Letter::new(&scene.ids, b"second")).unwrap();
    // Behind the first at the one, and tied with nothing.
    assert_eq!(scene.readable(), [false, false]);
    raise(1);
    assert!(first.transaction.commit(timestamp));
    drop(first);
    for client in &scene.to {
        let all = client.take_all().into_iter();
        let lengths: Vec<usize> = all.map(|one| one.data.len()).collect();
        assert_eq!(lengths, [0, 6]);
    }
    scene.end();
}

#[test]
fn a_sender_that_leaves_does_not_take_its_message_with_it() {
    let scene = Scene::new();
    let staged = scene.stage();
    scene.from.disconnect().unwrap();
    let timestamp = staged.raise();
    assert!(staged.transaction.commit(timestamp));
    drop(staged);
    for client in &scene.to {
        let all = client.take_all();
        assert_eq!(all.iter().filter(|one| one.kind == MSG_DATA).count(), 1);
    }
    scene.end();
}
