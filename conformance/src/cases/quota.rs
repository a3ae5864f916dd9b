// SPDX-License-Identifier: MIT OR Apache-2.0

//! The amounts that a sender may claim at a peer: the worked numbers, and the rules behind them.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;

use crate::client::{Limits, Peer, FIRST_NODE};
use crate::env::Env;
use crate::host::{Errno as E, Result};

/// The limit of the worked numbers.
const LIMIT: u32 = 1024;
/// Amount that the first peer of the receiving user can take of it.
const OWN: usize = 512;
/// Amount that the first peer of a foreign user can take of it.
const FOREIGN: usize = 128;
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

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Slices, Self::Handles, Self::Bytes, Self::Descriptors];

    /// Returns the limit of this resource.
    pub fn of(self, limits: Limits) -> u32 {
        match self {
            Self::Slices => limits.slices,
            Self::Handles => limits.handles,
            Self::Bytes => limits.bytes,
            Self::Descriptors => limits.fds,
        }
    }
}

/// The user of a sender to a peer of user 0.
#[derive(Clone, Copy, Debug)]
pub enum Sender {
    /// The same
    Own,
    /// Another
    Foreign,
}

impl Sender {
    /// Returns the user's number.
    pub fn user(self) -> u32 {
        match self {
            Self::Own => 0,
            Self::Foreign => 1,
        }
    }
}

/// The node of the sender that claims of handles name, as often as needed.
const NODE: u64 = 0x40;

/// Sends one message from `sender` that claims `n` of a resource, and as little of the others as
/// can be.
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

/// Claims as much as `sender` is granted, and returns the amount. All claims stay.
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
            Err(E::DQUOT | E::MSGSIZE) => step /= 2,
            Err(errno) => panic!("SEND says {errno:?}"),
        }
    }
    total
}

/// Returns a peer of user 0 with this limit of one resource.
fn limited(env: &Env, resource: Resource) -> Peer {
    let receiver = env.peer();
    let mut limits = Limits::KEEP;
    match resource {
        Resource::Slices => limits.slices = LIMIT,
        // One handle is that of the receiver's own node, which every message goes to; with the room
        // that the rule wants beside it, that takes two.
        Resource::Handles => limits.handles = LIMIT + 2,
        Resource::Bytes => limits.bytes = LIMIT,
        Resource::Descriptors => limits.fds = LIMIT,
    }
    receiver.limit(limits).unwrap();
    receiver
}

/// Amounts that peers of these users can take, one after the other; user 0 owns the receiver.
fn take(env: &Env, resource: Resource, users: &[u32]) -> Vec<usize> {
    let receiver = limited(env, resource);
    let node = receiver.new_node();
    let senders: Vec<_> = users.iter().map(|&user| env.peer_of(user)).collect();
    let to: Vec<_> = senders
        .iter()
        .map(|sender| receiver.give(sender, node).unwrap())
        .collect();
    let taken = senders
        .iter()
        .zip(&to)
        .map(|(sender, &to)| claim_all(resource, sender, to));
    let taken = taken.collect();
    // No sender gets more by asking again.
    for (sender, &to) in senders.iter().zip(&to) {
        assert_eq!(claim(resource, sender, to, 1), Err(E::DQUOT));
    }
    taken
}

#[case(
    "abi.md#quota-own",
    each(
        Resource::Slices,
        Resource::Handles,
        Resource::Bytes,
        Resource::Descriptors
    )
)]
fn own_peers_take_512_and_256(env: &Env, resource: Resource) {
    assert_eq!(take(env, resource, &[0, 0]), [512, 256]);
}

#[case(
    "abi.md#quota-foreign",
    each(
        Resource::Slices,
        Resource::Handles,
        Resource::Bytes,
        Resource::Descriptors
    )
)]
fn foreign_peers_take_128_and_64(env: &Env, resource: Resource) {
    assert_eq!(take(env, resource, &[1, 1]), [128, 64]);
}

#[case(
    "abi.md#quota-foreign",
    each(
        Resource::Slices,
        Resource::Handles,
        Resource::Bytes,
        Resource::Descriptors
    )
)]
fn next_foreign_user_takes_42_and_21(env: &Env, resource: Resource) {
    assert_eq!(take(env, resource, &[1, 1, 2, 2]), [128, 64, 42, 21]);
}

#[case("abi.md#quota-rule")]
fn a_single_claim_may_take_it_all(env: &Env) {
    for resource in [Resource::Handles, Resource::Bytes] {
        for (user, most) in [(0, OWN), (1, FOREIGN)] {
            let receiver = limited(env, resource);
            let sender = env.peer_of(user);
            let to = sender.handle_of(&receiver);
            assert_eq!(claim(resource, &sender, to, most), Ok(()), "{resource:?}");
            assert_eq!(
                claim(resource, &sender, to, 1),
                Err(E::DQUOT),
                "{resource:?}"
            );
        }
    }
}

#[case("abi.md#quota-rule", "abi.md#send-emsgsize-quota")]
fn one_more_in_a_single_claim_is_refused(env: &Env) {
    for resource in [Resource::Handles, Resource::Bytes] {
        for (user, most) in [(0, OWN), (1, FOREIGN)] {
            let receiver = limited(env, resource);
            let sender = env.peer_of(user);
            let to = sender.handle_of(&receiver);
            // Handles have a bit of room for those that the suite itself uses.
            assert_eq!(
                claim(resource, &sender, to, most + 2),
                Err(E::MSGSIZE),
                "{resource:?}"
            );
        }
    }
}

