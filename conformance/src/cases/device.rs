// SPDX-License-Identifier: MIT OR Apache-2.0

//! The device file: descriptors, processes, epoll, fdinfo.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::event::epoll::EventFlags;
use rustix::io::{fcntl_dupfd_cloexec, fcntl_setfd, FdFlags};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use super::quota::{claim_all, Resource};
use crate::client::{Limits, Peer};
use crate::env::{Env, PATIENCE};
use crate::host::kernel::{descriptor, open_device, poll_fd, raw_ioctl, KernelDoor};
use crate::host::{Errno as E, Poller, DEVICE};
use crate::sys::process::{become_user, fork, End};

fn fd(peer: &Peer) -> BorrowedFd<'_> {
    descriptor(peer.door())
}

fn duplicate(peer: &Peer) -> Peer {
    Peer::new(Box::new(KernelDoor::from(
        fcntl_dupfd_cloexec(fd(peer), 0).unwrap(),
    )))
}

#[case("abi.md#device-mode", kernel)]
fn device_is_open_to_all(_: &Env) {
    let metadata = std::fs::metadata(DEVICE).unwrap();
    assert!(metadata.file_type().is_char_device());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o666);
}

/// The major number of all devices that are opened under one lock.
const MISC: u32 = 10;

#[case("abi.md#device-mode", kernel)]
fn to_open_it_holds_up_no_other_device(_: &Env) {
    let device = rustix::fs::stat(DEVICE).unwrap().st_rdev;
    assert_ne!(rustix::fs::major(device), MISC);
}

#[case("abi.md#device-peer", kernel)]
fn every_open_is_a_peer(env: &Env) {
    let [a, b] = env.peers();
    let id = a.give(&b, 8).unwrap();
    a.disconnect().unwrap();
    b.expect_node_destroy(id);
    assert!(!b.events().hangup);
}

#[case("abi.md#device-peer", kernel)]
fn duplicate_is_the_same_peer(env: &Env) {
    let [a, b] = env.peers();
    let twin = duplicate(&a);
    let (node, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"for both").send().unwrap();
    assert_eq!(twin.expect_text(b"for both").msg.destination, node);
    a.expect_nothing();
    twin.disconnect().unwrap();
    assert_eq!(a.disconnect(), Err(E::SHUTDOWN));
}

#[case("abi.md#close-disconnects", kernel)]
fn last_close_disconnects(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let twin = duplicate(&a);
    a.close();
    b.expect_nothing();
    b.message().to(&[to]).bytes(b"still there").send().unwrap();
    twin.expect_text(b"still there");
    twin.close();
    b.expect_node_destroy(to);
}

#[case("abi.md#device-peer", kernel)]
fn transfer_by_any_duplicate(env: &Env) {
    let [a, b] = env.peers();
    let twin = duplicate(&b);
    let id = a.give(&twin, 8).unwrap();
    assert_eq!(a.give(&b, 8), Ok(id));
    assert_eq!(a.give(&duplicate(&a), 8), Ok(8), "to itself");
}

