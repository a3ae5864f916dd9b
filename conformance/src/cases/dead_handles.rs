// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles in messages, around the destruction of their nodes.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;

const INVALID: u64 = abi::HANDLE_INVALID;

#[case("abi.md#send-dead", "ordering.md#slots")]
fn sent_after_the_destruction_is_invalid(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    let to = sender.handle_of(&receiver);
    owner.destroy_and_release(&[node]).unwrap();
    sender
        .message()
        .to(&[to])
        .bytes(b"dead")
        .handles(&[at_sender])
        .send()
        .unwrap();
    assert_eq!(receiver.expect_text(b"dead").handles, [INVALID]);
    receiver.expect_nothing();
}

#[case("abi.md#send-dead")]
fn array_keeps_its_length(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let pairs: [(u64, u64); 5] = std::array::from_fn(|_| owner.node_for(&sender));
    let to = sender.handle_of(&receiver);
    owner
        .destroy_and_release(&[pairs[1].0, pairs[3].0])
        .unwrap();
    let named = pairs.map(|(_, id)| id);
    sender
        .message()
        .to(&[to])
        .bytes(b"x")
        .handles(&named)
        .send()
        .unwrap();
    let message = receiver.expect_text(b"x");
    assert_eq!(message.msg.n_handles, 5);
    assert_eq!(message.handles[1], INVALID);
    assert_eq!(message.handles[3], INVALID);
    for i in [0, 2, 4] {
        receiver.message().to(&[message.handles[i]]).send().unwrap();
        assert_eq!(owner.expect_data().msg.destination, pairs[i].0);
    }
}

#[case("abi.md#send-dead", "ordering.md#slots")]
fn sent_before_the_destruction_is_valid(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    let to = sender.handle_of(&receiver);
    sender
        .message()
        .to(&[to])
        .handles(&[at_sender])
        .send()
        .unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    let id = receiver.expect_data().expect_handle();
    assert_ne!(id, INVALID);
    receiver.expect_node_destroy(id);
    receiver.expect_nothing();
    assert_eq!(receiver.message().to(&[id]).send(), Err(E::HOSTUNREACH));
    assert_eq!(receiver.release(id), Ok(()));
    assert_eq!(receiver.release(id), Err(E::NXIO));
}

#[case("abi.md#notify-destroy", "ordering.md#slots")]
fn late_holder_is_notified(env: &Env) {
    // Several messages are on their way when the node dies, each to a peer that holds nothing yet.
    let [owner, sender] = env.peers();
    let receivers: [Peer; 4] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    for receiver in &receivers {
        let to = sender.handle_of(receiver);
        sender
            .message()
            .to(&[to])
            .handles(&[at_sender])
            .send()
            .unwrap();
        sender
            .message()
            .to(&[to])
            .handles(&[at_sender, at_sender])
            .send()
            .unwrap();
    }
    owner.destroy_and_release(&[node]).unwrap();
    for receiver in &receivers {
        let id = receiver.expect_data().expect_handle();
        assert_ne!(id, INVALID);
        assert_eq!(receiver.expect_data().handles, [id, id]);
        receiver.expect_node_destroy(id);
        receiver.expect_nothing();
    }
}

#[case("abi.md#notify-destroy")]
fn late_holder_that_had_it_is_notified_once(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    let at_receiver = owner.give(&receiver, node).unwrap();
    let to = sender.handle_of(&receiver);
    sender
        .message()
        .to(&[to])
        .handles(&[at_sender])
        .send()
        .unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    assert_eq!(receiver.expect_data().expect_handle(), at_receiver);
    receiver.expect_node_destroy(at_receiver);
    receiver.expect_nothing();
}

#[case("abi.md#send-dead")]
fn owner_receives_its_own_dead_node(env: &Env) {
    let [owner, sender] = env.peers();
    let to = sender.handle_of(&owner);
    let (node, at_sender) = owner.node_for(&sender);
    sender
        .message()
        .to(&[to])
        .bytes(b"before")
        .handles(&[at_sender])
        .send()
        .unwrap();
    owner.destroy(&[node]).unwrap();
    sender
        .message()
        .to(&[to])
        .bytes(b"after")
        .handles(&[at_sender])
        .send()
        .unwrap();
    assert_eq!(owner.expect_text(b"before").handles, [node]);
    owner.expect_node_destroy(node);
    assert_eq!(owner.expect_text(b"after").handles, [INVALID]);
    owner.expect_nothing();
}

#[case("abi.md#recv-handles")]
fn dead_slots_gain_nothing(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    let at_receiver = owner.give(&receiver, node).unwrap();
    let to = sender.handle_of(&receiver);
    owner.destroy_and_release(&[node]).unwrap();
    for _ in 0..3 {
        sender
            .message()
            .to(&[to])
            .handles(&[at_sender])
            .send()
            .unwrap();
    }
    receiver.expect_node_destroy(at_receiver);
    for _ in 0..3 {
        assert_eq!(receiver.expect_data().handles, [INVALID]);
    }
    assert_eq!(receiver.release(at_receiver), Ok(()));
    assert_eq!(receiver.release(at_receiver), Err(E::NXIO));
}

