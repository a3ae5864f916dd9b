// SPDX-License-Identifier: MIT OR Apache-2.0

//! Senders that get no CPU time in the middle of SEND keep nobody's message back.

use std::time::{Duration, Instant};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Peer;
use crate::env::{Env, PATIENCE};
use crate::history::Hogs;
use crate::host::Errno as E;
use crate::sys::memory::{Pages, PAGE};
use crate::sys::process::fork;
use crate::sys::thread;

/// Own nodes that the slow sender sends to as well, so that most of its time is between the first
/// part and the last.
const NODES: usize = 3000;
/// Messages of the innocent sender.
const ROUNDS: u32 = 200;

/// Sends to all of `to` for ever, with no claim to any CPU.
pub fn send_slowly(peer: &Peer, to: &[u64]) -> i32 {
    thread::be_idle();
    loop {
        match peer.message().to(to).send() {
            Ok(()) | Err(E::DQUOT) => (),
            Err(_) => return 1,
        }
        while peer.receive().header().is_ok() {}
    }
}

/// Has nodes made that the victim and another peer get, and destroys them, for ever, with no claim to
/// any CPU.
fn destroy_slowly(peer: &Peer, other: &Peer, to_victim: u64) -> i32 {
    thread::be_idle();
    loop {
        let to_other = peer.handle_of(other);
        let nodes: Vec<u64> = (0..NODES / 10).map(|_| peer.new_node()).collect();
        for (to, handles) in [(to_victim, &nodes[..1]), (to_other, &nodes[1..])] {
            match peer.message().to(&[to]).handles(handles).send() {
                Ok(()) | Err(E::DQUOT) => (),
                Err(_) => return 1,
            }
        }
        if peer.destroy(&nodes).is_err() {
            return 1;
        }
        // Its node is destroyed as well.
        other.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        peer.release(to_other).unwrap();
        while peer.receive().header().is_ok() {}
    }
}

/// Sends to the victim while another sender is in the middle of a call for as long as others like.
/// Each message is there at once, behind those that the other sender's calls committed before.
fn expect_nothing_kept_back(env: &Env, slow: impl FnOnce() -> i32, victim: &Peer) {
    let innocent = env.peer_of(1);
    let to = innocent.handle_of(victim);
    let child = fork(slow);
    assert!(victim.wait(4 * PATIENCE), "the slow sender sent nothing");
    let hogs = Hogs::start();
    let started = Instant::now();
    // Parts for the victim whose transactions were undecided when it received.
    let mut undecided = 0;
    let mut of_slow = 0;
    for round in 0.. {
        if round >= ROUNDS && undecided != 0 {
            break;
        }
        assert!(
            started.elapsed() < 8 * PATIENCE,
            "in {round} rounds the slow sender was never in the middle"
        );
        std::thread::sleep(Duration::from_millis(u64::from(round % 7)));
        child.signal(libc::SIGSTOP);
        let message = innocent.message().to(&[to]).bytes(b"innocent");
        message.send().unwrap();
        undecided += victim.count("staged");
        loop {
            let msg = victim.receive().header().unwrap();
            if msg.offset != abi::OFFSET_INVALID {
                victim.release_slice(msg.offset).unwrap();
            }
            if msg.n_bytes != 0 {
                break;
            }
            of_slow += 1;
        }
        child.signal(libc::SIGCONT);
    }
    // The slow sender is not kept from sending either, once it gets CPU time: beside the hogs it may
    // need minutes for one call on a slow machine.
    drop(hogs);
    let started = Instant::now();
    while of_slow == 0 {
        assert!(
            started.elapsed() < 4 * PATIENCE,
            "the slow sender sent nothing"
        );
        of_slow += u32::from(victim.receive().header().is_ok());
    }
    child.kill();
}

#[case("ordering.md#ready", kernel, alone)]
fn a_sender_without_cpu_time_keeps_nothing_back(env: &Env) {
    let (victim, slow) = (env.peer_of(0), env.peer_of(2));
    let to_victim = slow.handle_of(&victim);
    // The victim's part is staged early.
    let mut all: Vec<u64> = (0..NODES).map(|_| slow.new_node()).collect();
    all.insert(1, to_victim);
    expect_nothing_kept_back(env, || send_slowly(&slow, &all), &victim);
}

#[case("ordering.md#ready", kernel, alone)]
fn a_destruction_without_cpu_time_keeps_nothing_back(env: &Env) {
    let (victim, slow, other) = (env.peer_of(0), env.peer_of(2), env.peer_of(2));
    let to_victim = slow.handle_of(&victim);
    let slowly = || destroy_slowly(&slow, &other, to_victim);
    expect_nothing_kept_back(env, slowly, &victim);
}

/// Bytes of a message that is larger than what a pool retains.
const LARGE: usize = 5 << 20;
/// Bytes of a message that fails.
const FAILING: usize = 512 << 10;

/// Sends what cannot be read for ever, with no claim to any CPU: memory is made for it in the
/// receiver's pool and taken back.
fn fail_slowly(peer: &Peer, to: u64, unreadable: u64) -> i32 {
    thread::be_idle();
    loop {
        let message = peer.message().to(&[to]).vector(unreadable, FAILING as u64);
        assert!(message.send().is_err());
    }
}

#[case("abi.md#slice-release", kernel, alone)]
fn a_sender_that_fails_without_cpu_time_holds_up_no_release(env: &Env) {
    let (victim, innocent) = (env.peer_of(0), env.peer_of(0));
    let to = innocent.handle_of(&victim);
    let pages = Pages::new(FAILING / PAGE);
    pages.forbid(0);
    let children = [2, 3, 4, 5].map(|user| {
        let slow = env.peer_of(user);
        let to = slow.handle_of(&victim);
        let pages = &pages;
        fork(move || fail_slowly(&slow, to, pages.addr(0)))
    });
    let hogs = Hogs::start();
    let payload = vec![7; LARGE];
    let mut slept = 0;
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(u64::from(round % 7)));
        innocent.message().to(&[to]).bytes(&payload).send().unwrap();
        let msg = victim.receive().header().unwrap();
        assert_eq!(msg.kind, abi::MSG_DATA, "a failing sender has ended");
        let before = thread::sleeps();
        victim.release_slice(msg.offset).unwrap();
        slept += thread::sleeps() - before;
    }
    drop(hogs);
    children.into_iter().for_each(|child| child.kill());
    // With PREEMPT_RT a task sleeps for a spin lock as well, which is not told apart.
    let version = std::fs::read_to_string("/proc/version").unwrap();
    if !version.contains("PREEMPT_RT") {
        assert_eq!(slept, 0, "SLICE_RELEASE slept");
    }
}
