// SPDX-License-Identifier: MIT OR Apache-2.0

//! One thread sends to many and receives at each; figures are per destination.

use std::io::IoSlice;

use anyhow::{Context, Result};
use bus1::{Event, Handle, Host, Outgoing};

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Endpoint, Exchange, Peer, NODE};
use crate::scenario::unicast::FOLD;
use crate::socket::{get, put, Pair};

/// Numbers of receivers.
pub const RECEIVERS: [usize; 5] = [1, 4, 16, 64, 256];
/// Bytes of payload.
const SIZE: usize = 1 << 10;

/// Runs all implementations at all numbers of receivers.
pub fn run(bench: &mut Bench) {
    for receivers in RECEIVERS {
        let point = |implementation| Point {
            scenario: "multicast",
            implementation,
            param: receivers as u64,
            per_run: receivers as u64,
        };
        bench.run(point("bus1 raw"), || peers(Peer::open, receivers));
        bench.run(point(FOLD), || fold(receivers));
        bench.run(point("bus1 crate"), || by_crate(receivers));
        bench.run(point("seqpacket"), || seqpackets(receivers));
    }
}

/// Makes a function that sends the payload to all receivers, and these.
fn group<E: Endpoint>(
    open: impl Fn() -> Result<Peer<E>>,
    receivers: usize,
) -> Result<(impl FnMut() -> Result<()>, Vec<Peer<E>>)> {
    let from = open()?;
    let peers: Vec<_> = (0..receivers).map(|_| open()).collect::<Result<_>>()?;
    let handles: Vec<_> = peers
        .iter()
        .map(|peer| peer.transfer(NODE, &from.0))
        .collect::<Result<_>>()?;
    let payload = vec![1; SIZE];
    Ok((
        move || from.send(&handles, Cargo::payload(&[IoSlice::new(&payload)])),
        peers,
    ))
}

/// Measures one SEND, and RECV and SLICE_RELEASE by each receiver, of either host.
pub fn peers<E: Endpoint>(
    open: impl Fn() -> Result<Peer<E>>,
    receivers: usize,
) -> Result<impl FnMut() -> Result<()>> {
    let (mut send, peers) = group(open, receivers)?;
    Ok(move || {
        send()?;
        peers.iter().try_for_each(Peer::take)
    })
}

/// Measures one SEND, and an EXCHANGE by each receiver, which gives the slice of its message before
/// back and receives this one.
fn fold(receivers: usize) -> Result<impl FnMut() -> Result<()>> {
    let (mut send, peers) = group(Peer::open, receivers)?;
    let mut held = vec![None; receivers];
    Ok(move || {
        send()?;
        for (peer, held) in peers.iter().zip(&mut held) {
            let receive = Exchange {
                slices: held.as_slice(),
                ..Exchange::default()
            };
            *held = Some(peer.exchange_one(receive)?);
        }
        Ok(())
    })
}

fn by_crate(receivers: usize) -> Result<impl FnMut() -> Result<()>> {
    let open = || bus1::Peer::open_on(Host::Kernel);
    let from = open()?;
    let mut peers = Vec::new();
    let mut nodes = Vec::new();
    let mut handles: Vec<Handle> = Vec::new();
    for _ in 0..receivers {
        let peer = open()?;
        let node = peer.create_node()?;
        let handle = peer.transfer(node.handle(), &from)?;
        handles.push(handle.context("a new node is gone")?);
        nodes.push(node);
        peers.push(peer);
    }
    let payload = vec![1; SIZE];
    Ok(move || {
        // Their owner lives as long as the body.
        let _ = &nodes;
        from.send_to(&handles, &Outgoing::new().payload(&payload))?;
        for peer in &peers {
            let event = peer.try_recv()?.context("no message")?;
            anyhow::ensure!(matches!(event, Event::Message(_)), "no message but news");
        }
        Ok(())
    })
}

fn seqpackets(receivers: usize) -> Result<impl FnMut() -> Result<()>> {
    let pairs: Vec<_> = (0..receivers)
        .map(|_| Pair::new(SIZE))
        .collect::<Result<_>>()?;
    let (payload, mut buffer) = (vec![1; SIZE], vec![0; SIZE]);
    Ok(move || {
        for pair in &pairs {
            put(&pair.a, &payload)?;
        }
        for pair in &pairs {
            get(&pair.b, &mut buffer)?;
        }
        Ok(())
    })
}
