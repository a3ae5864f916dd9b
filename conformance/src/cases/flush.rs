// SPDX-License-Identifier: MIT OR Apache-2.0

//! PEER_RESET as it flushes.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Limits;
use crate::env::Env;
use crate::host::Errno as E;

const FLUSH: u64 = abi::PEER_RESET_FLAG_FLUSH;
const FLUSH_SEED: u64 = abi::PEER_RESET_FLAG_FLUSH_SEED;

#[case("abi.md#reset-flush")]
fn flush_drops_the_queue(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for _ in 0..5 {
        b.message().to(&[to]).bytes(b"gone").send().unwrap();
    }
    a.flush(FLUSH).unwrap();
    a.expect_nothing();
    assert!(!a.events().readable);
}

#[case("abi.md#reset-flush")]
fn flush_destroys_nodes(env: &Env) {
    let [a, b] = env.peers();
    let mut there: Vec<_> = (0..3).map(|_| a.node_for(&b).1).collect();
    a.flush(FLUSH).unwrap();
    let mut told: Vec<_> = (0..3).map(|_| b.expect_message().msg).collect();
    assert!(told.iter().all(|msg| msg.kind == abi::MSG_NODE_DESTROY));
    told.sort_unstable_by_key(|msg| msg.destination);
    there.sort_unstable();
    assert_eq!(
        told.iter().map(|msg| msg.destination).collect::<Vec<_>>(),
        there
    );
    b.expect_nothing();
    a.expect_nothing();
    for to in there {
        assert_eq!(b.message().to(&[to]).send(), Err(E::HOSTUNREACH));
    }
}

#[case("abi.md#reset-flush", "abi.md#ref-flush")]
fn flush_releases_handles(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, handle) = owner.node_for(&holder);
    owner.give(&holder, node).unwrap();
    holder.flush(FLUSH).unwrap();
    owner.expect_node_release(node);
    owner.expect_nothing();
    assert_eq!(holder.release(handle), Err(E::NXIO));
    assert_eq!(holder.message().to(&[handle]).send(), Err(E::NXIO));
}

#[case("abi.md#reset-flush")]
fn flush_releases_slices(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"slice").send().unwrap();
    let offset = a.expect_data().msg.offset;
    a.flush(FLUSH).unwrap();
    assert_eq!(a.release_slice(offset), Err(E::NXIO));
}

