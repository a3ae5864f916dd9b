// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is in a pool, as its owner sees it.

use std::os::fd::AsRawFd;

use bus1_conformance_case::case;

use crate::client::{align8, Message};
use crate::env::Env;
use crate::host::Errno as E;

#[case("abi.md#layout-parts")]
fn slice_is_laid_out_as_published(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let nodes = [b.new_node(), b.new_node(), b.new_node()];
    let null = std::fs::File::open("/dev/null").unwrap();
    let payload: Vec<u8> = (1..=40).collect();
    for n_bytes in 0..20_usize {
        for n_handles in 0..=3_usize {
            for n_fds in 0..=3_usize {
                let message = b.message().to(&[to]).bytes(&payload[..n_bytes]);
                let fds = [null.as_raw_fd(); 3];
                message
                    .handles(&nodes[..n_handles])
                    .fds(&fds[..n_fds])
                    .send()
                    .unwrap();
                let Message {
                    msg,
                    bytes,
                    handles,
                    fds,
                    slice,
                } = a.expect_data();
                assert_eq!(msg.offset % 8, 0);
                let counts = [msg.n_bytes, msg.n_handles, msg.n_fds];
                assert_eq!(counts, [n_bytes, n_handles, n_fds].map(|n| n as u64));

                let handles_at = align8(msg.n_bytes) as usize;
                let fds_at = handles_at + 8 * n_handles;
                let end = (fds_at + align8(4 * msg.n_fds) as usize).max(8);
                assert_eq!(slice.len(), end);
                assert_eq!(bytes, &payload[..n_bytes]);
                assert!(slice[n_bytes..handles_at].iter().all(|&byte| byte == 0));
                for id in handles {
                    assert_eq!(id & 7, 3, "a handle of a remote node: {id:#x}");
                    a.release(id).unwrap();
                }
                for fd in fds {
                    rustix::fs::fstat(fd).expect("it is open");
                }
                assert!(slice[fds_at + 4 * n_fds..].iter().all(|&byte| byte == 0));
                a.release_slice(msg.offset).unwrap();
            }
        }
    }
}

#[case("abi.md#layout-parts")]
fn descriptors_follow_handles(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let (mut first, second) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let fds = [first.1.as_raw_fd(), second.1.as_raw_fd()];
    b.message()
        .to(&[to])
        .bytes(b"abc")
        .handles(&[b.new_node()])
        .fds(&fds)
        .send()
        .unwrap();
    let message = a.expect_data();
    assert_eq!(&message.slice[..8], b"abc\0\0\0\0\0");
    assert_eq!(message.slice.len(), 8 + 8 + 8);
    rustix::io::write(&message.fds[0], b"into the first").unwrap();
    let mut bytes = [0; 14];
    std::io::Read::read_exact(&mut first.0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"into the first");
}

#[case("abi.md#mmap-zero", "abi.md#layout-parts")]
fn padding_is_zero(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let null = std::fs::File::open("/dev/null").unwrap();
    for len in 0..17 {
        // Makes the place dirty first.
        b.message().to(&[to]).bytes(&[0xff; 256]).send().unwrap();
        let dirty = a.expect_data().msg.offset;
        a.release_slice(dirty).unwrap();
        let message = b.message().to(&[to]).bytes(&[0xee; 20][..len]);
        message
            .handles(&[b.new_node()])
            .fds(&[null.as_raw_fd()])
            .send()
            .unwrap();
        let message = a.expect_data();
        let (end, next) = (len, align8(len as u64) as usize);
        assert!(
            message.slice[end..next].iter().all(|&byte| byte == 0),
            "behind the payload"
        );
        assert_eq!(message.slice[next + 12..], [0; 4], "behind the descriptor");
        a.release_slice(message.msg.offset).unwrap();
    }
    b.message().to(&[to]).bytes(&[0xff; 256]).send().unwrap();
    let dirty = a.expect_data().msg.offset;
    a.release_slice(dirty).unwrap();
    b.message().to(&[to]).send().unwrap();
    assert_eq!(a.expect_data().slice, [0; 8], "an empty message");
}

#[case("abi.md#mmap-zero")]
fn fresh_memory_is_zero(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"x").send().unwrap();
    let msg = a.expect_data().msg;
    // The page that the slice begins in.
    let page = msg.offset & !4095;
    let seen = a.read_pool(page, 4096);
    let at = (msg.offset - page) as usize;
    assert_eq!(seen[at], b'x');
    let mut rest = seen.iter().enumerate().filter(|&(i, _)| i != at);
    assert!(
        rest.all(|(_, &byte)| byte == 0),
        "something was there before"
    );
}

