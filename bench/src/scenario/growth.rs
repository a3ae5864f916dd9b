// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cost of a message among much more: peers, handles, messages that wait. Payload is
//! 64 bytes, one thread does all.

use std::io::IoSlice;

use anyhow::{ensure, Result};

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Peer, NODE};
use crate::process::allow_descriptors;

/// Peers on the bus, each of which gets a message in turn.
pub const PEERS: [u64; 4] = [10, 100, 1000, 10_000];
/// Handles of the sender, used in no order.
pub const HANDLES: [u64; 5] = [10, 100, 1000, 10_000, 100_000];
/// Messages in the receiver's queue.
pub const QUEUED: [u64; 5] = [1, 10, 100, 1000, 10_000];
/// Bytes of payload.
const PAYLOAD: [u8; 64] = [1; 64];

/// Runs all three.
pub fn run(bench: &mut Bench) {
    let implementation = "bus1 raw";
    let point = |scenario, param, per_run| Point {
        scenario,
        implementation,
        param,
        per_run,
    };
    for n in PEERS {
        bench.run(point("growth: peers", n, n), || peers(n));
    }
    for n in HANDLES {
        bench.run(point("growth: handles", n, 1), || handles(n));
    }
    for n in QUEUED {
        bench.run(point("growth: queued", n, 1), || queued(n));
    }
}

fn send(from: &Peer, to: u64) -> Result<()> {
    let cargo = Cargo {
        vecs: &[IoSlice::new(&PAYLOAD)],
        ..Cargo::default()
    };
    from.send(&[to], cargo)
}

/// Measures one message to each peer.
fn peers(n: u64) -> Result<impl FnMut() -> Result<()>> {
    allow_descriptors(n as usize)?;
    let from = Peer::open()?;
    let peers: Vec<_> = (0..n).map(|_| Peer::open()).collect::<Result<_>>()?;
    let handles: Vec<_> = peers
        .iter()
        .map(|peer| peer.transfer(NODE, &from.0))
        .collect::<Result<_>>()?;
    Ok(move || {
        for (peer, &handle) in peers.iter().zip(&handles) {
            send(&from, handle)?;
            peer.take()?;
        }
        Ok(())
    })
}

/// Measures one message to one of the nodes of the receiver.
fn handles(n: u64) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = (Peer::open()?, Peer::open()?);
    let handles: Vec<_> = (0..n)
        .map(|i| to.transfer(NODE + 4 * i, &from.0))
        .collect::<Result<_>>()?;
    let mut next = 0_usize;
    Ok(move || {
        // A step that has no divisor in common with any of the numbers visits all.
        next = (next + 7919) % handles.len();
        send(&from, handles[next])?;
        to.take()
    })
}

/// Measures one message behind the others; the first is received.
fn queued(n: u64) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = (Peer::open()?, Peer::open()?);
    let handle = to.transfer(NODE, &from.0)?;
    for _ in 1..n {
        send(&from, handle)?;
    }
    let body = move || {
        send(&from, handle)?;
        to.take()
    };
    ensure!(n > 0, "one message is on its way");
    Ok(body)
}
