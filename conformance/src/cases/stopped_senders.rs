// SPDX-License-Identifier: MIT OR Apache-2.0

//! Senders that get no CPU time in the middle of SEND keep nobody's message back.

use std::time::{Duration, Instant};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Peer;
use crate::env::{Env, PATIENCE};
use crate::history::Hogs;
use crate::host::Errno as E;
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

#[case("ordering.md#ready", kernel, alone)]
fn a_sender_without_cpu_time_keeps_nothing_back(env: &Env) {
    let (victim, innocent, slow) = (env.peer_of(0), env.peer_of(1), env.peer_of(2));
    let (to, to_victim) = (innocent.handle_of(&victim), slow.handle_of(&victim));
    let own = (0..NODES).map(|_| slow.new_node());
    // The victim's part is staged early.
    let mut all: Vec<u64> = own.collect();
    all.insert(1, to_victim);
    let child = fork(|| send_slowly(&slow, &all));
    let hogs = Hogs::start();
    let mut slow_ones = 0;
    for round in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(u64::from(round % 7)));
        child.signal(libc::SIGSTOP);
        innocent
            .message()
            .to(&[to])
            .bytes(&round.to_ne_bytes())
            .send()
            .unwrap();
        // It is there at once, behind those of the slow sender that happened before.
        loop {
            let msg = victim.receive().header().unwrap();
            assert_eq!(msg.kind, abi::MSG_DATA);
            if msg.n_bytes != 0 {
                victim.release_slice(msg.offset).unwrap();
                break;
            }
            slow_ones += 1;
        }
        child.signal(libc::SIGCONT);
    }
    // The slow sender is not kept from sending either, once it gets CPU time: beside the hogs it may
    // need minutes for one SEND on a slow machine.
    drop(hogs);
    let started = Instant::now();
    while slow_ones == 0 {
        assert!(
            started.elapsed() < 4 * PATIENCE,
            "the slow sender sent nothing"
        );
        slow_ones += u32::from(victim.receive().header().is_ok());
    }
    child.kill();
}
