// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The seed of a peer: replaced, flushed, charged and dropped beside its receipt.

#![cfg(not(loom))]

mod common;

use bus1_core::abi::*;
use common::*;
use kernel::error::code::*;

#[test]
fn the_seed_is_replaced_under_its_receipt() {
    let (world, r, s, _) = pair();
    r.seed(&[0], b"old");
    let hooks = Hooks::at_write(|| {
        r.seed(&[0, 4], b"new");
        Ok(())
    });
    let received = r.recv_with(RECV_FLAG_SEED, &hooks).unwrap();
    assert_eq!(
        (&received.data[..], &received.handles[..]),
        (&b"new"[..], &[0, 4][..])
    );
    drop(hooks);
    let hooks = Hooks::at_write(|| r.flush(PEER_RESET_FLAG_FLUSH_SEED));
    assert_eq!(r.recv_with(RECV_FLAG_SEED, &hooks), Err(EAGAIN));
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn a_fault_leaves_the_seed() {
    let (world, r, s, [id, _]) = pair();
    let to_s = s.transfer(0, &r).unwrap();
    let letter = Letter {
        handles: &[0, to_s],
        flags: SEND_FLAG_SEED,
        to: &[],
        data: b"seed",
        ..Letter::default()
    };
    r.send(letter).unwrap();
    let before = world.state();
    let hooks = Hooks::at_write(|| Err(EFAULT));
    assert_eq!(r.recv_with(RECV_FLAG_SEED, &hooks), Err(EFAULT));
    assert_eq!(world.state(), before);
    let received = r.recv_with(RECV_FLAG_SEED, &Hooks::default()).unwrap();
    assert_eq!(received.handles, [0, to_s]);
    assert_eq!(s.send(Letter::new(&[id], b"x")), Ok(()));
    drop(hooks);
    drop((s, r));
    world.end();
}

/// Two users of one peer, or a service and its successor, may have receipts of one seed at once.
#[test]
fn each_receipt_of_a_seed_stands_for_itself() {
    let (world, r, s, _) = pair();
    let to_s = s.transfer(0, &r).unwrap();
    let letter = Letter {
        handles: &[0, to_s],
        fds: &[3, 4],
        flags: SEND_FLAG_SEED,
        ..Letter::new(&[], b"seed")
    };
    r.send(letter).unwrap();
    let recv = || r.recv_with(RECV_FLAG_SEED | RECV_FLAG_INSTALL_FDS, &Hooks::default());
    let (first, second) = (recv().unwrap(), recv().unwrap());
    assert_ne!(first.offset, second.offset);
    assert_ne!(first.fds, second.fds);
    // The second one changed nothing in the first.
    assert_eq!(r.pool.read(first.offset, 4), b"seed");
    let fds = r.pool.read(first.offset + 24, 8);
    assert_eq!(fds[..4], first.fds[0].to_ne_bytes());
    assert_eq!(fds[4..], first.fds[1].to_ne_bytes());
    // Each brought a reference of its own.
    assert_eq!(r.release(to_s), Ok(()));
    r.release_slice(first.offset).unwrap();
    assert_eq!(r.pool.read(second.offset, 4), b"seed");
    assert_eq!(r.release_slice(first.offset), Err(ENXIO));
    assert_eq!(r.release(to_s), Ok(()));
    r.release_slice(second.offset).unwrap();
    // The seed is as it was.
    let third = recv().unwrap();
    assert_eq!(
        (&third.data[..], &third.handles[..]),
        (&b"seed"[..], &[0, to_s][..])
    );
    drop((s, r));
    world.end();
}

#[test]
fn receipts_of_a_seed_are_charged_to_the_peer() {
    let (world, r, s, _) = pair();
    r.seed(&[0], &[7; 100]);
    let before = r.info();
    assert_eq!(
        (before.slices, before.charged[0], before.charged[2]),
        (1, 1, 108)
    );
    let recv = || r.recv_with(RECV_FLAG_SEED, &Hooks::default());
    let offsets: Vec<u64> = (0..9).map(|_| recv().unwrap().offset).collect();
    let info = r.info();
    assert_eq!(
        (info.slices, info.charged[0], info.charged[2]),
        (10, 10, 10 * 108)
    );
    // The seed goes, the receipts stay.
    r.flush(PEER_RESET_FLAG_FLUSH_SEED).unwrap();
    let info = r.info();
    assert_eq!(
        (info.slices, info.charged[0], info.charged[2]),
        (9, 9, 9 * 108)
    );
    for offset in offsets {
        r.release_slice(offset).unwrap();
    }
    let info = r.info();
    assert_eq!((info.slices, info.charged[0], info.charged[2]), (0, 0, 0));
    drop((s, r));
    world.end();
}

#[test]
fn receipts_of_a_seed_that_nobody_releases_end_at_the_quota() {
    let (world, r, s, _) = pair();
    r.seed(&[0], b"seed");
    let recv = || r.recv_with(RECV_FLAG_SEED, &Hooks::default());
    let mut offsets = Vec::new();
    let refused = loop {
        match recv() {
            Ok(received) => offsets.push(received.offset),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, EDQUOT);
    assert!(offsets.len() < LIMITS[0] as usize);
    let before = world.state();
    assert_eq!(recv(), Err(EDQUOT));
    assert_eq!(world.state(), before);
    r.release_slice(offsets.pop().unwrap()).unwrap();
    recv().unwrap();
    drop((s, r));
    world.end();
}

/// A seed that is made while its peer disconnects is nobody's: its memory is not kept pinned.
#[test]
fn a_seed_of_a_peer_that_disconnects_meanwhile_leaves_nothing_pinned() {
    let (world, r, s, _) = pair();
    let letter = Letter {
        flags: SEND_FLAG_SEED,
        ..Letter::new(&[], &[7; 1000])
    };
    let hooks = Hooks::at_copy(|| r.peer.disconnect());
    assert_eq!(r.send_with(letter, &hooks).0, Err(ESHUTDOWN));
    assert_eq!(r.pool.pins(), 0);
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn files_of_a_seed_go_with_it() {
    let (world, r, s, _) = pair();
    let letter = Letter {
        fds: &[3],
        flags: SEND_FLAG_SEED,
        ..Letter::default()
    };
    for flush in [true, false] {
        r.send(letter).unwrap();
        assert_eq!((world.files(), world.usage().sent_fds), (1, 1));
        r.recv_with(RECV_FLAG_SEED, &Hooks::default()).unwrap();
        if flush {
            r.flush(PEER_RESET_FLAG_FLUSH_SEED).unwrap();
        } else {
            r.seed(&[], b"another");
        }
        assert_eq!((world.files(), world.usage().sent_fds), (0, 0));
    }
    drop((s, r));
    world.end();
}
