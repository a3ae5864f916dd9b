// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Steps of other calls between the steps of a multicast.

use std::vec::Vec;

use super::*;
use crate::abi::{
    MSG_DATA, MSG_NODE_DESTROY, NODES_DESTROY_FLAG_RELEASE_HANDLES, PEER_RESET_FLAG_FLUSH,
    SEND_FLAG_CONTINUE,
};
use crate::bus::testing::{Client, Hooks, Letter, Test, World};

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
    /// The timestamp to commit at.
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

    /// Makes an empty message to a handle, ready to be staged.
    fn pending(&self, id: u64) -> Pending<'_, Test> {
        let from = &self.from.peer;
        let nothing = Resolved {
            handles: KVVec::new(),
            files: None,
            size: Size::default(),
        };
        let handle = Resolver::new(from).find(id).unwrap();
        let mut pending = Pending::new(from, Some(handle));
        pending.reserve(&nothing, true).unwrap();
        pending.pin().unwrap();
        pending
    }

    /// Carries out step 1.
    fn stage(&self) -> Staged<'_> {
        let transaction = self.from.peer.transaction().unwrap();
        let (mut parts, mut top) = (Vec::new(), 0);
        for (part, &id) in self.ids.iter().enumerate() {
            let mut pending = self.pending(id);
            top = top.max(pending.stage(&transaction, part as u32).unwrap());
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
    /// Carries out step 2. Returns the timestamp, unless the multicast was killed.
    fn commit(&self) -> Option<u64> {
        self.transaction.commit(self.top)
    }

    /// Takes all parts back; which of the destinations failed.
    fn unstage(mut self) -> Vec<bool> {
        let mut failed = Vec::new();
        for (part, pending) in self.parts.iter_mut().enumerate() {
            pending.unstage(&self.transaction.staged_key(part as u32));
            failed.push(pending.check_early().is_err());
        }
        failed
    }
}

