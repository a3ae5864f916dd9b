// SPDX-License-Identifier: MIT OR Apache-2.0

//! One thread sends a message and receives it: the cost of the commands, without a switch of
//! context.

use std::io::IoSlice;

use anyhow::{Context, Result};
use bus1::{Host, Outgoing};

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Endpoint, Exchange, Peer, NODE};
use crate::socket::{get, get_pipe, pipe, put, put_pipe, Pair};

/// Bytes of payload.
pub const SIZES: [usize; 6] = [0, 64, 1 << 10, 4 << 10, 64 << 10, 1 << 20];

/// The receive that gives the slice before back.
pub const FOLD: &str = "bus1 fold";
/// One EXCHANGE with a send in it.
pub const EXCHANGE: &str = "bus1 exchange";

/// Runs all implementations at all sizes.
pub fn run(bench: &mut Bench) {
    for size in SIZES {
        let point = |implementation| Point {
            scenario: "unicast",
            implementation,
            param: size as u64,
            per_run: 1,
        };
        bench.run(point("bus1 raw"), || {
            pair(Peer::open()?, Peer::open()?, size)
        });
        bench.run(point(FOLD), || fold(size));
        let both = Point {
            per_run: 2,
            ..point(EXCHANGE)
        };
        bench.run(both, || exchange(size));
        bench.run(point("bus1 crate"), || by_crate(Host::Kernel, size));
        bench.run(point("seqpacket"), || seqpacket(size));
        bench.run(point("two seqpackets"), || two_seqpackets(size));
        // A pipe has no messages, so there is none of 0 bytes.
        if size > 0 {
            bench.run(point("pipe"), || by_pipe(size));
        }
    }
}

/// Measures SEND, RECV and SLICE_RELEASE between two peers of either host.
pub fn pair<E: Endpoint>(
    from: Peer<E>,
    to: Peer<E>,
    size: usize,
) -> Result<impl FnMut() -> Result<()>> {
    let handle = to.transfer(NODE, &from.0)?;
    let payload = vec![1; size];
    Ok(move || {
        let vec = [IoSlice::new(&payload)];
        from.send(&[handle], Cargo::payload(&vec))?;
        to.take()
    })
}

/// Measures SEND, and an EXCHANGE that gives the slice of the message before back and receives this
/// one.
fn fold(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = (Peer::open()?, Peer::open()?);
    let handle = to.transfer(NODE, &from.0)?;
    let payload = vec![1; size];
    let mut held = None;
    Ok(move || {
        let vec = [IoSlice::new(&payload)];
        from.send(&[handle], Cargo::payload(&vec))?;
        let receive = Exchange {
            slices: held.as_slice(),
            ..Exchange::default()
        };
        held = Some(to.exchange_one(receive)?);
        Ok(())
    })
}

/// Measures two peers, with a message under way to each. An EXCHANGE on each gives the slice of the
/// message before back, sends one, and receives what the other sent: two messages, two calls.
fn exchange(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let peers = [Peer::open()?, Peer::open()?];
    let handles = [
        peers[1].transfer(NODE, &peers[0].0)?,
        peers[0].transfer(NODE, &peers[1].0)?,
    ];
    let payload = vec![1; size];
    for (peer, handle) in peers.iter().zip(handles) {
        peer.send(&[handle], Cargo::payload(&[IoSlice::new(&payload)]))?;
    }
    let mut held = [None; 2];
    Ok(move || {
        let vec = [IoSlice::new(&payload)];
        for ((peer, handle), held) in peers.iter().zip(handles).zip(&mut held) {
            let exchange = Exchange {
                slices: held.as_slice(),
                send: Some((&[handle], Cargo::payload(&vec))),
                wait: false,
            };
            *held = Some(peer.exchange_one(exchange)?);
        }
        Ok(())
    })
}

/// Sends and receives through the crate for applications.
pub fn by_crate(host: Host, size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = (bus1::Peer::open_on(host)?, bus1::Peer::open_on(host)?);
    let node = to.create_node()?;
    let handle = to
        .transfer(node.handle(), &from)?
        .context("a new node is gone")?;
    let payload = vec![1; size];
    Ok(move || {
        // Its owner lives as long as the body.
        let _ = &node;
        from.send(&handle, &Outgoing::new().payload(&payload))?;
        drop(to.try_recv()?.context("no message")?);
        Ok(())
    })
}

/// Measures one message through a pair of sockets.
pub fn seqpacket(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let pair = Pair::new(size)?;
    let (payload, mut buffer) = (vec![1; size], vec![0; size]);
    Ok(move || {
        put(&pair.a, &payload)?;
        get(&pair.b, &mut buffer)
    })
}

/// Measures one message through two pairs: the cost of a broker that does nothing.
fn two_seqpackets(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (mut first, mut second) = (seqpacket(size)?, seqpacket(size)?);
    Ok(move || {
        first()?;
        second()
    })
}

fn by_pipe(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = pipe(size)?;
    let (payload, mut buffer) = (vec![1; size], vec![0; size]);
    Ok(move || {
        put_pipe(&to, &payload)?;
        get_pipe(&from, &mut buffer)
    })
}
