// SPDX-License-Identifier: MIT OR Apache-2.0

//! Nodes: what dropping, destroying and leaking them does.

mod common;

use bus1::{Error, HandleId, Outgoing};
use common::*;

#[test]
fn dropping_a_node_tells_the_holders_and_what_waits_for_it_vanishes() {
    let (owner, node, user, handle) = pair();
    user.send(&handle, &text(b"too late")).unwrap();
    drop(node);
    nothing(&owner);
    destroyed(&user, handle.id());
    assert_eq!(user.send(&handle, &text(b"")), Err(Error::NodeDestroyed));
    nothing(&user);
}

#[test]
fn destroying_a_node_lets_earlier_messages_be_received() {
    let (owner, node, user, handle) = pair();
    let id = node.id();
    user.send(&handle, &text(b"in time")).unwrap();
    node.destroy().unwrap();
    assert_eq!(
        user.send(&handle, &text(b"late")),
        Err(Error::NodeDestroyed)
    );
    destroyed(&user, handle.id());

    assert_eq!(message(&owner).payload(), b"in time");
    destroyed(&owner, id);
    nothing(&owner);
}

#[test]
fn several_nodes_are_destroyed_at_once() {
    let (owner, user) = (peer(), peer());
    let nodes: Vec<_> = (0..5).map(|_| owner.create_node().unwrap()).collect();
    let handles: Vec<_> = nodes.iter().map(|node| give(node, &owner, &user)).collect();
    owner.destroy_nodes(nodes).unwrap();

    let mut gone = Vec::new();
    while let Some(bus1::Event::NodeDestroyed(id)) = user.try_recv().unwrap() {
        gone.push(id);
    }
    gone.sort();
    let mut all: Vec<_> = handles.iter().map(|handle| handle.id()).collect();
    all.sort();
    assert_eq!(gone, all);
}

#[test]
fn the_id_is_in_use_until_the_end_of_a_destroyed_node_is_received() {
    let owner = peer();
    let node = owner.create_node().unwrap();
    let id = node.id();
    node.destroy().unwrap();
    let again = || owner.create_node_with_id(id);
    assert_eq!(again().unwrap_err(), Error::NodeExists(id));
    destroyed(&owner, id);
    let node = again().unwrap();
    owner.send(node.handle(), &text(b"a new one")).unwrap();
    assert_eq!(message(&owner).payload(), b"a new one");
}

#[test]
fn a_handle_of_a_dropped_node_never_brings_it_back() {
    let (owner, user) = (peer(), peer());
    let inbox = user.create_node().unwrap();
    let to_user = give(&inbox, &user, &owner);
    let node = owner.create_node().unwrap();
    let id = node.id();
    let left = node.handle().clone();
    drop(node);
    // The owner still has a handle, so it is notified.
    destroyed(&owner, id);

    assert_eq!(owner.send(&left, &text(b"")), Err(Error::NodeDestroyed));
    owner
        .send(&to_user, &Outgoing::new().handle(&left))
        .unwrap();
    assert_eq!(message(&user).handles(), [None]);
    assert_eq!(
        owner.create_node_with_id(id).unwrap_err(),
        Error::NodeExists(id)
    );

    drop(left);
    owner.create_node_with_id(id).unwrap();
}

#[test]
fn a_dropped_id_can_be_taken_again_at_once() {
    let owner = peer();
    let id = HandleId::from_raw(0);
    for _ in 0..3 {
        let node = owner.create_node_with_id(id).unwrap();
        assert_eq!(node.id(), id);
    }
    nothing(&owner);
}

#[test]
fn automatic_ids_step_over_those_in_use() {
    let owner = peer();
    let first = owner.create_node().unwrap();
    let next = HandleId::from_raw(first.id().raw() + 4);
    let chosen = owner.create_node_with_id(next).unwrap();
    let third = owner.create_node().unwrap();
    assert_ne!(third.id(), chosen.id());
    assert_eq!(third.id().raw() % 4, 0);
}

#[test]
fn ids_with_flag_bits_are_no_nodes() {
    for raw in [1, 2, 3, 7, u64::MAX] {
        let id = HandleId::from_raw(raw);
        assert_eq!(
            peer().create_node_with_id(id).unwrap_err(),
            Error::InvalidId(id)
        );
    }
}

#[test]
fn a_leaked_node_lives_on_and_can_be_taken_over() {
    let (owner, node, user, handle) = pair();
    let id = node.leak();
    user.send(&handle, &text(b"anybody?")).unwrap();
    assert_eq!(message(&owner).destination(), id);
    nothing(&user);

    drop(owner.create_node_with_id(id).unwrap());
    destroyed(&user, handle.id());
}

#[test]
fn a_handle_that_comes_home_is_the_owners_own() {
    let (owner, node, user, handle) = pair();
    user.send(&handle, &Outgoing::new().handle(&handle))
        .unwrap();
    let home = message(&owner).take_handles().remove(0).unwrap();
    assert_eq!(&home, node.handle());
    nothing(&owner);
    // The owner's own handle does not count as given away.
    drop(handle);
    released(&owner, &node);

    owner.send(&home, &text(b"to oneself")).unwrap();
    assert_eq!(message(&owner).destination(), node.id());
    drop(node);
    assert_eq!(owner.send(&home, &text(b"")), Err(Error::NodeDestroyed));
}

#[test]
fn a_leaked_node_is_given_away_as_long_as_its_owner_holds_received_handles() {
    let (owner, node, user, handle) = pair();
    let id = node.leak();
    user.send(&handle, &Outgoing::new().handle(&handle))
        .unwrap();
    let home = message(&owner).take_handles().remove(0).unwrap();
    drop(handle);
    nothing(&owner);
    let node = owner.create_node_with_id(id).unwrap();
    assert_eq!(&home, node.handle());
    released(&owner, &node);
}

#[test]
fn the_end_of_a_peer_is_the_end_of_its_nodes() {
    let (owner, node, user, handle) = pair();
    drop((owner, node.leak()));
    destroyed(&user, handle.id());
}

#[test]
fn a_node_whose_creation_failed_leaves_its_id_free() {
    let owner = peer();
    let mut limits = owner.limits().unwrap();
    let before = limits.handles;
    limits.handles = 0;
    owner.set_limits(limits).unwrap();
    let id = HandleId::from_raw(8);
    assert_eq!(owner.create_node_with_id(id).unwrap_err(), Error::Quota);
    limits.handles = before;
    owner.set_limits(limits).unwrap();
    owner.create_node_with_id(id).unwrap();
}
