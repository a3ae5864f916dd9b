// SPDX-License-Identifier: MIT OR Apache-2.0

//! Room again: SEND with ROOM is refused, and its sender is notified once there may be room.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use super::quota::Sender;
use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::{Errno as E, Result};

/// Makes a receiver that accepts few messages, and a sender to it.
fn pair(env: &Env, from: Sender) -> (Peer, Peer, u64) {
    let (receiver, sender) = (env.peer(), env.peer_of(from.user()));
    let slices = 80;
    let limits = Limits {
        slices,
        ..Limits::KEEP
    };
    receiver.limit(limits).unwrap();
    let to = sender.handle_of(&receiver);
    (receiver, sender, to)
}

fn send(sender: &Peer, to: u64) -> Result {
    sender.message().to(&[to]).room().send()
}

/// Sends until the destination refuses. Returns the number of messages that it took.
fn fill(sender: &Peer, to: u64) -> usize {
    let mut n = 0;
    loop {
        match send(sender, to) {
            Ok(()) => n += 1,
            Err(errno) => {
                assert_eq!(errno, E::DQUOT);
                return n;
            }
        }
    }
}

/// Receives one message, and gives its slice back.
fn take(receiver: &Peer) {
    let message = receiver.expect_data();
    receiver.release_slice(message.msg.offset).unwrap();
}

#[case(
    "abi.md#room-again",
    "abi.md#room-once",
    "abi.md#send-edquot",
    each(Sender::Own, Sender::Foreign)
)]
fn a_refused_sender_is_notified_once(env: &Env, from: Sender) {
    let (receiver, sender, to) = pair(env, from);
    let n = fill(&sender, to);
    assert!(n > 0);
    for _ in 0..3 {
        assert_eq!(send(&sender, to), Err(E::DQUOT));
    }
    sender.expect_nothing();
    for _ in 0..2 {
        take(&receiver);
        let notice = sender.expect_room(to).msg;
        let expected = abi::Msg {
            kind: 16,
            destination: to,
            offset: abi::OFFSET_INVALID,
            ..Default::default()
        };
        assert_eq!(notice, expected);
        // More room is no news.
        receiver.expect_all();
        sender.expect_nothing();
        assert_eq!(fill(&sender, to), n);
    }
    // Until it was received, it stands for further refusals.
    take(&receiver);
    assert_eq!(fill(&sender, to), 1);
    receiver.expect_all();
    sender.expect_room(to);
    sender.expect_nothing();
}

/// Nobody who does not ask is notified, and a refusal that never passes is none to wait for.
#[case("abi.md#room-none", "abi.md#send-einval-seed")]
fn some_refusals_begin_no_wait(env: &Env) {
    let (receiver, sender, to) = pair(env, Sender::Foreign);
    while sender.message().to(&[to]).send().is_ok() {}
    let large = vec![7; (2 << 20) + 1];
    let message = || sender.message().to(&[to]).room();
    assert_eq!(message().bytes(&large).send(), Err(E::MSGSIZE));
    assert_eq!(send(&sender, UNKNOWN_ID), Err(E::NXIO));
    // The call as a whole fails for another reason.
    let other = env.peer();
    let both = [sender.handle_of(&other), to];
    let message = sender.message().to(&both).room().proceed();
    let hole = crate::sys::memory::NOWHERE;
    assert_eq!(message.vector(hole, 8).send(), Err(E::FAULT));
    assert_eq!(sender.message().room().seed().send(), Err(E::INVAL));
    receiver.expect_all();
    sender.expect_nothing();
}

