// SPDX-License-Identifier: MIT OR Apache-2.0

//! SEND to one destination, or to none.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;

#[case("abi.md#send-copy", "abi.md#recv-head", "abi.md#command-result")]
fn payload_arrives(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"hello, bus").send().unwrap();
    let msg = a.expect_text(b"hello, bus").msg;
    assert_eq!((msg.kind, msg.flags), (abi::MSG_DATA, 0));
    assert_eq!((msg.n_bytes, msg.n_handles, msg.n_fds), (10, 0, 0));
    a.expect_nothing();
    b.expect_nothing();
}

#[case("abi.md#recv-head")]
fn destination_is_the_owners_id(env: &Env) {
    let [a, b, c] = env.peers();
    let (node, at_b) = a.node_for(&b);
    let at_c = b.give(&c, at_b).unwrap();
    c.message().to(&[at_c]).send().unwrap();
    assert_eq!(a.expect_data().msg.destination, node);
}

#[case("abi.md#layout-minimum")]
fn empty_message_has_a_slice(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).send().unwrap();
    b.message().to(&[to]).send().unwrap();
    let first = a.expect_text(b"").msg.offset;
    let second = a.expect_text(b"").msg.offset;
    assert!(first.abs_diff(second) >= 8, "{first:#x} and {second:#x}");
    assert_eq!(a.release_slice(first), Ok(()));
    assert_eq!(a.release_slice(second), Ok(()));
}

#[case("abi.md#send-copy")]
fn vectors_are_joined(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let bytes: Vec<u8> = (0..1024 * 3).map(|i| (i % 251) as u8).collect();
    let message = b.message().to(&[to]);
    let message = bytes
        .chunks(3)
        .fold(message, |message, chunk| message.bytes(chunk));
    message.send().unwrap();
    a.expect_text(&bytes);
}

#[case("abi.md#send-copy")]
fn vectors_may_be_empty(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let message = b.message().to(&[to]);
    message
        .bytes(b"")
        .bytes(b"a")
        .bytes(b"")
        .bytes(b"b")
        .bytes(b"")
        .send()
        .unwrap();
    a.expect_text(b"ab");
    b.message().to(&[to]).bytes(b"").bytes(b"").send().unwrap();
    a.expect_text(b"");
}

#[case("abi.md#send-copy")]
fn vectors_may_overlap(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let bytes = b"abcdef";
    b.message()
        .to(&[to])
        .bytes(bytes)
        .bytes(&bytes[2..4])
        .bytes(bytes)
        .send()
        .unwrap();
    a.expect_text(b"abcdefcdabcdef");
}

#[case("abi.md#layout-parts", "abi.md#layout-minimum")]
fn every_length_arrives_whole(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let bytes: Vec<u8> = (0..=255).cycle().take(9000).collect();
    for len in (0..70).chain([4095, 4096, 4097, 8191, 8192, 9000]) {
        b.message().to(&[to]).bytes(&bytes[..len]).send().unwrap();
        let offset = a.expect_text(&bytes[..len]).msg.offset;
        assert_eq!(offset % 8, 0, "offsets are multiples of 8");
        a.release_slice(offset).unwrap();
    }
}

#[case("abi.md#send-copy")]
fn a_megabyte_arrives_whole(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let byte = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
    let bytes: Vec<u8> = (0..1_000_003).map(byte).collect();
    for _ in 0..3 {
        b.message().to(&[to]).bytes(&bytes).send().unwrap();
        assert!(
            a.expect_data().bytes == bytes,
            "the payload was changed on the way"
        );
    }
}

#[case("abi.md#send-keeps")]
fn memory_may_be_reused_at_once(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let mut memory = [0_u8; 100];
    for round in 0..10 {
        memory.fill(round);
        b.message().to(&[to]).bytes(&memory).send().unwrap();
    }
    for round in 0..10 {
        a.expect_text(&[round; 100]);
    }
}

#[case("abi.md#send-each")]
fn to_an_own_node(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    peer.give_self(node).unwrap();
    peer.message()
        .to(&[node])
        .bytes(b"note to self")
        .send()
        .unwrap();
    assert_eq!(peer.expect_text(b"note to self").msg.destination, node);
    peer.expect_nothing();
}

#[case("abi.md#id-clear")]
fn to_an_unknown_clear_id_makes_a_node(env: &Env) {
    let peer = env.peer();
    peer.message().to(&[444]).bytes(b"first").send().unwrap();
    assert_eq!(peer.expect_text(b"first").msg.destination, 444);
    assert_eq!(peer.release(444), Err(E::BUSY));
    assert_eq!(peer.destroy_and_release(&[444]), Ok(()));
    peer.expect_nothing();
}

#[case("ordering.md#causality")]
fn messages_of_one_sender_keep_their_order(env: &Env) {
    let [a, b] = env.peers();
    let (_, first) = a.node_for(&b);
    let (_, second) = a.node_for(&b);
    for i in 0..500_u32 {
        let to = if i % 3 == 0 { first } else { second };
        b.message()
            .to(&[to])
            .bytes(&i.to_ne_bytes())
            .send()
            .unwrap();
    }
    for i in 0..500_u32 {
        a.expect_text(&i.to_ne_bytes());
    }
}

