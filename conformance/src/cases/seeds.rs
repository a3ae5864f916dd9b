// SPDX-License-Identifier: MIT OR Apache-2.0

//! The seed: a message that a peer keeps for itself.

use std::io::Read;
use std::os::fd::AsRawFd;

use bus1_uapi as abi;

use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{read_only, NOWHERE};

pub const CASES: &[Case] = &[
    case!(none_is_eagain, "5 RECV: SEED: EAGAIN if there is none"),
    case!(delivered_again_and_again, "5 RECV: SEED: delivers the seed, which stays pinned"),
    case!(stays_at_the_same_offset, "5 RECV: SEED: stays pinned"),
    case!(replaced_by_the_next, "5 SEND: SEED: in place of the one before"),
    case!(failed_send_keeps_the_one_before, "5: a failed command leaves no trace"),
    case!(with_continue_is_einval, "5 SEND: SEED with CONTINUE EINVAL"),
    case!(with_destinations_is_einval, "5 SEND: SEED with destinations EINVAL"),
    case!(apart_from_the_queue, "5 RECV: SEED"),
    case!(does_not_make_the_peer_readable, "4 poll: POLLIN if something is ready"),
    case!(brings_handles, "5 RECV: SEED; handles get IDs and user references"),
    case!(each_delivery_brings_a_reference, "5 RECV: handles get IDs and user references"),
    case!(holds_its_handles, "2: a message in flight holds a reference for each handle"),
    case!(creates_the_named_nodes, "2: creates a node of that ID"),
    case!(carries_a_destroyed_node_as_invalid, "2: there the slot holds INVALID"),
    case!(brings_descriptors_each_time, "5 RECV: SEED; descriptors are installed"),
    case!(dropped_seed_closes_its_descriptors, "5 PEER_RESET: FLUSH_SEED drops the seed"),
    case!(without_install_keeps_its_descriptors, "5 RECV: SEED: stays pinned"),
    case!(slice_release_does_not_take_it, "5 RECV: SEED: stays pinned"),
    case!(beyond_max_offset_is_erange, "5 RECV: ERANGE, and the message stays"),
    case!(fault_on_the_way_out_gives_no_reference, "5: EFAULT on the way out included"),
    case!(charged_to_the_peer_itself, "7: slices"),
    case!(over_quota_is_edquot, "5 SEND: over quota EDQUOT"),
    case!(survives_the_restart_of_a_service, "5 RECV: a service can be restarted"),
];

fn seed(peer: &Peer, bytes: &[u8]) {
    peer.message().bytes(bytes).seed().send().expect("SEND of a seed");
}

fn none_is_eagain(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).bytes(b"no seed").send().unwrap();
    assert_eq!(a.receive().flags(abi::RECV_FLAG_SEED).refused(), E::AGAIN);
    a.text(b"no seed");
}

fn delivered_again_and_again(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"state of the service");
    for _ in 0..5 {
        let message = peer.recv_seed().unwrap();
        assert_eq!((message.msg.kind, &*message.bytes), (abi::MSG_DATA, &b"state of the service"[..]));
    }
    peer.nothing();
}

fn stays_at_the_same_offset(env: &Env) {
    let [peer, sender] = env.peers();
    let to = sender.handle_of(&peer);
    seed(&peer, &[5; 100]);
    let offset = peer.recv_seed().unwrap().msg.offset;
    for _ in 0..5 {
        sender.message().to(&[to]).bytes(&[6; 100]).send().unwrap();
        assert_ne!(peer.data().msg.offset, offset);
        assert_eq!(peer.recv_seed().unwrap().msg.offset, offset);
        assert_eq!(peer.read_pool(offset, 100), [5; 100]);
    }
}

fn replaced_by_the_next(env: &Env) {
    let peer = env.peer();
    for i in 0..10_u8 {
        seed(&peer, &[i; 40]);
        assert_eq!(peer.recv_seed().unwrap().bytes, [i; 40]);
    }
    peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    assert_eq!(peer.receive().flags(abi::RECV_FLAG_SEED).refused(), E::AGAIN);
}

