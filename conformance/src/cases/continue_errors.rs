// SPDX-License-Identifier: MIT OR Apache-2.0

//! SEND with CONTINUE, and the errors of single destinations.

use bus1_conformance_case::case;

use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{read_only, NOWHERE};

#[case("abi.md#send-continue")]
fn all_well_writes_zeros(env: &Env) {
    let [a, b] = env.peers();
    let to = [a.handle_of(&b), a.handle_of(&b)];
    let outcome = a.message().to(&to).proceed().outcome();
    assert_eq!((outcome.result, &*outcome.errors), (Ok(()), &[0, 0][..]));
    b.expect_data();
    b.expect_data();
}

#[case("abi.md#send-errors", "abi.md#send-efault-errors")]
fn errors_must_be_there(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    for bad in [0, NOWHERE] {
        let sent = a
            .message()
            .to(&[to])
            .proceed()
            .edit(|arg| arg.ptr_errors = bad);
        assert_eq!(sent.send(), Err(E::FAULT));
    }
    b.expect_nothing();
    assert_eq!(
        a.message().to(&[to]).edit(|arg| arg.ptr_errors = 0).send(),
        Ok(())
    );
    b.expect_data();
}

/// Handles at `holder` of nodes of each of `owners`; the nodes at the positions `dead` are
/// destroyed.
fn with_dead(holder: &Peer, owners: &[&Peer], dead: &[usize]) -> Vec<u64> {
    let pairs: Vec<_> = owners.iter().map(|owner| owner.node_for(holder)).collect();
    for &i in dead {
        owners[i].destroy_and_release(&[pairs[i].0]).unwrap();
    }
    holder.expect_all();
    pairs.into_iter().map(|(_, to)| to).collect()
}

#[case("abi.md#send-continue")]
fn dead_destination_does_not_stop_the_others(env: &Env) {
    let [sender, a, b, c] = env.peers();
    let to = with_dead(&sender, &[&a, &b, &c], &[1]);
    let outcome = sender
        .message()
        .to(&to)
        .bytes(b"on we go")
        .proceed()
        .outcome();
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.errors, [0, libc::EHOSTUNREACH, 0]);
    a.expect_text(b"on we go");
    b.expect_nothing();
    c.expect_text(b"on we go");
}

#[case("abi.md#send-continue")]
fn every_kind_of_failure_has_its_errno(env: &Env) {
    let [sender, a, full, gone] = env.peers();
    full.limit(Limits {
        slices: 0,
        ..Limits::KEEP
    })
    .unwrap();
    let to = with_dead(&sender, &[&a, &a, &full, &gone, &a], &[1]);
    gone.close();
    let named = [to[0], to[1], to[2], to[3], UNKNOWN_ID, to[4]];
    let outcome = sender.message().to(&named).proceed().outcome();
    assert_eq!(outcome.result, Ok(()));
    let unreachable = libc::EHOSTUNREACH;
    assert_eq!(
        outcome.errors,
        [0, unreachable, libc::EDQUOT, unreachable, libc::ENXIO, 0]
    );
    assert!(a.expect_data().more());
    assert!(!a.expect_data().more());
    a.expect_nothing();
}

#[case("abi.md#send-enotuniq")]
fn named_twice_fails_the_second_time(env: &Env) {
    let [sender, a, b] = env.peers();
    let to = with_dead(&sender, &[&a, &b], &[]);
    let outcome = sender
        .message()
        .to(&[to[0], to[1], to[0], to[0]])
        .proceed()
        .outcome();
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.errors, [0, 0, libc::ENOTUNIQ, libc::ENOTUNIQ]);
    assert!(!a.expect_data().more());
    a.expect_nothing();
    b.expect_data();
    b.expect_nothing();
}

#[case("abi.md#send-continue")]
fn all_destinations_may_fail(env: &Env) {
    let [sender, a] = env.peers();
    let to = with_dead(&sender, &[&a, &a], &[0, 1]);
    let outcome = sender
        .message()
        .to(&to)
        .bytes(b"nobody")
        .proceed()
        .outcome();
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.errors, [libc::EHOSTUNREACH; 2]);
    a.expect_nothing();
}

#[case("abi.md#send-continue")]
fn full_receiver_does_not_stop_the_others(env: &Env) {
    let [sender, full, free] = env.peers();
    full.limit(Limits {
        bytes: 100,
        ..Limits::KEEP
    })
    .unwrap();
    let to = with_dead(&sender, &[&full, &free], &[]);
    let mut filled = false;
    for len in [51, 51, 50, 50, 1] {
        // More than half of the limit is never granted. Half of it is, once.
        let errno = match len {
            51 => libc::EMSGSIZE,
            _ => libc::EDQUOT,
        };
        let bytes = vec![9; len];
        let message = sender.message().to(&to).bytes(&bytes);
        let outcome = message.proceed().outcome();
        let first = if filled || len == 51 { errno } else { 0 };
        filled |= len == 50;
        assert_eq!(
            (outcome.result, &*outcome.errors),
            (Ok(()), &[first, 0][..])
        );
    }
    full.expect_data();
    full.expect_nothing();
    assert_eq!(free.expect_all().len(), 5);
}

