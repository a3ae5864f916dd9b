// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles that travel.

use bus1_uapi as abi;

use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;

pub const CASES: &[Case] = &[
    case!(received_handle_is_usable, "2: handles travel with messages"),
    case!(received_handle_can_be_passed_on, "2: handles pass on freely"),
    case!(each_handle_goes_to_its_own_slot, "5: slice layout, handle IDs"),
    case!(same_node_from_two_senders_is_one_handle, "2: at most one live handle for a node"),
    case!(each_message_brings_a_reference, "2: being given it again adds a user reference"),
    case!(each_slot_brings_a_reference, "2: being given it again adds a user reference"),
    case!(owner_gets_its_own_id, "2: the owner has one too (its anchor)"),
    case!(owner_gains_a_reference, "2: user references"),
    case!(around_the_ring_home_again, "2: handles pass on freely"),
    case!(unknown_clear_id_creates_a_node, "2: creates a node of that ID in the calling peer"),
    case!(unknown_clear_id_twice_is_one_node, "2: creates a node of that ID"),
    case!(unknown_flagged_id_is_enxio, "5 SEND: handles (ENXIO)"),
    case!(sender_may_release_at_once, "2: a message in flight holds a reference"),
    case!(sender_may_die_at_once, "2: a message in flight holds a reference"),
    case!(unreceived_handle_has_no_id_yet, "5 RECV: handles get IDs"),
    case!(id_is_the_one_held_already, "2: at most one live handle for a node"),
    case!(id_is_new_after_the_last_release, "2: bus-chosen IDs never come back"),
    case!(references_are_needed_only_to_name, "2: rights are possession"),
    case!(a_capability_cannot_be_guessed, "1: M2 capability-based"),
    case!(many_nodes_through_many_hands, "2: handles pass on freely"),
];

fn received_handle_is_usable(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.message().to(&[to]).handles(&[node]).send().unwrap();
    let id = a.data().handle();
    assert_eq!(id & 7, 3);
    a.message().to(&[id]).bytes(b"answer").send().unwrap();
    assert_eq!(b.text(b"answer").msg.destination, node);
}

fn received_handle_can_be_passed_on(env: &Env) {
    let peers: [Peer; 6] = env.peers();
    let node = peers[0].new_node();
    let mut id = node;
    for pair in peers.windows(2) {
        let to = pair[0].handle_of(&pair[1]);
        pair[0].message().to(&[to]).handles(&[id]).send().unwrap();
        id = pair[1].data().handle();
    }
    peers[5].message().to(&[id]).bytes(b"through five hands").send().unwrap();
    assert_eq!(peers[0].text(b"through five hands").msg.destination, node);
}

fn each_handle_goes_to_its_own_slot(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let nodes: [u64; 7] = std::array::from_fn(|_| b.new_node());
    b.message().to(&[to]).bytes(b"abc").handles(&nodes).send().unwrap();
    let ids = a.data().handles;
    assert_eq!(ids.len(), 7);
    for (i, node) in nodes.into_iter().enumerate().rev() {
        a.message().to(&[ids[i]]).send().unwrap();
        assert_eq!(b.data().msg.destination, node);
    }
}

fn same_node_from_two_senders_is_one_handle(env: &Env) {
    let [owner, a, b, receiver] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let at_b = owner.give(&b, node).unwrap();
    let ids = [(&a, at_a), (&b, at_b), (&owner, node)].map(|(sender, id)| {
        let to = sender.handle_of(&receiver);
        sender.message().to(&[to]).handles(&[id]).send().unwrap();
        receiver.data().handle()
    });
    assert_eq!(ids, [ids[0]; 3]);
}

fn each_message_brings_a_reference(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    for _ in 0..5 {
        b.message().to(&[to]).handles(&[node]).send().unwrap();
    }
    let ids = [0; 5].map(|_| a.data().handle());
    assert_eq!(ids, [ids[0]; 5]);
    for _ in 0..5 {
        b.nothing();
        a.release(ids[0]).unwrap();
    }
    b.node_release(node);
    assert_eq!(a.release(ids[0]), Err(E::NXIO));
}

fn each_slot_brings_a_reference(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let (node, other) = (b.new_node(), b.new_node());
    b.message().to(&[to]).handles(&[node, other, node, node]).send().unwrap();
    let ids = a.data().handles;
    assert_eq!(ids, [ids[0], ids[1], ids[0], ids[0]]);
    assert_ne!(ids[0], ids[1]);
    for _ in 0..3 {
        b.nothing();
        a.release(ids[0]).unwrap();
    }
    b.node_release(node);
    a.release(ids[1]).unwrap();
    b.node_release(other);
}

fn owner_gets_its_own_id(env: &Env) {
    let [a, b] = env.peers();
    let (node, there) = a.node_for(&b);
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).handles(&[there]).send().unwrap();
    assert_eq!(a.data().handle(), node);
}

fn owner_gains_a_reference(env: &Env) {
    let [a, b] = env.peers();
    let (node, there) = a.node_for(&b);
    let (_, to) = a.node_for(&b);
    for _ in 0..2 {
        b.message().to(&[to]).handles(&[there]).send().unwrap();
        a.data();
    }
    b.release(there).unwrap();
    a.nothing();
    assert_eq!(a.release(node), Ok(()));
    a.nothing();
    assert_eq!(a.release(node), Ok(()));
    a.node_release(node);
    assert_eq!(a.release(node), Err(E::BUSY));
}

