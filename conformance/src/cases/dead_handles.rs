// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles in messages, around the destruction of their nodes.

use bus1_uapi as abi;

use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;

pub const CASES: &[Case] = &[
    case!(sent_after_the_destruction_is_invalid, "2: and none ordered after does: INVALID"),
    case!(array_keeps_its_length, "2: the array keeps its length"),
    case!(sent_before_the_destruction_is_valid, "2: every message ordered before carries an ID"),
    case!(late_holder_is_told, "2: never a silent dead handle"),
    case!(late_holder_that_had_it_is_told_once, "2: NODE_DESTROY, once per handle"),
    case!(owner_receives_its_own_dead_node, "2: on one receiving peer"),
    case!(dead_slots_gain_nothing, "2: there the slot holds INVALID"),
    case!(multicast_of_a_dead_handle, "2: there the slot holds INVALID"),
    case!(disconnect_kills_handles_in_messages, "2: disconnecting destroys all its nodes"),
    case!(sending_a_dead_handle_is_no_error, "5 SEND: handles (ENXIO) only if unknown"),
    case!(racing_destruction_is_never_silent, "2: either gets INVALID or the NODE_DESTROY"),
    case!(racing_disconnect_is_never_silent, "2: either gets INVALID or the NODE_DESTROY"),
    case!(racing_transfer_is_never_silent, "2: either gets INVALID or the NODE_DESTROY"),
];

const INVALID: u64 = abi::HANDLE_INVALID;

fn sent_after_the_destruction_is_invalid(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    let to = sender.handle_of(&receiver);
    owner.destroy_and_release(&[node]).unwrap();
    sender.message().to(&[to]).bytes(b"dead").handles(&[at_sender]).send().unwrap();
    assert_eq!(receiver.text(b"dead").handles, [INVALID]);
    receiver.nothing();
}

fn array_keeps_its_length(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let pairs: [(u64, u64); 5] = std::array::from_fn(|_| owner.node_for(&sender));
    let to = sender.handle_of(&receiver);
    owner.destroy_and_release(&[pairs[1].0, pairs[3].0]).unwrap();
    let named = pairs.map(|(_, id)| id);
    sender.message().to(&[to]).bytes(b"x").handles(&named).send().unwrap();
    let message = receiver.text(b"x");
    assert_eq!(message.msg.n_handles, 5);
    assert_eq!(message.handles[1], INVALID);
    assert_eq!(message.handles[3], INVALID);
    for i in [0, 2, 4] {
        receiver.message().to(&[message.handles[i]]).send().unwrap();
        assert_eq!(owner.data().msg.destination, pairs[i].0);
    }
}

fn sent_before_the_destruction_is_valid(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    let to = sender.handle_of(&receiver);
    sender.message().to(&[to]).handles(&[at_sender]).send().unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    let id = receiver.data().handle();
    assert_ne!(id, INVALID);
    receiver.node_destroy(id);
    receiver.nothing();
    assert_eq!(receiver.message().to(&[id]).send(), Err(E::HOSTUNREACH));
    assert_eq!(receiver.release(id), Ok(()));
    assert_eq!(receiver.release(id), Err(E::NXIO));
}

fn late_holder_is_told(env: &Env) {
    // Several messages are on their way when the node dies, each to a peer that holds nothing yet.
    let [owner, sender] = env.peers();
    let receivers: [Peer; 4] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    for receiver in &receivers {
        let to = sender.handle_of(receiver);
        sender.message().to(&[to]).handles(&[at_sender]).send().unwrap();
        sender.message().to(&[to]).handles(&[at_sender, at_sender]).send().unwrap();
    }
    owner.destroy_and_release(&[node]).unwrap();
    for receiver in &receivers {
        let id = receiver.data().handle();
        assert_ne!(id, INVALID);
        assert_eq!(receiver.data().handles, [id, id]);
        receiver.node_destroy(id);
        receiver.nothing();
    }
}

fn late_holder_that_had_it_is_told_once(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    let at_receiver = owner.give(&receiver, node).unwrap();
    let to = sender.handle_of(&receiver);
    sender.message().to(&[to]).handles(&[at_sender]).send().unwrap();
    owner.destroy_and_release(&[node]).unwrap();
    assert_eq!(receiver.data().handle(), at_receiver);
    receiver.node_destroy(at_receiver);
    receiver.nothing();
}

