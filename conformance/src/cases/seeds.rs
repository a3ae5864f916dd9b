// SPDX-License-Identifier: MIT OR Apache-2.0

//! The seed: a message that a peer keeps for itself.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{read_only, NOWHERE};

fn seed(peer: &Peer, bytes: &[u8]) {
    peer.message()
        .bytes(bytes)
        .seed()
        .send()
        .expect("SEND of a seed");
}

#[case("abi.md#recv-eagain-seed")]
fn none_is_eagain(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).bytes(b"no seed").send().unwrap();
    assert_eq!(
        a.receive().flags(abi::RECV_FLAG_SEED).expect_errno(),
        E::AGAIN
    );
    a.expect_text(b"no seed");
}

#[case("abi.md#seed-again")]
fn delivered_again_and_again(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"state of the service");
    for _ in 0..5 {
        let message = peer.recv_seed().unwrap();
        assert_eq!(
            (message.msg.kind, &*message.bytes),
            (abi::MSG_DATA, &b"state of the service"[..])
        );
    }
    peer.expect_nothing();
}

#[case("abi.md#seed-receipt")]
fn each_receipt_has_its_own_slice(env: &Env) {
    let [peer, sender] = env.peers();
    let to = sender.handle_of(&peer);
    seed(&peer, &[5; 100]);
    let mut offsets = Vec::new();
    for _ in 0..5 {
        sender.expect_sent(to, &[6; 100]);
        offsets.push(peer.expect_data().msg.offset);
        offsets.push(peer.recv_seed().unwrap().msg.offset);
    }
    let unique: HashSet<_> = offsets.iter().collect();
    assert_eq!(unique.len(), offsets.len(), "{offsets:x?}");
    // Each of them is released without the others.
    while let Some(offset) = offsets.pop() {
        assert_eq!(peer.release_slice(offset), Ok(()));
        assert_eq!(peer.release_slice(offset), Err(E::NXIO));
        for pair in offsets.chunks_exact(2) {
            assert_eq!(peer.read_pool(pair[0], 100), [6; 100]);
            assert_eq!(peer.read_pool(pair[1], 100), [5; 100]);
        }
    }
    assert_eq!(peer.recv_seed().unwrap().bytes, [5; 100]);
}

#[case("abi.md#seed-receipt", "abi.md#recv-handles", "abi.md#recv-fds")]
fn each_receipt_has_its_own_ids_and_numbers(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    let (mut out, into) = std::io::pipe().unwrap();
    let message = peer.message().bytes(b"odd").handles(&[remote]);
    message.fds(&[into.as_raw_fd()]).seed().send().unwrap();
    drop(into);
    peer.release(remote).unwrap();
    let first = peer.recv_seed().unwrap();
    let second = peer.recv_seed().unwrap();
    assert_eq!(first.handles, second.handles, "one node, one handle");
    assert_ne!(first.fds[0].as_raw_fd(), second.fds[0].as_raw_fd());
    // The second receipt rewrote nothing in the slice of the first.
    let len = first.slice.len() as u64;
    assert_eq!(peer.read_pool(first.msg.offset, len), first.slice);
    // The first user gives all it has back; the second goes on with its own.
    peer.release_slice(first.msg.offset).unwrap();
    peer.release(first.expect_handle()).unwrap();
    drop(first.fds);
    assert_eq!(peer.read_pool(second.msg.offset, len), second.slice);
    peer.expect_sent(second.expect_handle(), b"still valid");
    assert_eq!(owner.expect_text(b"still valid").msg.destination, node);
    assert_eq!(rustix::io::write(&second.fds[0], b"."), Ok(1));
    drop(second.fds);
    peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    let mut all = Vec::new();
    out.read_to_end(&mut all).unwrap();
    assert_eq!(all, b".", "no descriptor is left open");
}