#[case("abi.md#room-gone")]
fn the_end_of_the_node_is_notified(env: &Env) {
    for disconnects in [false, true] {
        let (receiver, sender, to) = pair(env, Sender::Foreign);
        let node = receiver.new_node();
        let second = receiver.give(&sender, node).unwrap();
        fill(&sender, to);
        assert_eq!(send(&sender, second), Err(E::DQUOT));
        if disconnects {
            receiver.disconnect().unwrap();
        } else {
            receiver.destroy(&[node]).unwrap();
        }
        let all = sender.expect_all();
        let about = |kind| -> BTreeSet<u64> {
            let of_kind = all.iter().filter(|one| one.msg.kind == kind);
            of_kind.map(|one| one.msg.destination).collect()
        };
        let gone: BTreeSet<u64> = match disconnects {
            true => [to, second].into(),
            false => [second].into(),
        };
        assert_eq!(about(abi::MSG_NODE_DESTROY), gone);
        assert_eq!(about(abi::MSG_ROOM), gone);
        assert_eq!(all.len(), 2 * gone.len());
        assert_eq!(send(&sender, second), Err(E::HOSTUNREACH));
    }
}

#[case("abi.md#room-left")]
fn a_sender_that_drops_the_handle_is_not_notified(env: &Env) {
    for is_queued in [false, true] {
        let (receiver, sender, to) = pair(env, Sender::Foreign);
        fill(&sender, to);
        if is_queued {
            take(&receiver);
        }
        sender.release(to).unwrap();
        sender.expect_nothing();
        receiver.expect_all();
        sender.expect_nothing();
    }
    let (receiver, sender, to) = pair(env, Sender::Foreign);
    fill(&sender, to);
    take(&receiver);
    sender.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
    sender.expect_nothing();
}

/// The first limit that refuses, by its level.
fn level(sender: &Peer, to: u64, n_fds: usize) -> u32 {
    sender.quota(to, [0, 0, n_fds]).unwrap().level
}

#[case("abi.md#room-levels")]
fn any_limit_may_have_refused(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    let to = sender.handle_of(&receiver);
    receiver.limit(Limits::MOST).unwrap();
    // That of the receiver's user.
    fill(&sender, to);
    assert_eq!(level(&sender, to, 0), abi::QUOTA_LEVEL_USER);
    sender.expect_nothing();
    take(&receiver);
    sender.expect_room(to);
    receiver.expect_all();
    sender.expect_nothing();
    // That of the sender's user in flight.
    let null = File::open("/dev/null").unwrap();
    let fds = [null.as_raw_fd(); 200];
    let send = || sender.message().to(&[to]).fds(&fds).room().send();
    while send().is_ok() {}
    assert_eq!(level(&sender, to, 200), abi::QUOTA_LEVEL_SENDER);
    sender.expect_nothing();
    let header = receiver.receive().flags(0).header();
    receiver.release_slice(header.unwrap().offset).unwrap();
    sender.expect_room(to);
}

/// What another peer of the receiving user gives back is room as well.
#[case("abi.md#room-levels")]
fn another_peer_may_make_room(env: &Env) {
    let (first, second) = (env.peer(), env.peer());
    let mut senders = Vec::new();
    for peer in [&first, &second] {
        peer.limit(Limits::MOST).unwrap();
    }
    // Several users fill the first, so that there is less for each at the second.
    for user in 1..4 {
        let sender = env.peer_of(user);
        let to = sender.handle_of(&first);
        while sender.message().to(&[to]).send().is_ok() {}
        senders.push(sender);
    }
    let sender = &senders[0];
    let to = sender.handle_of(&second);
    fill(sender, to);
    assert_eq!(level(sender, to, 0), abi::QUOTA_LEVEL_USER);
    sender.expect_nothing();
    first.disconnect().unwrap();
    let kinds: Vec<_> = sender.expect_all().iter().map(|one| one.msg.kind).collect();
    assert_eq!(kinds, [abi::MSG_NODE_DESTROY, abi::MSG_ROOM]);
}

#[case("abi.md#room-smaller")]
fn a_large_message_waits_for_as_much_room(env: &Env) {
    let (receiver, sender) = (env.peer(), env.peer_of(1));
    let bytes = 8000;
    receiver
        .limit(Limits {
            bytes,
            ..Limits::KEEP
        })
        .unwrap();
    let to = sender.handle_of(&receiver);
    let (small, large) = ([7; 100], [7; 800]);
    while sender.message().to(&[to]).bytes(&small).send().is_ok() {}
    let large = || sender.message().to(&[to]).bytes(&large).room().send();
    let mut taken = 0;
    while sender.recv().is_err() {
        assert_eq!(large(), Err(E::DQUOT), "after {taken}");
        take(&receiver);
        taken += 1;
    }
    assert!(taken > 1, "one small one is not enough");
    assert_eq!(large(), Ok(()));
}

