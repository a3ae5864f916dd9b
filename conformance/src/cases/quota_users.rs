// SPDX-License-Identifier: MIT OR Apache-2.0

//! Quota between users, over all peers of one.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::quota::{claim, claim_all, Resource};
use super::Case;
use crate::client::Peer;
use crate::env::Env;

pub const CASES: &[Case] = &[
    case!(own_peer_takes_half_of_a_users_slices, "7: per user; batching up to 1/32 smaller"),
    case!(own_peer_takes_half_of_a_users_handles, "7: per user; batching up to 1/32 smaller"),
    case!(own_peer_takes_half_of_a_users_bytes, "7: per user; batching up to 1/32 smaller"),
    case!(own_peer_takes_half_of_a_users_descriptors, "7: per user; batching up to 1/32"),
    case!(foreign_peer_takes_an_eighth_of_a_users_slices, "7: per user; A between users"),
    case!(foreign_peer_takes_an_eighth_of_a_users_handles, "7: per user; A between users"),
    case!(foreign_peer_takes_an_eighth_of_a_users_bytes, "7: per user; A between users"),
    case!(second_receiver_of_a_user_brings_no_more, "7: per user (real kuid) and per peer"),
    case!(receivers_of_other_users_are_not_affected, "7: per user (real kuid)"),
    case!(descriptors_are_charged_to_their_sender, "7: charged to the sender's user"),
    case!(received_descriptors_are_given_back_to_the_sender, "7: until they are received"),
    case!(dropped_descriptors_are_given_back_to_the_sender, "7: received or dropped"),
    case!(flood_at_one_peer_leaves_the_users_others_room, "7: no user can exhaust another"),
];

/// What a single sender of user `from` can take at all peers of user 0 together.
fn take(env: &Env, resource: Resource, from: u32, receivers: usize) -> usize {
    let sender = env.peer_of(from);
    let receivers: Vec<_> = (0..receivers).map(|_| env.peer()).collect();
    let taken = receivers.iter().map(|receiver| {
        let to = sender.handle_of(receiver);
        claim_all(resource, &sender, to)
    });
    taken.sum()
}

/// At most `most`, and not more than the batches less.
fn about(taken: usize, most: usize) {
    assert!(taken <= most, "{taken} is more than {most}");
    assert!(taken >= most - most / 32 - 2, "{taken} is more than 1/32 below {most}");
}

/// As much as before, but for batches.
fn same(again: usize, before: usize) {
    assert!(again.abs_diff(before) <= before / 32 + 2, "{before} before, {again} now");
}

fn limit(env: &Env, resource: Resource) -> usize {
    env.bus().user_limits()[resource as usize] as usize
}

fn own_peer_takes_half_of_a_users_slices(env: &Env) {
    about(take(env, Resource::Slices, 0, 1), limit(env, Resource::Slices) / 2);
}

fn own_peer_takes_half_of_a_users_handles(env: &Env) {
    // The sender's own node and handle count as well.
    about(take(env, Resource::Handles, 0, 1), limit(env, Resource::Handles) / 2);
}

fn own_peer_takes_half_of_a_users_bytes(env: &Env) {
    about(take(env, Resource::Bytes, 0, 1), limit(env, Resource::Bytes) / 2);
}

fn own_peer_takes_half_of_a_users_descriptors(env: &Env) {
    about(take(env, Resource::Descriptors, 0, 1), limit(env, Resource::Descriptors) / 2);
}

fn foreign_peer_takes_an_eighth_of_a_users_slices(env: &Env) {
    about(take(env, Resource::Slices, 1, 1), limit(env, Resource::Slices) / 8);
}

fn foreign_peer_takes_an_eighth_of_a_users_handles(env: &Env) {
    about(take(env, Resource::Handles, 1, 1), limit(env, Resource::Handles) / 8);
}

fn foreign_peer_takes_an_eighth_of_a_users_bytes(env: &Env) {
    about(take(env, Resource::Bytes, 1, 1), limit(env, Resource::Bytes) / 8);
}

