// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mappings of the pool that the kernel refuses, or that hold nothing to read.

use std::hint::black_box;
use std::os::fd::AsFd;

use rustix::fs::{open, Mode, OFlags};
use rustix::mm::{MprotectFlags, ProtFlags};

use bus1_conformance_case::case;

use crate::client::Peer;
use crate::env::Env;
use crate::host::kernel::{descriptor, Mapping};
use crate::host::{Errno as E, View, DEVICE};
use crate::sys::memory::PAGE;
use crate::sys::process::{fork, End};

#[case("abi.md#mmap-eacces", kernel)]
fn map_of_a_descriptor_of_another_mode_is_eacces(_: &Env) {
    let open = |flags| open(DEVICE, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let write_only = open(OFlags::WRONLY);
    let map = |fd: &dyn AsFd, prot| Mapping::with(fd.as_fd(), 0, PAGE as u64, prot).err();
    assert_eq!(map(&write_only, ProtFlags::READ), Some(E::ACCESS));
    let read_only = open(OFlags::RDONLY);
    assert_eq!(map(&read_only, ProtFlags::READ), None);
    let both = ProtFlags::READ | ProtFlags::WRITE;
    assert_eq!(map(&read_only, both), Some(E::ACCESS));
}

#[case("abi.md#mmap-einval", "abi.md#mmap-size", kernel)]
fn map_beyond_the_pool_is_einval(env: &Env) {
    let peer = env.peer();
    let size = peer.door().pool_size();
    let page = PAGE as u64;
    let map = |offset, len| Mapping::new(descriptor(peer.door()), offset, len).err();
    assert_eq!(map(size - page, page), None, "the last page");
    assert_eq!(map(size - page, 2 * page), Some(E::INVAL));
    assert_eq!(map(size, page), Some(E::INVAL));
    assert_eq!(map(1 << 40, page), Some(E::INVAL));
    assert_eq!(map(0, size + page), Some(E::INVAL));
}

#[case("abi.md#mmap-sigbus", kernel, alone)]
fn page_that_never_held_a_slice_raises_sigbus(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.expect_sent(to, b"the only slice");
    let offset = a.expect_text(b"the only slice").msg.offset;
    let pages = 1 << 10;
    let map = Mapping::new(descriptor(a.door()), 0, pages * PAGE as u64).unwrap();
    let read = |offset| {
        fork(|| {
            let mut byte = [0];
            map.read(offset, &mut byte);
            // The compiler must not leave out a read whose result is not used.
            i32::from(black_box(byte) == [b'?'])
        })
        .wait()
    };
    assert_eq!(read(offset), End::Exit(0));
    let far = (offset + map.len() / 2) % map.len();
    assert_eq!(read(far), End::Signal(libc::SIGBUS));
}

/// Most mappings of one pool.
const MAPPINGS_MAX: usize = 1024;

/// Maps two pages of a peer's pool.
fn map(peer: &Peer) -> Result<Mapping, E> {
    Mapping::new(descriptor(peer.door()), 0, 2 * PAGE as u64)
}

#[case("abi.md#mmap-enomem", "abi.md#mmap-bound", kernel, alone)]
fn map_beyond_the_bound_is_enomem(env: &Env) {
    let [peer, other] = env.peers();
    for _ in 0..2 {
        let mut all: Vec<_> = (0..MAPPINGS_MAX).map(|_| map(&peer).unwrap()).collect();
        assert_eq!(map(&peer).err(), Some(E::NOMEM));
        assert_eq!(map(&other).err(), None);
        // A part with a protection of its own would be a mapping more.
        let nothing = MprotectFlags::empty();
        assert_eq!(all[0].protect(nothing), Err(E::NOMEM));
        all.pop();
        assert_eq!(all[0].protect(nothing), Ok(()));
        assert_eq!(map(&peer).err(), Some(E::NOMEM));
        // All of them are given back here.
    }
}

#[case("abi.md#mmap-bound", kernel, alone)]
fn children_inherit_mappings_beyond_the_bound(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.expect_sent(to, b"inherited");
    let offset = a.expect_text(b"inherited").msg.offset;
    // The receipt mapped the pool as well.
    let mut all: Vec<_> = (1..MAPPINGS_MAX).map(|_| map(&a).unwrap()).collect();
    let last = all.pop().unwrap();
    let child = fork(|| {
        let mut seen = [0; 9];
        last.read(offset, &mut seen);
        // With those of the parent there are nearly twice as many.
        i32::from(&seen != b"inherited" || map(&a).err() != Some(E::NOMEM))
    });
    assert_eq!(child.wait(), End::Exit(0));
    drop(last);
    assert_eq!(map(&a).err(), None, "the child's are still counted");
}
