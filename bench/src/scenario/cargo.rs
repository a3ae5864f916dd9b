// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages that carry handles or a descriptor; one thread, no payload.

use std::fs::File;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{ensure, Context, Result};
use bus1_uapi::{MSG_NODE_RELEASE, RECV_FLAG_INSTALL_FDS};

use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Peer, Pool, Tail, NODE};
use crate::socket::{get_fd, put_fd, Pair};

/// Handles in one message.
const HANDLES: [usize; 2] = [1, 16];

/// Handles that the receiver has, handles that are new to it, and descriptors.
pub fn run(bench: &mut Bench) {
    let point = |scenario, implementation, param| Point {
        scenario,
        implementation,
        param,
        per_run: 1,
    };
    for n in HANDLES {
        bench.run(point("handles", "known", n as u64), || known(n));
        bench.run(point("handles", "new", n as u64), || new(n));
    }
    bench.run(point("descriptor", "bus1 raw", 1), descriptor);
    bench.run(point("descriptor", "seqpacket", 1), scm_rights);
}

/// Returns the IDs of own nodes of the sender.
fn nodes(n: usize) -> Vec<u64> {
    (0..n as u64).map(|i| NODE + 4 * i).collect()
}

/// Measures handles that the receiver has already: it gains a reference to each, and drops it.
fn known(n: usize) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = (Peer::open()?, Peer::open()?);
    let destination = to.transfer(NODE, &from.0)?;
    let handles = nodes(n);
    let held: Vec<_> = handles
        .iter()
        .map(|&id| from.transfer(id, &to.0))
        .collect::<Result<_>>()?;
    Ok(move || {
        let cargo = Cargo {
            handles: &handles,
            ..Cargo::default()
        };
        from.send(&[destination], cargo)?;
        to.take()?;
        held.iter().try_for_each(|&id| to.release_handle(id))
    })
}

/// Measures handles that the receiver has not: it drops them, and the owner is notified that no
/// peer has them.
fn new(n: usize) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = (Peer::open()?, Peer::open()?);
    let destination = to.transfer(NODE, &from.0)?;
    let pool = Pool::map(&to)?;
    let handles = nodes(n);
    Ok(move || {
        let cargo = Cargo {
            handles: &handles,
            ..Cargo::default()
        };
        from.send(&[destination], cargo)?;
        let msg = to.recv(0)?;
        let ids = Tail::of(&msg).handles;
        for index in 0..msg.n_handles {
            to.release_handle(pool.word(ids + 8 * index))?;
        }
        to.release(&msg)?;
        for _ in 0..msg.n_handles {
            let kind = from.recv(0)?.kind;
            ensure!(kind == MSG_NODE_RELEASE, "{kind} in place of a release");
        }
        Ok(())
    })
}

/// Opens a file that may be passed on.
fn file() -> Result<File> {
    File::open("/dev/null").context("cannot open /dev/null")
}

/// Measures SEND, RECV with INSTALL_FDS, close, SLICE_RELEASE.
fn descriptor() -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = (Peer::open()?, Peer::open()?);
    let destination = to.transfer(NODE, &from.0)?;
    let pool = Pool::map(&to)?;
    let file = file()?;
    Ok(move || {
        let cargo = Cargo {
            fds: &[file.as_fd()],
            ..Cargo::default()
        };
        from.send(&[destination], cargo)?;
        let msg = to.recv(RECV_FLAG_INSTALL_FDS)?;
        ensure!(msg.n_fds == 1, "{} descriptors in place of one", msg.n_fds);
        // The upper half is padding, which is clear.
        let fd = pool.word(Tail::of(&msg).fds) as RawFd;
        // SAFETY: the number was installed for this message, and no other code knows of it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        to.release(&msg)
    })
}

/// Measures SCM_RIGHTS beside one byte, which it cannot be without.
fn scm_rights() -> Result<impl FnMut() -> Result<()>> {
    let pair = Pair::new(0)?;
    let file = file()?;
    Ok(move || {
        put_fd(&pair.a, &file)?;
        get_fd(&pair.b)
    })
}
