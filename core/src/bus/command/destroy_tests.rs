// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Steps of other calls between the steps of a destruction.

use std::vec::Vec;

use super::*;
use crate::abi::{
    HANDLE_INVALID, MSG_DATA, MSG_NODE_DESTROY, NODES_DESTROY_FLAG_RELEASE_HANDLES,
    PEER_RESET_FLAG_FLUSH,
};
use crate::bus::planted::Fault;
use crate::bus::testing::{Client, Letter, World};

/// Faults that a test may plant.
impl<H: Host> Inbox<H> {
    /// Carries out step 3 with the fault that is planted, if that is one of this step.
    pub(super) fn dies_wrongly(
        &mut self,
        transaction: &Arc<Transaction>,
        top: u64,
        also: Also,
    ) -> bool {
        if Fault::KilledAfterDeath.is_planted() {
            self.die_and_kill(transaction, top, also);
        } else if Fault::DeathBelowNotices.is_planted() && top != 0 {
            self.die(transaction, 0, also);
        } else {
            return false;
        }
        true
    }

    /// Carries out step 3 in another order than the file header says.
    fn die_and_kill(&mut self, transaction: &Arc<Transaction>, top: u64, also: Also) {
        self.queue.pull();
        let at = destruction_after(self.queue.clock().max(top));
        let died = transaction.commit(at);
        self.queue.raise(died.unwrap_or(at));
        self.queue.kill_staged(|message| {
            let node = message.node.as_ref();
            also == Also::Close || node.is_some_and(|node| node.dies_in(transaction))
        });
    }
}

/// Faults that a test may plant.
impl<H: Host> Peer<H> {
    /// Destroys nodes that are doomed, and drops their pins afterwards.
    pub(super) fn destroy_and_drop_pins<'a>(
        &self,
        anchors: impl Iterator<Item = &'a Arc<Handle<H>>> + Clone,
        also: Also,
    ) {
        let mut doomed = Doomed::default();
        for anchor in anchors.clone() {
            doomed.add(&mut self.inbox.lock(), anchor);
        }
        self.execute(&doomed, also);
        if also == Also::Release {
            anchors.for_each(|anchor| self.drop_pin(anchor));
            self.purge(0);
        }
    }
}

/// A destruction under way.
struct Death {
    owner: Client,
    doomed: Doomed,
    transaction: Arc<Transaction>,
}

impl Death {
    /// Carries out step 1.
    fn begin(owner: &Client, ids: &[u64]) -> Self {
        let mut resolver = Resolver::new(&owner.peer);
        let anchors: Vec<_> = ids.iter().map(|&id| resolver.find(id).unwrap()).collect();
        let mut doomed = Doomed::default();
        let mut inbox = owner.peer.inbox.lock();
        for anchor in &anchors {
            assert!(anchor.node.doom(&mut inbox));
            doomed.add(&mut inbox, anchor);
        }
        drop(inbox);
        resolver.finish();
        Self {
            owner: owner.clone(),
            transaction: doomed.transaction.clone().unwrap(),
            doomed,
        }
    }

    /// Carries out step 2, for the present holders. Returns their number.
    fn tell(&self) -> usize {
        let mut n = 0;
        let count = self.transaction.number.count;
        loop {
            let step = self.owner.peer.inbox.lock().step_of_death(count);
            let (part, handle) = match step {
                Step::Notify(part, handle) => (part, handle),
                Step::Passed => continue,
                Step::Done => return n,
            };
            if let Some(staged) = Handle::stage_notice(&handle, &self.transaction, part) {
                // The owner's clock is ahead, so the death comes after what is sent meanwhile.
                self.owner.peer.inbox.lock().queue.raise(staged + 8);
            }
            n += 1;
        }
    }

    /// Carries out all other steps.
    fn end(self) {
        let peer = &self.owner.peer;
        let remains = peer.execute(&self.doomed, Also::Nothing);
        assert!(remains.is_none());
    }
}

/// An owner of node 0 with two holders, one of which can send to the other.
struct Scene {
    world: World,
    o: Client,
    r: Client,
    s: Client,
    /// The IDs of the node.
    at_r: u64,
    at_s: u64,
    to_r: u64,
}

