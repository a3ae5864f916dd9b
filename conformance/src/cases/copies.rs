// SPDX-License-Identifier: MIT OR Apache-2.0

//! Payload that changes while it is sent.

use std::sync::atomic::{AtomicBool, Ordering};

use bus1_conformance_case::case;

use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{Pages, PAGE};

#[case("abi.md#send-copy")]
fn every_receiver_gets_the_same_bytes(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 4] = env.peers();
    let to = receivers
        .each_ref()
        .map(|receiver| sender.handle_of(receiver));
    let pages = Pages::new(8);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 0_u8;
            while !done.load(Ordering::Relaxed) {
                value = value.wrapping_add(1);
                pages.poke(0, &vec![value; pages.len()]);
            }
        });
        for _ in 0..100 {
            let sent = sender
                .message()
                .to(&to)
                .vector(pages.addr(0), pages.len() as u64)
                .send();
            sent.unwrap();
            let first = receivers[0].expect_data();
            receivers[0].release_slice(first.msg.offset).unwrap();
            for receiver in &receivers[1..] {
                let other = receiver.expect_data();
                assert!(
                    other.bytes == first.bytes,
                    "two receivers got different bytes"
                );
                receiver.release_slice(other.msg.offset).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[case("abi.md#slice-lives")]
fn received_slices_do_not_change(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let pages = Pages::new(2);
    pages.poke(0, &[1; 2 * PAGE]);
    b.message()
        .to(&[to])
        .vector(pages.addr(0), 2 * PAGE as u64)
        .send()
        .unwrap();
    pages.poke(0, &[2; 2 * PAGE]);
    let message = a.expect_data();
    assert!(message.bytes == [1; 2 * PAGE]);
    pages.poke(0, &[3; 2 * PAGE]);
    assert!(a.read_pool(message.msg.offset, 2 * PAGE as u64) == [1; 2 * PAGE]);
}

#[case("abi.md#send-efault-payload", alone)]
fn memory_that_goes_away_is_efault(env: &Env) {
    // Half of the payload becomes inaccessible now and then; a message arrives whole or not at all.
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let pages = Pages::new(16);
    pages.poke(0, &vec![7; pages.len()]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                pages.forbid(8 * PAGE);
                pages.thaw();
            }
        });
        for _ in 0..500 {
            match b
                .message()
                .to(&[to])
                .vector(pages.addr(0), pages.len() as u64)
                .send()
            {
                Ok(()) => {
                    let message = a.expect_data();
                    assert!(message.bytes.iter().all(|&byte| byte == 7));
                    assert_eq!(message.bytes.len(), pages.len());
                    a.release_slice(message.msg.offset).unwrap();
                }
                Err(errno) => assert_eq!(errno, E::FAULT),
            }
            a.expect_nothing();
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[case("abi.md#send-efault-payload")]
fn forbidden_memory_is_efault(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let pages = Pages::new(1);
    pages.forbid(0);
    for len in [1, 8, 100, PAGE as u64] {
        assert_eq!(
            b.message().to(&[to]).vector(pages.addr(0), len).send(),
            Err(E::FAULT)
        );
        let two = b
            .message()
            .to(&[to])
            .bytes(b"fine")
            .vector(pages.addr(0), len);
        assert_eq!(two.send(), Err(E::FAULT));
    }
    a.expect_nothing();
}

#[case("abi.md#send-copy")]
fn payload_may_be_read_only(env: &Env) {
    // SEND writes nothing but errors, so all it reads may be read-only.
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let pages = Pages::new(1);
    pages.poke(0, &to.to_ne_bytes());
    pages.poke(8, &(pages.addr(64)).to_ne_bytes());
    pages.poke(16, &8_u64.to_ne_bytes());
    pages.poke(64, b"constant");
    pages.freeze();
    let sent = b.message().edit(|arg| {
        arg.ptr_destinations = pages.addr(0);
        arg.n_destinations = 1;
        arg.ptr_vecs = pages.addr(8);
        arg.n_vecs = 1;
    });
    assert_eq!(sent.send(), Ok(()));
    a.expect_text(b"constant");
}
