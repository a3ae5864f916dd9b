// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every fault that an earlier bus1 had, so that it does not come back. Some faults are elsewhere:
//! a stalled sender that blocked the receiver's close is in `stalled.rs`, different payloads of one
//! multicast are in `copies.rs`. A commit that is stored too weakly for causality shows on few
//! machines, so no case finds it: loom models of the core do (`transaction_tests.rs`,
//! `destroy_tests.rs`).

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::read_only;

#[case("abi.md#handle-pass")]
fn received_handles_were_not_usable(env: &Env) {
    let [a, b, c] = env.peers();
    let (to_b, to_c) = (a.handle_of(&b), b.handle_of(&c));
    let node = a.new_node();
    a.message().to(&[to_b]).handles(&[node]).send().unwrap();
    let at_b = b.expect_data().expect_handle();
    assert_eq!(b.message().to(&[at_b]).bytes(b"sent to").send(), Ok(()));
    assert_eq!(b.message().to(&[to_c]).handles(&[at_b]).send(), Ok(()));
    let at_c = c.expect_data().expect_handle();
    assert_eq!(c.message().to(&[at_c]).bytes(b"passed on").send(), Ok(()));
    assert_eq!(c.give(&b, at_c), Ok(at_b));
    a.expect_text(b"sent to");
    a.expect_text(b"passed on");
    assert_eq!(b.release(at_b), Ok(()));
    assert_eq!(b.release(at_b), Ok(()));
    assert_eq!(c.release(at_c), Ok(()));
    a.expect_node_release(node);
}

#[case("ordering.md#consistency")]
fn concurrent_senders_corrupted_the_queue(env: &Env) {
    let receivers: [Peer; 3] = env.peers();
    const SENDERS: u8 = 6;
    const ALL: u32 = 400;
    std::thread::scope(|scope| {
        for name in 0..SENDERS {
            let receivers = &receivers;
            scope.spawn(move || {
                let sender = env.peer();
                let to = receivers
                    .each_ref()
                    .map(|receiver| sender.handle_of(receiver));
                for i in 0..ALL {
                    let bytes = [&[name][..], &i.to_ne_bytes()].concat();
                    let first = i as usize % 3;
                    sender
                        .message()
                        .to(&to[first..])
                        .bytes(&bytes)
                        .send()
                        .unwrap();
                    if i % 16 == 0 {
                        // Nodes come and go in the queues as well.
                        let node = sender.new_node();
                        let id = sender.give(&receivers[first], node).unwrap();
                        sender.destroy_and_release(&[node]).unwrap();
                        receivers[first].release(id).unwrap();
                    }
                }
            });
        }
    });
    for (r, receiver) in receivers.iter().enumerate() {
        let mut next = [0; SENDERS as usize];
        for message in receiver.expect_all() {
            if message.msg.kind != abi::MSG_DATA {
                continue;
            }
            let expected = &mut next[message.bytes[0] as usize];
            while *expected % 3 > r as u32 {
                *expected += 1;
            }
            let i = u32::from_ne_bytes(message.bytes[1..].try_into().unwrap());
            assert_eq!(
                i, *expected,
                "of sender {} at receiver {r}",
                message.bytes[0]
            );
            *expected += 1;
        }
        let last = (0..ALL).rfind(|i| i % 3 <= r as u32).unwrap();
        assert_eq!(
            next,
            [last + 1; SENDERS as usize],
            "receiver {r} misses some"
        );
    }
}

#[case("abi.md#charge-conserved")]
fn counters_drifted_with_dead_handles(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    // Room for the receiver's node and four handles.
    receiver
        .limit(Limits {
            handles: 10,
            ..Limits::KEEP
        })
        .unwrap();
    for _ in 0..200 {
        let (node, id) = owner.node_for(&sender);
        sender
            .message()
            .to(&[to])
            .handles(&[id, id])
            .send()
            .unwrap();
        owner.destroy_and_release(&[node]).unwrap();
        sender
            .message()
            .to(&[to])
            .handles(&[id, id])
            .send()
            .unwrap();
        let early = receiver.expect_data().handles;
        assert_eq!(receiver.expect_node_destroy(early[0]).msg.n_handles, 0);
        assert_eq!(receiver.expect_data().handles, [abi::HANDLE_INVALID; 2]);
        receiver.release(early[0]).unwrap();
        receiver.release(early[1]).unwrap();
        sender.expect_node_destroy(id);
        sender.release(id).unwrap();
    }
    let nodes: [u64; 4] = std::array::from_fn(|_| sender.new_node());
    assert_eq!(sender.message().to(&[to]).handles(&nodes).send(), Ok(()));
    assert_eq!(
        sender.message().to(&[to]).handles(&nodes[..1]).send(),
        Err(E::DQUOT)
    );
}

