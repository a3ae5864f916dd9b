// SPDX-License-Identifier: MIT OR Apache-2.0

//! PEER_DISCONNECT, and close, which does the same.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Peer;
use crate::env::{Env, PATIENCE};
use crate::host::Errno as E;
use crate::sys::memory::NOWHERE;

#[case("abi.md#every-einval-disconnect")]
fn argument_must_be_zero(env: &Env) {
    let peer = env.peer();
    for arg in [1, 8, NOWHERE, u64::MAX] {
        assert_eq!(peer.ioctl(abi::CMD_PEER_DISCONNECT, arg), Err(E::INVAL));
    }
    assert!(peer.query().is_ok(), "the peer is still connected");
}

#[case("abi.md#every-einval-disconnect")]
fn argument_is_checked_on_a_dead_peer_too(env: &Env) {
    let peer = env.peer();
    peer.disconnect().unwrap();
    assert_eq!(peer.ioctl(abi::CMD_PEER_DISCONNECT, 1), Err(E::INVAL));
    assert_eq!(peer.disconnect(), Err(E::SHUTDOWN));
}

#[case("abi.md#disconnect-once")]
fn first_call_succeeds_all_others_fail(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.disconnect(), Ok(()));
    for _ in 0..3 {
        assert_eq!(peer.disconnect(), Err(E::SHUTDOWN));
    }
}

#[case("abi.md#disconnect-once")]
fn only_one_of_many_threads_succeeds(env: &Env) {
    for _ in 0..50 {
        let [peer, other] = env.peers();
        let (_, there) = peer.node_for(&other);
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| peer.disconnect())).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect::<Vec<_>>()
        });
        let won = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1, "{results:?}");
        let lost = results
            .iter()
            .filter(|&&result| result == Err(E::SHUTDOWN))
            .count();
        assert_eq!(lost, 3, "{results:?}");
        other.expect_node_destroy(there);
        other.expect_nothing();
    }
}

/// Makes three nodes of `owner` with handles at `holder`, which are then lost by `end`; checks the
/// notices.
fn destroyed_by(env: &Env, end: fn(Peer)) {
    let [owner, holder] = env.peers();
    let mut there: Vec<_> = (0..3).map(|_| owner.node_for(&holder).1).collect();
    end(owner);
    let notices: Vec<_> = (0..3).map(|_| holder.expect_message().msg).collect();
    let mut named: Vec<_> = notices.iter().map(|msg| msg.destination).collect();
    named.sort_unstable();
    there.sort_unstable();
    assert_eq!(named, there);
    for (i, msg) in notices.iter().enumerate() {
        assert_eq!(msg.kind, abi::MSG_NODE_DESTROY);
        let more = msg.flags & abi::MSG_FLAG_CONTINUE != 0;
        assert_eq!(more, i < 2, "part {i} of one transaction of three");
    }
    holder.expect_nothing();
    for id in there {
        assert_eq!(holder.message().to(&[id]).send(), Err(E::HOSTUNREACH));
        assert_eq!(holder.release(id), Ok(()), "references outlive the node");
        assert_eq!(holder.release(id), Err(E::NXIO));
    }
}

#[case("abi.md#disconnect-all")]
fn holders_of_all_nodes_are_notified_at_one_point(env: &Env) {
    destroyed_by(env, |owner| owner.disconnect().unwrap());
}

#[case("abi.md#close-disconnects")]
fn close_notifies_holders(env: &Env) {
    destroyed_by(env, Peer::close);
}

#[case("abi.md#disconnect-all")]
fn handles_are_released(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, _) = owner.node_for(&holder);
    let (other, _) = owner.node_for(&holder);
    holder.disconnect().unwrap();
    let mut released = [owner.expect_message().msg, owner.expect_message().msg]
        .map(|msg| (msg.kind, msg.destination));
    released.sort_unstable();
    assert_eq!(
        released,
        [node, other].map(|id| (abi::MSG_NODE_RELEASE, id))
    );
    owner.expect_nothing();
}

#[case("abi.md#disconnect-all")]
fn queued_messages_release_their_handles(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, handle) = owner.node_for(&sender);
    let to = sender.handle_of(&receiver);
    sender
        .message()
        .to(&[to])
        .handles(&[handle])
        .send()
        .unwrap();
    sender.release(handle).unwrap();
    owner.expect_nothing();
    receiver.disconnect().unwrap();
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#disconnect-all", "abi.md#ref-flush")]
fn received_but_kept_handles_are_released(env: &Env) {
    let [owner, receiver] = env.peers();
    let (_, to) = receiver.node_for(&owner);
    let node = owner.new_node();
    for _ in 0..3 {
        owner.message().to(&[to]).handles(&[node]).send().unwrap();
    }
    receiver.expect_data();
    receiver.expect_data();
    receiver.close();
    let mut told = [owner.expect_message().msg, owner.expect_message().msg]
        .map(|msg| (msg.kind, msg.destination));
    told.sort_unstable();
    assert_eq!(
        told,
        [(abi::MSG_NODE_DESTROY, to), (abi::MSG_NODE_RELEASE, node)]
    );
    owner.expect_nothing();
}

