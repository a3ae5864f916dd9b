// SPDX-License-Identifier: MIT OR Apache-2.0

//! SEND to many destinations.

use std::io::Read;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;

use crate::client::{Limits, Peer};
use crate::env::Env;
use crate::host::Errno as E;

#[case("abi.md#send-each")]
fn every_receiver_gets_the_payload(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 5] = env.peers();
    let pairs = receivers
        .each_ref()
        .map(|receiver| receiver.node_for(&sender));
    sender
        .message()
        .to(&pairs.map(|(_, to)| to))
        .bytes(b"to all")
        .send()
        .unwrap();
    for (receiver, (node, _)) in receivers.iter().zip(pairs) {
        let message = receiver.expect_text(b"to all");
        assert_eq!((message.msg.destination, message.msg.flags), (node, 0));
        receiver.expect_nothing();
    }
}

#[case("abi.md#send-each")]
fn a_hundred_receivers(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 100] = env.peers();
    let to = receivers
        .each_ref()
        .map(|receiver| sender.handle_of(receiver));
    for round in 0..5_u8 {
        sender.message().to(&to).bytes(&[round; 99]).send().unwrap();
    }
    for receiver in &receivers {
        for round in 0..5_u8 {
            receiver.expect_text(&[round; 99]);
        }
        receiver.expect_nothing();
    }
}

#[case("ordering.md#ready")]
fn all_are_readable_when_send_returns(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 10] = env.peers();
    let to = receivers
        .each_ref()
        .map(|receiver| sender.handle_of(receiver));
    for _ in 0..20 {
        sender.message().to(&to).send().unwrap();
        for receiver in receivers.iter().rev() {
            assert!(receiver.events().readable);
            receiver.expect_data();
            assert!(!receiver.events().readable);
        }
    }
}

#[case("ordering.md#consecutive")]
fn parts_for_one_peer_are_consecutive(env: &Env) {
    let [a, b, sender] = env.peers();
    let at_a = [0; 3].map(|_| a.node_for(&sender));
    let at_b = [0; 2].map(|_| b.node_for(&sender));
    // Named in turns, received in a row.
    let to = [at_a[0].1, at_b[0].1, at_a[1].1, at_b[1].1, at_a[2].1];
    sender.message().to(&to).bytes(b"first").send().unwrap();
    sender.message().to(&to).bytes(b"second").send().unwrap();
    for text in [&b"first"[..], b"second"] {
        for (node, _) in at_a {
            assert_eq!(a.expect_text(text).msg.destination, node);
        }
        for (node, _) in at_b {
            assert_eq!(b.expect_text(text).msg.destination, node);
        }
    }
}

#[case("ordering.md#consecutive", "abi.md#send-each")]
fn parts_come_in_the_order_named(env: &Env) {
    let [receiver, sender] = env.peers();
    let pairs: [(u64, u64); 8] = std::array::from_fn(|_| receiver.node_for(&sender));
    for order in [
        [3, 1, 4, 0, 5, 2, 6, 7],
        [7, 6, 5, 4, 3, 2, 1, 0],
        [0, 2, 4, 6, 1, 3, 5, 7],
    ] {
        sender
            .message()
            .to(&order.map(|i: usize| pairs[i].1))
            .send()
            .unwrap();
        assert_eq!(
            order.map(|_| receiver.expect_data().msg.destination),
            order.map(|i| pairs[i].0)
        );
    }
}

#[case("ordering.md#flag", "abi.md#recv-continue")]
fn every_part_but_the_last_is_flagged(env: &Env) {
    let [receiver, sender] = env.peers();
    let to: Vec<_> = (0..6).map(|_| sender.handle_of(&receiver)).collect();
    for n in 1..=6 {
        sender.message().to(&to[..n]).send().unwrap();
        for i in 0..n {
            assert_eq!(receiver.expect_data().more(), i + 1 < n, "part {i} of {n}");
        }
    }
}

#[case("ordering.md#flag")]
fn flags_are_counted_per_peer(env: &Env) {
    let [a, b, sender] = env.peers();
    let to = [&a, &b, &a, &b, &b].map(|receiver| sender.handle_of(receiver));
    sender.message().to(&to).send().unwrap();
    assert_eq!([0; 2].map(|_| a.expect_data().more()), [true, false]);
    assert_eq!([0; 3].map(|_| b.expect_data().more()), [true, true, false]);
}

