// SPDX-License-Identifier: MIT OR Apache-2.0

//! Quota between users, over all peers of one.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;

use super::quota::{claim, claim_all, Resource};
use crate::client::Peer;
use crate::env::Env;

/// Returns the amount that a single sender of user `from` can take at all peers of user 0 together.
fn take(env: &Env, resource: Resource, from: u32, receivers: usize) -> usize {
    let sender = env.peer_of(from);
    let receivers: Vec<_> = (0..receivers).map(|_| env.peer()).collect();
    let taken = receivers.iter().map(|receiver| {
        let to = sender.handle_of(receiver);
        claim_all(resource, &sender, to)
    });
    taken.sum()
}

/// Returns the amount by which batches may lower a figure.
fn slack(of: usize) -> usize {
    of / 32 + 2
}

/// Asserts that `taken` is at most `most`, and below it by no more than the batches.
fn expect_about(taken: usize, most: usize) {
    assert!(taken <= most, "{taken} is more than {most}");
    assert!(
        taken >= most - slack(most),
        "{taken} is more than 1/32 below {most}"
    );
}

/// Asserts that `again` differs from `before` by no more than the batches.
fn expect_same(again: usize, before: usize) {
    assert!(
        again.abs_diff(before) <= slack(before),
        "{before} before, {again} now"
    );
}

fn limit(env: &Env, resource: Resource) -> usize {
    resource.of(env.bus().user_limits()) as usize
}

#[case(
    "abi.md#quota-user",
    each(
        Resource::Slices,
        Resource::Handles,
        Resource::Bytes,
        Resource::Descriptors
    )
)]
fn own_peer_takes_half_of_a_users(env: &Env, resource: Resource) {
    // Of handles, the sender's own node and handle count as well.
    expect_about(take(env, resource, 0, 1), limit(env, resource) / 2);
}

#[case(
    "abi.md#quota-user",
    each(Resource::Slices, Resource::Handles, Resource::Bytes)
)]
fn foreign_peer_takes_an_eighth_of_a_users(env: &Env, resource: Resource) {
    expect_about(take(env, resource, 1, 1), limit(env, resource) / 8);
}

#[case("abi.md#quota-user")]
fn second_receiver_of_a_user_brings_no_more(env: &Env) {
    expect_about(
        take(env, Resource::Slices, 1, 5),
        limit(env, Resource::Slices) / 8,
    );
}

#[case("abi.md#quota-flood")]
fn receivers_of_other_users_are_not_affected(env: &Env) {
    let sender = env.peer_of(1);
    let eighth = limit(env, Resource::Slices) / 8;
    // All of them stay open, and so the claims stay.
    let receivers = [0, 2, 3].map(|user| env.peer_of(user));
    for receiver in &receivers {
        let to = sender.handle_of(receiver);
        expect_about(claim_all(Resource::Slices, &sender, to), eighth);
    }
}

/// Peers of `n` users, each with a handle that `sender` has of it.
fn receivers(env: &Env, sender: &Peer, n: u32) -> Vec<(Peer, u64)> {
    (0..n)
        .map(|i| {
            let receiver = env.peer_of(10 + i);
            let to = sender.handle_of(&receiver);
            (receiver, to)
        })
        .collect()
}

/// Sends descriptors to all receivers in turn until the sender's user has no more, and returns the
/// number sent.
fn exhaust(env: &Env, sender: &Peer, receivers: &[(Peer, u64)]) -> usize {
    let share = limit(env, Resource::Descriptors) / 8;
    let mut all = 0;
    for (_, to) in receivers {
        let taken = claim_all(Resource::Descriptors, sender, *to);
        all += taken;
        if taken < share - slack(share) {
            return all;
        }
    }
    panic!("{all} descriptors are in flight, more than the user's limit");
}

#[case("abi.md#charge-fds", "abi.md#fds-charged")]
fn descriptors_are_charged_to_their_sender(env: &Env) {
    let sender = env.peer();
    let receivers = receivers(env, &sender, 12);
    let all = exhaust(env, &sender, &receivers);
    assert!(
        all <= limit(env, Resource::Descriptors),
        "{all} are in flight"
    );
    // No other peer may send for that user: even a peer that has sent nothing does not get past the
    // user's limit. No other user suffers.
    let last = &receivers[11].0;
    let other = env.peer_of(1);
    let to = other.handle_of(last);
    assert_eq!(claim(Resource::Descriptors, &other, to, 100), Ok(()));
    let twin = env.peer();
    let to = twin.handle_of(last);
    let more = claim_all(Resource::Descriptors, &twin, to);
    assert!(
        all + more <= limit(env, Resource::Descriptors),
        "{all} and {more} are in flight"
    );
}

#[case("abi.md#charge-fds")]
fn received_descriptors_are_given_back_to_the_sender(env: &Env) {
    let sender = env.peer();
    let receivers = receivers(env, &sender, 12);
    let all = exhaust(env, &sender, &receivers);
    for install in [0, bus1_uapi::RECV_FLAG_INSTALL_FDS] {
        for (receiver, _) in &receivers {
            while receiver.receive().flags(install).run().is_ok() {}
        }
        expect_same(exhaust(env, &sender, &receivers), all);
    }
}

#[case("abi.md#charge-fds")]
fn dropped_descriptors_are_given_back_to_the_sender(env: &Env) {
    let sender = env.peer();
    let all = exhaust(env, &sender, &receivers(env, &sender, 12));
    // The receivers are closed by now.
    expect_same(exhaust(env, &sender, &receivers(env, &sender, 12)), all);
}

#[case("abi.md#quota-flood")]
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
        let sent = sender
            .message()
            .to(&[to])
            .bytes(b"through")
            .fds(&[null.as_raw_fd()])
            .send();
        assert_eq!(sent, Ok(()));
        other.expect_text(b"through");
    }
    let to = senders[0].handle_of(&other);
    let more = claim_all(Resource::Slices, &senders[0], to);
    let share = limit(env, Resource::Slices) / 4;
    assert!(
        more <= share / 32,
        "that user had its share, and got {more} more"
    );
}