fn second_receiver_of_a_user_brings_no_more(env: &Env) {
    about(take(env, Resource::Slices, 1, 5), limit(env, Resource::Slices) / 8);
}

fn receivers_of_other_users_are_not_affected(env: &Env) {
    let sender = env.peer_of(1);
    let eighth = limit(env, Resource::Slices) / 8;
    // All of them stay open, and so the claims stay.
    let receivers = [0, 2, 3].map(|user| env.peer_of(user));
    for receiver in &receivers {
        let to = sender.handle_of(receiver);
        about(claim_all(Resource::Slices, &sender, to), eighth);
    }
}

/// Peers of as many users, and what `sender` can name them by.
fn receivers(env: &Env, sender: &Peer, n: u32) -> Vec<(Peer, u64)> {
    (0..n)
        .map(|i| {
            let receiver = env.peer_of(10 + i);
            let to = sender.handle_of(&receiver);
            (receiver, to)
        })
        .collect()
}

/// Sends descriptors to all in turn until the sender's user has no more; how many.
fn exhaust(env: &Env, sender: &Peer, receivers: &[(Peer, u64)]) -> usize {
    let share = limit(env, Resource::Descriptors) / 8;
    let mut all = 0;
    for (_, to) in receivers {
        let taken = claim_all(Resource::Descriptors, sender, *to);
        all += taken;
        if taken < share - share / 32 - 2 {
            return all;
        }
    }
    panic!("{all} descriptors are in flight, more than the user's limit");
}

fn descriptors_are_charged_to_their_sender(env: &Env) {
    let sender = env.peer();
    let receivers = receivers(env, &sender, 12);
    let all = exhaust(env, &sender, &receivers);
    assert!(all <= limit(env, Resource::Descriptors), "{all} are in flight");
    // Nobody else may send for that user: not even another peer of it that has sent nothing
    // gets past the user's limit; and no other user suffers.
    let last = &receivers[11].0;
    let other = env.peer_of(1);
    let to = other.handle_of(last);
    assert_eq!(claim(Resource::Descriptors, &other, to, 100), Ok(()));
    let twin = env.peer();
    let to = twin.handle_of(last);
    let more = claim_all(Resource::Descriptors, &twin, to);
    assert!(all + more <= limit(env, Resource::Descriptors), "{all} and {more} are in flight");
}

fn received_descriptors_are_given_back_to_the_sender(env: &Env) {
    let sender = env.peer();
    let receivers = receivers(env, &sender, 12);
    let all = exhaust(env, &sender, &receivers);
    for install in [0, bus1_uapi::RECV_FLAG_INSTALL_FDS] {
        for (receiver, _) in &receivers {
            while receiver.receive().flags(install).run().is_ok() {}
        }
        same(exhaust(env, &sender, &receivers), all);
    }
}

fn dropped_descriptors_are_given_back_to_the_sender(env: &Env) {
    let sender = env.peer();
    let all = exhaust(env, &sender, &receivers(env, &sender, 12));
    // Those peers are closed by now.
    same(exhaust(env, &sender, &receivers(env, &sender, 12)), all);
}

fn flood_at_one_peer_leaves_the_users_others_room(env: &Env) {
    let [flooded, other] = env.peers();
    let senders: Vec<_> = (0..20).map(|_| env.peer_of(1)).collect();
    let node = flooded.new_node();
    for sender in &senders {
        let to = flooded.give(sender, node).unwrap();
        claim_all(Resource::Slices, sender, to);
    }
    let null = File::open("/dev/null").unwrap();
    let friend = env.peer_of(2);
    for sender in [&flooded, &friend] {
        let to = sender.handle_of(&other);
        let sent = sender.message().to(&[to]).bytes(b"through").fds(&[null.as_raw_fd()]).send();
        assert_eq!(sent, Ok(()));
        other.text(b"through");
    }
    let to = senders[0].handle_of(&other);
    let more = claim_all(Resource::Slices, &senders[0], to);
    let share = limit(env, Resource::Slices) / 4;
    assert!(more <= share / 32, "that user had its share, and got {more} more");
}
