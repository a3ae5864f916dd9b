// SPDX-License-Identifier: MIT OR Apache-2.0

//! A sender that gets no CPU time between staging and commit.

use std::time::Duration;

use bus1_uapi as abi;

use super::{Report, Times};
use crate::cases::stopped_senders::send_slowly;
use crate::env::Env;
use crate::history::Hogs;
use crate::host::Errno as E;
use crate::sys::process::fork;

/// Own nodes that the attacker sends to beside the victim.
const NODES: usize = 7000;
/// Messages of the innocent sender.
const ROUNDS: usize = 300;

/// Time in which the attacker comes to another place of its call.
const PAUSE: Duration = Duration::from_millis(7);

/// The time from an innocent SEND until the victim has the message.
pub fn measure(env: &Env, report: &mut Report) {
    let (victim, innocent, slow) = (env.peer_of(0), env.peer_of(1), env.peer_of(2));
    let (to, to_victim) = (innocent.handle_of(&victim), slow.handle_of(&victim));
    let mut all: Vec<u64> = (0..NODES).map(|_| slow.new_node()).collect();
    all.insert(1, to_victim);
    let (mut empty, mut of_slow) = (0, 0);
    let mut round = || {
        let message = innocent.message().to(&[to]).bytes(b"innocent");
        message.send().unwrap();
        loop {
            let msg = match victim.receive().header() {
                Ok(msg) => msg,
                Err(errno) => {
                    assert_eq!(errno, E::AGAIN);
                    empty += 1;
                    continue;
                }
            };
            assert_eq!(msg.kind, abi::MSG_DATA);
            if msg.offset != abi::OFFSET_INVALID {
                victim.release_slice(msg.offset).unwrap();
            }
            if msg.n_bytes != 0 {
                break;
            }
            of_slow += 1;
        }
    };
    let pause = || std::thread::sleep(PAUSE);
    let alone = Times::after(ROUNDS, pause, &mut round);
    let hogs = Hogs::start();
    let beside_hogs = Times::after(ROUNDS, pause, &mut round);
    let child = fork(|| send_slowly(&slow, &all));
    // The first message makes the attacker's nodes.
    std::thread::sleep(Duration::from_secs(2));
    let attacked = Times::after(ROUNDS, pause, &mut round);
    child.kill();
    drop(hogs);
    let what = format!("RECVs in vain after {ROUNDS} SENDs, beside {of_slow} of the attacker");
    report.count(what, empty, 0);
    report.figure("SEND and RECV alone", alone);
    report.figure("SEND and RECV beside two hogs", beside_hogs);
    let what = "SEND and RECV beside two hogs and the attacker";
    report.figure(what, attacked);
}
