// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much a sender may claim at a peer: the worked numbers, and the rules behind them.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::{Errno as E, Result};

pub const CASES: &[Case] = &[
    case!(own_peers_take_512_and_256_slices, "7: two own peers can take 512 and 256"),
    case!(own_peers_take_512_and_256_handles, "7: two own peers can take 512 and 256"),
    case!(own_peers_take_512_and_256_bytes, "7: two own peers can take 512 and 256"),
    case!(own_peers_take_512_and_256_descriptors, "7: two own peers can take 512 and 256"),
    case!(foreign_peers_take_128_and_64_slices, "7: a foreign user's first two peers 128 and 64"),
    case!(foreign_peers_take_128_and_64_handles, "7: a foreign user's first two peers"),
    case!(foreign_peers_take_128_and_64_bytes, "7: a foreign user's first two peers 128 and 64"),
    case!(foreign_peers_take_128_and_64_descriptors, "7: a foreign user's first two peers"),
    case!(next_foreign_user_takes_42_and_21_slices, "7: the next foreign user's 42 and 21"),
    case!(next_foreign_user_takes_42_and_21_handles, "7: the next foreign user's 42 and 21"),
    case!(next_foreign_user_takes_42_and_21_bytes, "7: the next foreign user's 42 and 21"),
    case!(next_foreign_user_takes_42_and_21_descriptors, "7: the next foreign user's 42 and 21"),
    case!(a_single_claim_may_take_it_all, "7: claim + share <= (remaining + share) / A"),
    case!(one_more_in_a_single_claim_is_refused, "7: a claim is granted only if"),
    case!(refused_claim_takes_nothing, "5: a failed command leaves no trace"),
    case!(a_flood_of_peers_cannot_exhaust_a_user, "7: no user can exhaust another"),
    case!(a_flood_of_users_leaves_the_owner_room, "7: no user can exhaust another"),
    case!(what_is_given_back_can_be_claimed_again, "7: charges are conserved exactly"),
    case!(owner_claims_at_itself, "7: charged to the receiving user and peer"),
    case!(nodes_are_charged_to_their_owner, "7: handles"),
    case!(received_handle_stays_charged, "7: handles are given back when released"),
    case!(handle_received_again_is_charged_once, "7: handles are given back when released"),
    case!(limits_are_per_peer, "7: per user and per peer"),
];

/// What a limit is set to in the worked numbers.
const LIMIT: u32 = 1024;
const KEEP: u32 = u32::MAX;

/// One of the four resources.
#[derive(Clone, Copy, Debug)]
pub enum Resource {
    /// Slices
    Slices,
    /// Handles
    Handles,
    /// Bytes in flight
    Bytes,
    /// Descriptors in flight
    Descriptors,
}

/// A node of the sender that claims of handles name, as often as needed.
const NODE: u64 = 0x40;

/// One message from `sender` that claims `n` of a resource, and as little of the others as can be.
pub fn claim(resource: Resource, sender: &Peer, to: u64, n: usize) -> Result {
    let message = sender.message().to(&[to]);
    match resource {
        Resource::Slices => {
            assert_eq!(n, 1, "a message has one slice");
            message.send()
        }
        Resource::Handles => message.handles(&vec![NODE; n]).send(),
        Resource::Bytes => message.bytes(&vec![0x11; n]).send(),
        Resource::Descriptors => {
            let null = File::open("/dev/null").expect("no /dev/null");
            message.fds(&vec![null.as_raw_fd(); n]).send()
        }
    }
}

/// Claims as much as `sender` is granted; how much that was. All claims stay.
pub fn claim_all(resource: Resource, sender: &Peer, to: u64) -> usize {
    let mut total = 0;
    let mut step = match resource {
        Resource::Slices => 1,
        Resource::Descriptors => 256,
        Resource::Handles | Resource::Bytes => 1 << 14,
    };
    while step > 0 {
        match claim(resource, sender, to, step) {
            Ok(()) => total += step,
            Err(E::DQUOT) => step /= 2,
            Err(errno) => panic!("SEND says {errno:?}"),
        }
    }
    total
}

/// A peer of user 0 with this limit of one resource.
fn limited(env: &Env, resource: Resource) -> Peer {
    let receiver = env.peer();
    receiver
        .limit(match resource {
            Resource::Slices => [LIMIT, KEEP, KEEP, KEEP],
            // One handle is its own node's, which every message goes to; with the room that
            // the rule wants beside it, that takes two.
            Resource::Handles => [KEEP, LIMIT + 2, KEEP, KEEP],
            Resource::Bytes => [KEEP, KEEP, LIMIT, KEEP],
            Resource::Descriptors => [KEEP, KEEP, KEEP, LIMIT],
        })
        .unwrap();
    receiver
}

