// SPDX-License-Identifier: MIT OR Apache-2.0

//! NODES_DESTROY.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;

#[case("abi.md#destroy-empty")]
fn no_nodes_succeeds(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.destroy(&[]), Ok(()));
    assert_eq!(peer.destroy_and_release(&[]), Ok(()));
    peer.expect_nothing();
}

#[case("abi.md#destroy-einval")]
fn too_many_nodes_is_einval(env: &Env) {
    let peer = env.peer();
    let max = u64::from(env.bus().user_limits().handles);
    for n_nodes in [max + 1, u64::from(u32::MAX), 1 << 61, u64::MAX] {
        let mut arg = abi::CmdNodesDestroy {
            flags: 0,
            ptr_nodes: 0,
            n_nodes,
        };
        assert_eq!(
            peer.command(abi::CMD_NODES_DESTROY, &mut arg),
            Err(E::INVAL),
            "{n_nodes}"
        );
    }
    // The user's limit is meant, not the peer's.
    peer.limit(Limits {
        handles: 8,
        ..Limits::KEEP
    })
    .unwrap();
    let mut arg = abi::CmdNodesDestroy {
        flags: 0,
        ptr_nodes: 0,
        n_nodes: 9,
    };
    assert_eq!(
        peer.command(abi::CMD_NODES_DESTROY, &mut arg),
        Err(E::FAULT)
    );
}

#[case("abi.md#destroy-enxio")]
fn unknown_flagged_id_is_enxio(env: &Env) {
    let peer = env.peer();
    for id in [1, 2, 3, UNKNOWN_ID, abi::HANDLE_INVALID] {
        assert_eq!(peer.destroy(&[id]), Err(E::NXIO), "{id:#x}");
    }
}

#[case("abi.md#destroy-enotuniq")]
fn twice_in_the_list_is_enotuniq(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    assert_eq!(a.destroy(&[node, node]), Err(E::NOTUNIQ));
    assert_eq!(a.destroy(&[4, node, 8, 12, node]), Err(E::NOTUNIQ));
    assert_eq!(
        a.destroy(&[800, 800]),
        Err(E::NOTUNIQ),
        "not even known before"
    );
    b.message().to(&[to]).bytes(b"alive").send().unwrap();
    a.expect_text(b"alive");
    b.expect_nothing();
}

#[case("abi.md#destroy-eremote")]
fn foreign_node_is_eremote(env: &Env) {
    let [a, b] = env.peers();
    let (_, id) = a.node_for(&b);
    assert_eq!(b.destroy(&[id]), Err(E::REMOTE));
    assert_eq!(b.destroy_and_release(&[id]), Err(E::REMOTE));
    assert_eq!(b.message().to(&[id]).send(), Ok(()));
}

#[case("abi.md#destroy-estale")]
fn destroyed_before_is_estale(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    peer.destroy(&[node]).unwrap();
    assert_eq!(peer.destroy(&[node]), Err(E::STALE));
    assert_eq!(peer.destroy_and_release(&[node]), Err(E::STALE));
    peer.expect_node_destroy(node);
    assert_eq!(
        peer.destroy(&[node]),
        Err(E::STALE),
        "as long as the ID is held"
    );
}

#[case("abi.md#destroy-enxio")]
fn first_bad_element_decides(env: &Env) {
    let [a, b] = env.peers();
    let remote = a.handle_of(&b);
    let stale = a.new_node();
    a.destroy(&[stale]).unwrap();
    let unknown = UNKNOWN_ID;
    assert_eq!(a.destroy(&[8, remote, unknown]), Err(E::REMOTE));
    assert_eq!(a.destroy(&[8, unknown, remote]), Err(E::NXIO));
    assert_eq!(a.destroy(&[8, stale, remote]), Err(E::STALE));
    assert_eq!(a.destroy(&[8, 8, stale]), Err(E::NOTUNIQ));
}

#[case("abi.md#destroy-whole", "abi.md#no-trace")]
fn failure_destroys_none(env: &Env) {
    let [a, b] = env.peers();
    let (first, to_first) = a.node_for(&b);
    let (second, to_second) = a.node_for(&b);
    assert_eq!(
        a.destroy_and_release(&[first, second, UNKNOWN_ID]),
        Err(E::NXIO)
    );
    a.expect_nothing();
    b.expect_nothing();
    b.message().to(&[to_first, to_second]).send().unwrap();
    a.expect_data();
    a.expect_data();
    assert_eq!(a.destroy(&[first, second]), Ok(()));
}

#[case("abi.md#destroy-creates")]
fn unknown_clear_id_is_created_and_destroyed(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.destroy(&[80]), Ok(()));
    assert_eq!(peer.destroy(&[80]), Err(E::STALE));
    peer.expect_node_destroy(80);
    assert_eq!(peer.destroy_and_release(&[84]), Ok(()));
    assert_eq!(
        peer.destroy_and_release(&[84]),
        Ok(()),
        "unknown again, so another node"
    );
    peer.expect_nothing();
    assert_eq!(peer.release(80), Ok(()));
    assert_eq!(peer.release(80), Err(E::BUSY));
}

