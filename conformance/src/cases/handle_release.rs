// SPDX-License-Identifier: MIT OR Apache-2.0

//! HANDLE_RELEASE.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;

#[case("abi.md#release-enxio")]
fn unknown_flagged_id_is_enxio(env: &Env) {
    let peer = env.peer();
    for id in [1, 2, 3, 0x7f1, 0x7f2, UNKNOWN_ID, u64::MAX - 4] {
        assert_eq!(peer.release(id), Err(E::NXIO), "{id:#x}");
    }
}

#[case("abi.md#release-enxio", "abi.md#id-invalid")]
fn invalid_id_is_enxio(env: &Env) {
    assert_eq!(env.peer().release(abi::HANDLE_INVALID), Err(E::NXIO));
}

#[case("abi.md#release-ebusy-unknown")]
fn unknown_clear_id_is_ebusy(env: &Env) {
    let peer = env.peer();
    for id in [0, 4, 8, 12, u64::MAX - 3] {
        assert_eq!(peer.release(id), Err(E::BUSY), "{id:#x}");
    }
}

#[case("abi.md#no-trace")]
fn refused_release_creates_nothing(env: &Env) {
    let peer = env.peer();
    // Room for one node: were one made by the refused call, the next would find none.
    peer.limit(Limits {
        handles: 2,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(peer.release(8), Err(E::BUSY));
    assert_eq!(peer.message().handles(&[16]).send(), Ok(()));
    assert_eq!(peer.message().handles(&[24]).send(), Err(E::DQUOT));
}

#[case("abi.md#release-ebusy-pin", "abi.md#ref-pin")]
fn owners_pin_is_ebusy(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    assert_eq!(a.release(node), Err(E::BUSY));
    assert_eq!(a.release(node), Err(E::BUSY));
    b.message().to(&[to]).bytes(b"alive").send().unwrap();
    a.expect_text(b"alive");
}

#[case("abi.md#release-drops", "abi.md#ref-release")]
fn each_call_drops_one_reference(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    for _ in 0..4 {
        assert_eq!(owner.give(&holder, node), Ok(id));
    }
    for _ in 0..4 {
        holder.release(id).unwrap();
        owner.expect_nothing();
    }
    holder.release(id).unwrap();
    owner.expect_node_release(node);
    assert_eq!(holder.release(id), Err(E::NXIO));
    owner.expect_nothing();
}

#[case("abi.md#release-enxio")]
fn released_twice_is_enxio(env: &Env) {
    let [owner, holder] = env.peers();
    let (_, id) = owner.node_for(&holder);
    assert_eq!(holder.release(id), Ok(()));
    for _ in 0..3 {
        assert_eq!(holder.release(id), Err(E::NXIO));
    }
}

#[case("abi.md#release-drops")]
fn released_id_is_unknown_to_every_command(env: &Env) {
    let [owner, holder] = env.peers();
    let to = holder.handle_of(&owner);
    let (_, id) = owner.node_for(&holder);
    holder.release(id).unwrap();
    assert_eq!(holder.release(id), Err(E::NXIO));
    assert_eq!(holder.give_self(id), Err(E::NXIO));
    assert_eq!(holder.destroy(&[id]), Err(E::NXIO));
    assert_eq!(holder.message().to(&[id]).send(), Err(E::NXIO));
    assert_eq!(
        holder.message().to(&[to]).handles(&[id]).send(),
        Err(E::NXIO)
    );
}

#[case("abi.md#id-both")]
fn released_ids_never_come_back(env: &Env) {
    let [owner, holder] = env.peers();
    let mut seen = std::collections::HashSet::new();
    let node = owner.new_node();
    for _ in 0..200 {
        let id = owner.give(&holder, node).unwrap();
        assert!(seen.insert(id), "{id:#x} came back");
        holder.release(id).unwrap();
    }
}

#[case("abi.md#id-both", "abi.md#id-managed")]
fn ids_are_a_counter_with_flags(env: &Env) {
    let [owner, holder] = env.peers();
    let mut last = None;
    for _ in 0..20 {
        let (node, id) = owner.node_for(&holder);
        assert_eq!(node & 3, 0);
        assert_eq!(id & 7, 3, "MANAGED, REMOTE, and nothing in bit 2: {id:#x}");
        assert!(Some(id >> 3) > last, "the counter rises");
        last = Some(id >> 3);
    }
}

#[case("abi.md#release-ebusy-pin")]
fn owner_releases_what_it_gained_but_not_the_pin(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    assert_eq!(peer.give_self(node), Ok(node));
    assert_eq!(peer.give_self(node), Ok(node));
    assert_eq!(peer.release(node), Ok(()));
    peer.expect_nothing();
    assert_eq!(peer.release(node), Ok(()));
    peer.expect_node_release(node);
    assert_eq!(peer.release(node), Err(E::BUSY));
}

#[case("abi.md#destroy-pin")]
fn pin_may_go_once_the_node_is_destroyed(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    peer.give_self(node).unwrap();
    peer.destroy(&[node]).unwrap();
    assert_eq!(peer.release(node), Ok(()), "the reference it gave itself");
    assert_eq!(peer.release(node), Ok(()), "the pin");
    assert_eq!(
        peer.release(node),
        Err(E::BUSY),
        "an unknown ID that would create"
    );
}

#[case("abi.md#id-reuse")]
fn clear_id_names_a_new_node_after_its_release(env: &Env) {
    let [a, b] = env.peers();
    let (node, old) = a.node_for(&b);
    a.destroy(&[node]).unwrap();
    a.expect_node_destroy(node);
    assert_eq!(
        a.give(&b, node),
        Ok(abi::HANDLE_INVALID),
        "still the dead one"
    );
    a.release(node).unwrap();
    let new = a.give(&b, node).unwrap();
    assert!(new != old && new != abi::HANDLE_INVALID);
    b.expect_node_destroy(old);
    b.message().to(&[new]).bytes(b"new").send().unwrap();
    assert_eq!(a.expect_text(b"new").msg.destination, node);
}

#[case("abi.md#release-drops")]
fn handle_of_a_dead_node_is_released_as_any(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    owner.give(&holder, node).unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    holder.expect_node_destroy(id);
    assert_eq!(holder.release(id), Ok(()));
    assert_eq!(holder.release(id), Ok(()));
    assert_eq!(holder.release(id), Err(E::NXIO));
    owner.expect_nothing();
}

#[case("abi.md#release-drops")]
fn many_handles_are_released_in_any_order(env: &Env) {
    let [owner, holder] = env.peers();
    let pairs: Vec<_> = (0..500).map(|_| owner.node_for(&holder)).collect();
    // 377 and 500 share no factor, so every pair comes once.
    for i in 0..500 {
        let (node, id) = pairs[i * 377 % 500];
        assert_eq!(holder.release(id), Ok(()));
        owner.expect_node_release(node);
        assert_eq!(holder.release(id), Err(E::NXIO));
    }
    owner.expect_nothing();
}

#[case("abi.md#release-drops", "abi.md#concurrent-callers")]
fn concurrent_releases_are_counted(env: &Env) {
    for _ in 0..20 {
        let [owner, holder] = env.peers();
        let (node, id) = owner.node_for(&holder);
        for _ in 1..40 {
            owner.give(&holder, node).unwrap();
        }
        let released = std::thread::scope(|scope| {
            let release = || (0..15).filter(|_| holder.release(id).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(release)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(released, 40);
        owner.expect_node_release(node);
        owner.expect_nothing();
    }
}
