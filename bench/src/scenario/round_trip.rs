// SPDX-License-Identifier: MIT OR Apache-2.0

//! A question and its answer between two processes on one CPU: the cost with all switches of
//! context. A relay is one more process in between, as a broker would be.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::event::epoll;

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Exchange, Peer, NODE};
use crate::process::Partner;
use crate::socket::{get, get_pipe, pipe, put, put_pipe, Pair};

/// Its name.
pub(super) const SCENARIO: &str = "round trip";
/// Bytes of question and answer.
pub const SIZES: [usize; 3] = [0, 64, 1 << 10];
/// All processes are on this one.
const CPU: usize = 0;

/// Returns one implementation at one size.
pub(super) fn point(implementation: &'static str, size: usize) -> Point {
    Point {
        scenario: SCENARIO,
        implementation,
        param: size as u64,
        per_run: 1,
    }
}

/// Runs all implementations at all sizes.
pub fn run(bench: &mut Bench) {
    for size in SIZES {
        let point = |implementation| point(implementation, size);
        bench.run(point("bus1 raw"), || peers(size));
        bench.run(point("bus1 exchange"), || exchanges(size));
        bench.run(point("seqpacket"), || seqpacket(size));
        // A pipe has no messages of 0 bytes.
        bench.run(point("pipe"), || pipes(size.max(1)));
        bench.run(point("blocking relay"), || relay(size, false));
        bench.run(point("epoll relay"), || relay(size, true));
    }
}

/// Waits for a message, and gives its slice back.
fn take(peer: &Peer) -> Result<()> {
    peer.wait()?;
    peer.take()
}

/// Measures SEND, poll, RECV and SLICE_RELEASE on each side.
fn peers(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (client, server) = (Peer::open()?, Peer::open()?);
    let ask = server.transfer(NODE, &client.0)?;
    let answer = client.transfer(NODE, &server.0)?;
    let payload = vec![1; size];
    let copy = payload.clone();
    let send = |peer: &Peer, to, payload: &[u8]| {
        let vec = [IoSlice::new(payload)];
        peer.send(&[to], Cargo::payload(&vec))
    };
    // Both processes have descriptors of both peers, and each uses its own.
    let partner = Partner::start(CPU, || loop {
        take(&server)?;
        send(&server, answer, &copy)?;
    })?;
    Ok(move || {
        let _ = &partner;
        send(&client, ask, &payload)?;
        take(&client)
    })
}

/// Measures one EXCHANGE on each side: it gives the slice of the message before back, sends, waits
/// and receives.
fn exchanges(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (client, server) = (Peer::open()?, Peer::open()?);
    let ask = server.transfer(NODE, &client.0)?;
    let answer = client.transfer(NODE, &server.0)?;
    let payload = vec![1; size];
    let copy = payload.clone();
    let exchange = |peer: &Peer, to, payload: &[u8], held: Option<u64>| {
        let vec = [IoSlice::new(payload)];
        peer.exchange_one(Exchange {
            slices: held.as_slice(),
            send: Some((&[to], Cargo::payload(&vec))),
            wait: true,
        })
    };
    let partner = Partner::start(CPU, || {
        let mut held = server.exchange_one(Exchange {
            wait: true,
            ..Exchange::default()
        })?;
        loop {
            held = exchange(&server, answer, &copy, Some(held))?;
        }
    })?;
    let mut held = None;
    Ok(move || {
        let _ = &partner;
        held = Some(exchange(&client, ask, &payload, held)?);
        Ok(())
    })
}

fn seqpacket(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let pair = Pair::new(size)?;
    let partner = Partner::start(CPU, || echo(&pair.b, size))?;
    Ok(ask(pair, vec![partner], size))
}

/// Answers every question by itself, for ever.
fn echo(end: &OwnedFd, size: usize) -> Result<()> {
    let mut buffer = vec![0; size];
    loop {
        get(end, &mut buffer)?;
        put(end, &buffer)?;
    }
}

/// Asks at the first end of a pair.
fn ask(pair: Pair, partners: Vec<Partner>, size: usize) -> impl FnMut() -> Result<()> {
    let (payload, mut buffer) = (vec![1; size], vec![0; size]);
    move || {
        let _ = &partners;
        put(&pair.a, &payload)?;
        get(&pair.a, &mut buffer)
    }
}

fn pipes(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (from_client, to_server) = pipe(size)?;
    let (from_server, to_client) = pipe(size)?;
    let (payload, mut buffer) = (vec![1; size], vec![0; size]);
    let mut copy = buffer.clone();
    let partner = Partner::start(CPU, || loop {
        get_pipe(&from_client, &mut copy)?;
        put_pipe(&to_client, &copy)?;
    })?;
    Ok(move || {
        let _ = &partner;
        put_pipe(&to_server, &payload)?;
        get_pipe(&from_server, &mut buffer)
    })
}

/// Measures a process between client and server that passes on every message from either side.
fn relay(size: usize, by_epoll: bool) -> Result<impl FnMut() -> Result<()>> {
    let (client, server) = (Pair::new(size)?, Pair::new(size)?);
    let answers = Partner::start(CPU, || echo(&server.b, size))?;
    let between = Partner::start(CPU, || {
        let ends = [&client.b, &server.a];
        let mut buffer = vec![0; size];
        if by_epoll {
            relay_when_ready(ends, &mut buffer)
        } else {
            loop {
                for [from, to] in [ends, [ends[1], ends[0]]] {
                    get(from, &mut buffer)?;
                    put(to, &buffer)?;
                }
            }
        }
    })?;
    Ok(ask(client, vec![answers, between], size))
}

/// Waits for all sides at once, as a broker has to.
fn relay_when_ready(ends: [&OwnedFd; 2], buffer: &mut [u8]) -> Result<()> {
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create1")?;
    for (index, end) in ends.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&ready, end, data, epoll::EventFlags::IN).context("epoll_ctl")?;
    }
    let mut events = [MaybeUninit::uninit(); 8];
    loop {
        let (events, _) = epoll::wait(&ready, &mut events, None).context("epoll_wait")?;
        for event in events {
            let index = event.data.u64() as usize;
            get(ends[index], buffer)?;
            put(ends[1 - index], buffer)?;
        }
    }
}