fn failed_send_keeps_the_one_before(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"good");
    assert_eq!(peer.message().vector(NOWHERE, 8).seed().send(), Err(E::FAULT));
    assert_eq!(peer.message().bytes(b"bad").handles(&[0x7f3]).seed().send(), Err(E::NXIO));
    assert_eq!(peer.message().bytes(b"bad").fds(&[-1]).seed().send(), Err(E::BADF));
    let both = abi::SEND_FLAG_SEED | abi::SEND_FLAG_CONTINUE;
    assert_eq!(peer.message().bytes(b"bad").flags(both).send(), Err(E::INVAL));
    assert_eq!(peer.recv_seed().unwrap().bytes, b"good");
}

fn with_continue_is_einval(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.message().seed().proceed().send(), Err(E::INVAL));
    assert_eq!(peer.receive().flags(abi::RECV_FLAG_SEED).refused(), E::AGAIN);
}

fn with_destinations_is_einval(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    assert_eq!(a.message().to(&[to]).seed().send(), Err(E::INVAL));
    assert_eq!(a.message().to(&[to]).seed().proceed().send(), Err(E::INVAL));
    b.nothing();
    assert_eq!(a.receive().flags(abi::RECV_FLAG_SEED).refused(), E::AGAIN);
}

fn apart_from_the_queue(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).bytes(b"one").send().unwrap();
    seed(&a, b"seed");
    b.message().to(&[to]).bytes(b"two").send().unwrap();
    assert_eq!(a.recv_seed().unwrap().bytes, b"seed");
    a.text(b"one");
    assert_eq!(a.recv_seed().unwrap().bytes, b"seed");
    a.text(b"two");
    a.nothing();
}

fn does_not_make_the_peer_readable(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"quiet");
    peer.nothing();
    assert!(!peer.events().readable);
}

fn brings_handles(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    let own = peer.new_node();
    peer.message().bytes(b"odd").handles(&[remote, own]).seed().send().unwrap();
    for _ in 0..3 {
        assert_eq!(peer.recv_seed().unwrap().handles, [remote, own]);
    }
    peer.message().to(&[remote]).send().unwrap();
    assert_eq!(owner.data().msg.destination, node);
}

fn each_delivery_brings_a_reference(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    peer.message().handles(&[remote]).seed().send().unwrap();
    peer.release(remote).unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(peer.recv_seed().unwrap().handle());
    }
    assert!(ids.iter().all(|&id| id == ids[0]), "one node, one handle: {ids:x?}");
    peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    for _ in 0..3 {
        owner.nothing();
        peer.release(ids[0]).unwrap();
    }
    owner.node_release(node);
    assert_eq!(peer.release(ids[0]), Err(E::NXIO));
}

fn holds_its_handles(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    peer.message().handles(&[remote]).seed().send().unwrap();
    peer.release(remote).unwrap();
    owner.nothing();
    seed(&peer, b"another");
    owner.node_release(node);
}

fn creates_the_named_nodes(env: &Env) {
    let peer = env.peer();
    peer.message().handles(&[700]).seed().send().unwrap();
    assert_eq!(peer.recv_seed().unwrap().handles, [700]);
    peer.message().to(&[700]).bytes(b"known").send().unwrap();
    peer.text(b"known");
}

fn carries_a_destroyed_node_as_invalid(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    let own = peer.new_node();
    peer.message().handles(&[remote, own]).seed().send().unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    peer.node_destroy(remote);
    assert_eq!(peer.recv_seed().unwrap().handles, [abi::HANDLE_INVALID, own]);
    peer.destroy_and_release(&[own]).unwrap();
    assert_eq!(peer.recv_seed().unwrap().handles, [abi::HANDLE_INVALID; 2]);
}

fn brings_descriptors_each_time(env: &Env) {
    let peer = env.peer();
    let (mut out, into) = std::io::pipe().unwrap();
    peer.message().fds(&[into.as_raw_fd()]).seed().send().unwrap();
    drop(into);
    for _ in 0..3 {
        let fds = peer.recv_seed().unwrap().fds;
        assert_eq!(rustix::io::write(&fds[0], b"."), Ok(1));
        let mut byte = [0; 1];
        out.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b".");
    }
}