#[case("abi.md#no-trace")]
fn refused_claim_takes_nothing(env: &Env) {
    let receiver = limited(env, Resource::Bytes);
    let sender = env.peer();
    let to = sender.handle_of(&receiver);
    for _ in 0..1000 {
        assert_eq!(claim(Resource::Bytes, &sender, to, 513), Err(E::MSGSIZE));
    }
    assert_eq!(claim(Resource::Bytes, &sender, to, 512), Ok(()));
    assert_eq!(receiver.expect_all().len(), 1);
}

#[case("abi.md#quota-flood")]
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
    assert_eq!(
        claim_all(Resource::Slices, &other, to),
        42,
        "as if there were one peer only"
    );
    let own = env.peer();
    let to = receiver.give(&own, node).unwrap();
    let taken = claim_all(Resource::Slices, &own, to);
    assert!(taken >= 300, "the owner got no more than {taken}");
}

#[case("abi.md#quota-flood")]
fn a_flood_of_users_leaves_the_owner_room(env: &Env) {
    let receiver = limited(env, Resource::Slices);
    let node = receiver.new_node();
    let mut shares = Vec::new();
    let flood: Vec<_> = (1..30).map(|user| env.peer_of(user)).collect();
    for sender in &flood {
        let to = receiver.give(sender, node).unwrap();
        shares.push(claim_all(Resource::Slices, sender, to));
    }
    assert!(
        shares.is_sorted_by(|a, b| a >= b),
        "later users never get more: {shares:?}"
    );
    assert!(shares.iter().sum::<usize>() < 512, "{shares:?}");
    let own = env.peer();
    let to = receiver.give(&own, node).unwrap();
    let taken = claim_all(Resource::Slices, &own, to);
    assert!(taken >= 128, "the owner got no more than {taken}");
}

#[case("abi.md#charge-conserved")]
fn released_charges_can_be_claimed_again(env: &Env) {
    for resource in Resource::ALL {
        let receiver = limited(env, resource);
        let sender = env.peer_of(1);
        let to = sender.handle_of(&receiver);
        for round in 0..4 {
            assert_eq!(
                claim_all(resource, &sender, to),
                128,
                "{resource:?}, round {round}"
            );
            // References that came with messages go, so that their handle goes, too.
            for message in receiver.expect_all() {
                for id in message.handles {
                    receiver.release(id).unwrap();
                }
            }
        }
    }
}

#[case("abi.md#charge-slices")]
fn owner_claims_at_itself(env: &Env) {
    let peer = limited(env, Resource::Slices);
    let node = peer.new_node();
    peer.give_self(node).unwrap();
    assert_eq!(claim_all(Resource::Slices, &peer, node), 512);
}

#[case("abi.md#charge-nodes")]
fn nodes_are_charged_to_their_owner(env: &Env) {
    let peer = env.peer();
    peer.limit(Limits {
        handles: 64,
        ..Limits::KEEP
    })
    .unwrap();
    let mut made = 0;
    while peer.message().handles(&[peer.new_node()]).send().is_ok() {
        made += 1;
    }
    assert_eq!(made, 32, "a peer may take half of its own limit");
    peer.destroy_and_release(&[FIRST_NODE]).unwrap();
    assert_eq!(peer.message().handles(&[0x8000]).send(), Ok(()));
    assert_eq!(peer.message().handles(&[0x8004]).send(), Err(E::DQUOT));
}

#[case("abi.md#charge-slots")]
fn received_handle_stays_charged(env: &Env) {
    let receiver = limited(env, Resource::Handles);
    let sender = env.peer();
    let to = sender.handle_of(&receiver);
    let nodes: Vec<_> = (0..512).map(|_| sender.new_node()).collect();
    sender.message().to(&[to]).handles(&nodes).send().unwrap();
    let ids = receiver.expect_data().handles;
    let another = sender.new_node();
    assert_eq!(
        sender.message().to(&[to]).handles(&[another]).send(),
        Err(E::DQUOT)
    );
    receiver.release(ids[100]).unwrap();
    assert_eq!(
        sender.message().to(&[to]).handles(&[another]).send(),
        Ok(())
    );
    assert_eq!(
        sender.message().to(&[to]).handles(&[another]).send(),
        Err(E::DQUOT)
    );
}

#[case("abi.md#charge-slots")]
fn handle_received_again_is_charged_once(env: &Env) {
    let receiver = limited(env, Resource::Handles);
    let sender = env.peer();
    let to = sender.handle_of(&receiver);
    let node = sender.new_node();
    sender.give_self(node).unwrap();
    // In flight every slot counts, and after receipt the handle does, once.
    for _ in 0..5 {
        assert_eq!(
            sender.message().to(&[to]).handles(&[node; 500]).send(),
            Ok(())
        );
        assert_eq!(
            sender.message().to(&[to]).handles(&[node; 13]).send(),
            Err(E::DQUOT)
        );
        receiver.expect_all();
    }
    assert_eq!(
        sender.message().to(&[to]).handles(&[node; 512]).send(),
        Err(E::DQUOT)
    );
    assert_eq!(
        sender.message().to(&[to]).handles(&[node; 511]).send(),
        Ok(())
    );
}

#[case("abi.md#limit-edquot")]
fn limits_are_per_peer(env: &Env) {
    let [full, free] = [
        limited(env, Resource::Slices),
        limited(env, Resource::Slices),
    ];
    let sender = env.peer();
    let to = sender.handle_of(&full);
    assert_eq!(claim_all(Resource::Slices, &sender, to), 512);
    let to = sender.handle_of(&free);
    assert_eq!(claim_all(Resource::Slices, &sender, to), 512);
}