impl Scene {
    fn new() -> Self {
        let world = World::default();
        let (o, r, s) = (world.open(1), world.open(2), world.open(3));
        Self {
            at_r: o.transfer(0, &r).unwrap(),
            at_s: o.transfer(0, &s).unwrap(),
            to_r: r.transfer(0, &s).unwrap(),
            world,
            o,
            r,
            s,
        }
    }

    /// Sends the node to `r`.
    fn pass_on(&self) {
        let letter = Letter {
            to: &[self.to_r],
            handles: &[self.at_s],
            ..Letter::default()
        };
        self.s.send(letter).unwrap();
    }

    fn end(self) {
        let Self { world, o, r, s, .. } = self;
        drop((o, r, s));
        world.end();
    }
}

/// Returns kind, destination and handles of every entry that can be received.
fn take_all(client: &Client) -> Vec<(u64, u64, Vec<u64>)> {
    let all = client.take_all().into_iter();
    all.map(|one| (one.kind, one.destination, one.handles))
        .collect()
}

#[test]
fn a_holder_that_was_notified_gets_the_handle_that_it_has() {
    let scene = Scene::new();
    let death = Death::begin(&scene.o, &[0]);
    assert_eq!(death.tell(), 3);
    scene.pass_on();
    death.end();
    let expected = [
        (MSG_DATA, 0, Vec::from([scene.at_r])),
        (MSG_NODE_DESTROY, scene.at_r, Vec::new()),
    ];
    assert_eq!(take_all(&scene.r), expected);
    assert_eq!(scene.r.release(scene.at_r), Ok(()));
    assert_eq!(scene.r.release(scene.at_r), Ok(()));
    assert_eq!(scene.r.info().handles, 1);
    scene.end();
}

#[test]
fn a_holder_that_was_notified_and_let_go_is_notified_again_only_with_a_handle() {
    for again in [false, true] {
        let scene = Scene::new();
        let death = Death::begin(&scene.o, &[0]);
        death.tell();
        scene.r.release(scene.at_r).unwrap();
        if again {
            scene.pass_on();
        }
        death.end();
        let all = take_all(&scene.r);
        if again {
            let id = all[0].2[0];
            assert!(id != scene.at_r && id != HANDLE_INVALID);
            assert_eq!(all[1..], [(MSG_NODE_DESTROY, id, Vec::new())]);
        } else {
            assert_eq!(all, []);
            assert_eq!(scene.r.info().staged, 0);
        }
        scene.end();
    }
}

#[test]
fn a_late_holder_is_notified() {
    let scene = Scene::new();
    scene.r.release(scene.at_r).unwrap();
    let death = Death::begin(&scene.o, &[0]);
    assert_eq!(death.tell(), 2);
    scene.pass_on();
    death.end();
    let all = take_all(&scene.r);
    let id = all[0].2[0];
    assert_ne!(id, HANDLE_INVALID);
    assert_eq!(all[1..], [(MSG_NODE_DESTROY, id, Vec::new())]);
    scene.end();
}

#[test]
fn a_holder_that_comes_too_late_gets_nothing() {
    let scene = Scene::new();
    let death = Death::begin(&scene.o, &[0]);
    death.tell();
    death.end();
    scene.pass_on();
    let expected = [
        (MSG_NODE_DESTROY, scene.at_r, Vec::new()),
        (MSG_DATA, 0, Vec::from([HANDLE_INVALID])),
    ];
    assert_eq!(take_all(&scene.r), expected);
    scene.end();
}

#[test]
fn the_owner_leaves_while_another_of_its_threads_destroys() {
    for held in [false, true] {
        for told in [false, true] {
            let scene = Scene::new();
            if !held {
                scene.r.release(scene.at_r).unwrap();
            }
            let death = Death::begin(&scene.o, &[0]);
            if told {
                death.tell();
            }
            scene.o.disconnect().unwrap();
            scene.pass_on();
            death.end();
            // Sent before the end of the node, so it brings a valid ID.
            let all = take_all(&scene.r);
            let id = all[0].2[0];
            assert_eq!(id == scene.at_r, held);
            assert_ne!(id, HANDLE_INVALID);
            assert_eq!(all[1..], [(MSG_NODE_DESTROY, id, Vec::new())]);
            scene.end();
        }
    }
}