fn dropped_seed_closes_its_descriptors(env: &Env) {
    let peer = env.peer();
    for drop_it in [
        |peer: &Peer| peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap(),
        |peer: &Peer| seed(peer, b"next"),
        |peer: &Peer| peer.disconnect().unwrap(),
    ] {
        let (mut out, into) = std::io::pipe().unwrap();
        peer.message().fds(&[into.as_raw_fd()]).seed().send().unwrap();
        drop(into);
        drop_it(&peer);
        let mut all = Vec::new();
        out.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"");
    }
}

fn without_install_keeps_its_descriptors(env: &Env) {
    let peer = env.peer();
    let (_out, into) = std::io::pipe().unwrap();
    peer.message().fds(&[into.as_raw_fd()]).seed().send().unwrap();
    let message = peer.receive().flags(abi::RECV_FLAG_SEED).run().unwrap();
    assert_eq!(message.msg.n_fds, 0);
    assert_eq!(peer.recv_seed().unwrap().fds.len(), 1);
}

fn slice_release_does_not_take_it(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"rooted");
    for _ in 0..3 {
        let message = peer.recv_seed().unwrap();
        assert_eq!(peer.release_slice(message.msg.offset), Ok(()));
        assert_eq!(peer.release_slice(message.msg.offset), Err(E::NXIO), "once is enough");
        assert_eq!(peer.read_pool(message.msg.offset, 6), b"rooted");
    }
    let again = peer.recv_seed().unwrap();
    assert_eq!(again.bytes, b"rooted");
}

fn beyond_max_offset_is_erange(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"far away");
    let refused = peer.receive().flags(abi::RECV_FLAG_SEED).max_offset(4).refused();
    assert_eq!(refused, E::RANGE);
    assert_eq!(peer.recv_seed().unwrap().bytes, b"far away");
}

fn fault_on_the_way_out_gives_no_reference(env: &Env) {
    let [peer, owner] = env.peers();
    let (node, remote) = owner.node_for(&peer);
    peer.message().handles(&[remote]).seed().send().unwrap();
    peer.release(remote).unwrap();
    let flags = abi::RECV_FLAG_SEED;
    let arg = abi::CmdRecv { flags, max_offset: peer.mapped(), ..Default::default() };
    let page = read_only(&arg.to_bytes());
    for _ in 0..3 {
        assert_eq!(peer.ioctl(abi::CMD_RECV, page.addr(0)), Err(E::FAULT));
    }
    assert_eq!(peer.release(remote), Err(E::NXIO), "no reference was gained");
    peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    owner.node_release(node);
}

fn charged_to_the_peer_itself(env: &Env) {
    let [peer, sender] = env.peers();
    let to = sender.handle_of(&peer);
    peer.limit([2, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    for _ in 0..3 {
        seed(&peer, b"takes a slice");
        let offset = peer.recv_seed().unwrap().msg.offset;
        peer.release_slice(offset).unwrap();
        assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
        peer.flush(abi::PEER_RESET_FLAG_FLUSH_SEED).unwrap();
        sender.message().to(&[to]).send().unwrap();
        assert_eq!(peer.message().seed().send(), Err(E::DQUOT));
        peer.drain();
    }
}

fn over_quota_is_edquot(env: &Env) {
    let peer = env.peer();
    seed(&peer, b"first");
    peer.limit([u32::MAX, u32::MAX, 10, u32::MAX]).unwrap();
    assert_eq!(peer.message().bytes(&[1; 11]).seed().send(), Err(E::DQUOT));
    assert_eq!(peer.recv_seed().unwrap().bytes, b"first");
    peer.limit([0, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    assert_eq!(peer.message().seed().send(), Err(E::DQUOT));
}

fn survives_the_restart_of_a_service(env: &Env) {
    let [service, client] = env.peers();
    let (node, to) = service.node_for(&client);
    for state in 0_u8..5 {
        // The service notes where it is, and is started anew on the same peer.
        service.message().bytes(&[state]).handles(&[node]).seed().send().unwrap();
        client.message().to(&[to]).bytes(b"lost in the restart").send().unwrap();
        service.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        let seed = service.recv_seed().unwrap();
        assert_eq!((&*seed.bytes, &*seed.handles), (&[state][..], &[node][..]));
        client.message().to(&[to]).bytes(b"next").send().unwrap();
        assert_eq!(service.text(b"next").msg.destination, node);
    }
    client.nothing();
}