#[test]
fn all_parts_appear_at_once() {
    let scene = Scene::new();
    let staged = scene.stage();
    assert_eq!(scene.readable(), [false, false]);
    assert_eq!(scene.to[0].recv(), Err(EAGAIN));
    assert!(staged.commit().is_some());
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
        for moved in [false, true] {
            let scene = Scene::new();
            let staged = scene.stage();
            if moved {
                let letter = Letter::new(&scene.ids[..1], b"before");
                scene.from.send(letter).unwrap();
                scene.to[0].take().unwrap();
            }
            death(&scene).unwrap();
            assert_eq!(staged.commit(), None);
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
    assert!(staged.commit().is_some());
    scene.to[1].destroy(&[0]).unwrap();
    drop(staged);
    assert_eq!(scene.to[0].take_all().len(), 1);
    let all = scene.to[1].take_all().into_iter();
    let kinds: Vec<u64> = all.map(|one| one.kind).collect();
    assert_eq!(kinds, [MSG_DATA, MSG_NODE_DESTROY]);
    scene.end();
}

/// Whatever was sent by a call that returned is received, though the sender of a part before it
/// never runs again, or its transaction was killed and its sender does not take it back.
#[test]
fn a_part_before_it_keeps_no_message_back() {
    for killed in [false, true] {
        let scene = Scene::new();
        let staged = scene.stage();
        if killed {
            scene.to[1].destroy(&[0]).unwrap();
            scene.to[1].take_all();
        }
        scene
            .from
            .send(Letter::new(&scene.ids[..1], b"behind"))
            .unwrap();
        assert!(scene.to[0].ready().readable);
        assert_eq!(scene.to[0].take().unwrap().data, b"behind");
        assert!(!scene.to[0].ready().readable);
        if killed {
            assert_eq!(staged.unstage(), [false, true]);
        } else {
            assert!(staged.commit().is_some());
            drop(staged);
            assert_eq!(scene.to[0].take_all().len(), 1);
            scene.to[1].take_all();
        }
        scene.end();
    }
}

#[test]
fn a_part_that_is_staged_later_may_come_first() {
    // In both queues, though only one of the receivers moved the first behind the second.
    let scene = Scene::new();
    let first = scene.stage();
    scene.from.send(Letter::new(&scene.ids, b"second")).unwrap();
    assert_eq!(scene.readable(), [true, true]);
    assert_eq!(scene.to[0].take().unwrap().data, b"second");
    assert!(first.commit().is_some());
    drop(first);
    let lengths = |client: &Client| {
        let all = client.take_all().into_iter();
        all.map(|one| one.data.len()).collect::<Vec<usize>>()
    };
    assert_eq!(lengths(&scene.to[0]), [0]);
    assert_eq!(lengths(&scene.to[1]), [6, 0]);
    scene.end();
}

/// A clock that ran out is a refusal, and the peer can still be destroyed and leave.
#[test]
fn a_queue_whose_clock_ran_out_refuses_messages() {
    let scene = Scene::new();
    let staged = scene.stage();
    scene.to[0].peer.inbox.lock().queue.raise((1 << 63) + 4);
    let alone = Letter::new(&scene.ids[..1], b"alone");
    assert_eq!(scene.from.send(alone), Err(EHOSTUNREACH));
    let both = Letter::new(&scene.ids, b"both");
    assert_eq!(scene.from.send(both), Err(EHOSTUNREACH));
    let partial = Letter {
        flags: SEND_FLAG_CONTINUE,
        ..Letter::new(&scene.ids, b"part")
    };
    let (result, errors) = scene.from.send_with(partial, &Hooks::default());
    assert_eq!((result, &errors[..]), (Ok(()), &[113, 0][..]));
    // What was staged before is received.
    assert!(staged.commit().is_some());
    drop(staged);
    scene.to[0].destroy(&[0]).unwrap();
    let all = scene.to[0].take_all().into_iter();
    let kinds: Vec<u64> = all.map(|one| one.kind).collect();
    assert_eq!(kinds, [MSG_DATA, MSG_NODE_DESTROY]);
    scene.to[1].take_all();
    scene.end();
}

/// A user with many stopped senders at one queue is refused there, and nobody else is.
#[test]
fn undecided_transactions_of_a_user_are_bounded() {
    let scene = Scene::new();
    let other = scene.world.open(4);
    let to_other: Vec<u64> = (0..2)
        .map(|i| scene.to[i].transfer(0, &other).unwrap())
        .collect();
    let mut stopped = Vec::new();
    let refused = loop {
        let transaction = scene.from.peer.transaction().unwrap();
        let mut pending = scene.pending(scene.ids[0]);
        match pending.stage(&transaction, 0) {
            Ok(_) => stopped.push((transaction, pending)),
            Err(error) => break error,
        }
    };
    assert_eq!((refused, stopped.len()), (EDQUOT, 64));
    // A message alone is not one of them.
    let alone = Letter::new(&scene.ids[..1], b"alone");
    scene.from.send(alone).unwrap();
    let both = Letter::new(&scene.ids, b"both");
    assert_eq!(scene.from.send(both), Err(EDQUOT));
    let partial = Letter {
        flags: SEND_FLAG_CONTINUE,
        ..Letter::new(&scene.ids, b"part")
    };
    let (result, errors) = scene.from.send_with(partial, &Hooks::default());
    assert_eq!((result, &errors[..]), (Ok(()), &[122, 0][..]));
    // Another user, and the owner's own.
    other.send(Letter::new(&to_other, b"both")).unwrap();
    let own = scene.world.open(1);
    let ids: Vec<u64> = (0..2)
        .map(|i| scene.to[i].transfer(0, &own).unwrap())
        .collect();
    own.send(Letter::new(&ids, b"own")).unwrap();
    let data = |client: &Client| {
        let all = client.take_all().into_iter();
        all.map(|one| one.data).collect::<Vec<_>>()
    };
    assert_eq!(data(&scene.to[0]), [&b"alone"[..], b"both", b"own"]);
    assert_eq!(data(&scene.to[1]), [&b"part"[..], b"both", b"own"]);
    // One of them is decided, and there is room.
    let (transaction, pending) = stopped.pop().unwrap();
    assert!(transaction.commit(4).is_some());
    drop(pending);
    scene.from.send(Letter::new(&scene.ids, b"now")).unwrap();
    for (transaction, mut pending) in stopped {
        transaction.kill();
        pending.unstage(&transaction.staged_key(0));
    }
    assert_eq!(data(&scene.to[0]).len(), 2);
    scene.to[1].take_all();
    drop((own, other));
    scene.end();
}

#[test]
fn a_sender_that_leaves_does_not_take_its_message_with_it() {
    let scene = Scene::new();
    let staged = scene.stage();
    scene.from.disconnect().unwrap();
    assert!(staged.commit().is_some());
    drop(staged);
    for client in &scene.to {
        let all = client.take_all();
        assert_eq!(all.iter().filter(|one| one.kind == MSG_DATA).count(), 1);
    }
    scene.end();
}