#[case("abi.md#every-bounded")]
fn unbounded_counts_exhausted_memory(env: &Env) {
    let peer = env.peer();
    // All of these would take more memory than there is, if they were believed.
    for huge in [1 << 31, 1 << 40, 1 << 61, u64::MAX / 8, u64::MAX] {
        assert_eq!(
            peer.message().edit(|arg| arg.n_vecs = huge).send(),
            Err(E::MSGSIZE)
        );
        assert_eq!(
            peer.message().edit(|arg| arg.n_fds = huge).send(),
            Err(E::MSGSIZE)
        );
        assert_eq!(
            peer.message().edit(|arg| arg.n_destinations = huge).send(),
            Err(E::MSGSIZE)
        );
        assert_eq!(
            peer.message().edit(|arg| arg.n_handles = huge).send(),
            Err(E::INVAL)
        );
        let mut destroy = abi::CmdNodesDestroy {
            flags: 0,
            ptr_nodes: 8,
            n_nodes: huge,
        };
        assert_eq!(
            peer.command(abi::CMD_NODES_DESTROY, &mut destroy),
            Err(E::INVAL)
        );
    }
    // As many as are allowed, from memory that is not there: cheap as well.
    let most = u64::from(env.bus().user_limits().handles);
    for _ in 0..200 {
        assert_eq!(
            peer.message().edit(|arg| arg.n_destinations = most).send(),
            Err(E::FAULT)
        );
        assert_eq!(
            peer.message().edit(|arg| arg.n_handles = most).send(),
            Err(E::FAULT)
        );
    }
}

#[case("abi.md#send-each")]
fn only_one_element_worked(env: &Env) {
    let [a, b] = env.peers();
    for n in [2, 3, 5, 17, 100] {
        let pairs: Vec<_> = (0..n).map(|_| b.node_for(&a)).collect();
        let to: Vec<_> = pairs.iter().map(|&(_, to)| to).collect();
        let nodes: Vec<_> = (0..n).map(|_| a.new_node()).collect();
        a.message().to(&to).handles(&nodes).send().unwrap();
        for &(node, _) in &pairs {
            let message = b.expect_data();
            assert_eq!(message.msg.destination, node);
            for (&id, &node) in message.handles.iter().zip(&nodes) {
                b.message().to(&[id]).send().unwrap();
                let msg = a.expect_data().msg;
                assert_eq!(msg.destination, node);
                a.release_slice(msg.offset).unwrap();
            }
        }
        let gone: Vec<_> = pairs.iter().map(|&(node, _)| node).collect();
        b.destroy_and_release(&gone).unwrap();
        for id in to {
            a.expect_node_destroy(id);
        }
    }
}

#[case("abi.md#send-enotuniq", "abi.md#destroy-enotuniq")]
fn an_id_twice_linked_one_entry_twice(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = b.node_for(&a);
    assert_eq!(a.message().to(&[to, to]).send(), Err(E::NOTUNIQ));
    assert_eq!(b.destroy(&[node, node]), Err(E::NOTUNIQ));
    let own = a.new_node();
    assert_eq!(a.message().to(&[to]).handles(&[own, own]).send(), Ok(()));
    let ids = b.expect_data().handles;
    assert_eq!(ids[0], ids[1]);
    assert_eq!(
        [0; 3].map(|_| b.release(ids[0])),
        [Ok(()), Ok(()), Err(E::NXIO)]
    );
    assert_eq!(b.destroy(&[node]), Ok(()));
    a.expect_node_release(own);
    a.expect_node_destroy(to);
    a.expect_nothing();
    b.expect_node_destroy(node);
    b.expect_nothing();
}

#[case("abi.md#release-enxio")]
fn release_returned_0_on_failure(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.release(UNKNOWN_ID), Err(E::NXIO));
    assert_eq!(peer.release(8), Err(E::BUSY));
    assert_eq!(peer.release_slice(8), Err(E::NXIO));
}

