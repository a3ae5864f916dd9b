// SPDX-License-Identifier: MIT OR Apache-2.0

//! Helpers of the tests, which run on the preferred host: embedded on most machines, the kernel's
//! where the module is loaded.

#![allow(dead_code)] // Each test binary uses a part.

use bus1::{Event, Handle, Message, Node, Outgoing, Peer};

/// Returns a new peer.
pub fn peer() -> Peer {
    Peer::open().expect("a peer can be opened")
}

/// Returns a handle of the node for another peer.
pub fn give(node: &Node, owner: &Peer, to: &Peer) -> Handle {
    owner
        .transfer(node.handle(), to)
        .expect("a handle can be transferred")
        .expect("the node is alive")
}

/// Returns an owner with a node, and a user with a handle of it.
pub fn pair() -> (Peer, Node, Peer, Handle) {
    let (owner, user) = (peer(), peer());
    let node = owner.create_node().expect("a node can be created");
    let handle = give(&node, &owner, &user);
    (owner, node, user, handle)
}

/// Returns a message of bytes.
pub fn text(bytes: &[u8]) -> Outgoing<'_> {
    Outgoing::new().payload(bytes)
}

/// Receives what is next, which has to be a message.
pub fn message(peer: &Peer) -> Message {
    match peer.try_recv() {
        Ok(Some(Event::Message(message))) => message,
        other => panic!("a message was expected, but there is {other:?}"),
    }
}

/// Checks that nothing is there to receive.
pub fn nothing(peer: &Peer) {
    match peer.try_recv() {
        Ok(None) => {}
        other => panic!("nothing was expected, but there is {other:?}"),
    }
}

/// Receives what is next, which has to be the release of this node.
pub fn released(peer: &Peer, node: &Node) {
    match peer.try_recv() {
        Ok(Some(Event::NodeReleased(id))) => assert_eq!(id, node.id()),
        other => panic!("a release was expected, but there is {other:?}"),
    }
}

/// Receives what is next, which has to be the destruction of the node behind this handle.
pub fn destroyed(peer: &Peer, id: bus1::HandleId) {
    match peer.try_recv() {
        Ok(Some(Event::NodeDestroyed(found))) => assert_eq!(found, id),
        other => panic!("a destruction was expected, but there is {other:?}"),
    }
}