#[case("ordering.md#consecutive")]
fn parts_to_the_sender_itself(env: &Env) {
    let [other, sender] = env.peers();
    let to_other = sender.handle_of(&other);
    let (first, second) = (sender.new_node(), sender.new_node());
    sender
        .message()
        .to(&[first, to_other, second])
        .bytes(b"us")
        .send()
        .unwrap();
    other.expect_text(b"us");
    let part = sender.expect_text(b"us");
    assert_eq!((part.msg.destination, part.more()), (first, true));
    let part = sender.expect_text(b"us");
    assert_eq!((part.msg.destination, part.more()), (second, false));
    sender.expect_nothing();
}

#[case("abi.md#send-enotuniq")]
fn destination_named_twice_is_enotuniq(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let other = a.handle_of(&b);
    assert_eq!(a.message().to(&[to, to]).send(), Err(E::NOTUNIQ));
    assert_eq!(a.message().to(&[to, other, to]).send(), Err(E::NOTUNIQ));
    let outcome = a.message().to(&[other, to, to]).outcome();
    assert_eq!(outcome.result, Err(E::NOTUNIQ));
    assert_eq!(outcome.errors, [0, 0, libc::ENOTUNIQ]);
    b.expect_nothing();
    a.message().to(&[to, other]).send().unwrap();
    assert!(b.expect_data().more());
    assert!(!b.expect_data().more());
}

#[case("abi.md#send-enotuniq")]
fn unknown_clear_id_named_twice_is_enotuniq(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.message().to(&[400, 404, 400]).send(), Err(E::NOTUNIQ));
    peer.expect_nothing();
    peer.message().to(&[400, 404]).send().unwrap();
    assert_eq!(
        [0; 2].map(|_| peer.expect_data().msg.destination),
        [400, 404]
    );
}

#[case("ordering.md#whole")]
fn one_failure_stops_all(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 4] = env.peers();
    let pairs = receivers
        .each_ref()
        .map(|receiver| receiver.node_for(&sender));
    for (i, receiver) in receivers.iter().enumerate() {
        let (node, _) = pairs[i];
        receiver.destroy_and_release(&[node]).unwrap();
        let to = pairs.map(|(_, to)| to);
        let outcome = sender.message().to(&to).bytes(b"never").outcome();
        assert_eq!(outcome.result, Err(E::HOSTUNREACH));
        assert_eq!(
            outcome.errors[0],
            libc::EHOSTUNREACH,
            "the first one that fails"
        );
        for receiver in &receivers {
            receiver.expect_nothing();
        }
    }
}

#[case("ordering.md#whole")]
fn one_full_receiver_stops_all(env: &Env) {
    let [a, b, c, sender] = env.peers();
    let to = [&a, &b, &c].map(|receiver| sender.handle_of(receiver));
    b.limit(Limits {
        slices: 2,
        ..Limits::KEEP
    })
    .unwrap();
    sender.message().to(&to).bytes(b"fits").send().unwrap();
    let outcome = sender.message().to(&to).bytes(b"does not").outcome();
    assert_eq!(
        (outcome.result, outcome.errors[1]),
        (Err(E::DQUOT), libc::EDQUOT)
    );
    for receiver in [&a, &b, &c] {
        receiver.expect_text(b"fits");
        receiver.expect_nothing();
    }
}

#[case("abi.md#charge-conserved")]
fn refused_multicast_gives_charges_back(env: &Env) {
    let [a, b, sender] = env.peers();
    let to = [&a, &b].map(|receiver| sender.handle_of(receiver));
    a.limit(Limits {
        slices: 8,
        bytes: 80,
        ..Limits::KEEP
    })
    .unwrap();
    b.limit(Limits {
        slices: 0,
        ..Limits::KEEP
    })
    .unwrap();
    for _ in 0..100 {
        assert_eq!(
            sender.message().to(&to).bytes(&[1; 40]).send(),
            Err(E::DQUOT)
        );
    }
    for _ in 0..4 {
        assert_eq!(sender.message().to(&to[..1]).bytes(&[1; 10]).send(), Ok(()));
    }
    assert_eq!(sender.message().to(&to[..1]).send(), Err(E::DQUOT));
}