#[case("abi.md#room-hint")]
fn a_user_with_too_many_waits_is_notified_at_once(env: &Env) {
    let (receiver, sender, to) = pair(env, Sender::Foreign);
    fill(&sender, to);
    let ids: Vec<u64> = (0..1030).map(|_| receiver.node_for(&sender).1).collect();
    let message = sender.message().to(&ids).room().proceed();
    let outcome = message.outcome();
    assert_eq!(outcome.result, Ok(()));
    let all = vec![E::DQUOT.raw_os_error(); ids.len()];
    assert_eq!(outcome.errors, all);
    // One is that of `fill`.
    let at_once = sender.expect_all();
    assert_eq!(at_once.len(), 1030 - 1023);
    receiver.expect_all();
    let rest = sender.expect_all();
    assert_eq!(rest.len(), 1024);
    let mut notified: Vec<u64> = Vec::new();
    for one in at_once.iter().chain(&rest) {
        assert_eq!(one.msg.kind, abi::MSG_ROOM);
        notified.push(one.msg.destination);
    }
    notified.sort_unstable();
    let mut expected = ids;
    expected.push(to);
    expected.sort_unstable();
    assert_eq!(notified, expected);
}

#[case("abi.md#room-turns")]
fn users_that_wait_take_turns(env: &Env) {
    let (receiver, many, to) = pair(env, Sender::Foreign);
    fill(&many, to);
    let mut ids = vec![to];
    for _ in 0..50 {
        let id = receiver.node_for(&many).1;
        assert_eq!(send(&many, id), Err(E::DQUOT));
        ids.push(id);
    }
    let few = env.peer_of(2);
    let to = receiver.node_for(&few).1;
    fill(&few, to);
    let mut taken = 0;
    let mut notified = Vec::new();
    while few.recv().is_err() {
        take(&receiver);
        taken += 1;
        notified.extend(many.expect_all().iter().map(|one| one.msg.destination));
    }
    assert!(taken < 20, "{taken}");
    // Those that waited longest came first.
    assert_eq!(notified, ids[..notified.len()]);
}

/// A publisher that tries again when it is notified, and no sooner, gets all of its messages
/// through to a subscriber that is always behind, with less than 10 refused attempts for each
/// notice.
#[case("abi.md#room-again")]
fn a_slow_subscriber_costs_few_attempts(env: &Env) {
    const MESSAGES: usize = 3000;
    let (subscriber, publisher, to) = pair(env, Sender::Own);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..MESSAGES {
                let message = subscriber.exchange().room(1).patient().expect_one();
                subscriber.release_slice(message.msg.offset).unwrap();
            }
        });
        let (mut refused, mut notices) = (0, 0);
        for _ in 0..MESSAGES {
            while let Err(errno) = send(&publisher, to) {
                assert_eq!(errno, E::DQUOT);
                refused += 1;
                let notice = publisher.exchange().room(1).patient().expect_one();
                assert_eq!((notice.msg.kind, notice.msg.destination), (16, to));
                notices += 1;
            }
        }
        // One each, and at most one that is not used.
        assert!(refused <= 10 * notices, "{refused} for {notices}");
        assert!(notices <= MESSAGES, "{notices}");
    });
}

/// The notice is in the sender's queue behind what caused it, and makes it readable.
#[case("abi.md#room-again", "abi.md#notify-place")]
fn the_notice_has_its_place_in_the_queue(env: &Env) {
    let (receiver, sender, to) = pair(env, Sender::Own);
    let back = receiver.handle_of(&sender);
    fill(&sender, to);
    receiver.expect_sent(back, b"before");
    take(&receiver);
    receiver.expect_sent(back, b"after");
    assert!(sender.events().readable);
    sender.expect_text(b"before");
    sender.expect_room(to);
    sender.expect_text(b"after");
}
