// SPDX-License-Identifier: MIT OR Apache-2.0

//! The order, one call after the other.

use rand::{rngs::SmallRng, Rng, SeedableRng};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Peer;
use crate::env::Env;

#[case("ordering.md#triangle")]
fn triangle(env: &Env) {
    let [a, b, c] = env.peers();
    let (a_to_b, a_to_c, c_to_b) = (a.handle_of(&b), a.handle_of(&c), c.handle_of(&b));
    for _ in 0..100 {
        a.message().to(&[a_to_b]).bytes(b"from a").send().unwrap();
        a.message().to(&[a_to_c]).bytes(b"go on").send().unwrap();
        c.expect_text(b"go on");
        c.message().to(&[c_to_b]).bytes(b"from c").send().unwrap();
        b.expect_text(b"from a");
        b.expect_text(b"from c");
    }
}

#[case("ordering.md#triangle")]
fn triangle_of_multicasts(env: &Env) {
    let [a, b, c, d] = env.peers();
    let from_a = [a.handle_of(&b), a.handle_of(&c), a.handle_of(&d)];
    let from_c = [c.handle_of(&b), c.handle_of(&d), c.handle_of(&a)];
    for i in 0..100_usize {
        // The order of the destinations must not matter.
        let mut to = from_a;
        to.rotate_left(i % 3);
        a.message().to(&to).bytes(b"first").send().unwrap();
        c.expect_text(b"first");
        let mut to = from_c;
        to.rotate_left(i / 3 % 3);
        c.message().to(&to).bytes(b"second").send().unwrap();
        for peer in [&b, &d] {
            peer.expect_text(b"first");
            peer.expect_text(b"second");
        }
        a.expect_text(b"second");
    }
}

#[case("ordering.md#causality")]
fn calls_in_sequence_arrive_in_sequence(env: &Env) {
    let receiver = env.peer();
    let senders: [Peer; 10] = env.peers();
    let to = senders.each_ref().map(|sender| sender.handle_of(&receiver));
    let mut random = SmallRng::seed_from_u64(1);
    for i in 0..1000_u32 {
        let s = random.random_range(0..10);
        senders[s]
            .message()
            .to(&[to[s]])
            .bytes(&i.to_ne_bytes())
            .send()
            .unwrap();
    }
    for i in 0..1000_u32 {
        receiver.expect_text(&i.to_ne_bytes());
    }
}

#[case("ordering.md#causality")]
fn multicasts_in_sequence_arrive_in_sequence(env: &Env) {
    let receivers: [Peer; 6] = env.peers();
    let senders: [Peer; 4] = env.peers();
    let handles = senders.each_ref().map(|sender| {
        receivers
            .each_ref()
            .map(|receiver| sender.handle_of(receiver))
    });
    let mut random = SmallRng::seed_from_u64(2);
    let mut expected = [const { Vec::new() }; 6];
    for i in 0..1000_u32 {
        let s = random.random_range(0..4);
        let first = random.random_range(0..6);
        let n = random.random_range(1..=6);
        let chosen: Vec<_> = (0..n).map(|k| (first + k) % 6).collect();
        let to: Vec<_> = chosen.iter().map(|&r| handles[s][r]).collect();
        senders[s]
            .message()
            .to(&to)
            .bytes(&i.to_ne_bytes())
            .send()
            .unwrap();
        for r in chosen {
            expected[r].push(i);
        }
    }
    for (receiver, expected) in receivers.iter().zip(expected) {
        for i in expected {
            receiver.expect_text(&i.to_ne_bytes());
        }
        receiver.expect_nothing();
    }
}

#[case("ordering.md#consistency")]
fn two_multicasts_in_one_order_everywhere(env: &Env) {
    let receivers: [Peer; 5] = env.peers();
    let [a, b] = env.peers();
    let from_a = receivers.each_ref().map(|receiver| a.handle_of(receiver));
    let from_b = receivers.each_ref().map(|receiver| b.handle_of(receiver));
    let mut backwards = from_b;
    backwards.reverse();
    let send = |sender: &Peer, to: &[u64], name: u8| {
        for _ in 0..200 {
            sender.message().to(to).bytes(&[name]).send().unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| send(&a, &from_a, b'a'));
        scope.spawn(|| send(&b, &backwards, b'b'));
    });
    let seen = receivers.each_ref().map(|receiver| {
        receiver
            .expect_all()
            .iter()
            .map(|message| message.bytes[0])
            .collect::<Vec<_>>()
    });
    assert_eq!(seen[0].len(), 400);
    for other in &seen[1..] {
        assert!(*other == seen[0], "two receivers saw different orders");
    }
}

#[case("ordering.md#messages")]
fn destruction_lies_between_messages(env: &Env) {
    let [owner, holder, sender] = env.peers();
    let to_owner = sender.handle_of(&owner);
    let to_holder = sender.handle_of(&holder);
    let (node, id) = owner.node_for(&holder);
    let both = [to_owner, to_holder];
    sender.message().to(&both).bytes(b"before").send().unwrap();
    owner.destroy(&[node]).unwrap();
    sender.message().to(&both).bytes(b"after").send().unwrap();
    owner.expect_text(b"before");
    owner.expect_node_destroy(node);
    owner.expect_text(b"after");
    holder.expect_text(b"before");
    holder.expect_node_destroy(id);
    holder.expect_text(b"after");
}

