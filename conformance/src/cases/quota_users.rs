// SPDX-License-Identifier: MIT OR Apache-2.0

//! Quota between users, over all peers of one.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;

use super::quota::{claim, claim_all, Resource, Sender};
use crate::client::{Limits, Peer};
use crate::env::Env;

/// Returns a peer whose own limits are out of the way.
fn unlimited(env: &Env, user: u32) -> Peer {
    let peer = env.peer_of(user);
    peer.limit(Limits::MOST).unwrap();
    peer
}

fn limit(env: &Env, resource: Resource) -> usize {
    resource.of(env.bus().user_limits()) as usize
}

/// Asserts that `taken` is `most`, or below it by the few handles that the suite itself has there.
fn expect_about(taken: usize, most: usize) {
    assert!(taken <= most, "{taken} is more than {most}");
    assert!(
        taken + 4 + most / 100 >= most,
        "{taken} is less than {most}"
    );
}

/// Sends from a peer of user `from` all that it may have at a peer of user 0.
fn take(env: &Env, resource: Resource, from: u32) -> usize {
    let (sender, receiver) = (env.peer_of(from), unlimited(env, 0));
    let to = sender.handle_of(&receiver);
    claim_all(resource, &sender, to)
}

#[case("abi.md#quota-user", each(Resource::Slices, Resource::Descriptors))]
fn own_peer_takes_an_eighth_of_a_users(env: &Env, resource: Resource) {
    // Of handles the sender holds some, too, and so there are two peers that hold some.
    expect_about(take(env, resource, 0), limit(env, resource) / 8);
}

#[case(
    "abi.md#quota-user",
    each(Resource::Slices, Resource::Handles, Resource::Descriptors)
)]
fn foreign_peer_takes_a_sixteenth_of_a_users(env: &Env, resource: Resource) {
    expect_about(take(env, resource, 1), limit(env, resource) / 16);
}

/// A number of peers that stopped, and the most messages that a running peer is sent by a sender of
/// its own user, and by one of another.
const STOPPED: [(usize, usize, usize); 5] = [
    (0, 8192, 2048),
    (1, 5575, 1934),
    (4, 1618, 561),
    (16, 278, 96),
    (64, 46, 16),
];

/// Fills `stopped` peers of user 0, as far as four senders of each of some users can, and returns
/// what one sender of user `from` can send to another peer then.
fn beside_stopped_peers(env: &Env, stopped: usize, from: u32) -> usize {
    let mut users = vec![from, 0, 2];
    users.dedup();
    let senders: Vec<_> = users
        .into_iter()
        .flat_map(|user| [user; 4])
        .map(|user| env.peer_of(user))
        .collect();
    let mut receivers = Vec::new();
    for _ in 0..stopped {
        let receiver = env.peer();
        let node = receiver.new_node();
        for sender in &senders {
            let to = receiver.give(sender, node).unwrap();
            claim_all(Resource::Slices, sender, to);
        }
        receivers.push(receiver);
    }
    let (running, sender) = (env.peer(), env.peer_of(from));
    let to = sender.handle_of(&running);
    let taken = claim_all(Resource::Slices, &sender, to);
    assert_ne!(taken, 0, "{stopped} peers of the user silence the others");
    // It goes on receiving, and its sender sending.
    for _ in 0..3 {
        assert!(!running.expect_all().is_empty());
        assert_eq!(claim_all(Resource::Slices, &sender, to), taken);
    }
    taken
}

#[case("abi.md#quota-stopped", each(Sender::Own, Sender::Foreign))]
fn stopped_peers_leave_a_running_one_its_part(env: &Env, from: Sender) {
    for (stopped, own, foreign) in STOPPED {
        let most = match from {
            Sender::Own => own,
            Sender::Foreign => foreign,
        };
        let taken = beside_stopped_peers(env, stopped, from.user());
        assert_eq!(taken, most, "{stopped} stopped");
    }
}

#[case("abi.md#quota-flood")]
fn receivers_of_other_users_are_not_affected(env: &Env) {
    let sender = env.peer_of(1);
    let share = limit(env, Resource::Slices) / 16;
    // All of them stay open, and so the claims stay.
    let receivers = [0, 2, 3].map(|user| unlimited(env, user));
    for receiver in &receivers {
        let to = sender.handle_of(receiver);
        expect_about(claim_all(Resource::Slices, &sender, to), share);
    }
}

