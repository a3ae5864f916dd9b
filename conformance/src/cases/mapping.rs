// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mapping of the device file.

use std::os::fd::BorrowedFd;

use rustix::mm::{MprotectFlags, ProtFlags};

use bus1_conformance_case::case;

use crate::client::Peer;
use crate::env::{Env, PATIENCE};
use crate::host::kernel::{descriptor, Mapping};
use crate::host::{Errno as E, View};
use crate::sys::memory::PAGE;
use crate::sys::process::{fork, End};

fn fd(peer: &Peer) -> BorrowedFd<'_> {
    descriptor(peer.door())
}

#[case("abi.md#mmap-eperm-write", kernel)]
fn writable_map_is_eperm(env: &Env) {
    let peer = env.peer();
    for prot in [ProtFlags::WRITE, ProtFlags::READ | ProtFlags::WRITE] {
        assert_eq!(
            Mapping::with(fd(&peer), 0, 1 << 16, prot).err(),
            Some(E::PERM)
        );
    }
}

#[case("abi.md#mmap-eperm-exec", kernel)]
fn executable_map_is_eperm(env: &Env) {
    let peer = env.peer();
    for prot in [ProtFlags::EXEC, ProtFlags::READ | ProtFlags::EXEC] {
        assert_eq!(
            Mapping::with(fd(&peer), 0, 1 << 16, prot).err(),
            Some(E::PERM)
        );
    }
}

#[case("abi.md#mmap-mprotect", kernel)]
fn mprotect_cannot_add_writing(env: &Env) {
    let peer = env.peer();
    let map = Mapping::new(fd(&peer), 0, 1 << 16).unwrap();
    assert_eq!(
        map.protect(MprotectFlags::READ | MprotectFlags::WRITE),
        Err(E::ACCESS)
    );
    assert_eq!(map.protect(MprotectFlags::WRITE), Err(E::ACCESS));
    assert_eq!(
        map.protect(MprotectFlags::READ | MprotectFlags::EXEC),
        Err(E::ACCESS)
    );
    assert_eq!(map.protect(MprotectFlags::READ), Ok(()));
}

#[case("abi.md#mmap-any", kernel, alone)]
fn writing_is_a_fault(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).bytes(b"untouched").send().unwrap();
    let offset = a.expect_data().msg.offset;
    let map = Mapping::new(fd(&a), 0, 1 << 16).unwrap();
    let end = fork(|| {
        map.write_and_die(offset);
        0
    })
    .wait();
    assert_eq!(end, End::Signal(libc::SIGSEGV));
    assert_eq!(a.read_pool(offset, 9), b"untouched");
}

#[case("abi.md#mmap-any", kernel)]
fn the_bus_does_not_write_there_for_users(env: &Env) {
    // A system call that is told to store its result there must fail as well.
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).bytes(&[0; 64]).send().unwrap();
    let offset = a.expect_data().msg.offset;
    let map = Mapping::new(fd(&a), 0, 1 << 16).unwrap();
    let query = bus1_uapi::CMD_PEER_QUERY;
    assert_eq!(a.ioctl(query, map.addr() + offset), Err(E::FAULT));
    assert_eq!(a.read_pool(offset, 64), [0; 64]);
}

#[case("abi.md#mmap-any", kernel)]
fn part_of_the_pool_may_be_mapped(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let bytes: Vec<u8> = (0..4 * PAGE).map(|i| (i / 16) as u8).collect();
    b.message().to(&[to]).bytes(&bytes).send().unwrap();
    let msg = a.receive().header().unwrap();
    let start = (msg.offset + PAGE as u64).next_multiple_of(PAGE as u64);
    let map = Mapping::new(fd(&a), start, PAGE as u64).unwrap();
    let mut seen = [0; PAGE];
    map.read(0, &mut seen);
    let at = (start - msg.offset) as usize;
    assert!(seen == bytes[at..at + PAGE]);
}

#[case("abi.md#mmap-size", "abi.md#mmap-einval", kernel)]
fn whole_pool_may_be_mapped(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let map = Mapping::new(fd(&a), 0, a.door().pool_size()).unwrap();
    b.message()
        .to(&[to])
        .bytes(b"somewhere in it")
        .send()
        .unwrap();
    let msg = a.receive().max_offset(map.len()).header().unwrap();
    let mut seen = [0; 15];
    map.read(msg.offset, &mut seen);
    assert_eq!(&seen, b"somewhere in it");
}

#[case("abi.md#mmap-any", kernel, alone)]
fn child_process_shares_the_map(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let map = Mapping::new(fd(&a), 0, 1 << 16).unwrap();
    let (out, into) = std::io::pipe().unwrap();
    let child = fork(|| {
        // The message is sent after the fork; the parent says where it is.
        let mut offset = [0; 8];
        rustix::io::read(&out, &mut offset).unwrap();
        let mut seen = [0; 5];
        map.read(u64::from_ne_bytes(offset), &mut seen);
        i32::from(&seen != b"share")
    });
    b.message().to(&[to]).bytes(b"share").send().unwrap();
    let offset = a.expect_data().msg.offset;
    rustix::io::write(&into, &offset.to_ne_bytes()).unwrap();
    assert_eq!(child.wait(), End::Exit(0));
}

#[case("abi.md#mmap-outlives", kernel, alone)]
fn map_in_a_child_outlives_the_parents_peer(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"inherited").send().unwrap();
    let offset = a.expect_data().msg.offset;
    let map = Mapping::new(fd(&a), 0, 1 << 16).unwrap();
    let (out, into) = std::io::pipe().unwrap();
    let number = a.fd();
    let child = fork(|| {
        // SAFETY: the child leaves without using the descriptor again.
        unsafe { libc::close(number) };
        rustix::io::read(&out, &mut [0; 1]).unwrap();
        let mut seen = [0; 9];
        map.read(offset, &mut seen);
        i32::from(&seen != b"inherited")
    });
    // The child keeps its mapping, and still the peer goes with its last descriptor. The child
    // may not have closed its own yet.
    a.close();
    assert!(b.wait(PATIENCE), "the mapping keeps the peer connected");
    b.expect_node_destroy(to);
    rustix::io::write(&into, b"!").unwrap();
    assert_eq!(child.wait(), End::Exit(0));
}

#[case("abi.md#send-copy", kernel)]
fn payload_may_be_sent_from_the_map(env: &Env) {
    let [a, b] = env.peers();
    let to_a = b.handle_of(&a);
    let to_b = a.handle_of(&b);
    let own = a.new_node();
    let map = Mapping::new(fd(&a), 0, 1 << 16).unwrap();
    b.message()
        .to(&[to_a])
        .bytes(b"pass this on")
        .send()
        .unwrap();
    let offset = a.expect_data().msg.offset;
    a.message()
        .to(&[to_b, own])
        .vector(map.addr() + offset, 12)
        .send()
        .unwrap();
    b.expect_text(b"pass this on");
    a.expect_text(b"pass this on");
}

#[case("abi.md#send-copy", "abi.md#mmap-outlives", kernel)]
fn payload_may_be_sent_from_the_own_dead_map(env: &Env) {
    let [a, b, c] = env.peers();
    let to_a = b.handle_of(&a);
    let to_c = b.handle_of(&c);
    let map = Mapping::new(fd(&a), 0, 1 << 16).unwrap();
    b.message().to(&[to_a]).bytes(b"testament").send().unwrap();
    let offset = a.expect_data().msg.offset;
    a.close();
    b.message()
        .to(&[to_c])
        .vector(map.addr() + offset, 9)
        .send()
        .unwrap();
    c.expect_text(b"testament");
}
