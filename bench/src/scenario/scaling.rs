// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pairs that never talk to each other, each on a CPU of its own. The figure is what a message
//! costs one pair while another is at work: no more than without it, if they share nothing.

use anyhow::Result;

use super::unicast::{pair, seqpacket};
use crate::measure::{Bench, Point};
use crate::peer::Peer;
use crate::process::Partner;

/// Bytes of payload.
const SIZE: usize = 64;

/// Runs one pair and two, of either implementation.
pub fn run(bench: &mut Bench) {
    for pairs in [1, 2] {
        let point = |implementation| Point {
            scenario: "scaling",
            implementation,
            param: pairs,
            per_run: 1,
        };
        let peers = || pair(Peer::open_by_default()?, Peer::open_by_default()?, SIZE);
        bench.run(point("bus1 raw"), || beside(pairs, peers));
        bench.run(point("seqpacket"), || beside(pairs, || seqpacket(SIZE)));
    }
}

/// Measures the body of one pair, beside a partner that does the same for ever.
fn beside<B: FnMut() -> Result<()>>(
    pairs: u64,
    set_up: impl Fn() -> Result<B>,
) -> Result<impl FnMut() -> Result<()>> {
    let partners: Vec<_> = (1..pairs as usize)
        .map(|cpu| {
            let mut other = set_up()?;
            Partner::start(cpu, move || loop {
                other()?;
            })
        })
        .collect::<Result<_>>()?;
    let mut body = set_up()?;
    Ok(move || {
        let _ = &partners;
        body()
    })
}
