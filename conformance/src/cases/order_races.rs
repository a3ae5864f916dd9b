// SPDX-License-Identifier: MIT OR Apache-2.0

//! The order, under load. `conformance history` does the same at length.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Peer;
use crate::env::Env;
use crate::history;
use crate::host::Errno as E;

#[case("ordering.md#triangle")]
fn triangle_under_load(env: &Env) {
    let [a, b, c, noise] = env.peers();
    let (a_to_b, a_to_c, c_to_b) = (a.handle_of(&b), a.handle_of(&c), c.handle_of(&b));
    let noisy = [noise.handle_of(&c), noise.handle_of(&b)];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match noise.message().to(&noisy).bytes(b"noise").send() {
                    Ok(()) | Err(E::DQUOT) => (),
                    Err(errno) => panic!("SEND says {errno:?}"),
                }
                std::thread::yield_now();
            }
        });
        let next = |peer: &Peer| loop {
            match peer.recv() {
                Ok(message) => {
                    peer.release_slice(message.msg.offset).unwrap();
                    if message.bytes != b"noise" {
                        break message.bytes;
                    }
                }
                Err(E::AGAIN) => std::thread::yield_now(),
                Err(errno) => panic!("RECV says {errno:?}"),
            }
        };
        for i in 0..500_u32 {
            a.message()
                .to(&[a_to_b])
                .bytes(&i.to_ne_bytes())
                .send()
                .unwrap();
            a.message().to(&[a_to_c]).bytes(b"go on").send().unwrap();
            assert_eq!(next(&c), b"go on");
            c.message().to(&[c_to_b]).bytes(b"from c").send().unwrap();
            assert_eq!(next(&b), i.to_ne_bytes());
            assert_eq!(next(&b), b"from c");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[case("ordering.md#causality")]
fn news_through_shared_memory(env: &Env) {
    // Two senders count up together: each takes the next number only after the call with the one
    // before has returned, wherever that was made.
    let receivers: [Peer; 3] = env.peers();
    let senders: [Peer; 2] = env.peers();
    let turn = AtomicU64::new(0);
    const ALL: u64 = 1000;
    std::thread::scope(|scope| {
        for (me, sender) in senders.iter().enumerate() {
            let to = receivers
                .each_ref()
                .map(|receiver| sender.handle_of(receiver));
            let turn = &turn;
            scope.spawn(move || loop {
                let now = turn.load(Ordering::Acquire);
                if now >= ALL {
                    break;
                }
                if now % 2 != me as u64 {
                    std::hint::spin_loop();
                    std::thread::yield_now();
                    continue;
                }
                let to = if now.is_multiple_of(3) {
                    &to[..1]
                } else {
                    &to[..]
                };
                sender
                    .message()
                    .to(to)
                    .bytes(&now.to_ne_bytes())
                    .send()
                    .unwrap();
                turn.store(now + 1, Ordering::Release);
            });
        }
    });
    for (r, receiver) in receivers.iter().enumerate() {
        for now in (0..ALL).filter(|now| r == 0 || now % 3 != 0) {
            receiver.expect_text(&now.to_ne_bytes());
        }
    }
}

#[case("ordering.md#consecutive")]
fn parts_stay_together_under_load(env: &Env) {
    let receiver = env.peer();
    let pairs: Vec<_> = (0..3).map(|_| receiver.new_node()).collect();
    std::thread::scope(|scope| {
        for name in 0..3_u8 {
            let (receiver, pairs) = (&receiver, &pairs);
            scope.spawn(move || {
                let sender = env.peer();
                let to: Vec<_> = pairs
                    .iter()
                    .map(|&node| receiver.give(&sender, node).unwrap())
                    .collect();
                for i in 0..300_u32 {
                    let n = 1 + i as usize % 3;
                    let bytes = [&[name][..], &i.to_ne_bytes()].concat();
                    sender.message().to(&to[..n]).bytes(&bytes).send().unwrap();
                }
            });
        }
    });
    let messages = receiver.expect_all();
    let mut data = messages
        .iter()
        .filter(|message| message.msg.kind == abi::MSG_DATA);
    let mut transactions = 0;
    while let Some(first) = data.next() {
        let i = u32::from_ne_bytes(first.bytes[1..].try_into().unwrap());
        let mut part = first;
        for (at, &node) in pairs.iter().enumerate().take(1 + i as usize % 3) {
            if at > 0 {
                part = data.next().expect("a promised part");
            }
            assert_eq!((&part.bytes, part.msg.destination), (&first.bytes, node));
            assert_eq!(part.more(), at < i as usize % 3);
        }
        transactions += 1;
    }
    assert_eq!(transactions, 900);
}

#[case("ordering.md#whole", "ordering.md#point")]
fn no_receiver_sees_half_a_multicast(env: &Env) {
    // Every number goes to both. A reader that has number n at one peer finds it at the other.
    let [a, b, sender] = env.peers();
    let to = [sender.handle_of(&a), sender.handle_of(&b)];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..1000_u32 {
                sender
                    .message()
                    .to(&to)
                    .bytes(&i.to_ne_bytes())
                    .send()
                    .unwrap();
            }
        });
        let mut last = 0;
        while last < 999 {
            // As many as there are at `a`, and then at least as many at `b`.
            let mut seen = 0;
            while let Ok(message) = a.recv() {
                a.release_slice(message.msg.offset).unwrap();
                last = u32::from_ne_bytes(message.bytes.try_into().unwrap());
                seen += 1;
            }
            for _ in 0..seen {
                let offset = b.expect_data().msg.offset;
                b.release_slice(offset).unwrap();
            }
        }
    });
}