#[case("abi.md#disconnect-all")]
fn seed_is_released(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, handle) = owner.node_for(&holder);
    holder.message().handles(&[handle]).seed().send().unwrap();
    holder.release(handle).unwrap();
    owner.expect_nothing();
    holder.disconnect().unwrap();
    owner.expect_node_release(node);
}

#[case("abi.md#send-ehostunreach")]
fn sending_to_its_nodes_is_ehostunreach(env: &Env) {
    let [owner, holder] = env.peers();
    let to = holder.handle_of(&owner);
    owner.disconnect().unwrap();
    assert_eq!(holder.message().to(&[to]).send(), Err(E::HOSTUNREACH));
    owner.close();
    assert_eq!(holder.message().to(&[to]).send(), Err(E::HOSTUNREACH));
}

#[case("abi.md#disconnect-all", "ordering.md#messages")]
fn messages_sent_before_are_delivered(env: &Env) {
    let [sender, receiver] = env.peers();
    let (_, to) = receiver.node_for(&sender);
    let (_, back) = sender.node_for(&receiver);
    sender
        .message()
        .to(&[to])
        .bytes(b"last words")
        .send()
        .unwrap();
    sender.disconnect().unwrap();
    receiver.expect_text(b"last words");
    // The two may come in either order; both are there.
    let mut rest =
        [receiver.expect_message().msg, receiver.expect_message().msg].map(|msg| msg.kind);
    rest.sort_unstable();
    assert_eq!(rest, [abi::MSG_NODE_DESTROY, abi::MSG_NODE_RELEASE]);
    receiver.expect_nothing();
    assert_eq!(receiver.release(back), Ok(()));
}

#[case("abi.md#send-dead")]
fn handle_sent_before_is_valid_and_then_destroyed(env: &Env) {
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    sender
        .message()
        .to(&[to])
        .handles(&[sender.new_node()])
        .send()
        .unwrap();
    sender.disconnect().unwrap();
    let id = receiver.expect_data().expect_handle();
    assert_ne!(
        id,
        abi::HANDLE_INVALID,
        "the message comes before the destruction"
    );
    let mut rest = [receiver.expect_message().msg, receiver.expect_message().msg];
    rest.sort_unstable_by_key(|msg| msg.kind);
    assert_eq!(
        rest.map(|msg| msg.kind),
        [abi::MSG_NODE_DESTROY, abi::MSG_NODE_RELEASE]
    );
    assert_eq!(rest[0].destination, id);
}

#[case("abi.md#transfer-eshutdown")]
fn transfer_to_it_is_eshutdown(env: &Env) {
    let [a, b] = env.peers();
    b.disconnect().unwrap();
    assert_eq!(a.give(&b, 8), Err(E::SHUTDOWN));
}

#[case("abi.md#every-eshutdown")]
fn its_own_notices_do_not_come(env: &Env) {
    let [a, b] = env.peers();
    a.node_for(&b);
    a.disconnect().unwrap();
    assert_eq!(a.receive().max_offset(0).expect_errno(), E::SHUTDOWN);
}

#[case("abi.md#poll-hup", "abi.md#poll-wake")]
fn waiter_is_woken(env: &Env) {
    let peer = env.peer();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| peer.door().poll(PATIENCE));
        // However long the waiter takes to fall asleep, it must see the hang-up.
        std::thread::yield_now();
        peer.disconnect().unwrap();
        assert!(waiter.join().unwrap().hangup);
    });
}

#[case("abi.md#disconnect-all")]
fn two_peers_that_hold_each_other(env: &Env) {
    for _ in 0..50 {
        let [a, b] = env.peers();
        let (_, at_b) = a.node_for(&b);
        let (_, at_a) = b.node_for(&a);
        a.message()
            .to(&[at_a])
            .handles(&[a.new_node(), at_a])
            .send()
            .unwrap();
        b.message()
            .to(&[at_b])
            .handles(&[b.new_node(), at_b])
            .send()
            .unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| a.disconnect().unwrap());
            scope.spawn(|| b.disconnect().unwrap());
        });
    }
}

#[case("abi.md#disconnect-all")]
fn a_thousand_nodes(env: &Env) {
    let [owner, holder, witness] = env.peers();
    let mut at_holder: Vec<_> = (0..1000).map(|_| owner.node_for(&holder).1).collect();
    let (_, at_witness) = owner.node_for(&witness);
    owner.close();
    let notices: Vec<_> = (0..1000).map(|_| holder.expect_message().msg).collect();
    let mut named: Vec<_> = notices.iter().map(|msg| msg.destination).collect();
    named.sort_unstable();
    at_holder.sort_unstable();
    assert_eq!(named, at_holder);
    let parts = notices
        .iter()
        .filter(|msg| msg.flags & abi::MSG_FLAG_CONTINUE != 0)
        .count();
    assert_eq!(parts, 999, "all but the last promise another");
    holder.expect_nothing();
    assert!(!witness.expect_node_destroy(at_witness).more());
    witness.expect_nothing();
}