#[case("abi.md#send-enxio", "abi.md#id-invalid")]
fn unknown_flagged_destination_is_enxio(env: &Env) {
    let peer = env.peer();
    for id in [1, 2, 3, UNKNOWN_ID, abi::HANDLE_INVALID] {
        assert_eq!(peer.message().to(&[id]).send(), Err(E::NXIO), "{id:#x}");
    }
}

#[case("abi.md#send-ehostunreach")]
fn destroyed_destination_is_ehostunreach(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    a.destroy_and_release(&[node]).unwrap();
    for _ in 0..3 {
        assert_eq!(
            b.message().to(&[to]).bytes(b"late").send(),
            Err(E::HOSTUNREACH)
        );
    }
    a.expect_nothing();
}

#[case("abi.md#send-ehostunreach")]
fn destination_of_a_closed_peer_is_ehostunreach(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.close();
    assert_eq!(b.message().to(&[to]).send(), Err(E::HOSTUNREACH));
    assert_eq!(b.release(to), Ok(()));
    assert_eq!(b.message().to(&[to]).send(), Err(E::NXIO));
}

#[case("abi.md#send-errors")]
fn failure_is_written_to_errors(env: &Env) {
    let [a, b] = env.peers();
    let (node, dead) = a.node_for(&b);
    let live = b.handle_of(&a);
    a.destroy_and_release(&[node]).unwrap();
    let outcome = b.message().to(&[live, dead]).outcome();
    assert_eq!(outcome.result, Err(E::HOSTUNREACH));
    assert_eq!(outcome.errors, [0, libc::EHOSTUNREACH]);
    let outcome = b.message().to(&[UNKNOWN_ID]).outcome();
    assert_eq!(
        (outcome.result, &*outcome.errors),
        (Err(E::NXIO), &[libc::ENXIO][..])
    );
    a.expect_nothing();
}

#[case("abi.md#send-nowhere")]
fn no_destination_succeeds(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.message().send(), Ok(()));
    assert_eq!(peer.message().bytes(b"to nobody").send(), Ok(()));
    assert_eq!(peer.message().proceed().bytes(b"to nobody").send(), Ok(()));
    peer.expect_nothing();
}

#[case("abi.md#send-nowhere", "abi.md#send-edquot-handles")]
fn no_destination_creates_the_named_nodes(env: &Env) {
    let peer = env.peer();
    // Room for exactly one node.
    peer.limit(Limits {
        handles: 2,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(peer.message().handles(&[96]).send(), Ok(()));
    assert_eq!(peer.message().handles(&[100]).send(), Err(E::DQUOT));
    assert_eq!(
        peer.message().handles(&[96]).send(),
        Ok(()),
        "it is known by now"
    );
}

#[case("abi.md#notify-release")]
fn no_destination_keeps_no_reference(env: &Env) {
    let peer = env.peer();
    peer.message().handles(&[96]).send().unwrap();
    peer.expect_nothing();
    peer.destroy_and_release(&[96]).unwrap();
    assert_eq!(
        peer.release(96),
        Err(E::BUSY),
        "there was no reference but the pin"
    );
}

#[case("abi.md#id-whole")]
fn failed_send_creates_no_node(env: &Env) {
    let [a, b] = env.peers();
    let (node, dead) = b.node_for(&a);
    let live = a.handle_of(&b);
    b.destroy_and_release(&[node]).unwrap();
    // Room for the two handles and the first node below.
    a.limit(Limits {
        handles: 4,
        ..Limits::KEEP
    })
    .unwrap();
    a.expect_all();
    assert_eq!(
        a.message().to(&[dead]).handles(&[200]).send(),
        Err(E::HOSTUNREACH)
    );
    assert_eq!(
        a.message().to(&[UNKNOWN_ID]).handles(&[204]).send(),
        Err(E::NXIO)
    );
    assert_eq!(
        a.message().to(&[live]).handles(&[208, UNKNOWN_ID]).send(),
        Err(E::NXIO)
    );
    assert_eq!(
        a.message().to(&[live]).handles(&[212]).vector(16, 8).send(),
        Err(E::FAULT)
    );
    assert_eq!(a.message().to(&[live]).handles(&[216]).send(), Ok(()));
    assert_eq!(
        a.message().to(&[live]).handles(&[220]).send(),
        Err(E::DQUOT)
    );
}

#[case("abi.md#handle-right")]
fn handle_needs_no_reference_from_the_target(env: &Env) {
    // One direction only: the owner knows nothing of who holds a handle.
    let [server, client] = env.peers();
    let to = client.handle_of(&server);
    for i in 0..10_u8 {
        client.message().to(&[to]).bytes(&[i]).send().unwrap();
        server.expect_text(&[i]);
    }
}

#[case("abi.md#handle-right")]
fn only_the_owner_receives(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    owner.give(&b, node).unwrap();
    a.message()
        .to(&[at_a])
        .bytes(b"for the owner")
        .send()
        .unwrap();
    a.expect_nothing();
    b.expect_nothing();
    owner.expect_text(b"for the owner");
}
