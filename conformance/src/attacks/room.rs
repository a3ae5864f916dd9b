// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attempts of senders that are refused.

use std::time::Duration;

use bus1_uapi as abi;

use super::Report;
use crate::client::{Limits, Peer};
use crate::env::Env;
use crate::host::Errno as E;

/// Messages to a slow subscriber.
const MESSAGES: usize = 3000;
/// Time for which the subscriber does something else after each message.
const SLOW: Duration = Duration::from_micros(200);

/// Receives all messages, slowly.
fn subscribe(subscriber: &Peer) {
    for _ in 0..MESSAGES {
        let message = subscriber.exchange().room(1).patient().expect_one();
        subscriber.release_slice(message.msg.offset).unwrap();
        std::thread::sleep(SLOW);
    }
}

/// Sends all messages, with `wait` after each refusal, and returns the number of refusals.
fn publish(publisher: &Peer, to: u64, flags: u64, mut wait: impl FnMut()) -> usize {
    let mut refused = 0;
    for _ in 0..MESSAGES {
        while let Err(errno) = publisher.message().to(&[to]).flags(flags).send() {
            assert_eq!(errno, E::DQUOT);
            refused += 1;
            wait();
        }
    }
    refused
}

/// Attempts that are refused while messages go to a slow subscriber, with notices and without.
pub fn notices(env: &Env, report: &mut Report) {
    let subscriber = env.peer();
    let limits = Limits {
        slices: 80,
        ..Limits::KEEP
    };
    subscriber.limit(limits).unwrap();
    let publisher = env.peer();
    let to = publisher.handle_of(&subscriber);
    std::thread::scope(|scope| {
        scope.spawn(|| subscribe(&subscriber));
        let refused = publish(&publisher, to, 0, || ());
        let what = format!("refused attempts for {MESSAGES} messages, tried again at once");
        report.figure(what, refused);
    });
    std::thread::scope(|scope| {
        scope.spawn(|| subscribe(&subscriber));
        let mut notices = 0;
        let refused = publish(&publisher, to, abi::SEND_FLAG_ROOM, || {
            let notice = publisher.exchange().room(1).patient().expect_one();
            assert_eq!(notice.msg.kind, abi::MSG_ROOM);
            notices += 1;
        });
        let what = format!("refused attempts for {MESSAGES} messages, with {notices} notices");
        report.count(what, refused, format_args!("at most {}", 10 * notices));
    });
}

/// Bytes of a message to many subscribers.
const WIDE: usize = 64 << 10;

/// Subscribers of one user that a multicast of 64 KiB reaches, from a publisher of that user and of
/// another, among those of which the publisher was granted a handle.
pub fn wide(env: &Env, report: &mut Report) {
    let bytes = vec![7; WIDE];
    for (user, whose) in [(0, "their user"), (1, "another user")] {
        for subscribers in [120, 130, 300] {
            let publisher = env.peer_of(user);
            let all: Vec<Peer> = (0..subscribers).map(|_| env.peer()).collect();
            let given = all.iter().map(|one| one.give(&publisher, one.new_node()));
            let to: Vec<u64> = given.filter_map(|id| id.ok()).collect();
            let sent = publisher.message().to(&to).bytes(&bytes).proceed();
            let errors = sent.outcome().errors;
            let reached = errors.iter().filter(|&&errno| errno == 0).count();
            let given = to.len();
            let what = format!("of {subscribers} subscribers, publisher of {whose}");
            report.figure(what, format_args!("{given} handles, {reached} messages"));
        }
    }
}

/// The answer to a message that is too large for an idle peer.
pub fn large(env: &Env, report: &mut Report) {
    let (receiver, sender, to) = env.linked();
    let bytes = vec![7; 9 << 20];
    let message = || sender.message().to(&[to]).bytes(&bytes);
    let errno = message().send().expect_err("9 MiB were sent");
    let waits = message().room().send().expect_err("9 MiB were sent");
    let what = "9 MiB to an idle peer, without and with BUS1_SEND_FLAG_ROOM";
    report.figure(what, format_args!("{errno} and {waits}"));
    receiver.expect_nothing();
    sender.expect_nothing();
}
