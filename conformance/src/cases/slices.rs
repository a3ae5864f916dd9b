// SPDX-License-Identifier: MIT OR Apache-2.0

//! SLICE_RELEASE, and where slices lie.

use bus1_uapi as abi;
use rand::{rngs::SmallRng, Rng, SeedableRng};

use super::Case;
use crate::client::align8;
use crate::env::Env;
use crate::host::Errno as E;

pub const CASES: &[Case] = &[
    case!(no_slice_there_is_enxio, "5 SLICE_RELEASE: at which no received slice starts ENXIO"),
    case!(inside_a_slice_is_enxio, "5 SLICE_RELEASE: at which no received slice starts"),
    case!(released_twice_is_enxio, "5 SLICE_RELEASE: at which no received slice starts"),
    case!(not_received_yet_is_enxio, "5 SLICE_RELEASE: no received slice"),
    case!(charge_ends_with_the_release, "7: slices are given back at SLICE_RELEASE"),
    case!(bytes_are_given_back_at_recv, "7: bytes are given back at RECV"),
    case!(slices_never_overlap, "6: a slice lives from SEND to SLICE_RELEASE"),
    case!(content_stays_until_the_release, "6: a slice lives from SEND to SLICE_RELEASE"),
    case!(address_space_is_used_again, "6: pages that no slice needs any more go back"),
    case!(handles_outlive_the_slice, "2: user references change only in ioctls of the holder"),
    case!(slice_outlives_its_handles, "6: a slice lives from SEND to SLICE_RELEASE"),
    case!(slice_outlives_the_node, "6: a slice lives from SEND to SLICE_RELEASE"),
    case!(threads_release_each_slice_once, "5 SLICE_RELEASE: at which no received slice starts"),
];

fn no_slice_there_is_enxio(env: &Env) {
    let peer = env.peer();
    for offset in [0, 8, 4096, 1 << 32, u64::MAX - 7, abi::OFFSET_INVALID] {
        assert_eq!(peer.release_slice(offset), Err(E::NXIO), "{offset:#x}");
    }
}

fn inside_a_slice_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(&[1; 64]).send().unwrap();
    let offset = a.data().msg.offset;
    for inside in [1, 4, 8, 56, 63, 64, 72] {
        assert_eq!(a.release_slice(offset + inside), Err(E::NXIO), "{inside}");
    }
    assert_eq!(a.release_slice(offset), Ok(()));
}

fn released_twice_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"once").send().unwrap();
    let offset = a.data().msg.offset;
    assert_eq!(a.release_slice(offset), Ok(()));
    assert_eq!(a.release_slice(offset), Err(E::NXIO));
    assert_eq!(a.release_slice(offset), Err(E::NXIO));
}

fn not_received_yet_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"first").send().unwrap();
    let offset = a.data().msg.offset;
    a.release_slice(offset).unwrap();
    b.message().to(&[to]).bytes(b"again").send().unwrap();
    // Wherever it is: probably in the same place.
    for at in (0..offset + 4096).step_by(8) {
        assert_eq!(a.release_slice(at), Err(E::NXIO));
    }
    let offset = a.text(b"again").msg.offset;
    assert_eq!(a.release_slice(offset), Ok(()));
}

fn charge_ends_with_the_release(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.limit([4, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    b.message().to(&[to]).send().unwrap();
    b.message().to(&[to]).send().unwrap();
    let offsets = [0; 2].map(|_| a.data().msg.offset);
    assert_eq!(b.message().to(&[to]).send(), Err(E::DQUOT), "received, not released");
    a.release_slice(offsets[1]).unwrap();
    assert_eq!(b.message().to(&[to]).send(), Ok(()));
    assert_eq!(b.message().to(&[to]).send(), Err(E::DQUOT));
}

fn bytes_are_given_back_at_recv(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.limit([u32::MAX, u32::MAX, 100, u32::MAX]).unwrap();
    for _ in 0..10 {
        assert_eq!(b.message().to(&[to]).bytes(&[1; 50]).send(), Ok(()));
        assert_eq!(b.message().to(&[to]).bytes(&[1; 1]).send(), Err(E::DQUOT));
        a.data();
    }
}

fn slices_never_overlap(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let mut random = SmallRng::seed_from_u64(7);
    let mut live: Vec<(u64, u64)> = Vec::new();
    let bytes = vec![0x33; 6000];
    for _ in 0..1500 {
        if random.random_bool(0.45) && !live.is_empty() {
            let (offset, _) = live.swap_remove(random.random_range(0..live.len()));
            a.release_slice(offset).unwrap();
        } else {
            let len = random.random_range(0..6000_usize);
            b.message().to(&[to]).bytes(&bytes[..len]).send().unwrap();
            let start = a.receive().header().unwrap().offset;
            let end = start + align8(len as u64).max(8);
            for &(other, other_end) in &live {
                let apart = end <= other || other_end <= start;
                assert!(apart, "{start:#x}..{end:#x} overlaps {other:#x}..{other_end:#x}");
            }
            live.push((start, end));
        }
    }
}

fn content_stays_until_the_release(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"do not touch").send().unwrap();
    let offset = a.data().msg.offset;
    for _ in 0..200 {
        b.message().to(&[to]).bytes(&[0xff; 500]).send().unwrap();
        let other = a.data().msg.offset;
        a.release_slice(other).unwrap();
    }
    assert_eq!(a.read_pool(offset, 12), b"do not touch");
}

fn address_space_is_used_again(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let bytes = vec![1; 1 << 20];
    // More than a pool's 4 GiB would need 4096 of them; the mapping of the suite is smaller, and
    // 200 do not fit into it either.
    for _ in 0..200 {
        b.message().to(&[to]).bytes(&bytes).send().unwrap();
        let msg = a.receive().header().expect("the pool creeps away");
        a.release_slice(msg.offset).unwrap();
    }
}

fn handles_outlive_the_slice(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.message().to(&[to]).handles(&[node]).send().unwrap();
    let message = a.data();
    a.release_slice(message.msg.offset).unwrap();
    b.nothing();
    a.message().to(&[message.handle()]).bytes(b"works").send().unwrap();
    b.text(b"works");
    a.release(message.handle()).unwrap();
    b.node_release(node);
}

fn slice_outlives_its_handles(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.message().to(&[to]).bytes(b"still here").handles(&[node]).send().unwrap();
    let message = a.data();
    a.release(message.handle()).unwrap();
    b.node_release(node);
    assert_eq!(a.read_pool(message.msg.offset, 10), b"still here");
    assert_eq!(a.release_slice(message.msg.offset), Ok(()));
}

fn slice_outlives_the_node(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"testament").send().unwrap();
    let offset = a.data().msg.offset;
    a.destroy_and_release(&[node]).unwrap();
    b.close();
    assert_eq!(a.read_pool(offset, 9), b"testament");
    assert_eq!(a.release_slice(offset), Ok(()));
}

fn threads_release_each_slice_once(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for _ in 0..20 {
        let offsets: Vec<_> = (0..50)
            .map(|_| {
                b.message().to(&[to]).send().unwrap();
                a.data().msg.offset
            })
            .collect();
        let released: usize = std::thread::scope(|scope| {
            let release = || offsets.iter().filter(|&&at| a.release_slice(at).is_ok()).count();
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(release)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(released, 50);
    }
}