#[case("ordering.md#messages")]
fn messages_race_with_destruction(env: &Env) {
    for _ in 0..100 {
        let [owner, sender] = env.peers();
        let (node, to) = owner.node_for(&sender);
        let sent = std::thread::scope(|scope| {
            let send = scope.spawn(|| {
                (0..20)
                    .take_while(|_| match sender.message().to(&[to]).send() {
                        Ok(()) => true,
                        Err(E::HOSTUNREACH) => false,
                        Err(errno) => panic!("SEND says {errno:?}"),
                    })
                    .count()
            });
            scope.spawn(|| owner.destroy(&[node]).unwrap());
            send.join().unwrap()
        });
        for _ in 0..sent {
            owner.expect_data();
        }
        owner.expect_node_destroy(node);
        owner.expect_nothing();
        sender.expect_node_destroy(to);
    }
}

#[case("ordering.md#whole")]
fn multicasts_race_with_disconnects(env: &Env) {
    for _ in 0..100 {
        let [a, b, c, sender] = env.peers();
        let to = [
            sender.handle_of(&a),
            sender.handle_of(&b),
            sender.handle_of(&c),
        ];
        let sent = std::thread::scope(|scope| {
            let send = scope.spawn(|| {
                (0..20)
                    .take_while(|_| match sender.message().to(&to).send() {
                        Ok(()) => true,
                        Err(E::HOSTUNREACH) => false,
                        Err(errno) => panic!("SEND says {errno:?}"),
                    })
                    .count()
            });
            scope.spawn(|| b.close());
            send.join().unwrap()
        });
        // Whole or not at all: what was refused was seen by nobody.
        assert_eq!((a.expect_all().len(), c.expect_all().len()), (sent, sent));
    }
}

#[case("ordering.md#consistency")]
fn destructions_of_two_owners_in_one_order(env: &Env) {
    const ROUNDS: usize = 150;
    let owners: [Peer; 2] = env.peers();
    let holders: [Peer; 3] = env.peers();
    let nodes: [[u64; ROUNDS]; 2] =
        std::array::from_fn(|o| std::array::from_fn(|_| owners[o].new_node()));
    let mut names: [HashMap<u64, (usize, usize)>; 3] = Default::default();
    for (o, owner) in owners.iter().enumerate() {
        for (i, &node) in nodes[o].iter().enumerate() {
            for (h, holder) in holders.iter().enumerate() {
                names[h].insert(owner.give(holder, node).unwrap(), (o, i));
            }
        }
    }
    std::thread::scope(|scope| {
        for (owner, nodes) in owners.iter().zip(&nodes) {
            scope.spawn(move || {
                for pair in nodes.chunks(2) {
                    owner.destroy_and_release(pair).unwrap();
                }
            });
        }
    });
    let seen: Vec<Vec<_>> = holders
        .iter()
        .zip(&names)
        .map(|(holder, names)| {
            holder
                .expect_all()
                .iter()
                .map(|notice| names[&notice.msg.destination])
                .collect()
        })
        .collect();
    assert_eq!(seen[0].len(), 2 * ROUNDS);
    assert!(
        seen[1] == seen[0] && seen[2] == seen[0],
        "two holders saw different orders"
    );
    for pair in seen[0].chunks(2) {
        assert_eq!(
            (pair[0].0, pair[0].1 + 1),
            pair[1],
            "the parts are consecutive"
        );
    }
}

#[case(
    "ordering.md#consistency",
    "ordering.md#causality",
    "ordering.md#whole"
)]
fn a_short_history_is_in_order(env: &Env) {
    let options = history::Options {
        multicasts: 2000,
        ..history::Options::default()
    };
    let recorded = history::record_in_threads(env.bus(), env.uid(0), &options);
    if let Err(violation) = history::check(&recorded) {
        panic!("{violation}");
    }
}