fn around_the_ring_home_again(env: &Env) {
    let peers: [Peer; 5] = env.peers();
    let to: [u64; 5] = std::array::from_fn(|i| peers[i].handle_of(&peers[(i + 1) % 5]));
    let node = peers[0].new_node();
    let mut id = node;
    for i in 0..5 {
        peers[i].message().to(&[to[i]]).handles(&[id]).send().unwrap();
        id = peers[(i + 1) % 5].data().handle();
        if i < 4 {
            assert_ne!(id & abi::HANDLE_FLAG_REMOTE, 0);
        }
    }
    assert_eq!(id, node);
}

fn unknown_clear_id_creates_a_node(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for node in [0, 4, 0xffff_ffff_ffff_fff8] {
        b.message().to(&[to]).handles(&[node]).send().unwrap();
        let id = a.data().handle();
        a.message().to(&[id]).send().unwrap();
        assert_eq!(b.data().msg.destination, node);
    }
}

fn unknown_clear_id_twice_is_one_node(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).handles(&[0x500, 0x500]).send().unwrap();
    let ids = a.data().handles;
    assert_eq!(ids[0], ids[1]);
    a.release(ids[0]).unwrap();
    b.nothing();
    a.release(ids[0]).unwrap();
    b.node_release(0x500);
}

fn unknown_flagged_id_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for bad in [1, 2, 3, 0x7f3, abi::HANDLE_INVALID] {
        assert_eq!(b.message().to(&[to]).handles(&[8, bad]).send(), Err(E::NXIO), "{bad:#x}");
    }
    a.nothing();
}

fn sender_may_release_at_once(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let to = a.handle_of(&b);
    a.message().to(&[to]).handles(&[at_a]).send().unwrap();
    a.release(at_a).unwrap();
    let at_b = b.data().handle();
    b.message().to(&[at_b]).bytes(b"works").send().unwrap();
    owner.text(b"works");
    b.release(at_b).unwrap();
    owner.node_release(node);
}

fn sender_may_die_at_once(env: &Env) {
    let [owner, a, b] = env.peers();
    let (_, at_a) = owner.node_for(&a);
    let to = a.handle_of(&b);
    a.message().to(&[to]).handles(&[at_a]).send().unwrap();
    a.close();
    let at_b = b.data().handle();
    b.message().to(&[at_b]).bytes(b"works").send().unwrap();
    owner.text(b"works");
}

fn unreceived_handle_has_no_id_yet(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let known = b.handle_of(&a);
    let last = a.handle_of(&b);
    b.message().to(&[to]).handles(&[b.new_node()]).send().unwrap();
    // Whatever ID it will have, the peer does not hold it yet.
    for counter in 0..64 {
        let id = counter << 3 | 3;
        if id != last {
            assert_eq!(a.message().to(&[id]).send(), Err(E::NXIO), "{id:#x}");
        }
    }
    let id = a.data().handle();
    assert!(id >> 3 < 64 && id != last, "{id:#x}");
    assert_eq!(a.message().to(&[id]).send(), Ok(()));
    assert_eq!(b.release(known), Ok(()));
}

fn id_is_the_one_held_already(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let at_b = owner.give(&b, node).unwrap();
    let to = a.handle_of(&b);
    a.message().to(&[to]).handles(&[at_a]).send().unwrap();
    assert_eq!(b.data().handle(), at_b);
    b.release(at_b).unwrap();
    b.message().to(&[at_b]).send().unwrap();
    owner.data();
}

fn id_is_new_after_the_last_release(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    let mut last = 0;
    for _ in 0..20 {
        b.message().to(&[to]).handles(&[node]).send().unwrap();
        let id = a.data().handle();
        assert!(id > last, "{id:#x} after {last:#x}");
        a.release(id).unwrap();
        b.node_release(node);
        last = id;
    }
}

fn references_are_needed_only_to_name(env: &Env) {
    // A handle that was sent on and released is gone here and alive there.
    let [owner, a, b] = env.peers();
    let (_, at_a) = owner.node_for(&a);
    let to = a.handle_of(&b);
    a.message().to(&[to]).handles(&[at_a]).send().unwrap();
    a.release(at_a).unwrap();
    assert_eq!(a.message().to(&[at_a]).send(), Err(E::NXIO));
    let at_b = b.data().handle();
    assert_eq!(b.message().to(&[at_b]).send(), Ok(()));
}

fn a_capability_cannot_be_guessed(env: &Env) {
    let [owner, holder, stranger] = env.peers();
    let (node, id) = owner.node_for(&holder);
    assert_eq!(stranger.message().to(&[id]).send(), Err(E::NXIO));
    assert_eq!(stranger.release(id), Err(E::NXIO));
    // The owner's number is the stranger's own business.
    stranger.message().to(&[node]).bytes(b"mine").send().unwrap();
    stranger.text(b"mine");
    owner.nothing();
}

fn many_nodes_through_many_hands(env: &Env) {
    let peers: [Peer; 8] = env.peers();
    // Every peer gives a node to every other one, by way of a third.
    for (i, owner) in peers.iter().enumerate() {
        for (j, holder) in peers.iter().enumerate() {
            let third = &peers[(i + j + 3) % 8];
            let node = owner.new_node();
            let at_third = owner.give(third, node).unwrap();
            let to = third.handle_of(holder);
            third.message().to(&[to]).handles(&[at_third]).send().unwrap();
            let mut arrived = holder.data();
            while arrived.handles.is_empty() {
                arrived = holder.data();
            }
            let id = arrived.handle();
            holder.message().to(&[id]).bytes(b"hello").send().unwrap();
            assert_eq!(owner.text(b"hello").msg.destination, node);
        }
    }
}