#[case("abi.md#recv-efault")]
fn copy_out_fault_lost_the_message(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).bytes(b"not lost").send().unwrap();
    let page = read_only(
        &abi::CmdRecv {
            max_offset: a.mapped(),
            ..Default::default()
        }
        .to_bytes(),
    );
    assert_eq!(a.ioctl(abi::CMD_RECV, page.addr(0)), Err(E::FAULT));
    a.expect_text(b"not lost");
}

#[case("ordering.md#flag")]
fn continue_promised_parts_that_never_came(env: &Env) {
    let [sender, a] = env.peers();
    let (_, live) = a.node_for(&sender);
    let (node, dead) = a.node_for(&sender);
    a.destroy_and_release(&[node]).unwrap();
    sender.message().to(&[live, dead]).proceed().send().unwrap();
    assert!(!a.expect_data().more());
    a.expect_nothing();
}

#[case("abi.md#release-enxio")]
fn releasing_a_released_id_crashed(env: &Env) {
    let [a, b] = env.peers();
    for _ in 0..50 {
        let id = b.handle_of(&a);
        assert_eq!(b.release(id), Ok(()));
        for _ in 0..5 {
            assert_eq!(b.release(id), Err(E::NXIO));
        }
    }
}

#[case("abi.md#notify-destroy")]
fn late_holders_were_never_notified(env: &Env) {
    let [owner, late] = env.peers();
    let to = owner.handle_of(&late);
    let node = owner.new_node();
    owner.message().to(&[to]).handles(&[node]).send().unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    let id = late.expect_data().expect_handle();
    late.expect_node_destroy(id);
}

#[case("ordering.md#consistency")]
fn order_was_causal_only(env: &Env) {
    let receivers: [Peer; 2] = env.peers();
    let senders: [Peer; 2] = env.peers();
    let to = senders.each_ref().map(|sender| {
        receivers
            .each_ref()
            .map(|receiver| sender.handle_of(receiver))
    });
    for round in 0..300_u32 {
        std::thread::scope(|scope| {
            for (s, sender) in senders.iter().enumerate() {
                let mut to = to[s];
                to.rotate_left(s);
                scope.spawn(move || {
                    sender.message().to(&to).bytes(&[s as u8]).send().unwrap();
                });
            }
        });
        let seen = receivers
            .each_ref()
            .map(|receiver| [0; 2].map(|_| receiver.expect_data().bytes[0]));
        assert_eq!(seen[0], seen[1], "round {round}");
    }
}

#[case("abi.md#charge-fds")]
fn descriptors_were_not_accounted(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    let to = sender.handle_of(&receiver);
    let null = File::open("/dev/null").unwrap();
    let mut sent = 0;
    let refused = loop {
        match sender
            .message()
            .to(&[to])
            .fds(&[null.as_raw_fd(); 16])
            .send()
        {
            Ok(()) => sent += 16,
            Err(errno) => break errno,
        }
        assert!(sent <= 4096, "nobody counts");
    };
    assert_eq!(refused, E::DQUOT);
}

#[case("abi.md#limit-edquot")]
fn quota_was_never_charged(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    let to = sender.handle_of(&receiver);
    let limits = receiver.expect_limits();
    let mut sent = 0;
    while sender.message().to(&[to]).send().is_ok() {
        sent += 1;
        assert!(sent <= limits.slices, "nobody counts");
    }
    receiver.expect_all();
    let most = vec![0; limits.bytes as usize / 8 + 1];
    assert_eq!(
        sender.message().to(&[to]).bytes(&most).send(),
        Err(E::MSGSIZE)
    );
    assert_eq!(
        sender
            .message()
            .to(&[to])
            .bytes(&most[..most.len() / 2])
            .send(),
        Ok(())
    );
}

#[case("abi.md#send-continue")]
fn partial_multicast_was_missing(env: &Env) {
    let [sender, a, b] = env.peers();
    let (to_a, to_b) = (sender.handle_of(&a), sender.handle_of(&b));
    a.close();
    sender.expect_node_destroy(to_a);
    let outcome = sender
        .message()
        .to(&[to_a, to_b])
        .bytes(b"part")
        .proceed()
        .outcome();
    assert_eq!(
        (outcome.result, &*outcome.errors),
        (Ok(()), &[libc::EHOSTUNREACH, 0][..])
    );
    b.expect_text(b"part");
}

#[case("abi.md#send-seed")]
fn seed_was_always_an_error(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.message().bytes(b"seed").seed().send(), Ok(()));
    assert_eq!(peer.recv_seed().unwrap().bytes, b"seed");
}
