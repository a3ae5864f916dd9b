// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cost of a refused SEND, and what it does to others, by the claimants of the victim.

use std::sync::atomic::{AtomicBool, Ordering};

use bus1_uapi as abi;

use super::{ratio, Report, Stop, Times};
use crate::client::{Limits, Peer};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::NOWHERE;
use crate::sys::process::become_user;

/// Few claimants, and many.
const CLAIMANTS: [usize; 2] = [16, 15_000];
/// Measured calls that are refused.
const REFUSALS: usize = 3000;
/// Measured calls of the innocent sender, which nobody takes: as many as it is granted.
const CALLS: usize = 90;

/// Opens `n` peers of one user.
fn open(env: &Env, user: u32, n: usize) -> Vec<Peer> {
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| {
            become_user(env.uid(user), None).expect("run as root");
            let open = || env.bus().open_here().expect("cannot open a peer");
            (0..n).map(|_| Peer::new(open())).collect()
        });
        opener.join().unwrap()
    })
}

/// Makes a victim with as many claimants as it accepts up to `n`, each of which has one message
/// there. Returns the victim, a node of it, the claimants and the number of those accepted.
fn scene(env: &Env, n: usize) -> (Peer, u64, Vec<Peer>, usize) {
    let victim = env.peer();
    victim.limit(Limits::MOST).unwrap();
    let node = victim.new_node();
    let mut accepted = 0;
    // Several users, because one user's part is used up before.
    let claimants: Vec<Peer> = (1..=15)
        .flat_map(|user| open(env, user, n / 15 + 1))
        .collect();
    for claimant in &claimants {
        let to = victim.give(claimant, node).unwrap();
        accepted += usize::from(claimant.message().to(&[to]).bytes(b"claim").send().is_ok());
        if accepted == n {
            break;
        }
    }
    (victim, node, claimants, accepted)
}

/// Makes the attempts of a user in turn, one that is granted and one that is refused. What is
/// granted comes back at once, since its payload cannot be read.
fn attempt_in_turn(attacker: &Peer, to: u64, large: &[u8]) {
    let granted = attacker.message().to(&[to]).vector(NOWHERE, 1).send();
    assert_eq!(granted, Err(E::FAULT));
    let refused = attacker.message().to(&[to]).bytes(large).send();
    assert_eq!(refused, Err(E::DQUOT));
}

/// Measures with few claimants and with many.
pub fn measure(env: &Env, report: &mut Report) {
    let [few, many] = CLAIMANTS.map(|n| {
        let (victim, node, claimants, accepted) = scene(env, n);
        let attacker = &claimants[0];
        let to = victim.give(attacker, node).unwrap();
        let refused = || attacker.message().to(&[to]).bytes(&[7; 64]).send();
        while refused().is_ok() {}
        // A user that is never at its limit, and asks for all that an idle peer would grant.
        let other = &claimants[n / 15 + 1];
        let to_other = victim.give(other, node).unwrap();
        let most = other.quota(to_other, [0; 3]).unwrap().most.bytes;
        let large = vec![0; most as usize];
        let in_turn = || attempt_in_turn(other, to_other, &large);
        let times = Times::of(REFUSALS, in_turn);
        let what = "a granted and a refused SEND in turn";
        report.figure(format!("{what}, {accepted} claimants"), &times);
        let refusals = Times::of(REFUSALS, || assert_eq!(refused(), Err(E::DQUOT)));
        report.figure(format!("a refused SEND, {accepted} claimants"), &refusals);
        let innocent = env.peer_of(20);
        let to_innocent = victim.give(&innocent, node).unwrap();
        let send = || innocent.message().to(&[to_innocent]).send().unwrap();
        let alone = Times::of(CALLS, send);
        report.figure(
            format!("an innocent SEND alone, {accepted} claimants"),
            &alone,
        );
        let stop = AtomicBool::new(false);
        let beside = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = refused();
                    in_turn();
                }
            });
            let _stop = Stop(&stop);
            Times::of(CALLS, send)
        });
        report.figure(
            format!("an innocent SEND beside refused ones, {accepted} claimants"),
            &beside,
        );
        victim.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        [refusals, alone, beside, times].map(|times| times.median())
    });
    report.figure(
        "a refused SEND, many claimants to few",
        ratio(many[0], few[0]),
    );
    report.figure(
        "an innocent SEND alone, many claimants to few",
        ratio(many[1], few[1]),
    );
    let what = "an innocent SEND beside refused ones, many claimants to few";
    report.figure(what, ratio(many[2], few[2]));
    let what = "a granted and a refused SEND in turn, many claimants to few";
    report.figure(what, ratio(many[3], few[3]));
}
