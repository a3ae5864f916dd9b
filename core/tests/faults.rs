// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Every command of every kind, with each of its allocations failing in turn: a command that fails
//! leaves no trace, and the same command then does what it would have done.

#![cfg(not(loom))]

mod common;

use bus1_core::abi::*;
use common::*;
use kernel::error::{code::*, Result};
use kernel::fault;

/// Three peers that know each other: each has node 0, and a handle to it of each other.
struct Scene {
    world: World,
    peers: [Client; 3],
    /// IDs of the others' nodes at the first, and of its node at the others.
    to: [u64; 2],
    back: [u64; 2],
}

impl Scene {
    fn new() -> Self {
        let world = World::default();
        let peers = [1, 1, 2].map(|uid| world.open(uid));
        let [a, b, c] = &peers;
        let to = [b, c].map(|other| other.transfer(0, a).unwrap());
        let back = [b, c].map(|other| a.transfer(0, other).unwrap());
        Self {
            world,
            peers,
            to,
            back,
        }
    }

    /// Messages from the second to the first, so that the first's books have no spare room.
    fn busy() -> Self {
        let scene = Self::new();
        for _ in 0..7 {
            scene.peers[1]
                .send(Letter::new(&scene.back[..1], b"busy"))
                .unwrap();
        }
        scene
    }

    /// Makes a scene with an entry of every kind waiting at the first.
    fn waiting() -> Self {
        let scene = Self::new();
        let [a, b, _] = &scene.peers;
        let letter = Letter {
            handles: &[4, 8, 0],
            fds: &[3, 4],
            ..Letter::new(&scene.back[..1], b"waiting")
        };
        b.send(letter).unwrap();
        b.destroy(&[8]).unwrap();
        let letter = Letter {
            handles: &[4, scene.to[0], 0],
            fds: &[5],
            flags: SEND_FLAG_SEED,
            ..Letter::new(&[], b"seed")
        };
        a.send(letter).unwrap();
        scene
    }

    /// Receives everything at every peer; IDs that the bus chose count as equal.
    fn drain(&self) -> Vec<Vec<Received>> {
        let drain = |client: &Client| {
            let mut all = Vec::new();
            loop {
                match client.recv_with(RECV_FLAG_INSTALL_FDS, &Hooks::default()) {
                    Err(EAGAIN | ESHUTDOWN) => return all,
                    received => all.push(plain(received.unwrap())),
                }
            }
        };
        self.peers.iter().map(drain).collect()
    }

    fn end(self) {
        drop(self.peers);
        self.world.end();
    }
}

fn plain(mut received: Received) -> Received {
    let plain = |id: u64| {
        if id & 3 == 0 || id == HANDLE_INVALID {
            id
        } else {
            id & 3
        }
    };
    received.destination = plain(received.destination);
    for id in &mut received.handles {
        *id = plain(*id);
    }
    received.fds.fill(0);
    received.offset = 0;
    received
}

/// Lets each allocation of `act` fail. Returns their number.
fn walk(scene: fn() -> Scene, act: fn(&Scene) -> Result) -> u64 {
    // The outcome if nothing fails.
    let reference = scene();
    fault::fail_after(None);
    act(&reference).unwrap();
    let allocations = fault::count();
    let after = reference.world.state();
    let received = reference.drain();
    reference.end();

    for n in 1..=allocations {
        let scene = scene();
        let before = scene.world.state();
        fault::fail_after(Some(n));
        let result = act(&scene);
        fault::fail_after(None);
        assert_eq!(result, Err(ENOMEM), "allocation {n} of {allocations}");
        assert_eq!(scene.world.state(), before, "after {n} of {allocations}");
        assert!(scene.peers.iter().all(|peer| peer.fds().is_empty()));
        act(&scene).unwrap();
        assert_eq!(scene.world.state(), after, "{n} of {allocations} and again");
        assert_eq!(scene.drain(), received, "{n} of {allocations} and again");
        scene.end();
    }
    allocations
}