/// Sends descriptors to four peers of each of these users until no more is granted, and returns
/// the peers and the number of descriptors.
fn fill(env: &Env, sender: &Peer, users: std::ops::Range<u32>) -> (Vec<Peer>, usize) {
    let mut sent = 0;
    let mut receivers = Vec::new();
    for user in users.flat_map(|user| [user; 4]) {
        let receiver = unlimited(env, user);
        let to = sender.handle_of(&receiver);
        sent += claim_all(Resource::Descriptors, sender, to);
        receivers.push(receiver);
    }
    (receivers, sent)
}

/// Receiving users that never read leave a sending user descriptors for others.
#[case("abi.md#charge-fds", "abi.md#fds-charged", alone)]
fn descriptors_are_divided_by_receiving_user(env: &Env) {
    let sender = env.peer();
    let budget = limit(env, Resource::Descriptors);
    let (receivers, sent) = fill(env, &sender, 10..18);
    assert!(sent <= budget / 2, "{sent} are in flight");
    assert_eq!(receivers.len(), 32);
    // A peer of that user has some for itself, and for yet another user.
    let twin = env.peer();
    let node = twin.new_node();
    twin.give_self(node).unwrap();
    let own = claim_all(Resource::Descriptors, &twin, node);
    assert!(
        own >= budget / 32,
        "{own} of {budget} are left for the user"
    );
    let other = env.peer_of(19);
    let to = twin.handle_of(&other);
    let more = claim_all(Resource::Descriptors, &twin, to);
    assert!(
        more >= budget / 1024,
        "{more} of {budget} are left for others"
    );
    // No other user suffers.
    let stranger = env.peer_of(1);
    let to = stranger.handle_of(&receivers[31]);
    assert_eq!(claim(Resource::Descriptors, &stranger, to, 100), Ok(()));
}

#[case("abi.md#charge-fds", alone)]
fn received_descriptors_are_given_back_to_the_sender(env: &Env) {
    let sender = env.peer();
    for install in [0, bus1_uapi::RECV_FLAG_INSTALL_FDS] {
        let (receivers, sent) = fill(env, &sender, 10..12);
        assert_ne!(sent, 0);
        assert_eq!(sender.count("user-sent-fds"), sent as u64);
        for receiver in &receivers {
            while let Ok(message) = receiver.receive().flags(install).run() {
                receiver.release_slice(message.msg.offset).unwrap();
            }
        }
        assert_eq!(sender.count("user-sent-fds"), 0);
    }
}

#[case("abi.md#charge-fds", alone)]
fn dropped_descriptors_are_given_back_to_the_sender(env: &Env) {
    let sender = env.peer();
    let (receivers, sent) = fill(env, &sender, 10..14);
    drop(receivers);
    let (_receivers, again) = fill(env, &sender, 10..14);
    assert_eq!(again, sent);
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
    let first = limit(env, Resource::Slices) / 16;
    assert!(
        more <= first,
        "that user had its share, and got {more} more"
    );
}

/// Peers of one user that its publisher reaches at once.
const SUBSCRIBERS: usize = 300;
/// Bytes that it sends to each, on a machine of 4 GiB.
const PUBLISHED: usize = 64 << 10;

/// Each subscriber holds a handle of the publisher, and the publisher one of each.
#[case("abi.md#quota-wide", "abi.md#limit-start")]
fn a_publisher_reaches_300_subscribers_of_its_user(env: &Env) {
    let of_4_gib = (4 << 30) / 8;
    // A limit that is an eighth of less memory grants as much less.
    let most = PUBLISHED * limit(env, Resource::Bytes) / of_4_gib;
    let bytes = vec![7; PUBLISHED.min(most)];
    let publisher = env.peer();
    let door = publisher.new_node();
    let subscribers: Vec<Peer> = (0..SUBSCRIBERS).map(|_| env.peer()).collect();
    let registered = subscribers.iter().map(|subscriber| {
        publisher.give(subscriber, door).unwrap();
        subscriber.give(&publisher, subscriber.new_node()).unwrap()
    });
    let to: Vec<u64> = registered.collect();
    for _ in 0..2 {
        assert_eq!(publisher.message().to(&to).bytes(&bytes).send(), Ok(()));
        for subscriber in &subscribers {
            let message = subscriber.expect_data();
            assert_eq!(message.bytes, bytes);
            subscriber.release_slice(message.msg.offset).unwrap();
        }
    }
}
