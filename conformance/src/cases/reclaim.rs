// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pool memory: the cgroup that it is charged to, and its way back to the system.
//!
//! A process in a cgroup of its own does the sending, so that the memory charged there is pool
//! memory and little more.

use std::io::{Read, Write};
use std::time::Instant;

use bus1_conformance_case::case;

use crate::client::{Limits, Peer};
use crate::env::{Env, PATIENCE};
use crate::host::Errno as E;
use crate::sys::cgroup::Cgroup;
use crate::sys::process::{fork, End};

/// Bytes of a message. As many as fill a pool are within the share of one peer in its user's limit.
const MESSAGE: usize = 2 << 20;
/// Messages that fill a pool.
const MANY: usize = 12;
/// Most bytes that a pool retains when no slice needs them.
const RETAINED: usize = 4 << 20;
/// Memory of the process itself, and memory that the system counts ahead.
const LITTLE: usize = 6 << 20;

/// Sends from a process in a cgroup of its own. Returns the offsets of the slices, all of them
/// received.
fn fill(cgroup: &Cgroup, sender: &Peer, to: u64, receiver: &Peer) -> Vec<u64> {
    let limits = Limits {
        bytes: 1 << 30,
        ..Limits::KEEP
    };
    receiver.reset(limits.reset()).unwrap();
    let payload = vec![0x77; MESSAGE];
    // A byte is an order to send, another one says that it is done.
    let (mut orders, mut order) = std::io::pipe().unwrap();
    let (mut reports, mut report) = std::io::pipe().unwrap();
    let child = fork(|| {
        cgroup.enter();
        for _ in 0..MANY {
            orders.read_exact(&mut [0]).unwrap();
            sender.message().to(&[to]).bytes(&payload).send().unwrap();
            report.write_all(&[1]).unwrap();
        }
        0
    });
    let all = receiver.door().pool_size();
    let offsets = (0..MANY)
        .map(|_| {
            order.write_all(&[1]).unwrap();
            reports.read_exact(&mut [0]).unwrap();
            receiver.receive().max_offset(all).header().unwrap().offset
        })
        .collect();
    assert_eq!(child.wait(), End::Exit(0));
    offsets
}

/// Waits until no more than that is charged, doing `act` over and over.
fn expect_fall_to(cgroup: &Cgroup, most: usize, mut act: impl FnMut()) {
    let started = Instant::now();
    loop {
        act();
        let now = cgroup.charged();
        if now <= most + LITTLE {
            return;
        }
        let late = started.elapsed() > PATIENCE;
        assert!(!late, "{now} bytes are still charged, not {most}");
        std::thread::yield_now();
    }
}

