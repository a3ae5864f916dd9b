// SPDX-License-Identifier: MIT OR Apache-2.0

//! SLICE_RELEASE, and where slices lie.

use bus1_conformance_case::case;
use bus1_uapi as abi;
use rand::{rngs::SmallRng, Rng, SeedableRng};

use crate::client::{align8, Limits};
use crate::env::Env;
use crate::host::Errno as E;

#[case("abi.md#slice-enxio")]
fn no_slice_there_is_enxio(env: &Env) {
    let peer = env.peer();
    for offset in [0, 8, 4096, 1 << 32, u64::MAX - 7, abi::OFFSET_INVALID] {
        assert_eq!(peer.release_slice(offset), Err(E::NXIO), "{offset:#x}");
    }
}

#[case("abi.md#slice-enxio")]
fn inside_a_slice_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(&[1; 64]).send().unwrap();
    let offset = a.expect_data().msg.offset;
    for inside in [1, 4, 8, 56, 63, 64, 72] {
        assert_eq!(a.release_slice(offset + inside), Err(E::NXIO), "{inside}");
    }
    assert_eq!(a.release_slice(offset), Ok(()));
}

#[case("abi.md#slice-enxio")]
fn released_twice_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"once").send().unwrap();
    let offset = a.expect_data().msg.offset;
    assert_eq!(a.release_slice(offset), Ok(()));
    assert_eq!(a.release_slice(offset), Err(E::NXIO));
    assert_eq!(a.release_slice(offset), Err(E::NXIO));
}

#[case("abi.md#slice-enxio")]
fn not_received_yet_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"first").send().unwrap();
    let offset = a.expect_data().msg.offset;
    a.release_slice(offset).unwrap();
    b.message().to(&[to]).bytes(b"again").send().unwrap();
    // Wherever it is: probably in the same place.
    for at in (0..offset + 4096).step_by(8) {
        assert_eq!(a.release_slice(at), Err(E::NXIO));
    }
    let offset = a.expect_text(b"again").msg.offset;
    assert_eq!(a.release_slice(offset), Ok(()));
}

#[case("abi.md#charge-slices")]
fn charge_ends_with_the_release(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.limit(Limits {
        slices: 4,
        ..Limits::KEEP
    })
    .unwrap();
    b.message().to(&[to]).send().unwrap();
    b.message().to(&[to]).send().unwrap();
    let offsets = [0; 2].map(|_| a.expect_data().msg.offset);
    assert_eq!(
        b.message().to(&[to]).send(),
        Err(E::DQUOT),
        "received, not released"
    );
    a.release_slice(offsets[1]).unwrap();
    assert_eq!(b.message().to(&[to]).send(), Ok(()));
    assert_eq!(b.message().to(&[to]).send(), Err(E::DQUOT));
}

#[case("abi.md#charge-bytes")]
fn bytes_are_given_back_with_the_slice(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.limit(Limits {
        bytes: 100,
        ..Limits::KEEP
    })
    .unwrap();
    for _ in 0..10 {
        assert_eq!(b.message().to(&[to]).bytes(&[1; 50]).send(), Ok(()));
        assert_eq!(b.message().to(&[to]).bytes(&[1; 1]).send(), Err(E::DQUOT));
        let offset = a.expect_data().msg.offset;
        let received = b.message().to(&[to]).bytes(&[1; 1]).send();
        assert_eq!(received, Err(E::DQUOT), "received, not released");
        a.release_slice(offset).unwrap();
    }
}

/// All that a receiver keeps in its pool counts, however the sender filled it.
#[case("abi.md#charge-bytes")]
fn ids_and_numbers_count_as_bytes(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.give_self(node).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&null);
    a.limit(Limits {
        bytes: 2 * (3 + 8 * 2 + 4),
        ..Limits::KEEP
    })
    .unwrap();
    let full = || b.message().to(&[to]).bytes(b"odd").handles(&[node; 2]);
    assert_eq!(full().fds(&[fd; 2]).send(), Err(E::MSGSIZE));
    assert_eq!(full().fds(&[fd]).send(), Ok(()));
    assert_eq!(b.message().to(&[to]).bytes(b"x").send(), Err(E::DQUOT));
    // Descriptors that are not taken leave their place.
    let offset = a.receive().flags(0).run().unwrap().msg.offset;
    assert_eq!(b.message().to(&[to]).bytes(b"x").send(), Err(E::DQUOT));
    a.release_slice(offset).unwrap();
    assert_eq!(full().fds(&[fd]).send(), Ok(()));
}

#[case("abi.md#slice-lives")]
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
                assert!(
                    apart,
                    "{start:#x}..{end:#x} overlaps {other:#x}..{other_end:#x}"
                );
            }
            live.push((start, end));
        }
    }
}

#[case("abi.md#slice-lives")]
fn content_stays_until_the_release(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"do not touch").send().unwrap();
    let offset = a.expect_data().msg.offset;
    for _ in 0..200 {
        b.message().to(&[to]).bytes(&[0xff; 500]).send().unwrap();
        let other = a.expect_data().msg.offset;
        a.release_slice(other).unwrap();
    }
    assert_eq!(a.read_pool(offset, 12), b"do not touch");
}

#[case("abi.md#slice-release")]
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

#[case("abi.md#slice-release", "abi.md#ref-holder")]
fn handles_outlive_the_slice(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.message().to(&[to]).handles(&[node]).send().unwrap();
    let message = a.expect_data();
    a.release_slice(message.msg.offset).unwrap();
    b.expect_nothing();
    a.message()
        .to(&[message.expect_handle()])
        .bytes(b"works")
        .send()
        .unwrap();
    b.expect_text(b"works");
    a.release(message.expect_handle()).unwrap();
    b.expect_node_release(node);
}

#[case("abi.md#slice-lives")]
fn slice_outlives_its_handles(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.message()
        .to(&[to])
        .bytes(b"still here")
        .handles(&[node])
        .send()
        .unwrap();
    let message = a.expect_data();
    a.release(message.expect_handle()).unwrap();
    b.expect_node_release(node);
    assert_eq!(a.read_pool(message.msg.offset, 10), b"still here");
    assert_eq!(a.release_slice(message.msg.offset), Ok(()));
}

#[case("abi.md#slice-lives")]
fn slice_outlives_the_node(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"testament").send().unwrap();
    let offset = a.expect_data().msg.offset;
    a.destroy_and_release(&[node]).unwrap();
    b.close();
    assert_eq!(a.read_pool(offset, 9), b"testament");
    assert_eq!(a.release_slice(offset), Ok(()));
}

#[case("abi.md#slice-enxio", "abi.md#concurrent-callers")]
fn threads_release_each_slice_once(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for _ in 0..20 {
        let offsets: Vec<_> = (0..50)
            .map(|_| {
                b.message().to(&[to]).send().unwrap();
                a.expect_data().msg.offset
            })
            .collect();
        let released: usize = std::thread::scope(|scope| {
            let release = || {
                offsets
                    .iter()
                    .filter(|&&at| a.release_slice(at).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(release)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(released, 50);
    }
}