#[test]
fn opening_a_peer() {
    for n in 1.. {
        let world = World::default();
        let first = world.open(1);
        let before = world.state();
        fault::fail_after(Some(n));
        // One more of the user, then one of another.
        let opened = [1, 2].map(|uid| world.try_open(uid));
        let done = fault::count() < n;
        fault::fail_after(None);
        match &opened {
            [Ok(_), Ok(_)] => assert!(done),
            [Err(ENOMEM), Ok(_)] | [Ok(_), Err(ENOMEM)] => {
                let opened = opened.iter().flatten();
                opened.for_each(|client| client.disconnect().unwrap());
                let after = world.state();
                assert_eq!(after.0, before.0);
            }
            _ => panic!("two failed for one"),
        }
        drop((first, opened));
        world.end();
        if done {
            assert!(n > 10);
            break;
        }
    }
}

#[test]
fn transfers() {
    let cases: [fn(&Scene) -> Result; 5] = [
        // A new node, to another and to itself.
        |scene| scene.peers[0].transfer(4, &scene.peers[1]).map(drop),
        |scene| scene.peers[0].transfer(4, &scene.peers[0]).map(drop),
        // A handle that the receiver has, and one that it has not.
        |scene| scene.peers[0].transfer(0, &scene.peers[1]).map(drop),
        |scene| {
            scene.peers[0]
                .transfer(scene.to[0], &scene.peers[2])
                .map(drop)
        },
        // Back to its owner.
        |scene| {
            scene.peers[0]
                .transfer(scene.to[0], &scene.peers[1])
                .map(drop)
        },
    ];
    let counts = cases.map(|case| walk(Scene::new, case));
    assert!(counts[0] > counts[3] && counts[3] > 0, "{counts:?}");
    // An existing handle takes no memory.
    assert_eq!((counts[2], counts[4]), (0, 0));
}

/// A program cannot do anything about a node that it fails to destroy. So what that takes is set
/// aside when the node is made.
#[test]
fn a_node_that_exists_is_destroyed_without_an_allocation() {
    for flags in [0, NODES_DESTROY_FLAG_RELEASE_HANDLES] {
        let scene = Scene::waiting();
        fault::fail_after(Some(1));
        let destroyed = scene.peers[0].destroy_with(&[0], flags);
        fault::fail_after(None);
        assert_eq!(destroyed, Ok(()));
        let [_, b, c] = &scene.peers;
        for (client, id) in [(b, scene.back[0]), (c, scene.back[1])] {
            let all = client.take_all();
            let mut notices = all.iter().filter(|one| one.kind == MSG_NODE_DESTROY);
            assert!(notices.any(|notice| notice.destination == id));
        }
        scene.end();
    }
}

#[test]
fn destructions() {
    let cases: [fn(&Scene) -> Result; 3] = [
        |scene| scene.peers[0].destroy(&[4, 8]),
        |scene| scene.peers[0].destroy_with(&[4, 0, 12], NODES_DESTROY_FLAG_RELEASE_HANDLES),
        |scene| scene.peers[1].destroy(&[0, 4]),
    ];
    for case in cases {
        assert!(walk(Scene::new, case) > 0);
        assert!(walk(Scene::waiting, case) > 0);
    }
}

#[test]
fn unicasts() {
    let cases: [fn(&Scene) -> Result; 4] = [
        |scene| scene.peers[0].send(Letter::new(&scene.to[..1], b"plain")),
        // A node that is made by being sent to.
        |scene| scene.peers[0].send(Letter::new(&[4], b"own")),
        |scene| {
            scene.peers[0].send(Letter {
                handles: &[4, 0, scene.to[0], scene.to[1], 4],
                ..Letter::new(&scene.to[..1], b"handles")
            })
        },
        |scene| {
            scene.peers[2].send(Letter {
                handles: &[16],
                fds: &[1, 2, 3],
                ..Letter::new(&scene.back[1..], b"files")
            })
        },
    ];
    for case in cases {
        for scene in [Scene::new, Scene::busy, Scene::waiting] {
            assert!(walk(scene, case) > 0);
        }
    }
}