#[case("abi.md#transfer-ebadf", kernel)]
fn o_path_is_no_peer(env: &Env) {
    use rustix::fs::{open, Mode, OFlags};
    use std::os::fd::AsRawFd;
    let place = open(DEVICE, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    assert_eq!(
        env.peer().give_fd(place.as_raw_fd() as u64, 8),
        Err(E::BADF)
    );
    assert_eq!(
        raw_ioctl(place.as_raw_fd(), abi::CMD_PEER_DISCONNECT, 0),
        Err(E::BADF)
    );
}

#[case("abi.md#close-inherited", kernel, alone)]
fn child_inherits_the_peer(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let end = fork(|| {
        let sent = b.message().to(&[to]).bytes(b"from the child").send();
        i32::from(sent.is_err())
    })
    .wait();
    assert_eq!(end, End::Exit(0));
    a.expect_text(b"from the child");
    assert!(!b.events().hangup, "the child's end is not the peer's");
    b.message()
        .to(&[to])
        .bytes(b"from the parent")
        .send()
        .unwrap();
    a.expect_text(b"from the parent");
}

#[case("abi.md#device-peer", kernel, alone)]
fn peer_outlives_the_parents_descriptor(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let (out, into) = std::io::pipe().unwrap();
    let child = fork(|| {
        rustix::io::read(&out, &mut [0; 1]).unwrap();
        0
    });
    a.close();
    b.expect_nothing();
    assert_eq!(b.message().to(&[to]).bytes(b"to the child").send(), Ok(()));
    rustix::io::write(&into, b"!").unwrap();
    assert_eq!(child.wait(), End::Exit(0));
    assert!(b.wait(PATIENCE));
    b.expect_node_destroy(to);
}

#[case("abi.md#close-disconnects", kernel, alone)]
fn killed_process_disconnects(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let child = fork(|| loop {
        std::thread::park();
    });
    a.close();
    b.expect_nothing();
    child.kill();
    assert_eq!(child.wait(), End::Signal(libc::SIGKILL));
    assert!(b.wait(PATIENCE));
    b.expect_node_destroy(to);
}

/// Plays the part of the other program: takes the seed and a request, answers, and ends. Panics if
/// a step fails.
pub fn take_over(fd: OwnedFd) {
    let peer = Peer::new(Box::new(KernelDoor::from(fd)));
    let seed = peer.recv_seed().expect("the seed");
    assert_eq!(seed.bytes, b"what to do");
    assert!(peer.wait(PATIENCE), "the request");
    let request = peer.expect_text(b"request");
    assert_eq!(
        request.msg.destination, seed.handles[0],
        "to the node that the seed names"
    );
    peer.message()
        .to(&[request.expect_handle()])
        .bytes(b"answer")
        .send()
        .expect("the answer");
}

#[case("abi.md#seed-again", kernel, alone)]
fn another_program_takes_over(env: &Env) {
    let [service, client] = env.peers();
    let (node, to) = service.node_for(&client);
    service
        .message()
        .bytes(b"what to do")
        .handles(&[node])
        .seed()
        .send()
        .unwrap();
    fcntl_setfd(fd(&service), FdFlags::empty()).unwrap();
    for _ in 0..3 {
        client.message().to(&[to]).bytes(b"lost").send().unwrap();
        service.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
        client.expect_all();
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("conformance")
            .args(["take-over", &service.fd().to_string()]);
        let mut child = command.spawn().unwrap();
        let back = client.new_node();
        client
            .message()
            .to(&[to])
            .bytes(b"request")
            .handles(&[back])
            .send()
            .unwrap();
        assert!(client.wait(PATIENCE));
        assert_eq!(client.expect_text(b"answer").msg.destination, back);
        assert!(child.wait().unwrap().success());
    }
}

#[case("abi.md#device-user", kernel)]
fn real_user_counts(env: &Env) {
    let opened = std::thread::scope(|scope| {
        let open = || {
            become_user(env.uid(0), Some(env.uid(1))).expect("run as root");
            open_device().unwrap()
        };
        scope.spawn(open).join().unwrap()
    });
    let sender = Peer::new(Box::new(KernelDoor::from(opened)));
    for (user, most) in [(0, 512), (1, 128)] {
        let receiver = env.peer_of(user);
        receiver
            .limit(Limits {
                slices: 1024,
                ..Limits::KEEP
            })
            .unwrap();
        let to = sender.handle_of(&receiver);
        assert_eq!(
            claim_all(Resource::Slices, &sender, to),
            most,
            "at user {user}"
        );
    }
}

#[case("abi.md#poll-hup", kernel)]
fn epoll_sees_the_hangup(env: &Env) {
    let peer = env.peer();
    let poller = Poller::new(
        peer.door(),
        EventFlags::IN | EventFlags::OUT | EventFlags::ET,
    );
    assert_eq!(poller.now(), Some(EventFlags::OUT));
    peer.disconnect().unwrap();
    assert_eq!(poller.now(), Some(EventFlags::HUP));
    assert!(poll_fd(fd(&peer).as_fd(), PATIENCE).hangup);
}

#[case("abi.md#fdinfo-counts", kernel)]
fn fdinfo_shows_id_and_counts(env: &Env) {
    let [a, b] = env.peers();
    let id = |peer: &Peer| {
        let path = format!("/proc/self/fdinfo/{}", peer.fd());
        let text = std::fs::read_to_string(path).unwrap();
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("bus1-peer:"));
        id.expect("an id").trim().parse::<u64>().unwrap()
    };
    assert_ne!(id(&a), id(&b), "every peer has its own id");
    let counts = |peer: &Peer| peer.door().counts().into_iter().collect::<HashMap<_, _>>();
    for count in ["nodes", "handles", "queued", "slices"] {
        assert_eq!(counts(&a)[count], 0, "{count}");
    }
    let (before_a, before_b) = (counts(&a), counts(&b));
    let (node, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"counted").send().unwrap();
    b.message().to(&[to]).bytes(b"counted").send().unwrap();
    let now = counts(&a);
    assert_eq!(now["nodes"], 1);
    assert_eq!(
        (now["queued"], now["slices"], now["charged-bytes"]),
        (2, 2, 14)
    );
    assert_eq!(counts(&b)["handles"], 1);
    let offset = a.expect_data().msg.offset;
    let now = counts(&a);
    assert_eq!(
        (now["queued"], now["slices"], now["charged-bytes"]),
        (1, 2, 14)
    );
    a.release_slice(offset).unwrap();
    a.destroy_and_release(&[node]).unwrap();
    b.expect_node_destroy(to);
    b.release(to).unwrap();
    assert_eq!(
        (counts(&a), counts(&b)),
        (before_a, before_b),
        "back to where it began"
    );
}

fn references_to_module() -> u64 {
    let text = std::fs::read_to_string("/sys/module/bus1/refcnt").unwrap();
    text.trim().parse().unwrap()
}

#[case("abi.md#device-peer", kernel, alone)]
fn module_counts_its_users(env: &Env) {
    let before = references_to_module();
    let peers: [Peer; 3] = env.peers();
    // A file for calls, which holds the device and its operations, and one for mappings.
    assert_eq!(references_to_module(), before + 3 * 3);
    drop(peers);
    assert_eq!(references_to_module(), before);
}

#[case("abi.md#no-read", kernel)]
fn read_and_write_are_einval(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.expect_sent(to, b"not for read");
    assert_eq!(rustix::io::read(fd(&a), &mut [0; 8]), Err(E::INVAL));
    assert_eq!(rustix::io::write(fd(&a), &[0; 8]), Err(E::INVAL));
    a.expect_text(b"not for read");
}
