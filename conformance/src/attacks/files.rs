// SPDX-License-Identifier: MIT OR Apache-2.0

//! A socket that takes an hour to close, in the queue of a receiver that does not want it.

use std::time::Instant;

use bus1_uapi as abi;

use super::Report;
use crate::cases::descriptors_slow::send_lingering;
use crate::env::Env;

/// The times of the calls that drop the socket. A stranger has sent it.
pub fn measure(env: &Env, report: &mut Report) {
    let sender = env.peer_of(1);
    for what in ["RECV", "PEER_RESET", "PEER_DISCONNECT", "close"] {
        let receiver = env.peer();
        let to = sender.handle_of(&receiver);
        let other = send_lingering(env, 1, &sender, to);
        let started = Instant::now();
        match what {
            "RECV" => drop(receiver.receive().flags(0).header().unwrap()),
            "PEER_RESET" => receiver.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap(),
            "PEER_DISCONNECT" => receiver.disconnect().unwrap(),
            _ => receiver.close(),
        }
        let took = started.elapsed();
        other.drain();
        report.figure(
            format!("{what} that drops a lingering socket"),
            format_args!("{took:.1?}"),
        );
    }
}