/// What peers of these users can take, one after the other; user 0 owns the receiver.
fn take(env: &Env, resource: Resource, users: &[u32]) -> Vec<usize> {
    let receiver = limited(env, resource);
    let node = receiver.new_node();
    let senders: Vec<_> = users.iter().map(|&user| env.peer_of(user)).collect();
    let to: Vec<_> = senders.iter().map(|sender| receiver.give(sender, node).unwrap()).collect();
    let taken = senders.iter().zip(&to).map(|(sender, &to)| claim_all(resource, sender, to));
    let taken = taken.collect();
    // Nobody gets more by asking again.
    for (sender, &to) in senders.iter().zip(&to) {
        assert_eq!(claim(resource, sender, to, 1), Err(E::DQUOT));
    }
    taken
}

fn own_peers_take_512_and_256_slices(env: &Env) {
    assert_eq!(take(env, Resource::Slices, &[0, 0]), [512, 256]);
}

fn own_peers_take_512_and_256_handles(env: &Env) {
    assert_eq!(take(env, Resource::Handles, &[0, 0]), [512, 256]);
}

fn own_peers_take_512_and_256_bytes(env: &Env) {
    assert_eq!(take(env, Resource::Bytes, &[0, 0]), [512, 256]);
}

fn own_peers_take_512_and_256_descriptors(env: &Env) {
    assert_eq!(take(env, Resource::Descriptors, &[0, 0]), [512, 256]);
}

fn foreign_peers_take_128_and_64_slices(env: &Env) {
    assert_eq!(take(env, Resource::Slices, &[1, 1]), [128, 64]);
}

fn foreign_peers_take_128_and_64_handles(env: &Env) {
    assert_eq!(take(env, Resource::Handles, &[1, 1]), [128, 64]);
}

fn foreign_peers_take_128_and_64_bytes(env: &Env) {
    assert_eq!(take(env, Resource::Bytes, &[1, 1]), [128, 64]);
}

fn foreign_peers_take_128_and_64_descriptors(env: &Env) {
    assert_eq!(take(env, Resource::Descriptors, &[1, 1]), [128, 64]);
}

fn next_foreign_user_takes_42_and_21_slices(env: &Env) {
    assert_eq!(take(env, Resource::Slices, &[1, 1, 2, 2]), [128, 64, 42, 21]);
}

fn next_foreign_user_takes_42_and_21_handles(env: &Env) {
    assert_eq!(take(env, Resource::Handles, &[1, 1, 2, 2]), [128, 64, 42, 21]);
}

fn next_foreign_user_takes_42_and_21_bytes(env: &Env) {
    assert_eq!(take(env, Resource::Bytes, &[1, 1, 2, 2]), [128, 64, 42, 21]);
}

fn next_foreign_user_takes_42_and_21_descriptors(env: &Env) {
    assert_eq!(take(env, Resource::Descriptors, &[1, 1, 2, 2]), [128, 64, 42, 21]);
}

fn a_single_claim_may_take_it_all(env: &Env) {
    for resource in [Resource::Handles, Resource::Bytes] {
        for (user, most) in [(0, 512), (1, 128)] {
            let receiver = limited(env, resource);
            let sender = env.peer_of(user);
            let to = sender.handle_of(&receiver);
            assert_eq!(claim(resource, &sender, to, most), Ok(()), "{resource:?}");
            assert_eq!(claim(resource, &sender, to, 1), Err(E::DQUOT), "{resource:?}");
        }
    }
}

fn one_more_in_a_single_claim_is_refused(env: &Env) {
    for resource in [Resource::Handles, Resource::Bytes] {
        for (user, most) in [(0, 512), (1, 128)] {
            let receiver = limited(env, resource);
            let sender = env.peer_of(user);
            let to = sender.handle_of(&receiver);
            assert_eq!(claim(resource, &sender, to, most + 1), Err(E::DQUOT), "{resource:?}");
        }
    }
}

fn refused_claim_takes_nothing(env: &Env) {
    let receiver = limited(env, Resource::Bytes);
    let sender = env.peer();
    let to = sender.handle_of(&receiver);
    for _ in 0..1000 {
        assert_eq!(claim(Resource::Bytes, &sender, to, 513), Err(E::DQUOT));
    }
    assert_eq!(claim(Resource::Bytes, &sender, to, 512), Ok(()));
    assert_eq!(receiver.drain().len(), 1);
}

