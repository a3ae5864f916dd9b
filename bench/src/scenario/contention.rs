// SPDX-License-Identifier: MIT OR Apache-2.0

//! Many sender processes, one receiver: figures are per message.
//!
//! Senders wait for a signal, send a burst, and wait again. So nobody is slowed down on purpose: a
//! burst fits the limits of the receiver.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use bus1_uapi::Msg;
use rustix::event::{eventfd, EventfdFlags};
use rustix::io::{read, write};

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Exchange, Peer, NODE};
use crate::process::Partner;
use crate::socket::{get, put, Pair};

/// Processes that send.
const SENDERS: usize = 8;
/// Messages of each in one burst.
const BURST: usize = 16;
/// Bytes of payload.
const SIZE: usize = 64;

/// Messages that one EXCHANGE takes at most.
const BATCH: usize = 64;

/// Runs both implementations, and bus1 by batches.
pub fn run(bench: &mut Bench, cpus: usize) {
    let point = |implementation| Point {
        scenario: "contention",
        implementation,
        param: SENDERS as u64,
        per_run: (SENDERS * BURST) as u64,
    };
    bench.run(point("bus1 raw"), || peers(cpus));
    bench.run(point("bus1 batch"), || batches(cpus));
    bench.run(point("seqpacket"), || seqpacket(cpus));
}

/// Starts the senders, each of which calls its `send` for every message of a burst.
fn start<S: FnMut() -> Result<()>>(
    cpus: usize,
    go: &OwnedFd,
    mut sender: impl FnMut() -> Result<S>,
) -> Result<Vec<Partner>> {
    let one = |index| {
        let mut send = sender()?;
        Partner::start(index % cpus, move || loop {
            let mut count = [0; 8];
            read(go, &mut count).context("read of an eventfd")?;
            for _ in 0..BURST {
                send()?;
            }
        })
    };
    (0..SENDERS).map(one).collect()
}

/// Counts down by one with every read.
fn signal() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE).context("eventfd")
}

/// Lets every sender send a burst.
fn shout(go: &OwnedFd) -> Result<()> {
    write(go, &(SENDERS as u64).to_ne_bytes()).context("write to an eventfd")?;
    Ok(())
}

/// Starts senders that send to `to`.
fn send_to(to: &Peer, cpus: usize, go: &OwnedFd) -> Result<Vec<Partner>> {
    start(cpus, go, || {
        let from = Peer::open()?;
        let handle = to.transfer(NODE, &from.0)?;
        Ok(move || {
            let cargo = Cargo {
                vecs: &[IoSlice::new(&[1; SIZE])],
                ..Cargo::default()
            };
            from.send(&[handle], cargo)
        })
    })
}

/// Measures poll, and RECV and SLICE_RELEASE for each message that there is.
fn peers(cpus: usize) -> Result<impl FnMut() -> Result<()>> {
    let to = Peer::open()?;
    let go = signal()?;
    let partners = send_to(&to, cpus, &go)?;
    Ok(move || {
        let _ = &partners;
        shout(&go)?;
        let mut left = SENDERS * BURST;
        while left > 0 {
            match to.try_recv(0)? {
                Some(msg) => {
                    to.release(&msg)?;
                    left -= 1;
                }
                None => to.wait()?,
            }
        }
        Ok(())
    })
}

/// Measures batches: one EXCHANGE gives the slices of the call before back, waits, and receives all
/// that there is, up to [`BATCH`] messages.
fn batches(cpus: usize) -> Result<impl FnMut() -> Result<()>> {
    let to = Peer::open()?;
    let go = signal()?;
    let partners = send_to(&to, cpus, &go)?;
    let mut msgs = [Msg::default(); BATCH];
    let mut held = Vec::with_capacity(BATCH);
    Ok(move || {
        let _ = &partners;
        shout(&go)?;
        let mut left = SENDERS * BURST;
        while left > 0 {
            let receive = Exchange {
                slices: &held,
                wait: true,
                ..Exchange::default()
            };
            let n = to.exchange(receive, &mut msgs)?;
            held.clear();
            held.extend(msgs[..n].iter().map(|msg| msg.offset));
            left -= n;
        }
        Ok(())
    })
}

fn seqpacket(cpus: usize) -> Result<impl FnMut() -> Result<()>> {
    let Pair { a, b } = Pair::new(SIZE)?;
    let go = signal()?;
    let partners = start(cpus, &go, || Ok(|| put(&a, &[1; SIZE])))?;
    let mut buffer = [0; SIZE];
    Ok(move || {
        let _ = &partners;
        shout(&go)?;
        (0..SENDERS * BURST).try_for_each(|_| get(&b, &mut buffer))
    })
}
