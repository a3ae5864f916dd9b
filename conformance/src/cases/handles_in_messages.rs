// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles that travel.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;

#[case("abi.md#handle-pass")]
fn received_handle_is_usable(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.message().to(&[to]).handles(&[node]).send().unwrap();
    let id = a.expect_data().expect_handle();
    assert_eq!(id & 7, 3);
    a.message().to(&[id]).bytes(b"answer").send().unwrap();
    assert_eq!(b.expect_text(b"answer").msg.destination, node);
}

#[case("abi.md#handle-pass")]
fn received_handle_can_be_passed_on(env: &Env) {
    let peers: [Peer; 6] = env.peers();
    let node = peers[0].new_node();
    let mut id = node;
    for pair in peers.windows(2) {
        let to = pair[0].handle_of(&pair[1]);
        pair[0].message().to(&[to]).handles(&[id]).send().unwrap();
        id = pair[1].expect_data().expect_handle();
    }
    peers[5]
        .message()
        .to(&[id])
        .bytes(b"through five hands")
        .send()
        .unwrap();
    assert_eq!(
        peers[0].expect_text(b"through five hands").msg.destination,
        node
    );
}

#[case("abi.md#layout-parts")]
fn each_handle_goes_to_its_own_slot(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let nodes: [u64; 7] = std::array::from_fn(|_| b.new_node());
    b.message()
        .to(&[to])
        .bytes(b"abc")
        .handles(&nodes)
        .send()
        .unwrap();
    let ids = a.expect_data().handles;
    assert_eq!(ids.len(), 7);
    for (i, node) in nodes.into_iter().enumerate().rev() {
        a.message().to(&[ids[i]]).send().unwrap();
        assert_eq!(b.expect_data().msg.destination, node);
    }
}

#[case("abi.md#handle-one")]
fn same_node_from_two_senders_is_one_handle(env: &Env) {
    let [owner, a, b, receiver] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let at_b = owner.give(&b, node).unwrap();
    let ids = [(&a, at_a), (&b, at_b), (&owner, node)].map(|(sender, id)| {
        let to = sender.handle_of(&receiver);
        sender.message().to(&[to]).handles(&[id]).send().unwrap();
        receiver.expect_data().expect_handle()
    });
    assert_eq!(ids, [ids[0]; 3]);
}

#[case("abi.md#ref-message")]
fn each_message_brings_a_reference(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    for _ in 0..5 {
        b.message().to(&[to]).handles(&[node]).send().unwrap();
    }
    let ids = [0; 5].map(|_| a.expect_data().expect_handle());
    assert_eq!(ids, [ids[0]; 5]);
    for _ in 0..5 {
        b.expect_nothing();
        a.release(ids[0]).unwrap();
    }
    b.expect_node_release(node);
    assert_eq!(a.release(ids[0]), Err(E::NXIO));
}

#[case("abi.md#ref-message", "abi.md#recv-handles")]
fn each_slot_brings_a_reference(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let (node, other) = (b.new_node(), b.new_node());
    b.message()
        .to(&[to])
        .handles(&[node, other, node, node])
        .send()
        .unwrap();
    let ids = a.expect_data().handles;
    assert_eq!(ids, [ids[0], ids[1], ids[0], ids[0]]);
    assert_ne!(ids[0], ids[1]);
    for _ in 0..3 {
        b.expect_nothing();
        a.release(ids[0]).unwrap();
    }
    b.expect_node_release(node);
    a.release(ids[1]).unwrap();
    b.expect_node_release(other);
}

#[case("abi.md#handle-one")]
fn owner_gets_its_own_id(env: &Env) {
    let [a, b] = env.peers();
    let (node, there) = a.node_for(&b);
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).handles(&[there]).send().unwrap();
    assert_eq!(a.expect_data().expect_handle(), node);
}

#[case("abi.md#ref-message")]
fn owner_gains_a_reference(env: &Env) {
    let [a, b] = env.peers();
    let (node, there) = a.node_for(&b);
    let (_, to) = a.node_for(&b);
    for _ in 0..2 {
        b.message().to(&[to]).handles(&[there]).send().unwrap();
        a.expect_data();
    }
    b.release(there).unwrap();
    a.expect_nothing();
    assert_eq!(a.release(node), Ok(()));
    a.expect_nothing();
    assert_eq!(a.release(node), Ok(()));
    a.expect_node_release(node);
    assert_eq!(a.release(node), Err(E::BUSY));
}

#[case("abi.md#handle-pass")]
fn around_the_ring_home_again(env: &Env) {
    let peers: [Peer; 5] = env.peers();
    let to: [u64; 5] = std::array::from_fn(|i| peers[i].handle_of(&peers[(i + 1) % 5]));
    let node = peers[0].new_node();
    let mut id = node;
    for i in 0..5 {
        peers[i]
            .message()
            .to(&[to[i]])
            .handles(&[id])
            .send()
            .unwrap();
        id = peers[(i + 1) % 5].expect_data().expect_handle();
        if i < 4 {
            assert_ne!(id & abi::HANDLE_FLAG_REMOTE, 0);
        }
    }
    assert_eq!(id, node);
}

#[case("abi.md#id-clear")]
fn unknown_clear_id_creates_a_node(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for node in [0, 4, 0xffff_ffff_ffff_fff8] {
        b.message().to(&[to]).handles(&[node]).send().unwrap();
        let id = a.expect_data().expect_handle();
        a.message().to(&[id]).send().unwrap();
        assert_eq!(b.expect_data().msg.destination, node);
    }
}