#[test]
fn the_owner_is_given_its_own_node() {
    let scene = Scene::new();
    let to_o = scene.o.transfer(4, &scene.s).unwrap();
    let death = Death::begin(&scene.o, &[0]);
    death.tell();
    let letter = Letter {
        to: &[to_o],
        handles: &[scene.at_s],
        ..Letter::default()
    };
    scene.s.send(letter).unwrap();
    death.end();
    let expected = [
        (MSG_DATA, 4, Vec::from([0])),
        (MSG_NODE_DESTROY, 0, Vec::new()),
    ];
    assert_eq!(take_all(&scene.o), expected);
    assert_eq!((scene.o.release(0), scene.o.release(0)), (Ok(()), Ok(())));
    assert_eq!(scene.o.release(0), Err(EBUSY));
    scene.end();
}

#[test]
fn messages_are_taken_until_the_death() {
    let scene = Scene::new();
    let death = Death::begin(&scene.o, &[0]);
    let letter = Letter::new(core::slice::from_ref(&scene.at_s), b"x");
    assert_eq!(scene.s.send(letter), Ok(()));
    death.tell();
    assert_eq!(scene.s.send(letter), Ok(()));
    // The owner's own notice stands before the second.
    assert_eq!(scene.o.info().staged, 1);
    death.end();
    assert_eq!(scene.s.send(letter), Err(EHOSTUNREACH));
    let kinds: Vec<u64> = take_all(&scene.o).into_iter().map(|one| one.0).collect();
    assert_eq!(kinds, [MSG_DATA, MSG_DATA, MSG_NODE_DESTROY]);
    scene.end();
}

#[test]
fn a_dying_node_is_left_to_the_call_that_destroys_it() {
    let scene = Scene::new();
    let death = Death::begin(&scene.o, &[0]);
    // All or nothing: node 8 is not destroyed either, and not made.
    assert_eq!(scene.o.destroy(&[8, 0]), Err(ESTALE));
    assert_eq!(scene.o.info().nodes, 1);
    let id = scene.o.transfer(4, &scene.s).unwrap();
    scene.o.flush(PEER_RESET_FLAG_FLUSH).unwrap();
    let notices = take_all(&scene.s);
    assert_eq!(notices, [(MSG_NODE_DESTROY, id, Vec::new())]);
    death.end();
    let notices = take_all(&scene.s);
    assert_eq!(notices, [(MSG_NODE_DESTROY, scene.at_s, Vec::new())]);
    assert_eq!(take_all(&scene.o), []);
    scene.end();
}

/// The pin is dropped before the node is dead, and is none of the references that the owner is
/// notified of.
#[test]
fn an_owner_that_releases_is_not_notified_of_its_other_references() {
    let world = World::default();
    let o = world.open(1);
    assert_eq!(o.transfer(0, &o), Ok(0));
    o.destroy_with(&[0], NODES_DESTROY_FLAG_RELEASE_HANDLES)
        .unwrap();
    assert_eq!(take_all(&o), [(MSG_NODE_DESTROY, 0, Vec::new())]);
    assert_eq!((o.release(0), o.release(0)), (Ok(()), Err(EBUSY)));
    drop(o);
    world.end();
}

#[test]
fn a_holder_leaves_while_it_is_notified() {
    let scene = Scene::new();
    let death = Death::begin(&scene.o, &[0]);
    death.tell();
    scene.r.disconnect().unwrap();
    death.end();
    assert!(!scene.r.ready().readable);
    let notices = take_all(&scene.s);
    assert_eq!(notices.last().unwrap().0, MSG_NODE_DESTROY);
    scene.end();
}

#[test]
fn parts_come_in_the_order_in_which_the_nodes_were_named() {
    let world = World::default();
    let (o, p) = (world.open(1), world.open(2));
    let ids: Vec<u64> = [0, 4, 8]
        .iter()
        .map(|&node| o.transfer(node, &p).unwrap())
        .collect();
    o.destroy_with(&[8, 0, 12, 4], NODES_DESTROY_FLAG_RELEASE_HANDLES)
        .unwrap();
    // A notice that nobody wants is not promised.
    p.release(ids[1]).unwrap();
    let all = p.take_all().into_iter();
    let parts: Vec<_> = all.map(|one| (one.destination, one.more)).collect();
    assert_eq!(parts, [(ids[2], true), (ids[0], false)]);
    assert_eq!(take_all(&o), []);
    drop((o, p));
    world.end();
}

#[cfg(not(loom))]
mod bounded {
    use std::boxed::Box;
    use std::vec::Vec;