#[case("abi.md#seed-receipt")]
fn receipt_outlives_the_seed(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"first");
    let first = peer.recv_seed().unwrap().msg.offset;
    seed(&peer, b"other");
    let other = peer.recv_seed().unwrap().msg.offset;
    peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    seed(&peer, b"third");
    assert_eq!(peer.read_pool(first, 5), b"first");
    assert_eq!(peer.read_pool(other, 5), b"other");
    assert_eq!(peer.release_slice(first), Ok(()));
    assert_eq!(peer.release_slice(other), Ok(()));
}

#[case("abi.md#seed-charge", "abi.md#charge-seed", "abi.md#recv-edquot")]
fn unreleased_receipts_are_charged(env: &Env) {
    let peer = env.peer();
    // A peer may take half of its own limit: the seed and three receipts.
    let slices = 8;
    peer.limit(Limits {
        slices,
        ..Limits::KEEP
    })
    .unwrap();
    seed(&peer, b"again and again");
    let recv_seed = || peer.recv_seed().map(|message| message.msg.offset);
    let held = [(); 3].map(|()| recv_seed().unwrap());
    for _ in 0..3 {
        assert_eq!(recv_seed(), Err(E::DQUOT));
    }
    for offset in held {
        peer.release_slice(offset).unwrap();
        assert_eq!(
            recv_seed().and_then(|offset| peer.release_slice(offset)),
            Ok(())
        );
    }
    let held = [(); 3].map(|()| recv_seed().unwrap());
    assert_eq!(recv_seed(), Err(E::DQUOT));
    for offset in held {
        peer.release_slice(offset).unwrap();
    }
}

#[case("abi.md#send-seed")]
fn replaced_by_the_next(env: &Env) {
    let peer = env.peer();
    for i in 0..10_u8 {
        seed(&peer, &[i; 40]);
        assert_eq!(peer.recv_seed().unwrap().bytes, [i; 40]);
    }
    peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    assert_eq!(
        peer.receive().flags(abi::RECV_FLAG_SEED).expect_errno(),
        E::AGAIN
    );
}

#[case("abi.md#send-seed", "abi.md#no-trace")]
fn failed_send_keeps_the_one_before(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"good");
    assert_eq!(
        peer.message().vector(NOWHERE, 8).seed().send(),
        Err(E::FAULT)
    );
    assert_eq!(
        peer.message()
            .bytes(b"bad")
            .handles(&[UNKNOWN_ID])
            .seed()
            .send(),
        Err(E::NXIO)
    );
    assert_eq!(
        peer.message().bytes(b"bad").fds(&[-1]).seed().send(),
        Err(E::BADF)
    );
    let both = abi::SEND_FLAG_SEED | abi::SEND_FLAG_CONTINUE;
    assert_eq!(
        peer.message().bytes(b"bad").flags(both).send(),
        Err(E::INVAL)
    );
    assert_eq!(peer.recv_seed().unwrap().bytes, b"good");
}

#[case("abi.md#send-einval-seed")]
fn with_continue_is_einval(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.message().seed().proceed().send(), Err(E::INVAL));
    assert_eq!(
        peer.receive().flags(abi::RECV_FLAG_SEED).expect_errno(),
        E::AGAIN
    );
}

#[case("abi.md#send-einval-seed")]
fn with_destinations_is_einval(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    assert_eq!(a.message().to(&[to]).seed().send(), Err(E::INVAL));
    assert_eq!(a.message().to(&[to]).seed().proceed().send(), Err(E::INVAL));
    b.expect_nothing();
    assert_eq!(
        a.receive().flags(abi::RECV_FLAG_SEED).expect_errno(),
        E::AGAIN
    );
}

#[case("abi.md#seed-poll")]
fn apart_from_the_queue(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).bytes(b"one").send().unwrap();
    seed(&a, b"seed");
    b.message().to(&[to]).bytes(b"two").send().unwrap();
    assert_eq!(a.recv_seed().unwrap().bytes, b"seed");
    a.expect_text(b"one");
    assert_eq!(a.recv_seed().unwrap().bytes, b"seed");
    a.expect_text(b"two");
    a.expect_nothing();
}

