// SPDX-License-Identifier: MIT OR Apache-2.0

//! One thread sends a message and receives it: the cost of the commands, without a switch of
//! context.

use std::io::IoSlice;

use anyhow::{Context, Result};
use bus1::{Host, Outgoing};

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Door, Peer, NODE};
use crate::socket::{get, get_pipe, pipe, put, put_pipe, Pair};

/// Bytes of payload.
pub const SIZES: [usize; 6] = [0, 64, 1 << 10, 4 << 10, 64 << 10, 1 << 20];

/// All implementations at all sizes.
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
        bench.run(point("bus1 crate"), || by_crate(Host::Kernel, size));
        bench.run(point("seqpacket"), || seqpacket(size));
        bench.run(point("two seqpackets"), || two_seqpackets(size));
        // A pipe has no messages, so there is none of 0 bytes.
        if size > 0 {
            bench.run(point("pipe"), || by_pipe(size));
        }
    }
}

/// SEND, RECV and SLICE_RELEASE between two peers of either host.
pub fn pair<D: Door>(
    from: Peer<D>,
    to: Peer<D>,
    size: usize,
) -> Result<impl FnMut() -> Result<()>> {
    let handle = to.transfer(NODE, &from.0)?;
    let payload = vec![1; size];
    Ok(move || {
        let vecs = [IoSlice::new(&payload)];
        let cargo = Cargo {
            vecs: &vecs[..usize::from(!payload.is_empty())],
            ..Cargo::default()
        };
        from.send(&[handle], cargo)?;
        to.take()
    })
}

/// The same through the crate for applications.
pub fn by_crate(host: Host, size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = (bus1::Peer::open_on(host)?, bus1::Peer::open_on(host)?);
    let node = to.create_node()?;
    let handle = to
        .transfer(node.handle(), &from)?
        .context("a new node is gone")?;
    let payload = vec![1; size];
    Ok(move || {
        // What it belongs to lives as long as the body.
        let _ = &node;
        from.send(&handle, &Outgoing::new().payload(&payload))?;
        drop(to.try_recv()?.context("no message")?);
        Ok(())
    })
}

/// One message through a pair of sockets.
pub fn seqpacket(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let pair = Pair::new(size)?;
    let (payload, mut buffer) = (vec![1; size], vec![0; size]);
    Ok(move || {
        put(&pair.a, &payload)?;
        get(&pair.b, &mut buffer)
    })
}

/// One message through two pairs: what a broker would cost if it did nothing.
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
