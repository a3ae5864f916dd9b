// SPDX-License-Identifier: MIT OR Apache-2.0

//! One user's senders against senders of as many users: the price of their shares.

use std::io::IoSlice;

use anyhow::Result;

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Peer, NODE};
use crate::process::as_user;

/// Senders, each of which sends one message of 64 bytes in a round.
const SENDERS: u32 = 64;
/// The first of them is this user's.
const FIRST_USER: u32 = 1000;

/// Runs a receiver of root's with senders of one user, or one of each user.
pub fn run(bench: &mut Bench) {
    for (implementation, users) in [("one user", 1), ("many users", SENDERS)] {
        let point = Point {
            scenario: "users",
            implementation,
            param: u64::from(SENDERS),
            per_run: u64::from(SENDERS),
        };
        bench.run(point, || senders_of(users));
    }
}

fn senders_of(users: u32) -> Result<impl FnMut() -> Result<()>> {
    let to = Peer::open()?;
    let senders: Vec<_> = (0..SENDERS)
        .map(|index| {
            let peer = as_user(FIRST_USER + index % users, Peer::open)?;
            let handle = to.transfer(NODE, &peer.0)?;
            Ok((peer, handle))
        })
        .collect::<Result<_>>()?;
    Ok(move || {
        let cargo = Cargo {
            vecs: &[IoSlice::new(&[1; 64])],
            ..Cargo::default()
        };
        for (from, handle) in &senders {
            from.send(&[*handle], cargo)?;
            to.take()?;
        }
        Ok(())
    })
}