#[case("abi.md#reset-flush")]
fn flush_drops_handles_in_flight(env: &Env) {
    let [owner, a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let (node, handle) = owner.node_for(&b);
    b.message().to(&[to]).handles(&[handle]).send().unwrap();
    b.release(handle).unwrap();
    owner.expect_nothing();
    a.flush(FLUSH).unwrap();
    owner.expect_node_release(node);
}

#[case("abi.md#reset-flush")]
fn flush_drops_notices(env: &Env) {
    let [a, b] = env.peers();
    let (theirs, _) = b.node_for(&a);
    let (_, mine) = a.node_for(&b);
    b.release(mine).unwrap();
    b.destroy_and_release(&[theirs]).unwrap();
    a.flush(FLUSH).unwrap();
    a.expect_nothing();
}

#[case("abi.md#id-reuse")]
fn flushed_node_id_may_be_used_again(env: &Env) {
    let [a, b] = env.peers();
    let (node, old) = a.node_for(&b);
    a.flush(FLUSH).unwrap();
    b.expect_node_destroy(old);
    let new = a.give(&b, node).unwrap();
    assert_ne!(new, old, "another node, another ID");
    assert_eq!(b.message().to(&[old]).send(), Err(E::HOSTUNREACH));
    b.message().to(&[new]).bytes(b"reborn").send().unwrap();
    assert_eq!(a.expect_text(b"reborn").msg.destination, node);
}

#[case("abi.md#reset-stays")]
fn flushed_remote_ids_do_not_come_back(env: &Env) {
    let [owner, holder] = env.peers();
    let mut seen = Vec::new();
    let node = owner.new_node();
    for _ in 0..5 {
        let id = owner.give(&holder, node).unwrap();
        assert!(!seen.contains(&id), "{id:#x} came back");
        seen.push(id);
        holder.flush(FLUSH).unwrap();
    }
}

#[case("abi.md#reset-stays")]
fn peer_works_after_flush(env: &Env) {
    let [a, b] = env.peers();
    a.node_for(&b);
    for round in 0..3_u8 {
        a.flush(FLUSH).unwrap();
        b.expect_all();
        let (node, to) = a.node_for(&b);
        b.message().to(&[to]).bytes(&[round]).send().unwrap();
        assert_eq!(a.expect_text(&[round]).msg.destination, node);
    }
    assert!(!a.events().hangup);
}

#[case("abi.md#reset-limits")]
fn flush_keeps_limits(env: &Env) {
    let peer = env.peer();
    peer.limit(Limits {
        slices: 10,
        handles: 20,
        bytes: 30,
        fds: 40,
    })
    .unwrap();
    peer.flush(FLUSH | FLUSH_SEED).unwrap();
    let limits = peer.query().unwrap();
    assert_eq!((limits.max_slices, limits.max_inflight_fds), (10, 40));
}

#[case("abi.md#reset-flush", "abi.md#seed-pins")]
fn flush_keeps_the_seed_and_its_nodes(env: &Env) {
    let [a, b] = env.peers();
    let (kept, to_kept) = a.node_for(&b);
    let (lost, to_lost) = a.node_for(&b);
    a.message()
        .bytes(b"state")
        .handles(&[kept])
        .seed()
        .send()
        .unwrap();
    a.flush(FLUSH).unwrap();
    b.expect_node_destroy(to_lost);
    b.expect_nothing();
    b.message()
        .to(&[to_kept])
        .bytes(b"hello again")
        .send()
        .unwrap();
    assert_eq!(b.message().to(&[to_lost]).send(), Err(E::HOSTUNREACH));
    assert_eq!(
        a.expect_text(b"hello again").msg.destination,
        kept,
        "a node keeps its ID for life"
    );
    let seed = a.recv_seed().unwrap();
    assert_eq!((&*seed.bytes, &*seed.handles), (&b"state"[..], &[kept][..]));
    assert_eq!(
        a.release(lost),
        Err(E::BUSY),
        "an unknown ID that would create"
    );
}

#[case("abi.md#reset-flush")]
fn flush_drops_messages_for_seed_nodes(env: &Env) {
    let [a, b] = env.peers();
    let (kept, to) = a.node_for(&b);
    a.message().handles(&[kept]).seed().send().unwrap();
    b.message().to(&[to]).bytes(b"before").send().unwrap();
    a.flush(FLUSH).unwrap();
    a.expect_nothing();
    b.message().to(&[to]).bytes(b"after").send().unwrap();
    a.expect_text(b"after");
}

#[case("abi.md#reset-flush-seed")]
fn flush_seed_keeps_the_rest(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    a.message().handles(&[node]).seed().send().unwrap();
    b.message().to(&[to]).bytes(b"queued").send().unwrap();
    a.flush(FLUSH_SEED).unwrap();
    assert_eq!(
        a.receive().flags(abi::RECV_FLAG_SEED).expect_errno(),
        E::AGAIN
    );
    assert_eq!(a.expect_text(b"queued").msg.destination, node);
    b.message().to(&[to]).bytes(b"alive").send().unwrap();
    a.expect_text(b"alive");
    b.expect_nothing();
}

#[case("abi.md#reset-flush")]
fn both_flags_leave_nothing(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    a.message().handles(&[node]).seed().send().unwrap();
    a.flush(FLUSH | FLUSH_SEED).unwrap();
    b.expect_node_destroy(to);
    assert_eq!(
        a.receive().flags(abi::RECV_FLAG_SEED).expect_errno(),
        E::AGAIN
    );
    assert_eq!(b.message().to(&[to]).send(), Err(E::HOSTUNREACH));
    a.expect_nothing();
}

#[case("abi.md#charge-conserved")]
fn flush_gives_charges_back(env: &Env) {
    let [a, b] = env.peers();
    for _ in 0..5 {
        a.limit(Limits {
            slices: 8,
            bytes: 64,
            ..Limits::KEEP
        })
        .unwrap();
        let (_, to) = a.node_for(&b);
        for _ in 0..4 {
            assert_eq!(b.message().to(&[to]).bytes(&[7; 8]).send(), Ok(()));
        }
        assert_eq!(
            b.message().to(&[to]).send(),
            Err(E::DQUOT),
            "half of the slices are taken"
        );
        a.expect_data();
        a.flush(FLUSH).unwrap();
        b.expect_all();
    }
}

#[case("abi.md#reset-limits")]
fn flush_with_limits_sets_them(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).send().unwrap();
    let arg = abi::CmdPeerReset {
        flags: FLUSH,
        peer_flags: u64::MAX,
        max_slices: 3,
        max_handles: u32::MAX,
        max_inflight_bytes: u32::MAX,
        max_inflight_fds: u32::MAX,
    };
    a.reset(arg).unwrap();
    assert_eq!(a.query().unwrap().max_slices, 3);
    a.expect_nothing();
}

#[case("abi.md#reset-flush")]
fn flush_while_others_send(env: &Env) {
    let receiver = env.peer();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let sender = env.peer();
                for round in 0..300_u32 {
                    let (_, to) = receiver.node_for(&sender);
                    if to == abi::HANDLE_INVALID {
                        // It was destroyed before it got here.
                        continue;
                    }
                    let node = sender.new_node();
                    let payload = round.to_ne_bytes();
                    match sender
                        .message()
                        .to(&[to])
                        .bytes(&payload)
                        .handles(&[node])
                        .send()
                    {
                        Ok(()) | Err(E::HOSTUNREACH) => (),
                        Err(errno) => panic!("SEND says {errno:?}"),
                    }
                    sender.expect_all();
                }
            });
        }
        for _ in 0..300 {
            receiver.flush(FLUSH).unwrap();
        }
    });
    receiver.flush(FLUSH).unwrap();
    receiver.expect_nothing();
}