fn a_flood_of_peers_cannot_exhaust_a_user(env: &Env) {
    let receiver = limited(env, Resource::Slices);
    let node = receiver.new_node();
    let flood: Vec<_> = (0..40).map(|_| env.peer_of(1)).collect();
    let taken: usize = flood
        .iter()
        .map(|sender| {
            let to = receiver.give(sender, node).unwrap();
            claim_all(Resource::Slices, sender, to)
        })
        .sum();
    assert!(taken <= 256, "one foreign user took {taken} of 1024");
    let other = env.peer_of(2);
    let to = receiver.give(&other, node).unwrap();
    assert_eq!(claim_all(Resource::Slices, &other, to), 42, "as if there were one peer only");
    let own = env.peer();
    let to = receiver.give(&own, node).unwrap();
    let taken = claim_all(Resource::Slices, &own, to);
    assert!(taken >= 300, "the owner got no more than {taken}");
}

fn a_flood_of_users_leaves_the_owner_room(env: &Env) {
    let receiver = limited(env, Resource::Slices);
    let node = receiver.new_node();
    let mut shares = Vec::new();
    let flood: Vec<_> = (1..30).map(|user| env.peer_of(user)).collect();
    for sender in &flood {
        let to = receiver.give(sender, node).unwrap();
        shares.push(claim_all(Resource::Slices, sender, to));
    }
    assert!(shares.is_sorted_by(|a, b| a >= b), "later users never get more: {shares:?}");
    assert!(shares.iter().sum::<usize>() < 512, "{shares:?}");
    let own = env.peer();
    let to = receiver.give(&own, node).unwrap();
    let taken = claim_all(Resource::Slices, &own, to);
    assert!(taken >= 128, "the owner got no more than {taken}");
}

fn what_is_given_back_can_be_claimed_again(env: &Env) {
    for resource in [Resource::Slices, Resource::Handles, Resource::Bytes, Resource::Descriptors] {
        let receiver = limited(env, resource);
        let sender = env.peer_of(1);
        let to = sender.handle_of(&receiver);
        for round in 0..4 {
            assert_eq!(claim_all(resource, &sender, to), 128, "{resource:?}, round {round}");
            // References that came with messages go, so that their handle goes, too.
            for message in receiver.drain() {
                for id in message.handles {
                    receiver.release(id).unwrap();
                }
            }
        }
    }
}

fn owner_claims_at_itself(env: &Env) {
    let peer = limited(env, Resource::Slices);
    let node = peer.new_node();
    peer.give_self(node).unwrap();
    assert_eq!(claim_all(Resource::Slices, &peer, node), 512);
}

fn nodes_are_charged_to_their_owner(env: &Env) {
    let peer = env.peer();
    peer.limit([KEEP, 64, KEEP, KEEP]).unwrap();
    let mut made = 0;
    while peer.message().handles(&[peer.new_node()]).send().is_ok() {
        made += 1;
    }
    assert_eq!(made, 32, "a peer may take half of its own limit");
    let first = 0x1000;
    peer.destroy_and_release(&[first]).unwrap();
    assert_eq!(peer.message().handles(&[0x8000]).send(), Ok(()));
    assert_eq!(peer.message().handles(&[0x8004]).send(), Err(E::DQUOT));
}

fn received_handle_stays_charged(env: &Env) {
    let receiver = limited(env, Resource::Handles);
    let sender = env.peer();
    let to = sender.handle_of(&receiver);
    let nodes: Vec<_> = (0..512).map(|_| sender.new_node()).collect();
    sender.message().to(&[to]).handles(&nodes).send().unwrap();
    let ids = receiver.data().handles;
    let another = sender.new_node();
    assert_eq!(sender.message().to(&[to]).handles(&[another]).send(), Err(E::DQUOT));
    receiver.release(ids[100]).unwrap();
    assert_eq!(sender.message().to(&[to]).handles(&[another]).send(), Ok(()));
    assert_eq!(sender.message().to(&[to]).handles(&[another]).send(), Err(E::DQUOT));
}

fn handle_received_again_is_charged_once(env: &Env) {
    let receiver = limited(env, Resource::Handles);
    let sender = env.peer();
    let to = sender.handle_of(&receiver);
    let node = sender.new_node();
    sender.give_self(node).unwrap();
    // In flight every slot counts, and after receipt the handle does, once.
    for _ in 0..5 {
        assert_eq!(sender.message().to(&[to]).handles(&[node; 500]).send(), Ok(()));
        assert_eq!(sender.message().to(&[to]).handles(&[node; 13]).send(), Err(E::DQUOT));
        receiver.drain();
    }
    assert_eq!(sender.message().to(&[to]).handles(&[node; 512]).send(), Err(E::DQUOT));
    assert_eq!(sender.message().to(&[to]).handles(&[node; 511]).send(), Ok(()));
}

fn limits_are_per_peer(env: &Env) {
    let [full, free] = [limited(env, Resource::Slices), limited(env, Resource::Slices)];
    let sender = env.peer();
    let to = sender.handle_of(&full);
    assert_eq!(claim_all(Resource::Slices, &sender, to), 512);
    let to = sender.handle_of(&free);
    assert_eq!(claim_all(Resource::Slices, &sender, to), 512);
}
