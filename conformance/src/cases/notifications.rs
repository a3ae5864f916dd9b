// SPDX-License-Identifier: MIT OR Apache-2.0

//! NODE_RELEASE and NODE_DESTROY.

use bus1_uapi as abi;

use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;

pub const CASES: &[Case] = &[
    case!(release_when_the_count_falls_to_zero, "2: NODE_RELEASE: from 1 to 0 on a live node"),
    case!(release_comes_again, "2: NODE_RELEASE may come again later"),
    case!(release_is_withdrawn, "2: withdrawn if it rises again before it was received"),
    case!(release_withdrawn_many_times_comes_once, "2: withdrawn if it rises again"),
    case!(withdrawn_by_a_message, "2: withdrawn if it rises again; plus those in flight"),
    case!(no_release_for_a_node_that_never_rose, "2: not sent for a node whose count never rose"),
    case!(messages_in_flight_count, "2: the strong count is ... plus those in flight"),
    case!(owners_references_count_less_the_pin, "2: all user references less the owner's pin"),
    case!(release_is_for_the_owner_alone, "2: NODE_RELEASE, to the owner alone"),
    case!(one_release_after_many_holders, "2: the strong count is all user references"),
    case!(release_keeps_its_place, "2: queue entries under the global order"),
    case!(renewed_release_takes_its_new_place, "2: queue entries under the global order"),
    case!(destroy_keeps_its_place, "2: queue entries under the global order"),
    case!(destroy_is_not_for_those_who_left, "2: not delivered to a peer that has dropped"),
    case!(destroy_for_a_hundred_holders, "2: NODE_DESTROY, to every holder"),
    case!(destroy_for_a_holder_that_gained_it_by_message, "2: NODE_DESTROY, to every holder"),
    case!(references_remain_after_destroy, "2: user references change only in ioctls"),
    case!(notices_need_no_quota, "2: neither may fail for lack of memory"),
    case!(notices_reach_a_full_queue, "2: what they need is set aside"),
    case!(part_of_a_vanished_notice_is_not_promised, "3.3: the flag never promises"),
    case!(notices_make_the_peer_readable, "4 poll: POLLIN if something is ready"),
    case!(racing_references_end_in_one_release, "2: NODE_RELEASE; withdrawn if it rises again"),
];

fn release_when_the_count_falls_to_zero(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.nothing();
    holder.release(id).unwrap();
    let msg = owner.node_release(node).msg;
    assert_eq!((msg.flags, msg.offset, msg.n_bytes), (0, abi::OFFSET_INVALID, 0));
    owner.nothing();
    holder.nothing();
}

fn release_comes_again(env: &Env) {
    let [owner, holder] = env.peers();
    let node = owner.new_node();
    for _ in 0..10 {
        let id = owner.give(&holder, node).unwrap();
        holder.release(id).unwrap();
        owner.node_release(node);
        owner.nothing();
    }
}

fn release_is_withdrawn(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    holder.release(id).unwrap();
    let id = owner.give(&holder, node).unwrap();
    owner.nothing();
    holder.message().to(&[id]).bytes(b"still in use").send().unwrap();
    owner.text(b"still in use");
    holder.release(id).unwrap();
    owner.node_release(node);
    owner.nothing();
}

fn release_withdrawn_many_times_comes_once(env: &Env) {
    let [owner, holder] = env.peers();
    let node = owner.new_node();
    for _ in 0..50 {
        let id = owner.give(&holder, node).unwrap();
        holder.release(id).unwrap();
    }
    owner.node_release(node);
    owner.nothing();
}

fn withdrawn_by_a_message(env: &Env) {
    let [owner, holder] = env.peers();
    let to = owner.handle_of(&holder);
    let (node, id) = owner.node_for(&holder);
    holder.release(id).unwrap();
    owner.message().to(&[to]).handles(&[node]).send().unwrap();
    owner.nothing();
    let id = holder.data().handle();
    owner.nothing();
    holder.release(id).unwrap();
    owner.node_release(node);
}