#[case("abi.md#seed-poll")]
fn does_not_make_the_peer_readable(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"quiet");
    peer.expect_nothing();
    assert!(!peer.events().readable);
}

#[case("abi.md#seed-references", "abi.md#ref-seed")]
fn brings_handles(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    let own = peer.new_node();
    peer.message()
        .bytes(b"odd")
        .handles(&[remote, own])
        .seed()
        .send()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(peer.recv_seed().unwrap().handles, [remote, own]);
    }
    peer.message().to(&[remote]).send().unwrap();
    assert_eq!(owner.expect_data().msg.destination, node);
}

#[case("abi.md#seed-references", "abi.md#ref-seed")]
fn each_delivery_brings_a_reference(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    peer.message().handles(&[remote]).seed().send().unwrap();
    peer.release(remote).unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(peer.recv_seed().unwrap().expect_handle());
    }
    assert!(
        ids.iter().all(|&id| id == ids[0]),
        "one node, one handle: {ids:x?}"
    );
    peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    for _ in 0..3 {
        owner.expect_nothing();
        peer.release(ids[0]).unwrap();
    }
    owner.expect_node_release(node);
    assert_eq!(peer.release(ids[0]), Err(E::NXIO));
}

#[case("abi.md#ref-flight")]
fn holds_its_handles(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    peer.message().handles(&[remote]).seed().send().unwrap();
    peer.release(remote).unwrap();
    owner.expect_nothing();
    seed(&peer, b"another");
    owner.expect_node_release(node);
}

#[case("abi.md#id-clear")]
fn creates_the_named_nodes(env: &Env) {
    let peer = env.peer();
    peer.message().handles(&[700]).seed().send().unwrap();
    assert_eq!(peer.recv_seed().unwrap().handles, [700]);
    peer.message().to(&[700]).bytes(b"known").send().unwrap();
    peer.expect_text(b"known");
}

#[case("abi.md#send-dead")]
fn carries_a_destroyed_node_as_invalid(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    let own = peer.new_node();
    peer.message()
        .handles(&[remote, own])
        .seed()
        .send()
        .unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    peer.expect_node_destroy(remote);
    assert_eq!(
        peer.recv_seed().unwrap().handles,
        [abi::HANDLE_INVALID, own]
    );
    peer.destroy_and_release(&[own]).unwrap();
    assert_eq!(peer.recv_seed().unwrap().handles, [abi::HANDLE_INVALID; 2]);
}

#[case("abi.md#seed-references")]
fn brings_descriptors_each_time(env: &Env) {
    let peer = env.peer();
    let (mut out, into) = std::io::pipe().unwrap();
    peer.message()
        .fds(&[into.as_raw_fd()])
        .seed()
        .send()
        .unwrap();
    drop(into);
    for _ in 0..3 {
        let fds = peer.recv_seed().unwrap().fds;
        assert_eq!(rustix::io::write(&fds[0], b"."), Ok(1));
        let mut byte = [0; 1];
        out.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b".");
    }
}

#[case("abi.md#reset-flush-seed", "abi.md#fds-kept")]
fn dropped_seed_closes_its_descriptors(env: &Env) {
    let peer = env.peer();
    for drop_it in [
        |peer: &Peer| peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap(),
        |peer: &Peer| seed(peer, b"next"),
        |peer: &Peer| peer.disconnect().unwrap(),
    ] {
        let (mut out, into) = std::io::pipe().unwrap();
        peer.message()
            .fds(&[into.as_raw_fd()])
            .seed()
            .send()
            .unwrap();
        drop(into);
        drop_it(&peer);
        let mut all = Vec::new();
        out.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"");
    }
}

#[case("abi.md#seed-again")]
fn without_install_keeps_its_descriptors(env: &Env) {
    let peer = env.peer();
    let (_out, into) = std::io::pipe().unwrap();
    peer.message()
        .fds(&[into.as_raw_fd()])
        .seed()
        .send()
        .unwrap();
    let message = peer.receive().flags(abi::RECV_FLAG_SEED).run().unwrap();
    assert_eq!(message.msg.n_fds, 0);
    assert_eq!(peer.recv_seed().unwrap().fds.len(), 1);
}