#[case("abi.md#send-dead")]
fn multicast_of_a_dead_handle(env: &Env) {
    let [owner, sender, a, b] = env.peers();
    let (_, at_sender) = owner.node_for(&sender);
    let to = [sender.handle_of(&a), sender.handle_of(&b)];
    owner.close();
    sender.expect_node_destroy(at_sender);
    let live = sender.new_node();
    sender
        .message()
        .to(&to)
        .handles(&[at_sender, live])
        .send()
        .unwrap();
    for receiver in [&a, &b] {
        let ids = receiver.expect_data().handles;
        assert_eq!(ids[0], INVALID);
        receiver.message().to(&[ids[1]]).send().unwrap();
        assert_eq!(sender.expect_data().msg.destination, live);
    }
}

#[case("abi.md#send-dead")]
fn disconnect_kills_handles_in_messages(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let handles = [owner.node_for(&sender).1, owner.node_for(&sender).1];
    let to = sender.handle_of(&receiver);
    sender
        .message()
        .to(&[to])
        .bytes(b"before")
        .handles(&handles)
        .send()
        .unwrap();
    owner.disconnect().unwrap();
    sender
        .message()
        .to(&[to])
        .bytes(b"after")
        .handles(&handles)
        .send()
        .unwrap();
    let mut ids = receiver.expect_text(b"before").handles;
    ids.sort_unstable();
    let mut told =
        [receiver.expect_message(), receiver.expect_message()].map(|notice| notice.msg.destination);
    told.sort_unstable();
    assert_eq!(&*ids, &told);
    assert_eq!(receiver.expect_text(b"after").handles, [INVALID; 2]);
    receiver.expect_nothing();
}

#[case("abi.md#send-dead", "abi.md#notify-dead")]
fn sending_a_dead_handle_is_no_error(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let node = a.new_node();
    a.destroy(&[node]).unwrap();
    assert_eq!(a.message().to(&[to]).handles(&[node]).send(), Ok(()));
    assert_eq!(b.expect_data().handles, [INVALID]);
    a.expect_node_destroy(node);
    a.release(node).unwrap();
    assert_eq!(
        a.message().to(&[to]).handles(&[node]).send(),
        Ok(()),
        "a new node by now"
    );
    assert_ne!(b.expect_data().expect_handle(), INVALID);
}

/// Handles arrive at `receiver` while their node dies. Checks that each one that came before is
/// valid, none after is, and that the notice of each comes once.
fn check_arrivals(receiver: &Peer, sent: usize) {
    let (mut id, mut told, mut arrived) = (None, 0, 0);
    loop {
        let message = match receiver.recv() {
            Ok(message) => message,
            Err(E::AGAIN) => break,
            Err(errno) => panic!("RECV says {errno:?}"),
        };
        match message.msg.kind {
            abi::MSG_DATA => {
                arrived += 1;
                let handle = message.expect_handle();
                if handle == INVALID {
                    assert!(id.is_none() || told == 1, "INVALID before the notice");
                    // From now on none may be valid; and without one before, no notice comes.
                    told = told.max(1);
                } else {
                    assert_eq!(told, 0, "a valid ID after the destruction");
                    assert_eq!(*id.get_or_insert(handle), handle);
                }
            }
            abi::MSG_NODE_DESTROY => {
                assert_eq!(
                    id,
                    Some(message.msg.destination),
                    "a notice for another handle"
                );
                assert_eq!(told, 0, "a second notice");
                told = 1;
            }
            other => panic!("a message of type {other}"),
        }
    }
    assert_eq!(arrived, sent, "every message arrived");
    assert!(id.is_none() || told == 1, "a silent dead handle");
}

#[case("ordering.md#slots")]
fn racing_destruction_is_never_silent(env: &Env) {
    for round in 0..100 {
        let [owner, sender, a, b] = env.peers();
        let (node, at_sender) = owner.node_for(&sender);
        let to = [sender.handle_of(&a), sender.handle_of(&b)];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..10 {
                    let to = if (i + round) % 3 == 0 {
                        &to[..]
                    } else {
                        &to[..1]
                    };
                    sender
                        .message()
                        .to(to)
                        .handles(&[at_sender])
                        .send()
                        .unwrap();
                }
            });
            scope.spawn(|| owner.destroy_and_release(&[node]).unwrap());
        });
        let at_b = (0..10).filter(|i| (i + round) % 3 == 0).count();
        check_arrivals(&a, 10);
        check_arrivals(&b, at_b);
    }
}

#[case("ordering.md#slots")]
fn racing_disconnect_is_never_silent(env: &Env) {
    for _ in 0..100 {
        let [owner, sender, a] = env.peers();
        let (_, at_sender) = owner.node_for(&sender);
        let to = sender.handle_of(&a);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..10 {
                    sender
                        .message()
                        .to(&[to])
                        .handles(&[at_sender])
                        .send()
                        .unwrap();
                }
            });
            scope.spawn(|| owner.close());
        });
        check_arrivals(&a, 10);
    }
}

#[case("abi.md#transfer-dead")]
fn racing_transfer_is_never_silent(env: &Env) {
    for _ in 0..200 {
        let [owner, sender, receiver] = env.peers();
        let (node, at_sender) = owner.node_for(&sender);
        let id = std::thread::scope(|scope| {
            let give = scope.spawn(|| sender.give(&receiver, at_sender).unwrap());
            scope.spawn(|| owner.destroy_and_release(&[node]).unwrap());
            give.join().unwrap()
        });
        if id != INVALID {
            receiver.expect_node_destroy(id);
        }
        receiver.expect_nothing();
    }
}