#[case("abi.md#charge-slices")]
fn each_part_is_charged(env: &Env) {
    let [receiver, sender] = env.peers();
    let to: Vec<_> = (0..5).map(|_| sender.handle_of(&receiver)).collect();
    receiver
        .limit(Limits {
            slices: 8,
            ..Limits::KEEP
        })
        .unwrap();
    assert_eq!(sender.message().to(&to).send(), Err(E::DQUOT));
    assert_eq!(sender.message().to(&to[..4]).send(), Ok(()));
    assert_eq!(sender.message().to(&to[..1]).send(), Err(E::DQUOT));
}

#[case("abi.md#recv-handles")]
fn each_receiver_has_its_own_handle(env: &Env) {
    let [a, b, sender] = env.peers();
    let to = [&a, &b].map(|receiver| sender.handle_of(receiver));
    let node = sender.new_node();
    sender.message().to(&to).handles(&[node]).send().unwrap();
    let at_a = a.expect_data().expect_handle();
    let at_b = b.expect_data().expect_handle();
    a.message().to(&[at_a]).bytes(b"a").send().unwrap();
    b.message().to(&[at_b]).bytes(b"b").send().unwrap();
    sender.expect_text(b"a");
    sender.expect_text(b"b");
    a.release(at_a).unwrap();
    sender.expect_nothing();
    b.release(at_b).unwrap();
    sender.expect_node_release(node);
}

#[case("abi.md#recv-fds")]
fn each_receiver_has_its_own_descriptor(env: &Env) {
    let [a, b, sender] = env.peers();
    let to = [&a, &b].map(|receiver| sender.handle_of(receiver));
    let (mut out, into) = std::io::pipe().unwrap();
    sender
        .message()
        .to(&to)
        .fds(&[into.as_raw_fd()])
        .send()
        .unwrap();
    drop(into);
    for receiver in [&a, &b] {
        let fds = receiver.expect_data().fds;
        assert_eq!(rustix::io::write(&fds[0], b"."), Ok(1));
    }
    let mut all = Vec::new();
    out.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"..", "both wrote, both have closed");
}

#[case("abi.md#handle-pass")]
fn destination_may_be_a_handle_too(env: &Env) {
    let [a, b, sender] = env.peers();
    let (node, to_a) = a.node_for(&sender);
    let to_b = sender.handle_of(&b);
    sender
        .message()
        .to(&[to_a, to_b])
        .handles(&[to_a, to_b])
        .send()
        .unwrap();
    let message = a.expect_data();
    assert_eq!(message.handles[0], node, "the owner's own ID");
    let ids = b.expect_data().handles;
    b.message().to(&[ids[0]]).bytes(b"b to a").send().unwrap();
    a.expect_text(b"b to a");
}

#[case("abi.md#slice-lives")]
fn slices_are_released_one_by_one(env: &Env) {
    let [a, b, sender] = env.peers();
    let to = [&a, &b].map(|receiver| sender.handle_of(receiver));
    sender.message().to(&to).bytes(b"shared?").send().unwrap();
    let at_a = a.expect_text(b"shared?").msg.offset;
    a.release_slice(at_a).unwrap();
    let message = b.expect_text(b"shared?");
    assert_eq!(b.read_pool(message.msg.offset, 7), b"shared?");
    b.release_slice(message.msg.offset).unwrap();
    assert_eq!(b.release_slice(message.msg.offset), Err(E::NXIO));
}

#[case("abi.md#send-copy")]
fn large_payload_to_many(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 4] = env.peers();
    let to = receivers
        .each_ref()
        .map(|receiver| sender.handle_of(receiver));
    let bytes: Vec<u8> = (0..300_007_u32).map(|i| (i % 253) as u8).collect();
    let (head, tail) = bytes.split_at(123_457);
    sender
        .message()
        .to(&to)
        .bytes(head)
        .bytes(tail)
        .send()
        .unwrap();
    for receiver in &receivers {
        assert!(
            receiver.expect_data().bytes == bytes,
            "the payload was changed on the way"
        );
    }
}