fn no_release_for_a_node_that_never_rose(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    // Made, and held by nobody but its owner's pin.
    peer.message().handles(&[node]).send().unwrap();
    peer.nothing();
    assert_eq!(peer.release(node), Err(E::BUSY));
    peer.nothing();
    peer.destroy(&[node]).unwrap();
    peer.node_destroy(node);
    peer.nothing();
}

fn messages_in_flight_count(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let to_b = a.handle_of(&b);
    a.message().to(&[to_b]).handles(&[at_a]).send().unwrap();
    a.message().to(&[to_b]).handles(&[at_a]).send().unwrap();
    a.release(at_a).unwrap();
    owner.nothing();
    let at_b = b.data().handle();
    b.release(at_b).unwrap();
    owner.nothing();
    let at_b = b.data().handle();
    owner.nothing();
    b.release(at_b).unwrap();
    owner.node_release(node);
    owner.nothing();
}

fn owners_references_count_less_the_pin(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    holder.give(&owner, id).unwrap();
    holder.release(id).unwrap();
    owner.nothing();
    owner.release(node).unwrap();
    owner.node_release(node);
    assert_eq!(owner.release(node), Err(E::BUSY));
}

fn release_is_for_the_owner_alone(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let at_b = a.give(&b, at_a).unwrap();
    a.release(at_a).unwrap();
    b.release(at_b).unwrap();
    a.nothing();
    b.nothing();
    owner.node_release(node);
}

fn one_release_after_many_holders(env: &Env) {
    let owner = env.peer();
    let holders: [Peer; 20] = env.peers();
    let node = owner.new_node();
    let ids = holders.each_ref().map(|holder| owner.give(holder, node).unwrap());
    for (holder, id) in holders.iter().zip(ids).skip(1) {
        holder.release(id).unwrap();
        owner.nothing();
    }
    holders[0].release(ids[0]).unwrap();
    owner.node_release(node);
    owner.nothing();
}

fn release_keeps_its_place(env: &Env) {
    let [owner, a, b] = env.peers();
    let to = a.handle_of(&owner);
    let (node, at_b) = owner.node_for(&b);
    a.message().to(&[to]).bytes(b"before").send().unwrap();
    b.release(at_b).unwrap();
    a.message().to(&[to]).bytes(b"after").send().unwrap();
    owner.text(b"before");
    owner.node_release(node);
    owner.text(b"after");
}

fn renewed_release_takes_its_new_place(env: &Env) {
    let [owner, a, b] = env.peers();
    let to = a.handle_of(&owner);
    let (node, at_b) = owner.node_for(&b);
    b.release(at_b).unwrap();
    a.message().to(&[to]).bytes(b"between").send().unwrap();
    let at_b = owner.give(&b, node).unwrap();
    b.release(at_b).unwrap();
    // The call that brought the count to zero for good began after SEND had returned.
    owner.text(b"between");
    owner.node_release(node);
    owner.nothing();
}

fn destroy_keeps_its_place(env: &Env) {
    let [owner, holder, sender] = env.peers();
    let (node, id) = owner.node_for(&holder);
    let to = sender.handle_of(&holder);
    sender.message().to(&[to]).bytes(b"before").send().unwrap();
    owner.destroy(&[node]).unwrap();
    sender.message().to(&[to]).bytes(b"after").send().unwrap();
    holder.text(b"before");
    holder.node_destroy(id);
    holder.text(b"after");
}

fn destroy_is_not_for_those_who_left(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.destroy_and_release(&[node]).unwrap();
    assert!(holder.events().readable);
    holder.release(id).unwrap();
    holder.nothing();
    // With one of two references left it still comes.
    let (node, id) = owner.node_for(&holder);
    owner.give(&holder, node).unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    holder.release(id).unwrap();
    holder.node_destroy(id);
    holder.nothing();
}

