// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The memory that pools retain when nothing pins it: it is charged to senders, so each pool and
//! each receiving user has a bound for it, in bytes.

#![cfg(not(loom))]

mod common;

use std::slice::from_ref;

use bus1_core::abi::*;
use common::*;

/// Bytes that each pool may retain, whatever others do.
const OWN: u64 = 4096;
/// Bytes that the pools of a user may retain on top, together, by these limits.
const TOGETHER: u64 = 65536;
const FEW: [u32; 4] = [1024, 1024, 65536, 64];

/// Fills the pools of `receivers` and has each given back as
/// `give_back` does. Returns the bytes that each pool retains.
fn idle(world: &World, receivers: &[Client], give_back: impl Fn(&Client, &[Received])) -> Vec<u64> {
    let sender = world.open(1);
    for receiver in receivers {
        let id = receiver.transfer(0, &sender).unwrap();
        let mut n_sent = 0;
        while sender.send(Letter::new(&[id], &[7; 400])).is_ok() {
            n_sent += 1;
        }
        assert!(n_sent > 2);
        let taken: Vec<_> = (0..n_sent).map(|_| receiver.recv().unwrap()).collect();
        give_back(receiver, &taken);
        // One slice is kept warm at most, within what is retained.
        assert_eq!(receiver.info().slices, 0);
        assert!(receiver.pool.pins() <= 1);
    }
    receivers.iter().map(|client| client.pool.idle()).collect()
}

fn release_all(receiver: &Client, taken: &[Received]) {
    for slice in taken {
        receiver.release_slice(slice.offset).unwrap();
    }
}

#[test]
fn the_pools_of_a_user_retain_no_more_than_its_bound_together() {
    for flush in [false, true] {
        let world = World::new(FEW);
        let receivers: Vec<_> = (0..16).map(|_| world.open(1)).collect();
        let idle = idle(&world, &receivers, |receiver, taken| match flush {
            false => release_all(receiver, taken),
            true => receiver.flush(PEER_RESET_FLAG_FLUSH).unwrap(),
        });
        let sum: u64 = idle.iter().sum();
        let most = 16 * OWN + TOGETHER;
        assert!((TOGETHER / 2..=most).contains(&sum), "{idle:?}");
        drop(receivers);
        world.end();
    }
}

#[test]
fn a_closed_peer_returns_what_its_pool_retained_once_the_pool_goes() {
    let world = World::new(FEW);
    let first: Vec<_> = (0..3).map(|_| world.open(1)).collect();
    let most = idle(&world, &first, release_all);
    let mapped: Vec<_> = first.iter().map(|client| client.pool.clone()).collect();
    for client in &first {
        client.disconnect().unwrap();
    }
    // The pools are still mapped, and so is what they retain.
    let second = world.open(1);
    let late = idle(&world, from_ref(&second), release_all);
    assert!((1..=OWN).contains(&late[0]), "{late:?}");
    drop((first, mapped, second));
    let third = world.open(1);
    assert_eq!(idle(&world, from_ref(&third), release_all), most[..1]);
    drop(third);
    world.end();
}