/// Asks the kernel to give back all memory that its caches can do without.
fn press() {
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

#[case("abi.md#mmap-reclaim", kernel, alone)]
fn memory_is_charged_to_the_sender(env: &Env) {
    let cgroup = Cgroup::new("conformance");
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    assert_eq!(cgroup.charged(), 0);
    fill(&cgroup, &sender, to, &receiver);
    let charged = cgroup.charged();
    assert!(charged >= MANY * MESSAGE, "{charged} bytes are charged");
    assert!(
        charged <= MANY * MESSAGE + LITTLE,
        "{charged} bytes are charged"
    );
}

#[case("abi.md#mmap-reclaim", kernel, alone)]
fn memory_comes_back_with_the_peer(env: &Env) {
    let cgroup = Cgroup::new("conformance");
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    fill(&cgroup, &sender, to, &receiver);
    receiver.close();
    expect_fall_to(&cgroup, 0, || ());
}

#[case("abi.md#mmap-reclaim", kernel, alone)]
fn memory_comes_back_under_pressure(env: &Env) {
    let cgroup = Cgroup::new("conformance");
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    for _ in 0..2 {
        for offset in fill(&cgroup, &sender, to, &receiver) {
            receiver.release_slice(offset).unwrap();
        }
        expect_fall_to(&cgroup, 0, press);
    }
}

#[case("abi.md#mmap-retained", kernel, alone)]
fn a_release_gives_back_all_beyond_what_a_pool_retains(env: &Env) {
    let cgroup = Cgroup::new("conformance");
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    let view = receiver.door().map(receiver.door().pool_size()).unwrap();
    let offsets = fill(&cgroup, &sender, to, &receiver);
    for offset in offsets {
        // The pages are in page tables.
        let mut bytes = vec![0; MESSAGE];
        view.read(offset, &mut bytes);
        receiver.release_slice(offset).unwrap();
    }
    expect_fall_to(&cgroup, RETAINED, || ());
}

#[case("abi.md#slice-lives", kernel, alone)]
fn live_slices_survive_pressure(env: &Env) {
    let cgroup = Cgroup::new("conformance");
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    let mut offsets = fill(&cgroup, &sender, to, &receiver);
    let kept = offsets.split_off(MANY - 2);
    for offset in offsets {
        receiver.release_slice(offset).unwrap();
    }
    expect_fall_to(&cgroup, 2 * MESSAGE, press);
    let view = receiver.door().map(receiver.door().pool_size()).unwrap();
    for offset in kept {
        let mut bytes = vec![0; MESSAGE];
        view.read(offset, &mut bytes);
        let whole = bytes.iter().all(|&byte| byte == 0x77);
        assert!(whole, "the slice at {offset:#x} was lost");
    }
}

#[case("abi.md#mmap-outlives", kernel, alone)]
fn mapped_slices_survive_the_peer(env: &Env) {
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    let payload = vec![0x77; MESSAGE];
    sender.message().to(&[to]).bytes(&payload).send().unwrap();
    let offset = receiver.receive().header().unwrap().offset;
    let view = receiver.door().map(receiver.mapped()).unwrap();
    receiver.close();
    press();
    press();
    let mut bytes = vec![0; MESSAGE];
    view.read(offset, &mut bytes);
    assert!(
        bytes == payload,
        "what was received is gone, and still mapped"
    );
}

#[case("abi.md#mmap-reclaim", kernel, alone)]
fn mapped_memory_comes_back_under_pressure(env: &Env) {
    let cgroup = Cgroup::new("conformance");
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    let views = [(); 3].map(|()| receiver.door().map(receiver.door().pool_size()).unwrap());
    for offset in fill(&cgroup, &sender, to, &receiver) {
        for view in &views {
            let mut bytes = vec![0; MESSAGE];
            view.read(offset, &mut bytes);
            assert!(bytes.iter().all(|&byte| byte == 0x77));
        }
        receiver.release_slice(offset).unwrap();
    }
    expect_fall_to(&cgroup, 0, press);
    // What comes next is seen, and not the pages of before.
    let view = &views[0];
    sender
        .message()
        .to(&[to])
        .bytes(&[0x55; 1 << 16])
        .send()
        .unwrap();
    let offset = receiver
        .receive()
        .max_offset(view.len())
        .header()
        .unwrap()
        .offset;
    let mut bytes = vec![0; 1 << 16];
    view.read(offset, &mut bytes);
    assert!(bytes.iter().all(|&byte| byte == 0x55));
}

/// Sends a message for which a cgroup has no room, though nearly.
fn fail_at_the_limit(cgroup: &Cgroup, sender: &Peer, to: &[u64], size: usize) {
    let payload = vec![0x77; size];
    cgroup.limit(to.len() * size - (64 << 10));
    let child = fork(|| {
        cgroup.enter();
        let sent = sender.message().to(to).bytes(&payload).send();
        sent.map_or_else(E::raw_os_error, |()| 0)
    });
    assert_eq!(child.wait(), End::Exit(libc::ENOMEM));
    assert_eq!(cgroup.oom_kills(), 0);
    expect_fall_to(cgroup, 0, || ());
}

#[case("abi.md#every-enomem-cgroup", kernel, alone)]
fn send_at_the_limit_of_its_cgroup_fails_and_leaves_nothing(env: &Env) {
    let cgroup = Cgroup::new("conformance");
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    fail_at_the_limit(&cgroup, &sender, &[to], MESSAGE);
    receiver.expect_nothing();
}

#[case("abi.md#every-enomem-cgroup", kernel, alone)]
fn multicast_at_the_limit_of_its_cgroup_leaves_nothing_at_any_receiver(env: &Env) {
    let cgroup = Cgroup::new("conformance");
    let sender = env.peer();
    // Each user takes an eighth of its limit from another user, less a bit.
    let receivers = [1, 2, 3, 4, 5, 6, 7].map(|user| env.peer_of(user));
    let to = receivers
        .each_ref()
        .map(|receiver| sender.handle_of(receiver));
    fail_at_the_limit(&cgroup, &sender, &to, 7 << 18);
    for receiver in &receivers {
        receiver.expect_nothing();
    }
}