#[case("abi.md#seed-again", "abi.md#seed-receipt")]
fn slice_release_does_not_take_it(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"rooted");
    for _ in 0..3 {
        let message = peer.recv_seed().unwrap();
        assert_eq!(message.bytes, b"rooted");
        let offset = message.msg.offset;
        assert_eq!(peer.release_slice(offset), Ok(()));
        assert_eq!(
            peer.release_slice(offset),
            Err(E::NXIO),
            "it was the only one"
        );
    }
    assert_eq!(peer.recv_seed().unwrap().bytes, b"rooted");
}

#[case("abi.md#recv-erange")]
fn beyond_max_offset_is_erange(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"far away");
    let refused = peer
        .receive()
        .flags(abi::RECV_FLAG_SEED)
        .max_offset(4)
        .expect_errno();
    assert_eq!(refused, E::RANGE);
    assert_eq!(peer.recv_seed().unwrap().bytes, b"far away");
}

#[case("abi.md#recv-efault")]
fn fault_on_the_way_out_gives_no_reference(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    peer.message().handles(&[remote]).seed().send().unwrap();
    peer.release(remote).unwrap();
    let flags = abi::RECV_FLAG_SEED;
    let arg = abi::CmdRecv {
        flags,
        max_offset: peer.mapped(),
        ..Default::default()
    };
    let page = read_only(&arg.to_bytes());
    for _ in 0..3 {
        assert_eq!(peer.ioctl(abi::CMD_RECV, page.addr(0)), Err(E::FAULT));
    }
    assert_eq!(
        peer.release(remote),
        Err(E::NXIO),
        "no reference was gained"
    );
    peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    owner.expect_node_release(node);
}

#[case("abi.md#charge-seed")]
fn charged_to_the_peer_itself(env: &Env) {
    let [peer, sender] = env.peers();
    let to = sender.handle_of(&peer);
    let slices = 2;
    peer.limit(Limits {
        slices,
        ..Limits::KEEP
    })
    .unwrap();
    for _ in 0..3 {
        seed(&peer, b"takes a slice");
        assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
        peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
        sender.message().to(&[to]).send().unwrap();
        assert_eq!(peer.message().seed().send(), Err(E::DQUOT));
        peer.expect_all();
    }
}

#[case(
    "abi.md#charge-seed",
    "abi.md#send-edquot",
    "abi.md#send-emsgsize-quota"
)]
fn over_quota_is_edquot(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"first");
    peer.limit(Limits {
        bytes: 40,
        ..Limits::KEEP
    })
    .unwrap();
    let sent = peer.message().bytes(&[1; 21]).seed().send();
    assert_eq!(sent, Err(E::MSGSIZE));
    // The seed before counts until it is replaced.
    assert_eq!(peer.message().bytes(&[1; 20]).seed().send(), Err(E::DQUOT));
    assert_eq!(peer.recv_seed().unwrap().bytes, b"first");
    peer.limit(Limits {
        slices: 0,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(peer.message().seed().send(), Err(E::DQUOT));
}

#[case("abi.md#seed-again", "abi.md#seed-pins")]
fn survives_the_restart_of_a_service(env: &Env) {
    let [service, client] = env.peers();
    let (node, to) = service.node_for(&client);
    for state in 0_u8..5 {
        // The service notes where it is, and is started anew on the same peer.
        service
            .message()
            .bytes(&[state])
            .handles(&[node])
            .seed()
            .send()
            .unwrap();
        client
            .message()
            .to(&[to])
            .bytes(b"lost in the restart")
            .send()
            .unwrap();
        service.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        let seed = service.recv_seed().unwrap();
        assert_eq!((&*seed.bytes, &*seed.handles), (&[state][..], &[node][..]));
        client.message().to(&[to]).bytes(b"next").send().unwrap();
        assert_eq!(service.expect_text(b"next").msg.destination, node);
    }
    client.expect_nothing();
}