#[test]
fn multicasts() {
    let cases: [fn(&Scene) -> Result; 3] = [
        |scene| scene.peers[0].send(Letter::new(&scene.to, b"plain")),
        |scene| {
            scene.peers[0].send(Letter {
                to: &[scene.to[1], 4, scene.to[0], 8],
                handles: &[12, scene.to[0], 4],
                data: b"everything",
                fds: &[9],
                flags: 0,
            })
        },
        |scene| {
            // Memory is not the destination's matter, so this fails as a whole too.
            scene.peers[0].send(Letter {
                to: &[scene.to[1], 4, scene.to[0], 8],
                handles: &[12, scene.to[0], 4],
                data: b"partial",
                fds: &[9],
                flags: SEND_FLAG_CONTINUE,
            })
        },
    ];
    for case in cases {
        for scene in [Scene::new, Scene::busy] {
            assert!(walk(scene, case) > 0);
        }
    }
}

#[test]
fn a_partial_send_reports_no_lack_of_memory_as_another_fault() {
    // One destination is dead, so its error is not that of the memory.
    let scene = || {
        let scene = Scene::new();
        scene.peers[1].destroy(&[0]).unwrap();
        scene
    };
    let act = |scene: &Scene| {
        let letter = Letter {
            handles: &[4],
            flags: SEND_FLAG_CONTINUE,
            ..Letter::new(&scene.to, b"partial")
        };
        let (result, errors) = scene.peers[0].send_with(letter, &Hooks::default());
        if result.is_ok() {
            assert_eq!(errors, [113, 0]);
        }
        result
    };
    assert!(walk(scene, act) > 0);
}

#[test]
fn messages_to_nobody_and_seeds() {
    let cases: [fn(&Scene) -> Result; 3] = [
        |scene| {
            scene.peers[0].send(Letter {
                handles: &[4, 8],
                ..Letter::default()
            })
        },
        |scene| {
            scene.peers[0].send(Letter {
                handles: &[4, scene.to[0]],
                flags: SEND_FLAG_SEED,
                fds: &[1],
                ..Letter::new(&[], b"seed")
            })
        },
        |scene| {
            scene.peers[0].send(Letter {
                flags: SEND_FLAG_SEED,
                ..Letter::default()
            })
        },
    ];
    for case in cases {
        for scene in [Scene::new, Scene::busy, Scene::waiting] {
            assert!(walk(scene, case) > 0);
        }
    }
}

#[test]
fn receipts() {
    // A message takes no memory: all was set aside when it was sent.
    let recv: fn(&Scene) -> Result = |scene| scene.peers[0].recv().map(drop);
    assert_eq!(walk(Scene::waiting, recv), 0);
    assert_eq!(walk(Scene::busy, recv), 0);
    // A notice neither.
    let notice: fn(&Scene) -> Result = |scene| {
        scene.peers[0].recv()?;
        scene.peers[0].recv().map(drop)
    };
    assert_eq!(walk(Scene::waiting, notice), 0);
    // The seed stays, so what it gives is made anew.
    let seed: fn(&Scene) -> Result = |scene| {
        scene.peers[0]
            .recv_with(RECV_FLAG_SEED, &Hooks::default())
            .map(drop)
    };
    assert!(walk(Scene::waiting, seed) > 0);
}

#[test]
fn resets() {
    let cases: [fn(&Scene) -> Result; 4] = [
        |scene| scene.peers[0].reset(0, [100, 200, 300, 400]),
        |scene| scene.peers[0].flush(PEER_RESET_FLAG_FLUSH_SEED),
        |scene| scene.peers[0].reset(PEER_RESET_FLAG_FLUSH, [1, 2, 3, 4]),
        |scene| scene.peers[0].flush(PEER_RESET_FLAG_FLUSH | PEER_RESET_FLAG_FLUSH_SEED),
    ];
    for case in cases {
        walk(Scene::new, case);
        walk(Scene::waiting, case);
    }
}

#[test]
fn giving_back_takes_no_memory() {
    let cases: [fn(&Scene) -> Result; 5] = [
        |scene| scene.peers[0].release(scene.to[0]),
        |scene| scene.peers[1].release(scene.back[0]),
        |scene| {
            let offset = scene.peers[0].recv()?.offset;
            scene.peers[0].release_slice(offset)
        },
        |scene| scene.peers[0].disconnect(),
        |scene| scene.peers[1].disconnect(),
    ];
    for case in cases {
        assert_eq!(walk(Scene::waiting, case), 0);
    }
}
