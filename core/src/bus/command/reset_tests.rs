// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Steps of other calls between the steps of a disconnect.

use super::*;
use crate::abi::*;
use crate::bus::object::Resolver;
use crate::bus::testing::{Hooks, Letter, World};

/// A node that another call destroys is in no list of the disconnect. So a receipt that brings it
/// back into the closed table would leave it there for ever, and its peer with it.
#[test]
fn a_dying_node_does_not_come_back_into_a_closed_table() {
    let world = World::default();
    let owner = world.open(1);
    let seed = Letter {
        handles: &[0],
        flags: SEND_FLAG_SEED,
        ..Letter::new(&[], b"seed")
    };
    owner.send(seed).unwrap();
    let peer = &owner.peer;
    // One thread is in NODES_DESTROY.
    let mut resolver = Resolver::new(peer);
    let anchor = resolver.find(0).unwrap();
    let mut destroyed = Doomed::default();
    assert!(anchor.node.doom(&mut peer.inbox.lock()));
    destroyed.add(&mut peer.inbox.lock(), &anchor);
    resolver.finish();
    drop(anchor);
    // Another one disconnects, and a third one receives the seed in between.
    peer.close_table().unwrap();
    let doomed = peer.detach_nodes(None);
    let received = owner.recv_with(RECV_FLAG_SEED, &Hooks::default());
    assert_eq!(received.unwrap().handles, [HANDLE_INVALID]);
    let remains = peer.execute(&doomed, Also::Close).unwrap();
    peer.release_handles();
    peer.drop_remains(remains);
    peer.bus.leave(peer);
    // The first one ends.
    peer.execute(&destroyed, Also::Nothing);
    assert_eq!(owner.info().handles, 0);
    drop((destroyed, doomed, owner));
    world.end();
}