#[case("abi.md#destroy-notifies", "abi.md#notify-destroy")]
fn notices_carry_the_holders_own_ids(env: &Env) {
    let [owner, a, b, c] = env.peers();
    // IDs that differ: `b` has seen more nodes before.
    for _ in 0..5 {
        owner.node_for(&b);
    }
    let (node, at_a) = owner.node_for(&a);
    let at_b = owner.give(&b, node).unwrap();
    assert_ne!(at_a, at_b);
    owner.destroy(&[node]).unwrap();
    let told = a.expect_node_destroy(at_a).msg;
    assert_eq!((told.flags, told.offset), (0, abi::OFFSET_INVALID));
    b.expect_node_destroy(at_b);
    for peer in [a, b, c] {
        peer.expect_nothing();
    }
}

#[case("abi.md#destroy-notifies")]
fn owner_is_notified_too(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    peer.destroy(&[node]).unwrap();
    assert_eq!(peer.expect_node_destroy(node).msg.flags, 0);
    peer.expect_nothing();
}

#[case("abi.md#destroy-release")]
fn owner_that_released_is_not_notified(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.destroy_and_release(&[node]).unwrap();
    owner.expect_nothing();
    holder.expect_node_destroy(id);
}

#[case("abi.md#destroy-release", "abi.md#ref-destroy")]
fn with_release_the_pin_goes(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    peer.give_self(node).unwrap();
    peer.release(node).unwrap();
    peer.expect_node_release(node);
    peer.destroy_and_release(&[node]).unwrap();
    assert_eq!(
        peer.release(node),
        Err(E::BUSY),
        "unknown, and would create"
    );
}

#[case("abi.md#destroy-release")]
fn with_release_gained_references_stay(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    peer.give_self(node).unwrap();
    peer.destroy_and_release(&[node]).unwrap();
    assert_eq!(
        peer.destroy(&[node]),
        Err(E::STALE),
        "one reference is left"
    );
    peer.expect_node_destroy(node);
    assert_eq!(peer.release(node), Ok(()));
    assert_eq!(peer.release(node), Err(E::BUSY));
}

#[case("abi.md#notify-destroy")]
fn one_notice_for_each_handle(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    for _ in 0..5 {
        owner.give(&holder, node).unwrap();
        owner.give_self(node).unwrap();
    }
    owner.destroy(&[node]).unwrap();
    holder.expect_node_destroy(id);
    holder.expect_nothing();
    owner.expect_node_destroy(node);
    owner.expect_nothing();
}

#[case("ordering.md#consecutive")]
fn parts_are_consecutive_and_in_order(env: &Env) {
    let [owner, all, some] = env.peers();
    let nodes: [u64; 5] = std::array::from_fn(|_| owner.new_node());
    // Handles are made in another order than nodes are destroyed in.
    let at_all = nodes.map(|node| owner.give(&all, node).unwrap());
    let at_some = [nodes[4], nodes[1]].map(|node| owner.give(&some, node).unwrap());
    owner
        .destroy(&[nodes[3], nodes[1], nodes[0], nodes[4], nodes[2]])
        .unwrap();
    let check = |peer: &Peer, ids: &[u64]| {
        for (i, &id) in ids.iter().enumerate() {
            assert_eq!(
                peer.expect_node_destroy(id).more(),
                i + 1 < ids.len(),
                "part {i}"
            );
        }
        peer.expect_nothing();
    };
    check(&all, &[3, 1, 0, 4, 2].map(|i: usize| at_all[i]));
    check(&some, &[at_some[1], at_some[0]]);
    check(&owner, &[3, 1, 0, 4, 2].map(|i: usize| nodes[i]));
}

#[case("abi.md#destroy-point", "abi.md#send-ehostunreach")]
fn later_messages_are_ehostunreach(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    a.destroy(&[node]).unwrap();
    assert_eq!(b.message().to(&[to]).send(), Err(E::HOSTUNREACH));
    assert_eq!(
        a.message().to(&[node]).send(),
        Err(E::HOSTUNREACH),
        "the owner's own"
    );
    b.expect_node_destroy(to);
    assert_eq!(
        b.message().to(&[to]).send(),
        Err(E::HOSTUNREACH),
        "as long as the ID is held"
    );
    a.expect_node_destroy(node);
    a.expect_nothing();
}

#[case("abi.md#destroy-point")]
fn earlier_messages_are_delivered(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"one").send().unwrap();
    b.message().to(&[to]).bytes(b"two").send().unwrap();
    a.destroy(&[node]).unwrap();
    a.expect_text(b"one");
    assert_eq!(a.expect_text(b"two").msg.destination, node);
    a.expect_node_destroy(node);
    a.expect_nothing();
}

