// SPDX-License-Identifier: MIT OR Apache-2.0

//! Receivers that never read, and the part that they leave to others.

use bus1_uapi as abi;

use super::Report;
use crate::cases::quota::{claim_all, Resource};
use crate::client::{Limits, Peer};
use crate::env::Env;

/// Messages that a publisher sends to each of its subscribers.
const MESSAGES: usize = 20_000;

/// Messages that a running subscriber gets beside stopped ones of the same user, from a publisher
/// of that user.
pub fn subscribers(env: &Env, report: &mut Report) {
    for stopped in [0, 1, 4, 16, 64] {
        let publisher = env.peer();
        let running = env.peer();
        let all: Vec<Peer> = (0..stopped).map(|_| env.peer()).collect();
        let to_running = publisher.handle_of(&running);
        let to: Vec<u64> = all.iter().map(|one| publisher.handle_of(one)).collect();
        let mut taken = 0;
        for _ in 0..MESSAGES {
            let to = [&to[..], &[to_running]].concat();
            publisher.message().to(&to).proceed().send().unwrap();
            if let Ok(msg) = running.receive().header() {
                running.release_slice(msg.offset).unwrap();
                taken += 1;
            }
        }
        let what = format!("of {MESSAGES} messages beside {stopped} stopped subscribers");
        report.count(what, taken, MESSAGES);
    }
}

/// Messages that a foreign user can send to an idle peer of a user, once senders of that user have
/// filled another peer of the user.
pub fn foreign(env: &Env, report: &mut Report) {
    for senders in [0, 64] {
        let [filled, idle] = env.peers();
        let node = filled.new_node();
        let own: Vec<Peer> = (0..senders).map(|_| env.peer()).collect();
        for sender in &own {
            let to = filled.give(sender, node).unwrap();
            claim_all(Resource::Slices, sender, to);
        }
        let foreign = env.peer_of(1);
        let to = foreign.handle_of(&idle);
        let taken = claim_all(Resource::Slices, &foreign, to);
        let what = format!(
            "messages of a foreign user at an idle peer, with another peer filled by {senders} own"
        );
        report.figure(what, taken);
    }
}

/// Users that never read.
const SILENT: u32 = 8;

/// Descriptors that users who never read take of a service's, and those left to the service.
pub fn descriptors(env: &Env, report: &mut Report) {
    let service = env.peer();
    let mut receivers = Vec::new();
    let mut taken = 0;
    for user in (1..=SILENT).flat_map(|user| [user; 4]) {
        let receiver = env.peer_of(user);
        receiver.limit(Limits::MOST).unwrap();
        let to = service.handle_of(&receiver);
        taken += claim_all(Resource::Descriptors, &service, to);
        receivers.push(receiver);
    }
    let limit = env.bus().user_limits().fds as usize;
    let what = format!("of {limit} descriptors taken by {SILENT} users with 4 peers each");
    report.count(what, taken, format_args!("at most {}", limit / 2));
    let twin = env.peer();
    let node = twin.new_node();
    twin.give_self(node).unwrap();
    let own = claim_all(Resource::Descriptors, &twin, node);
    let what = "descriptors that another peer of the service's user can send to itself then";
    report.count(what, own, format_args!("at least {}", limit / 32));
    assert_eq!(
        twin.receive().flags(0).header().unwrap().kind,
        abi::MSG_DATA
    );
}