#[case("abi.md#send-continue-whole")]
fn bad_payload_fails_the_whole(env: &Env) {
    let [sender, a] = env.peers();
    let to = with_dead(&sender, &[&a, &a], &[]);
    assert_eq!(
        sender.message().to(&to).vector(NOWHERE, 8).proceed().send(),
        Err(E::FAULT)
    );
    a.expect_nothing();
}

#[case("abi.md#send-continue-whole")]
fn bad_handle_fails_the_whole(env: &Env) {
    let [sender, a] = env.peers();
    let to = with_dead(&sender, &[&a, &a], &[]);
    assert_eq!(
        sender
            .message()
            .to(&to)
            .handles(&[UNKNOWN_ID])
            .proceed()
            .send(),
        Err(E::NXIO)
    );
    a.expect_nothing();
}

#[case("abi.md#send-continue-whole")]
fn bad_descriptor_fails_the_whole(env: &Env) {
    let [sender, a] = env.peers();
    let to = with_dead(&sender, &[&a, &a], &[]);
    assert_eq!(
        sender.message().to(&to).fds(&[-1]).proceed().send(),
        Err(E::BADF)
    );
    a.expect_nothing();
}

#[case("abi.md#send-efault-errors")]
fn errors_that_cannot_be_written_fail_the_whole(env: &Env) {
    let [sender, a, b] = env.peers();
    let to = with_dead(&sender, &[&a, &b, &a], &[2]);
    let page = read_only(&[0; 12]);
    let addr = page.addr(0);
    let node = sender.new_node();
    for _ in 0..3 {
        let sent = sender.message().to(&to).handles(&[node]).proceed();
        assert_eq!(sent.edit(|arg| arg.ptr_errors = addr).send(), Err(E::FAULT));
        a.expect_nothing();
        b.expect_nothing();
        sender.expect_nothing();
    }
}

#[case("ordering.md#flag")]
fn failed_last_part_is_not_promised(env: &Env) {
    let [sender, a] = env.peers();
    let to = with_dead(&sender, &[&a, &a, &a], &[2]);
    sender.message().to(&to).proceed().send().unwrap();
    assert!(a.expect_data().more());
    assert!(!a.expect_data().more(), "the third part does not come");
    a.expect_nothing();
    let to = with_dead(&sender, &[&a, &a], &[1]);
    sender.message().to(&to).proceed().send().unwrap();
    assert!(!a.expect_data().more());
    a.expect_nothing();
}

#[case("ordering.md#flag")]
fn failed_middle_part_leaves_the_flags_right(env: &Env) {
    let [sender, a, b] = env.peers();
    let to = with_dead(&sender, &[&a, &b, &a, &b, &a], &[2, 3]);
    let outcome = sender.message().to(&to).proceed().outcome();
    let unreachable = libc::EHOSTUNREACH;
    assert_eq!(outcome.errors, [0, 0, unreachable, unreachable, 0]);
    assert!(a.expect_data().more());
    assert!(!a.expect_data().more());
    assert!(!b.expect_data().more());
    a.expect_nothing();
    b.expect_nothing();
}

#[case("abi.md#charge-conserved")]
fn failed_destination_is_not_charged(env: &Env) {
    let [sender, a] = env.peers();
    a.limit(Limits {
        slices: 8,
        bytes: 80,
        ..Limits::KEEP
    })
    .unwrap();
    let to = with_dead(&sender, &[&a, &a], &[0]);
    for _ in 0..4 {
        let outcome = sender.message().to(&to).bytes(&[1; 10]).proceed().outcome();
        assert_eq!(
            (outcome.result, &*outcome.errors),
            (Ok(()), &[libc::EHOSTUNREACH, 0][..])
        );
    }
    let outcome = sender.message().to(&to).proceed().outcome();
    assert_eq!(outcome.errors, [libc::EHOSTUNREACH, libc::EDQUOT]);
    assert_eq!(a.expect_all().len(), 4);
    assert_eq!(sender.message().to(&to[1..]).bytes(&[1; 40]).send(), Ok(()));
}

#[case("abi.md#send-continue")]
fn handles_go_to_reached_destinations(env: &Env) {
    let [sender, a, b, owner] = env.peers();
    let (node, handle) = owner.node_for(&sender);
    let to = with_dead(&sender, &[&a, &b], &[0]);
    sender
        .message()
        .to(&to)
        .handles(&[handle])
        .proceed()
        .send()
        .unwrap();
    sender.release(handle).unwrap();
    let id = b.expect_data().expect_handle();
    owner.expect_nothing();
    b.release(id).unwrap();
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#id-clear", "abi.md#id-whole")]
fn unknown_clear_ids_are_made_as_needed(env: &Env) {
    let [sender, a] = env.peers();
    let to = with_dead(&sender, &[&a], &[0]);
    let outcome = sender
        .message()
        .to(&[600, to[0], 604])
        .bytes(b"me")
        .proceed()
        .outcome();
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.errors, [0, libc::EHOSTUNREACH, 0]);
    let first = sender.expect_text(b"me");
    assert_eq!((first.msg.destination, first.more()), (600, true));
    let last = sender.expect_text(b"me");
    assert_eq!((last.msg.destination, last.more()), (604, false));
}