fn owner_receives_its_own_dead_node(env: &Env) {
    let [owner, sender] = env.peers();
    let to = sender.handle_of(&owner);
    let (node, at_sender) = owner.node_for(&sender);
    sender.message().to(&[to]).bytes(b"before").handles(&[at_sender]).send().unwrap();
    owner.destroy(&[node]).unwrap();
    sender.message().to(&[to]).bytes(b"after").handles(&[at_sender]).send().unwrap();
    assert_eq!(owner.text(b"before").handles, [node]);
    owner.node_destroy(node);
    assert_eq!(owner.text(b"after").handles, [INVALID]);
    owner.nothing();
}

fn dead_slots_gain_nothing(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let (node, at_sender) = owner.node_for(&sender);
    let at_receiver = owner.give(&receiver, node).unwrap();
    let to = sender.handle_of(&receiver);
    owner.destroy_and_release(&[node]).unwrap();
    for _ in 0..3 {
        sender.message().to(&[to]).handles(&[at_sender]).send().unwrap();
    }
    receiver.node_destroy(at_receiver);
    for _ in 0..3 {
        assert_eq!(receiver.data().handles, [INVALID]);
    }
    assert_eq!(receiver.release(at_receiver), Ok(()));
    assert_eq!(receiver.release(at_receiver), Err(E::NXIO));
}

fn multicast_of_a_dead_handle(env: &Env) {
    let [owner, sender, a, b] = env.peers();
    let (_, at_sender) = owner.node_for(&sender);
    let to = [sender.handle_of(&a), sender.handle_of(&b)];
    owner.close();
    sender.node_destroy(at_sender);
    let live = sender.new_node();
    sender.message().to(&to).handles(&[at_sender, live]).send().unwrap();
    for receiver in [&a, &b] {
        let ids = receiver.data().handles;
        assert_eq!(ids[0], INVALID);
        receiver.message().to(&[ids[1]]).send().unwrap();
        assert_eq!(sender.data().msg.destination, live);
    }
}

fn disconnect_kills_handles_in_messages(env: &Env) {
    let [owner, sender, receiver] = env.peers();
    let handles = [owner.node_for(&sender).1, owner.node_for(&sender).1];
    let to = sender.handle_of(&receiver);
    sender.message().to(&[to]).bytes(b"before").handles(&handles).send().unwrap();
    owner.disconnect().unwrap();
    sender.message().to(&[to]).bytes(b"after").handles(&handles).send().unwrap();
    let mut ids = receiver.text(b"before").handles;
    ids.sort_unstable();
    let mut told = [receiver.any(), receiver.any()].map(|notice| notice.msg.destination);
    told.sort_unstable();
    assert_eq!(&*ids, &told);
    assert_eq!(receiver.text(b"after").handles, [INVALID; 2]);
    receiver.nothing();
}

fn sending_a_dead_handle_is_no_error(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let node = a.new_node();
    a.destroy(&[node]).unwrap();
    assert_eq!(a.message().to(&[to]).handles(&[node]).send(), Ok(()));
    assert_eq!(b.data().handles, [INVALID]);
    a.node_destroy(node);
    a.release(node).unwrap();
    assert_eq!(a.message().to(&[to]).handles(&[node]).send(), Ok(()), "a new node by now");
    assert_ne!(b.data().handle(), INVALID);
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
                let handle = message.handle();
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
                assert_eq!(id, Some(message.msg.destination), "a notice for another handle");
                assert_eq!(told, 0, "a second notice");
                told = 1;
            }
            other => panic!("a message of type {other}"),
        }
    }
    assert_eq!(arrived, sent, "every message arrived");
    assert!(id.is_none() || told == 1, "a silent dead handle");
}

fn racing_destruction_is_never_silent(env: &Env) {
    for round in 0..100 {
        let [owner, sender, a, b] = env.peers();
        let (node, at_sender) = owner.node_for(&sender);
        let to = [sender.handle_of(&a), sender.handle_of(&b)];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..10 {
                    let to = if (i + round) % 3 == 0 { &to[..] } else { &to[..1] };
                    sender.message().to(to).handles(&[at_sender]).send().unwrap();
                }
            });
            scope.spawn(|| owner.destroy_and_release(&[node]).unwrap());
        });
        let at_b = (0..10).filter(|i| (i + round) % 3 == 0).count();
        check_arrivals(&a, 10);
        check_arrivals(&b, at_b);
    }
}

fn racing_disconnect_is_never_silent(env: &Env) {
    for _ in 0..100 {
        let [owner, sender, a] = env.peers();
        let (_, at_sender) = owner.node_for(&sender);
        let to = sender.handle_of(&a);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..10 {
                    sender.message().to(&[to]).handles(&[at_sender]).send().unwrap();
                }
            });
            scope.spawn(|| owner.close());
        });
        check_arrivals(&a, 10);
    }
}

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
            receiver.node_destroy(id);
        }
        receiver.nothing();
    }
}