    use kernel::work::most_under_lock;

    use super::*;
    use crate::bus::command::schedule_tests::calls::Call;
    use crate::bus::testing::as_user;

    type End = fn(&Client) -> Result;

    /// All that destroys node 0.
    const ENDS: [End; 4] = [
        |peer| peer.destroy(&[0]),
        |peer| peer.destroy_with(&[0], NODES_DESTROY_FLAG_RELEASE_HANDLES),
        |peer| peer.flush(PEER_RESET_FLAG_FLUSH),
        |peer| peer.disconnect(),
    ];

    /// Makes a peer with a node that `victim` holds, and begins to destroy it: until the notice is
    /// staged, or for long enough to return or to show that the call waits. Returns the call, and
    /// whether it has returned.
    fn begin(world: &World, victim: &Client, uid: Option<u32>, end: End) -> (Call, bool) {
        let peer = world.open(2);
        peer.transfer(0, victim).unwrap();
        let staged = victim.info().staged;
        let end = move || match uid {
            Some(uid) => as_user(uid, || end(&peer)).unwrap(),
            None => end(&peer).unwrap(),
        };
        let mut call = Call::new(None, Box::new(end));
        for _ in 0..1000 {
            if call.run(1) {
                return (call, true);
            }
            if uid.is_none() && call.is_preemptible() && victim.info().staged != staged {
                break;
            }
        }
        (call, false)
    }

    /// However many tasks of a user are stopped while they destroy, a few of them have a notice
    /// staged at one peer, and the others have none. Nobody else waits for them.
    #[test]
    fn undecided_destructions_of_a_user_are_bounded() {
        const TASKS: usize = 100;
        let world = World::default();
        let (victim, other) = (world.open(1), world.open(3));
        let to_victim = [victim.transfer(0, &other).unwrap()];
        let mut calls = Vec::new();
        for n in 0..TASKS {
            let (call, returned) = begin(&world, &victim, None, ENDS[n % ENDS.len()]);
            assert!(!returned, "a task that was to be stopped has returned");
            calls.push(call);
        }
        let staged = victim.info().staged;
        let letter = Letter::new(&to_victim, b"x");
        let (_, sent) = most_under_lock(|| other.send(letter).unwrap());
        let (_, received) = most_under_lock(|| victim.take().unwrap());
        assert!(
            staged == 8 && sent.max(received) < 60,
            "{staged} notices are staged; {sent} steps of SEND, {received} of RECV"
        );
        // Tasks of other users that close a peer of this one, and one of its own.
        for (uid, returns) in [(3, true), (2, false), (4, true)] {
            let (call, returned) = begin(&world, &victim, Some(uid), |peer| peer.disconnect());
            assert_eq!(returned, returns, "a task of user {uid}");
            calls.push(call);
        }
        // All others have their turn once these go on.
        calls.retain(|call| !call.has_returned());
        while !calls.is_empty() {
            calls.retain_mut(|call| !call.run(50));
        }
        let notices = take_all(&victim);
        assert!(notices.iter().all(|notice| notice.0 == MSG_NODE_DESTROY));
        assert_eq!(notices.len(), TASKS + 3);
        drop((victim, other));
        world.end();
    }
}

/// A store before a node's death is visible to every task that sees the death.
///
/// As in `transaction_tests.rs` there is no lock that would order it anyhow. It fails if
/// `Transaction::commit` or `Transaction::fate` is made Relaxed.
#[cfg(loom)]
#[test]
fn loom_death_carries_what_was_before() {
    use crate::bus::object::Node;
    use kernel::sync::atomic::{Atomic, Relaxed};

    loom::model(|| {
        let world = World::default();
        let owner = world.open(1);
        let node = Node::new(0, &owner.peer).unwrap();
        let transaction = owner.peer.transaction().unwrap();
        let before = std::sync::Arc::new(Atomic::new(0_u64));
        let raised = before.clone();
        node.death.populate(transaction.clone());
        let thread = loom::thread::spawn(move || {
            raised.store(6, Relaxed);
            assert_eq!(transaction.commit(6), Some(6));
        });
        if let Some(dead) = node.dead_at() {
            assert_eq!(before.load(Relaxed), dead, "the death came first");
        }
        thread.join().unwrap();
        assert!(!node.is_dead_before(6) && node.is_dead_before(7));
        drop((node, owner));
        world.end();
    });
}