fn destroy_for_a_hundred_holders(env: &Env) {
    let owner = env.peer();
    let holders: [Peer; 100] = env.peers();
    let nodes = [owner.new_node(), owner.new_node()];
    let first = holders.each_ref().map(|holder| owner.give(holder, nodes[0]).unwrap());
    let second = holders.each_ref().map(|holder| owner.give(holder, nodes[1]).unwrap());
    owner.destroy_and_release(&nodes).unwrap();
    for (i, holder) in holders.iter().enumerate() {
        assert!(holder.node_destroy(first[i]).more());
        assert!(!holder.node_destroy(second[i]).more());
        holder.nothing();
    }
}

fn destroy_for_a_holder_that_gained_it_by_message(env: &Env) {
    let [owner, holder] = env.peers();
    let to = owner.handle_of(&holder);
    let node = owner.new_node();
    owner.message().to(&[to]).handles(&[node]).send().unwrap();
    let id = holder.data().handle();
    owner.destroy_and_release(&[node]).unwrap();
    holder.node_destroy(id);
    holder.nothing();
}

fn references_remain_after_destroy(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.give(&holder, node).unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    holder.node_destroy(id);
    assert_eq!(holder.message().to(&[id]).send(), Err(E::HOSTUNREACH));
    assert_eq!(holder.release(id), Ok(()));
    assert_eq!(holder.message().to(&[id]).send(), Err(E::HOSTUNREACH));
    assert_eq!(holder.release(id), Ok(()));
    assert_eq!(holder.message().to(&[id]).send(), Err(E::NXIO));
}

fn notices_need_no_quota(env: &Env) {
    let [owner, holder] = env.peers();
    let (released, id) = owner.node_for(&holder);
    let (destroyed, there) = owner.node_for(&holder);
    owner.limit([0; 4]).unwrap();
    holder.limit([0; 4]).unwrap();
    holder.release(id).unwrap();
    owner.node_release(released);
    owner.destroy(&[destroyed]).unwrap();
    owner.node_destroy(destroyed);
    holder.node_destroy(there);
}

fn notices_reach_a_full_queue(env: &Env) {
    let [owner, holder, sender] = env.peers();
    let to = sender.handle_of(&owner);
    let (node, id) = owner.node_for(&holder);
    owner.limit([200, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    for _ in 0..100 {
        sender.message().to(&[to]).send().unwrap();
    }
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
    holder.release(id).unwrap();
    for _ in 0..100 {
        owner.data();
    }
    owner.node_release(node);
    owner.nothing();
}

fn part_of_a_vanished_notice_is_not_promised(env: &Env) {
    let [owner, holder] = env.peers();
    for victim in 0..3 {
        let pairs = [owner.node_for(&holder), owner.node_for(&holder), owner.node_for(&holder)];
        owner.destroy_and_release(&pairs.map(|(node, _)| node)).unwrap();
        holder.release(pairs[victim].1).unwrap();
        let left: Vec<_> = (0..3).filter(|&i| i != victim).map(|i| pairs[i].1).collect();
        assert!(holder.node_destroy(left[0]).more());
        assert!(!holder.node_destroy(left[1]).more());
        holder.nothing();
    }
}

fn notices_make_the_peer_readable(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    assert!(!owner.events().readable);
    holder.release(id).unwrap();
    assert!(owner.events().readable);
    owner.node_release(node);
    assert!(!owner.events().readable);
    let (node, id) = owner.node_for(&holder);
    owner.destroy_and_release(&[node]).unwrap();
    assert!(holder.events().readable);
    holder.node_destroy(id);
    assert!(!holder.events().readable);
}

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
    owner.node_release(node);
    owner.nothing();
    // None was lost or counted twice: the node is as good as new.
    let id = owner.give(&holders[0], node).unwrap();
    owner.nothing();
    holders[0].release(id).unwrap();
    owner.node_release(node);
}