#[case("abi.md#id-clear")]
fn unknown_clear_id_twice_is_one_node(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message()
        .to(&[to])
        .handles(&[0x500, 0x500])
        .send()
        .unwrap();
    let ids = a.expect_data().handles;
    assert_eq!(ids[0], ids[1]);
    a.release(ids[0]).unwrap();
    b.expect_nothing();
    a.release(ids[0]).unwrap();
    b.expect_node_release(0x500);
}

#[case("abi.md#send-enxio-handles")]
fn unknown_flagged_id_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for bad in [1, 2, 3, UNKNOWN_ID, abi::HANDLE_INVALID] {
        assert_eq!(
            b.message().to(&[to]).handles(&[8, bad]).send(),
            Err(E::NXIO),
            "{bad:#x}"
        );
    }
    a.expect_nothing();
}

#[case("abi.md#ref-flight")]
fn sender_may_release_at_once(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let to = a.handle_of(&b);
    a.message().to(&[to]).handles(&[at_a]).send().unwrap();
    a.release(at_a).unwrap();
    let at_b = b.expect_data().expect_handle();
    b.message().to(&[at_b]).bytes(b"works").send().unwrap();
    owner.expect_text(b"works");
    b.release(at_b).unwrap();
    owner.expect_node_release(node);
}

#[case("abi.md#ref-flight")]
fn sender_may_die_at_once(env: &Env) {
    let [owner, a, b] = env.peers();
    let (_, at_a) = owner.node_for(&a);
    let to = a.handle_of(&b);
    a.message().to(&[to]).handles(&[at_a]).send().unwrap();
    a.close();
    let at_b = b.expect_data().expect_handle();
    b.message().to(&[at_b]).bytes(b"works").send().unwrap();
    owner.expect_text(b"works");
}

#[case("abi.md#ref-holder")]
fn unreceived_handle_has_no_id_yet(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let known = b.handle_of(&a);
    let last = a.handle_of(&b);
    b.message()
        .to(&[to])
        .handles(&[b.new_node()])
        .send()
        .unwrap();
    // Whatever ID it will have, the peer does not hold it yet.
    for counter in 0..64 {
        let id = counter << 3 | 3;
        if id != last {
            assert_eq!(a.message().to(&[id]).send(), Err(E::NXIO), "{id:#x}");
        }
    }
    let id = a.expect_data().expect_handle();
    assert!(id >> 3 < 64 && id != last, "{id:#x}");
    assert_eq!(a.message().to(&[id]).send(), Ok(()));
    assert_eq!(b.release(known), Ok(()));
}

#[case("abi.md#handle-one")]
fn id_is_the_one_held_already(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let at_b = owner.give(&b, node).unwrap();
    let to = a.handle_of(&b);
    a.message().to(&[to]).handles(&[at_a]).send().unwrap();
    assert_eq!(b.expect_data().expect_handle(), at_b);
    b.release(at_b).unwrap();
    b.message().to(&[at_b]).send().unwrap();
    owner.expect_data();
}

#[case("abi.md#id-both")]
fn id_is_new_after_the_last_release(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    let mut last = 0;
    for _ in 0..20 {
        b.message().to(&[to]).handles(&[node]).send().unwrap();
        let id = a.expect_data().expect_handle();
        assert!(id > last, "{id:#x} after {last:#x}");
        a.release(id).unwrap();
        b.expect_node_release(node);
        last = id;
    }
}

#[case("abi.md#handle-right")]
fn references_are_needed_only_to_name(env: &Env) {
    // A handle that was sent on and released is gone here and alive there.
    let [owner, a, b] = env.peers();
    let (_, at_a) = owner.node_for(&a);
    let to = a.handle_of(&b);
    a.message().to(&[to]).handles(&[at_a]).send().unwrap();
    a.release(at_a).unwrap();
    assert_eq!(a.message().to(&[at_a]).send(), Err(E::NXIO));
    let at_b = b.expect_data().expect_handle();
    assert_eq!(b.message().to(&[at_b]).send(), Ok(()));
}

#[case("abi.md#handle-right")]
fn a_capability_cannot_be_guessed(env: &Env) {
    let [owner, holder, stranger] = env.peers();
    let (node, id) = owner.node_for(&holder);
    assert_eq!(stranger.message().to(&[id]).send(), Err(E::NXIO));
    assert_eq!(stranger.release(id), Err(E::NXIO));
    // The owner's number is the stranger's own business.
    stranger
        .message()
        .to(&[node])
        .bytes(b"mine")
        .send()
        .unwrap();
    stranger.expect_text(b"mine");
    owner.expect_nothing();
}

#[case("abi.md#handle-pass")]
fn many_nodes_through_many_hands(env: &Env) {
    let peers: [Peer; 8] = env.peers();
    // Every peer gives a node to every other one, by way of a third.
    for (i, owner) in peers.iter().enumerate() {
        for (j, holder) in peers.iter().enumerate() {
            let third = &peers[(i + j + 3) % 8];
            let node = owner.new_node();
            let at_third = owner.give(third, node).unwrap();
            let to = third.handle_of(holder);
            third
                .message()
                .to(&[to])
                .handles(&[at_third])
                .send()
                .unwrap();
            let mut arrived = holder.expect_data();
            while arrived.handles.is_empty() {
                arrived = holder.expect_data();
            }
            let id = arrived.expect_handle();
            holder.message().to(&[id]).bytes(b"hello").send().unwrap();
            assert_eq!(owner.expect_text(b"hello").msg.destination, node);
        }
    }
}