#[case("abi.md#destroy-release")]
fn messages_vanish_with_the_last_reference(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    let (_, other) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"vanishes").send().unwrap();
    b.message().to(&[other]).bytes(b"stays").send().unwrap();
    a.destroy_and_release(&[node]).unwrap();
    a.expect_text(b"stays");
    a.expect_nothing();
}

#[case("abi.md#destroy-vanish")]
fn messages_vanish_with_a_late_release(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    for text in [b"one", b"two"] {
        b.message().to(&[to]).bytes(text).send().unwrap();
    }
    a.destroy(&[node]).unwrap();
    a.expect_text(b"one");
    a.release(node).unwrap();
    a.expect_nothing();
}

#[case("abi.md#destroy-vanish")]
fn vanished_messages_give_handles_back(env: &Env) {
    let [a, b, owner] = env.peers();
    let (node, to) = a.node_for(&b);
    let (carried, handle) = owner.node_for(&b);
    b.message().to(&[to]).handles(&[handle]).send().unwrap();
    b.release(handle).unwrap();
    owner.expect_nothing();
    a.destroy_and_release(&[node]).unwrap();
    owner.expect_node_release(carried);
}

#[case("ordering.md#flag")]
fn vanished_part_is_not_promised(env: &Env) {
    let [a, b] = env.peers();
    for victim in 0..3 {
        let pairs = [a.node_for(&b), a.node_for(&b), a.node_for(&b)];
        b.message()
            .to(&pairs.map(|(_, to)| to))
            .bytes(b"parts")
            .send()
            .unwrap();
        a.destroy_and_release(&[pairs[victim].0]).unwrap();
        let left: Vec<_> = (0..3)
            .filter(|&i| i != victim)
            .map(|i| pairs[i].0)
            .collect();
        let first = a.expect_text(b"parts");
        assert_eq!((first.msg.destination, first.more()), (left[0], true));
        let last = a.expect_text(b"parts");
        assert_eq!((last.msg.destination, last.more()), (left[1], false));
        a.expect_nothing();
        b.expect_all();
    }
}

#[case("abi.md#charge-conserved")]
fn vanished_messages_give_charges_back(env: &Env) {
    let [a, b] = env.peers();
    a.limit(Limits {
        slices: 8,
        bytes: 80,
        ..Limits::KEEP
    })
    .unwrap();
    for _ in 0..20 {
        let (node, to) = a.node_for(&b);
        for _ in 0..4 {
            assert_eq!(b.message().to(&[to]).bytes(&[1; 10]).send(), Ok(()));
        }
        assert_eq!(b.message().to(&[to]).send(), Err(E::DQUOT));
        a.destroy_and_release(&[node]).unwrap();
    }
}

#[case("abi.md#notify-release")]
fn no_release_notice_for_a_dead_node(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.destroy(&[node]).unwrap();
    owner.expect_node_destroy(node);
    holder.release(id).unwrap();
    owner.expect_nothing();
    holder.expect_nothing();
}

#[case("abi.md#destroy-point")]
fn a_thousand_nodes_at_once(env: &Env) {
    let [owner, holder] = env.peers();
    let pairs: Vec<_> = (0..1000).map(|_| owner.node_for(&holder)).collect();
    let nodes: Vec<_> = pairs.iter().rev().map(|&(node, _)| node).collect();
    owner.destroy_and_release(&nodes).unwrap();
    for (i, &(_, id)) in pairs.iter().rev().enumerate() {
        assert_eq!(holder.expect_node_destroy(id).more(), i < 999);
    }
    holder.expect_nothing();
    owner.expect_nothing();
}

#[case("abi.md#destroy-estale")]
fn racing_destructions_have_one_winner(env: &Env) {
    for _ in 0..50 {
        let [owner, holder] = env.peers();
        let (node, id) = owner.node_for(&holder);
        let won = std::thread::scope(|scope| {
            let destroy = || owner.destroy(&[node]);
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(destroy)).collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap());
            results.filter(|result| result.is_ok()).count()
        });
        assert_eq!(won, 1);
        owner.expect_node_destroy(node);
        owner.expect_nothing();
        holder.expect_node_destroy(id);
        holder.expect_nothing();
    }
}

#[case("abi.md#destroy-edquot")]
fn created_node_over_quota_is_edquot(env: &Env) {
    let peer = env.peer();
    // Room for exactly one node.
    peer.limit(Limits {
        handles: 2,
        ..Limits::KEEP
    })
    .unwrap();
    let (first, second) = (peer.new_node(), peer.new_node());
    peer.message().handles(&[first]).send().unwrap();
    assert_eq!(peer.destroy(&[first, second]), Err(E::DQUOT));
    assert_eq!(peer.release(first), Err(E::BUSY), "it is alive");
    assert_eq!(peer.destroy_and_release(&[first]), Ok(()));
    assert_eq!(peer.destroy_and_release(&[second]), Ok(()));
}
