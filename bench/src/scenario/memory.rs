// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bytes of memory for what does nothing: an idle peer, a queued message.
//!
//! The free memory that the system has lost afterwards is all there is, pages and slabs, charged or
//! not; the number of objects is large enough that what caches hold back does not count.

use std::fs;
use std::io::IoSlice;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Peer, NODE};
use crate::process::allow_descriptors;
use crate::row::Unit;
use crate::socket::{put, Pair};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Peers, and pairs of sockets.
const PEERS: usize = 4000;
/// Messages in one queue.
const MESSAGES: usize = 20_000;
/// Bytes of payload.
const SIZE: usize = 64;

/// Peers and messages of the bus, sockets and messages in them.
pub fn run(bench: &mut Bench) {
    each(bench, "idle peer", "bus1 raw", PEERS, idle_peers);
    each(bench, "idle peer", "seqpacket", PEERS, idle_pairs);
    each(bench, "queued 64 B", "bus1 raw", MESSAGES, messages);
    each(bench, "queued 64 B", "seqpacket", SOCKET_MESSAGES, packets);
}

/// Bytes that fit in the buffer of a socket that is as large as it gets.
const SOCKET_MESSAGES: usize = 2000;

fn each<T>(
    bench: &mut Bench,
    scenario: &'static str,
    implementation: &'static str,
    n: usize,
    make: fn(usize) -> Result<Made<T>>,
) {
    let point = Point {
        scenario,
        implementation,
        param: n as u64,
        per_run: n as u64,
    };
    if !bench.wants(scenario, implementation) {
        return;
    }
    let outcome = (|| {
        // A pair of sockets has two.
        allow_descriptors(2 * n)?;
        // The first time fills caches that the next one finds full.
        drop(make(n)?);
        for repetition in 0..3 {
            let made = make(n)?;
            let bytes = made.before.saturating_sub(free()?) as f64 / n as f64;
            bench.record(point, repetition, bytes, Unit::Bytes);
        }
        Ok(())
    })();
    bench.note(point, outcome);
}

/// Things, and the memory that was free before they were made.
struct Made<T> {
    before: u64,
    _things: T,
}

/// Bytes of free memory, once the system has done what it put off.
fn free() -> Result<u64> {
    // A closed file is freed later, by the kernel's own work.
    std::thread::sleep(Duration::from_millis(200));
    fs::write("/proc/sys/vm/drop_caches", "3").context("/proc/sys/vm/drop_caches")?;
    let text = fs::read_to_string("/proc/zoneinfo").context("/proc/zoneinfo")?;
    Ok(free_pages(&text) * PAGE)
}

/// Returns the free pages of all zones, with those that CPUs keep at hand.
fn free_pages(zoneinfo: &str) -> u64 {
    let pages = |line: &str| {
        let line = line.trim();
        let count = line
            .strip_prefix("pages free")
            .or_else(|| line.strip_prefix("count:"))?;
        count.trim().parse::<u64>().ok()
    };
    zoneinfo.lines().filter_map(pages).sum()
}

fn idle_peers(n: usize) -> Result<Made<Vec<Peer>>> {
    let mut peers = Vec::with_capacity(n);
    let before = free()?;
    for _ in 0..n {
        peers.push(Peer::open()?);
    }
    Ok(Made {
        before,
        _things: peers,
    })
}

fn idle_pairs(n: usize) -> Result<Made<Vec<Pair>>> {
    let mut pairs = Vec::with_capacity(n);
    let before = free()?;
    for _ in 0..n {
        pairs.push(Pair::new(0)?);
    }
    Ok(Made {
        before,
        _things: pairs,
    })
}

fn messages(n: usize) -> Result<Made<(Peer, Peer)>> {
    let (from, to) = (Peer::open()?, Peer::open()?);
    let handle = to.transfer(NODE, &from.0)?;
    let cargo = Cargo {
        vecs: &[IoSlice::new(&[1; SIZE])],
        ..Cargo::default()
    };
    let before = free()?;
    for _ in 0..n {
        from.send(&[handle], cargo)?;
    }
    Ok(Made {
        before,
        _things: (from, to),
    })
}

fn packets(n: usize) -> Result<Made<Pair>> {
    let pair = Pair::new(n * 1024)?;
    let before = free()?;
    for _ in 0..n {
        put(&pair.a, &[1; SIZE])?;
    }
    Ok(Made {
        before,
        _things: pair,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_at_hand_are_free_too() {
        let text = "Node 0, zone   Normal\n  pages free     100\n        boost    0\n\
                    \x20   cpu: 0\n              count:    20\n              high:     300\n\
                    \x20   cpu: 1\n              count:    3\n  nr_free_pages 100\n";
        assert_eq!(free_pages(text), 123);
    }
}
