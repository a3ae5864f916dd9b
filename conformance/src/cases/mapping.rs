// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mapping of the device file.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::process::{setrlimit, Resource, Rlimit};

use bus1_conformance_case::case;

use crate::client::Peer;
use crate::env::{Env, PATIENCE};
use crate::host::kernel::{descriptor, Mapping};
use crate::host::{Errno as E, View};
use crate::sys::memory::PAGE;
use crate::sys::process::{become_user, fork, End};

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

/// Expects that mprotect(2) can add neither writing nor executing to a mapping.
fn expect_read_only(map: &Mapping) {
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

#[case("abi.md#mmap-mprotect", kernel)]
fn mprotect_cannot_add_writing(env: &Env) {
    let peer = env.peer();
    let map = Mapping::new(fd(&peer), 0, 1 << 16).unwrap();
    expect_read_only(&map);
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
    // A system call that would store its result there must fail as well.
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

/// Maps the first 64 KiB of a peer's pool, private.
fn private(peer: &Peer, prot: ProtFlags) -> Result<Mapping, E> {
    Mapping::shared_or_private(fd(peer), 0, 1 << 16, prot, MapFlags::PRIVATE)
}

#[case("abi.md#mmap-eperm-write", "abi.md#mmap-mprotect", kernel)]
fn private_map_cannot_be_written(env: &Env) {
    let peer = env.peer();
    for prot in [
        ProtFlags::WRITE,
        ProtFlags::READ | ProtFlags::WRITE,
        ProtFlags::EXEC,
    ] {
        assert_eq!(private(&peer, prot).err(), Some(E::PERM));
    }
    let map = private(&peer, ProtFlags::READ).unwrap();
    expect_read_only(&map);
}

#[case("abi.md#mmap-any", kernel, alone)]
fn private_map_shows_every_message(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let map = private(&a, ProtFlags::READ).unwrap();
    let see = |offset: u64, text: &[u8; 5]| {
        let mut seen = [0; 5];
        map.read(offset, &mut seen);
        assert_eq!(&seen, text);
        // A child gets no copy of its own.
        let child = fork(|| {
            let mut seen = [0; 5];
            map.read(offset, &mut seen);
            i32::from(&seen != text)
        });
        assert_eq!(child.wait(), End::Exit(0));
    };
    // The second message lies where the first one was.
    let mut last = None;
    for text in [b"first", b"later"] {
        b.message().to(&[to]).bytes(text).send().unwrap();
        let offset = a.expect_data().msg.offset;
        see(offset, text);
        a.release_slice(offset).unwrap();
        assert_eq!(*last.get_or_insert(offset), offset);
    }
}

/// Writes by way of PTRACE_POKEDATA into a child that has the same mappings. Returns the errno.
fn poke(addr: u64) -> Option<i32> {
    let child = fork(|| loop {
        // SAFETY: it waits for a signal.
        unsafe { libc::pause() };
    });
    // SAFETY: a child of our own is stopped, waited for, written to as asked, and killed
    // afterwards.
    unsafe {
        let none = std::ptr::null_mut::<libc::c_void>();
        assert_eq!(
            libc::ptrace(libc::PTRACE_ATTACH, child.pid(), none, none),
            0
        );
        assert_eq!(
            libc::waitpid(child.pid(), std::ptr::null_mut(), libc::__WALL),
            child.pid()
        );
        let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(addr as usize);
        let result = libc::ptrace(libc::PTRACE_POKEDATA, child.pid(), at, none);
        (result != 0).then(|| std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

#[case("abi.md#mmap-any", kernel, alone)]
fn debuggers_cannot_write_there(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    // These may write into private mappings that are only readable, and make copies for it.
    let memory = std::fs::File::options()
        .write(true)
        .open("/proc/self/mem")
        .unwrap();
    let own = [0_u64; 2];
    assert_eq!(
        poke(own.as_ptr().expose_provenance() as u64),
        None,
        "ptrace does not work at all"
    );
    for kind in [MapFlags::SHARED, MapFlags::PRIVATE] {
        b.message().to(&[to]).bytes(b"untouched").send().unwrap();
        let offset = a.expect_data().msg.offset;
        let map = Mapping::shared_or_private(fd(&a), 0, 1 << 16, ProtFlags::READ, kind).unwrap();
        for looked_at in [false, true] {
            let error = memory.write_at(b"!", map.addr() + offset).err();
            let error = error.and_then(|error| error.raw_os_error());
            assert_eq!(error, Some(libc::EIO), "{kind:?}, {looked_at}");
            assert_eq!(
                poke(map.addr() + offset),
                Some(libc::EIO),
                "{kind:?}, {looked_at}"
            );
            let mut seen = [0; 9];
            map.read(offset, &mut seen);
            assert_eq!(&seen, b"untouched");
        }
        a.release_slice(offset).unwrap();
    }
}

#[case("abi.md#mmap-eagain", kernel, alone)]
fn map_beyond_what_may_be_locked_is_eagain(env: &Env) {
    let peer = env.peer();
    let child = fork(|| {
        let limit = Rlimit {
            current: Some(1 << 16),
            maximum: Some(1 << 16),
        };
        setrlimit(Resource::Memlock, limit).unwrap();
        // The limit does not bind root.
        become_user(env.uid(1), Some(env.uid(1))).unwrap();
        // SAFETY: it only says what is to happen to later mappings.
        assert_eq!(unsafe { libc::mlockall(libc::MCL_FUTURE) }, 0);
        let map = |len| Mapping::new(fd(&peer), 0, len);
        assert_eq!(map(1 << 20).err(), Some(E::AGAIN));
        assert!(map(PAGE as u64).is_ok(), "less can be mapped");
        0
    });
    assert_eq!(child.wait(), End::Exit(0));
}