#[case("ordering.md#consistency")]
fn destruction_is_seen_with_the_messages(env: &Env) {
    // Destructions and multicasts race; all who see both see them in one order.
    let receivers: [Peer; 4] = env.peers();
    let [owner, sender] = env.peers();
    let to = receivers
        .each_ref()
        .map(|receiver| sender.handle_of(receiver));
    const ROUNDS: usize = 100;
    let nodes: [u64; ROUNDS] = std::array::from_fn(|_| owner.new_node());
    let ids = nodes.map(|node| {
        receivers
            .each_ref()
            .map(|receiver| owner.give(receiver, node).unwrap())
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..ROUNDS as u32 {
                sender
                    .message()
                    .to(&to)
                    .bytes(&i.to_ne_bytes())
                    .send()
                    .unwrap();
            }
        });
        scope.spawn(|| {
            for &node in &nodes {
                owner.destroy_and_release(&[node]).unwrap();
            }
        });
    });
    let seen: Vec<Vec<i64>> = receivers
        .iter()
        .enumerate()
        .map(|(r, receiver)| {
            let name = |message: &crate::client::Message| match message.msg.kind {
                abi::MSG_DATA => {
                    i64::from(u32::from_ne_bytes(message.bytes[..].try_into().unwrap()))
                }
                _ => {
                    let at = ids.iter().position(|ids| ids[r] == message.msg.destination);
                    -1 - at.expect("a node that was given away") as i64
                }
            };
            receiver.expect_all().iter().map(name).collect()
        })
        .collect();
    assert_eq!(seen[0].len(), 2 * ROUNDS);
    for other in &seen[1..] {
        assert!(*other == seen[0], "two receivers saw different orders");
    }
}

#[case("ordering.md#causality")]
fn disconnect_lies_after_earlier_messages(env: &Env) {
    let [a, b, sender] = env.peers();
    let to = sender.handle_of(&b);
    let (_, id) = a.node_for(&b);
    sender.message().to(&[to]).bytes(b"before").send().unwrap();
    a.close();
    sender.message().to(&[to]).bytes(b"after").send().unwrap();
    b.expect_text(b"before");
    b.expect_node_destroy(id);
    b.expect_text(b"after");
}

#[case("ordering.md#release")]
fn release_follows_earlier_messages(env: &Env) {
    let [owner, holder] = env.peers();
    let to = holder.handle_of(&owner);
    for _ in 0..50 {
        let (node, id) = owner.node_for(&holder);
        holder
            .message()
            .to(&[id])
            .bytes(b"last use")
            .send()
            .unwrap();
        holder.release(id).unwrap();
        holder.message().to(&[to]).bytes(b"later").send().unwrap();
        assert_eq!(owner.expect_text(b"last use").msg.destination, node);
        owner.expect_node_release(node);
        owner.expect_text(b"later");
    }
}

#[case("ordering.md#point")]
fn delivered_on_one_peer_is_ready_on_all(env: &Env) {
    // Whoever has a part in hand may rely on all other parts being receivable once SEND has
    // returned; a second receiver asks right after the first has answered.
    let [a, b, sender] = env.peers();
    let to = [sender.handle_of(&a), sender.handle_of(&b)];
    for _ in 0..200 {
        std::thread::scope(|scope| {
            scope.spawn(|| sender.message().to(&to).send().unwrap());
            while a.recv().is_err() {
                std::hint::spin_loop();
            }
            // The point of the order has passed, so nothing is staged before it on `b`.
            b.expect_data();
        });
    }
}

#[case("ordering.md#causality")]
fn random_calls_in_sequence(env: &Env) {
    let peers: [Peer; 5] = env.peers();
    let nodes: [u64; 5] = std::array::from_fn(|i| peers[i].new_node());
    // handles[i][j]: peer i's handle of peer j's node.
    let handles: [[u64; 5]; 5] = std::array::from_fn(|i| {
        std::array::from_fn(|j| peers[j].give(&peers[i], nodes[j]).unwrap())
    });
    let mut random = SmallRng::seed_from_u64(3);
    let mut expected = [const { Vec::<(u64, Vec<u8>)>::new() }; 5];
    for i in 0..2000_u32 {
        let from = random.random_range(0..5_usize);
        match random.random_range(0..4) {
            0 => {
                let extra = peers[from].new_node();
                let holders: Vec<_> = (0..5).filter(|&j| j != from && random.random()).collect();
                let ids: Vec<_> = holders
                    .iter()
                    .map(|&j| peers[from].give(&peers[j], extra).unwrap())
                    .collect();
                peers[from].destroy_and_release(&[extra]).unwrap();
                for (j, id) in holders.into_iter().zip(ids) {
                    expected[j].push((id, Vec::new()));
                }
            }
            _ => {
                let chosen: Vec<_> = (0..5).filter(|_| random.random()).collect();
                let to: Vec<_> = chosen.iter().map(|&j| handles[from][j]).collect();
                let bytes = i.to_ne_bytes();
                peers[from].message().to(&to).bytes(&bytes).send().unwrap();
                for j in chosen {
                    expected[j].push((nodes[j], bytes.to_vec()));
                }
            }
        }
        // Now and then somebody catches up.
        let reader = random.random_range(0..20_usize);
        if reader < 5 {
            catch_up(&peers[reader], &mut expected[reader]);
        }
    }
    for (peer, expected) in peers.iter().zip(&mut expected) {
        catch_up(peer, expected);
    }
}

fn catch_up(peer: &Peer, expected: &mut Vec<(u64, Vec<u8>)>) {
    for (id, bytes) in expected.drain(..) {
        let message = peer.expect_message();
        assert_eq!((message.msg.destination, message.bytes), (id, bytes));
    }
    peer.expect_nothing();
}
