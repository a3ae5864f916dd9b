// SPDX-License-Identifier: MIT OR Apache-2.0

//! NODE_RELEASE and NODE_DESTROY.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, Peer};
use crate::env::Env;
use crate::host::Errno as E;

#[case("abi.md#notify-release")]
fn release_when_the_count_falls_to_zero(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.expect_nothing();
    holder.release(id).unwrap();
    let msg = owner.expect_node_release(node).msg;
    assert_eq!(
        (msg.flags, msg.offset, msg.n_bytes),
        (0, abi::OFFSET_INVALID, 0)
    );
    owner.expect_nothing();
    holder.expect_nothing();
}

#[case("abi.md#notify-withdrawn")]
fn release_comes_again(env: &Env) {
    let [owner, holder] = env.peers();
    let node = owner.new_node();
    for _ in 0..10 {
        let id = owner.give(&holder, node).unwrap();
        holder.release(id).unwrap();
        owner.expect_node_release(node);
        owner.expect_nothing();
    }
}

#[case("abi.md#notify-withdrawn")]
fn release_is_withdrawn(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    holder.release(id).unwrap();
    let id = owner.give(&holder, node).unwrap();
    owner.expect_nothing();
    holder
        .message()
        .to(&[id])
        .bytes(b"still in use")
        .send()
        .unwrap();
    owner.expect_text(b"still in use");
    holder.release(id).unwrap();
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#notify-withdrawn")]
fn release_withdrawn_many_times_comes_once(env: &Env) {
    let [owner, holder] = env.peers();
    let node = owner.new_node();
    for _ in 0..50 {
        let id = owner.give(&holder, node).unwrap();
        holder.release(id).unwrap();
    }
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#notify-withdrawn")]
fn withdrawn_by_a_message(env: &Env) {
    let [owner, holder] = env.peers();
    let to = owner.handle_of(&holder);
    let (node, id) = owner.node_for(&holder);
    holder.release(id).unwrap();
    owner.message().to(&[to]).handles(&[node]).send().unwrap();
    owner.expect_nothing();
    let id = holder.expect_data().expect_handle();
    owner.expect_nothing();
    holder.release(id).unwrap();
    owner.expect_node_release(node);
}

#[case("abi.md#notify-release")]
fn no_release_for_a_node_that_never_rose(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    // Made, and held by nobody but its owner's pin.
    peer.message().handles(&[node]).send().unwrap();
    peer.expect_nothing();
    assert_eq!(peer.release(node), Err(E::BUSY));
    peer.expect_nothing();
    peer.destroy(&[node]).unwrap();
    peer.expect_node_destroy(node);
    peer.expect_nothing();
}

#[case("abi.md#strong-count")]
fn messages_in_flight_count(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let to_b = a.handle_of(&b);
    a.message().to(&[to_b]).handles(&[at_a]).send().unwrap();
    a.message().to(&[to_b]).handles(&[at_a]).send().unwrap();
    a.release(at_a).unwrap();
    owner.expect_nothing();
    let at_b = b.expect_data().expect_handle();
    b.release(at_b).unwrap();
    owner.expect_nothing();
    let at_b = b.expect_data().expect_handle();
    owner.expect_nothing();
    b.release(at_b).unwrap();
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#strong-count")]
fn owners_references_count_less_the_pin(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    holder.give(&owner, id).unwrap();
    holder.release(id).unwrap();
    owner.expect_nothing();
    owner.release(node).unwrap();
    owner.expect_node_release(node);
    assert_eq!(owner.release(node), Err(E::BUSY));
}

#[case("abi.md#notify-release")]
fn release_is_only_for_the_owner(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let at_b = a.give(&b, at_a).unwrap();
    a.release(at_a).unwrap();
    b.release(at_b).unwrap();
    a.expect_nothing();
    b.expect_nothing();
    owner.expect_node_release(node);
}

#[case("abi.md#strong-count")]
fn one_release_after_many_holders(env: &Env) {
    let owner = env.peer();
    let holders: [Peer; 20] = env.peers();
    let node = owner.new_node();
    let ids = holders
        .each_ref()
        .map(|holder| owner.give(holder, node).unwrap());
    for (holder, id) in holders.iter().zip(ids).skip(1) {
        holder.release(id).unwrap();
        owner.expect_nothing();
    }
    holders[0].release(ids[0]).unwrap();
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#notify-place")]
fn release_keeps_its_place(env: &Env) {
    let [owner, a, b] = env.peers();
    let to = a.handle_of(&owner);
    let (node, at_b) = owner.node_for(&b);
    a.message().to(&[to]).bytes(b"before").send().unwrap();
    b.release(at_b).unwrap();
    a.message().to(&[to]).bytes(b"after").send().unwrap();
    owner.expect_text(b"before");
    owner.expect_node_release(node);
    owner.expect_text(b"after");
}

#[case("abi.md#notify-place")]
fn renewed_release_takes_its_new_place(env: &Env) {
    let [owner, a, b] = env.peers();
    let to = a.handle_of(&owner);
    let (node, at_b) = owner.node_for(&b);
    b.release(at_b).unwrap();
    a.message().to(&[to]).bytes(b"between").send().unwrap();
    let at_b = owner.give(&b, node).unwrap();
    b.release(at_b).unwrap();
    // The call that brought the count to zero for good began after SEND had returned.
    owner.expect_text(b"between");
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#notify-place")]
fn destroy_keeps_its_place(env: &Env) {
    let [owner, holder, sender] = env.peers();
    let (node, id) = owner.node_for(&holder);
    let to = sender.handle_of(&holder);
    sender.message().to(&[to]).bytes(b"before").send().unwrap();
    owner.destroy(&[node]).unwrap();
    sender.message().to(&[to]).bytes(b"after").send().unwrap();
    holder.expect_text(b"before");
    holder.expect_node_destroy(id);
    holder.expect_text(b"after");
}

#[case("abi.md#notify-left")]
fn destroy_is_not_for_former_holders(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.destroy_and_release(&[node]).unwrap();
    assert!(holder.events().readable);
    holder.release(id).unwrap();
    holder.expect_nothing();
    // With one of two references left it still comes.
    let (node, id) = owner.node_for(&holder);
    owner.give(&holder, node).unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    holder.release(id).unwrap();
    holder.expect_node_destroy(id);
    holder.expect_nothing();
}

#[case("abi.md#notify-destroy")]
fn destroy_for_a_hundred_holders(env: &Env) {
    let owner = env.peer();
    let holders: [Peer; 100] = env.peers();
    let nodes = [owner.new_node(), owner.new_node()];
    let first = holders
        .each_ref()
        .map(|holder| owner.give(holder, nodes[0]).unwrap());
    let second = holders
        .each_ref()
        .map(|holder| owner.give(holder, nodes[1]).unwrap());
    owner.destroy_and_release(&nodes).unwrap();
    for (i, holder) in holders.iter().enumerate() {
        assert!(holder.expect_node_destroy(first[i]).more());
        assert!(!holder.expect_node_destroy(second[i]).more());
        holder.expect_nothing();
    }
}

#[case("abi.md#notify-destroy")]
fn destroy_for_a_holder_that_gained_it_by_message(env: &Env) {
    let [owner, holder] = env.peers();
    let to = owner.handle_of(&holder);
    let node = owner.new_node();
    owner.message().to(&[to]).handles(&[node]).send().unwrap();
    let id = holder.expect_data().expect_handle();
    owner.destroy_and_release(&[node]).unwrap();
    holder.expect_node_destroy(id);
    holder.expect_nothing();
}

#[case("abi.md#notify-dead", "abi.md#ref-holder")]
fn references_remain_after_destroy(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.give(&holder, node).unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    holder.expect_node_destroy(id);
    assert_eq!(holder.message().to(&[id]).send(), Err(E::HOSTUNREACH));
    assert_eq!(holder.release(id), Ok(()));
    assert_eq!(holder.message().to(&[id]).send(), Err(E::HOSTUNREACH));
    assert_eq!(holder.release(id), Ok(()));
    assert_eq!(holder.message().to(&[id]).send(), Err(E::NXIO));
}

#[case("abi.md#notify-free")]
fn notices_need_no_quota(env: &Env) {
    let [owner, holder] = env.peers();
    let (released, id) = owner.node_for(&holder);
    let (destroyed, there) = owner.node_for(&holder);
    owner.limit(Limits::all(0)).unwrap();
    holder.limit(Limits::all(0)).unwrap();
    holder.release(id).unwrap();
    owner.expect_node_release(released);
    owner.destroy(&[destroyed]).unwrap();
    owner.expect_node_destroy(destroyed);
    holder.expect_node_destroy(there);
}

#[case("abi.md#notify-free")]
fn notices_reach_a_full_queue(env: &Env) {
    let [owner, holder, sender] = env.peers();
    let to = sender.handle_of(&owner);
    let (node, id) = owner.node_for(&holder);
    owner
        .limit(Limits {
            slices: 200,
            ..Limits::KEEP
        })
        .unwrap();
    for _ in 0..100 {
        sender.message().to(&[to]).send().unwrap();
    }
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
    holder.release(id).unwrap();
    for _ in 0..100 {
        owner.expect_data();
    }
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("ordering.md#flag")]
fn part_of_a_vanished_notice_is_not_promised(env: &Env) {
    let [owner, holder] = env.peers();
    for victim in 0..3 {
        let pairs = [
            owner.node_for(&holder),
            owner.node_for(&holder),
            owner.node_for(&holder),
        ];
        owner
            .destroy_and_release(&pairs.map(|(node, _)| node))
            .unwrap();
        holder.release(pairs[victim].1).unwrap();
        let left: Vec<_> = (0..3)
            .filter(|&i| i != victim)
            .map(|i| pairs[i].1)
            .collect();
        assert!(holder.expect_node_destroy(left[0]).more());
        assert!(!holder.expect_node_destroy(left[1]).more());
        holder.expect_nothing();
    }
}

#[case("abi.md#poll-in")]
fn notices_make_the_peer_readable(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    assert!(!owner.events().readable);
    holder.release(id).unwrap();
    assert!(owner.events().readable);
    owner.expect_node_release(node);
    assert!(!owner.events().readable);
    let (node, id) = owner.node_for(&holder);
    owner.destroy_and_release(&[node]).unwrap();
    assert!(holder.events().readable);
    holder.expect_node_destroy(id);
    assert!(!holder.events().readable);
}

#[case("abi.md#notify-release", "abi.md#notify-withdrawn")]
fn racing_references_end_in_one_release(env: &Env) {
    let owner = env.peer();
    let holders: [Peer; 3] = env.peers();
    let node = owner.new_node();
    std::thread::scope(|scope| {
        for holder in &holders {
            let owner = &owner;
            scope.spawn(move || {
                for _ in 0..500 {
                    let id = owner.give(holder, node).unwrap();
                    holder.release(id).unwrap();
                }
            });
        }
    });
    owner.expect_node_release(node);
    owner.expect_nothing();
    // None was lost or counted twice: the node is as good as new.
    let id = owner.give(&holders[0], node).unwrap();
    owner.expect_nothing();
    holders[0].release(id).unwrap();
    owner.expect_node_release(node);
}