#[case("abi.md#mmap-zero")]
fn old_data_of_others_is_not_visible(env: &Env) {
    // Memory that was full of secrets in other pools goes through the system to a new pool.
    for _ in 0..20 {
        let [a, b, c] = env.peers();
        let (_, to) = a.node_for(&b);
        b.message()
            .to(&[to])
            .bytes(&vec![0x5e; 1 << 20])
            .send()
            .unwrap();
        a.expect_data();
        a.close();
        let (_, to) = c.node_for(&b);
        b.message()
            .to(&[to])
            .bytes(&[b'x'; 3 * 4096 + 1])
            .send()
            .unwrap();
        let msg = c.expect_data().msg;
        let end = (msg.offset + msg.n_bytes).next_multiple_of(4096);
        let start = msg.offset & !4095;
        let seen = c.read_pool(start, end - start);
        let strange = seen
            .iter()
            .filter(|&&byte| byte != 0 && byte != b'x')
            .count();
        assert_eq!(strange, 0, "bytes of another pool show in that page");
    }
}

#[case("abi.md#layout-dropped")]
fn unreceived_descriptors_are_no_numbers(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let null = std::fs::File::open("/dev/null").unwrap();
    b.message()
        .to(&[to])
        .bytes(b"12345678")
        .fds(&[null.as_raw_fd(); 4])
        .send()
        .unwrap();
    let msg = a.receive().flags(0).header().unwrap();
    assert_eq!(msg.n_fds, 0);
    assert_eq!(a.read_pool(msg.offset, 8), b"12345678");
}

/// More than a host may keep for a rainy day.
const LARGE: usize = 6 << 20;

#[case("abi.md#mmap-outlives", "abi.md#disconnect-keeps")]
fn map_outlives_the_disconnect(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message()
        .to(&[to])
        .bytes(&vec![0x42; LARGE])
        .send()
        .unwrap();
    let offset = a.expect_data().msg.offset;
    a.disconnect().unwrap();
    let bytes = a.read_pool(offset, LARGE as u64);
    assert!(bytes.iter().all(|&byte| byte == 0x42));
}

#[case("abi.md#mmap-outlives")]
fn map_outlives_the_close(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message()
        .to(&[to])
        .bytes(&vec![0x42; LARGE])
        .send()
        .unwrap();
    let offset = a.expect_data().msg.offset;
    let view = a.door().map(a.mapped()).unwrap();
    a.close();
    let mut bytes = vec![0; LARGE];
    view.read(offset, &mut bytes);
    assert!(bytes.iter().all(|&byte| byte == 0x42));
}

#[case("abi.md#mmap-outlives", "abi.md#close-disconnects")]
fn map_does_not_keep_the_peer_connected(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let (node, _) = b.node_for(&a);
    b.message().to(&[to]).send().unwrap();
    a.expect_data();
    let view = a.door().map(1 << 20).unwrap();
    a.close();
    let mut told = [b.expect_message().msg, b.expect_message().msg].map(|msg| msg.destination);
    told.sort_unstable();
    let mut expected = [to, node];
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert_eq!(b.message().to(&[to]).send(), Err(E::HOSTUNREACH));
    drop(view);
}

#[case("abi.md#mmap-eshutdown")]
fn map_of_a_dead_peer_is_eshutdown(env: &Env) {
    let peer = env.peer();
    peer.disconnect().unwrap();
    assert_eq!(peer.door().map(1 << 20).err(), Some(E::SHUTDOWN));
}

#[case("abi.md#mmap-any")]
fn map_may_be_made_late(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"sent before").send().unwrap();
    let msg = a.receive().header().unwrap();
    assert_eq!(a.read_pool(msg.offset, 11), b"sent before");
}

#[case("abi.md#mmap-any")]
fn two_maps_show_the_same(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let views = [
        a.door().map(1 << 20).unwrap(),
        a.door().map(1 << 16).unwrap(),
    ];
    b.message().to(&[to]).bytes(b"twice").send().unwrap();
    let offset = a.expect_data().msg.offset;
    for view in &views {
        let mut bytes = [0; 5];
        view.read(offset, &mut bytes);
        assert_eq!(&bytes, b"twice");
    }
}
