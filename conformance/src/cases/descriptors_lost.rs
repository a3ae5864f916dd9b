// SPDX-License-Identifier: MIT OR Apache-2.0

//! Descriptors that do not arrive, and receivers whose table of descriptors is full.
//!
//! The witness is a pipe: its reader meets the end exactly when the last writer is closed.
//!
//! That a security module refuses the receiver a file has no case: `docs/caveats.md` says why.

use std::io::{PipeReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{read_only, NOWHERE};
use crate::sys::process::{open_below, open_descriptors, DescriptorLimit};

/// Returns a message with `n` descriptors of a pipe, and the pipe's other end.
fn send_writers(sender: &Peer, to: u64, n: usize) -> PipeReader {
    let (out, into) = std::io::pipe().unwrap();
    sender
        .message()
        .to(&[to])
        .bytes(b"pipes")
        .fds(&vec![into.as_raw_fd(); n])
        .send()
        .unwrap();
    out
}

/// Waits until every writing end is closed.
fn expect_end(mut out: PipeReader) {
    let mut all = Vec::new();
    out.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"");
}

/// Fills the descriptor table, so that only `room` more descriptors can be opened.
pub fn table_with_room_for(room: usize) -> (DescriptorLimit, Vec<OwnedFd>) {
    let open = open_descriptors();
    let highest = *open.last().expect("some are always open");
    let limit = DescriptorLimit::new(highest + 1 + room as i32);
    // Gaps below are filled, so that the room is all there is.
    let mut fill = Vec::new();
    while let Ok(fd) = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
        fill.push(fd);
    }
    fill.truncate(fill.len() - room);
    (limit, fill)
}

#[case("abi.md#recv-emfile", "abi.md#recv-stays", alone)]
fn emfile_keeps_the_message(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let _out = send_writers(&b, to, 3);
    a.view();
    let (limit, fill) = table_with_room_for(2);
    for _ in 0..3 {
        assert_eq!(a.receive().expect_errno(), E::MFILE);
        assert!(a.events().readable);
    }
    drop((limit, fill));
    assert_eq!(a.expect_text(b"pipes").fds.len(), 3);
    a.expect_nothing();
}

#[case("abi.md#recv-emfile", "abi.md#recv-fds", alone)]
fn emfile_installs_none(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let _out = send_writers(&b, to, 10);
    a.view();
    let (limit, fill) = table_with_room_for(9);
    let before = open_below(limit.limit());
    for _ in 0..3 {
        assert_eq!(a.receive().expect_errno(), E::MFILE);
        assert_eq!(open_below(limit.limit()), before);
    }
    drop((limit, fill));
    assert_eq!(a.expect_data().fds.len(), 10);
}

#[case("abi.md#recv-emfile", "abi.md#recv-fds", alone)]
fn emfile_can_be_avoided(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let out = send_writers(&b, to, 3);
    a.view();
    let (limit, fill) = table_with_room_for(0);
    assert_eq!(a.receive().expect_errno(), E::MFILE);
    let message = a.receive().flags(0).run().unwrap();
    assert_eq!((message.msg.n_fds, &*message.bytes), (0, &b"pipes"[..]));
    drop((limit, fill));
    expect_end(out);
}

#[case("abi.md#recv-efault", alone)]
fn fault_installs_none(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let out = send_writers(&b, to, 5);
    let flags = abi::RECV_FLAG_INSTALL_FDS;
    let arg = abi::CmdRecv {
        flags,
        max_offset: a.mapped(),
        ..Default::default()
    };
    let page = read_only(&arg.to_bytes());
    let before = open_descriptors();
    for _ in 0..3 {
        assert_eq!(a.ioctl(abi::CMD_RECV, page.addr(0)), Err(E::FAULT));
        assert_eq!(open_descriptors(), before);
    }
    assert_eq!(a.expect_data().fds.len(), 5);
    expect_end(out);
}

#[case("abi.md#recv-erange", alone)]
fn erange_installs_none(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let out = send_writers(&b, to, 5);
    let before = open_descriptors();
    assert_eq!(a.receive().max_offset(8).expect_errno(), E::RANGE);
    assert_eq!(open_descriptors(), before);
    assert_eq!(a.expect_data().fds.len(), 5);
    expect_end(out);
}

#[case("abi.md#fds-kept", alone)]
fn many_rounds_leak_nothing(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    a.view();
    let before = open_descriptors();
    for round in 0..100 {
        let out = send_writers(&b, to, 7);
        let flags = if round % 2 == 0 {
            0
        } else {
            abi::RECV_FLAG_INSTALL_FDS
        };
        let message = a.receive().flags(flags).run().unwrap();
        a.release_slice(message.msg.offset).unwrap();
        drop(message);
        expect_end(out);
    }
    assert_eq!(open_descriptors(), before);
}

#[case("abi.md#fds-kept")]
fn dropped_with_the_queue(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let out = send_writers(&b, to, 3);
    a.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
    expect_end(out);
}

#[case("abi.md#fds-kept")]
fn dropped_with_the_receiver(env: &Env) {
    let [a, b, c] = env.peers();
    let (to_a, to_c) = (b.handle_of(&a), b.handle_of(&c));
    let out = send_writers(&b, to_a, 3);
    a.close();
    expect_end(out);
    let out = send_writers(&b, to_c, 3);
    c.disconnect().unwrap();
    expect_end(out);
}

#[case("abi.md#destroy-release", "abi.md#fds-kept")]
fn dropped_with_the_node(env: &Env) {
    let [a, b] = env.peers();
    let (node, to) = a.node_for(&b);
    let out = send_writers(&b, to, 3);
    a.destroy_and_release(&[node]).unwrap();
    expect_end(out);
}

#[case("abi.md#fds-kept")]
fn refused_message_keeps_none(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let (node, dead) = a.node_for(&b);
    a.destroy_and_release(&[node]).unwrap();
    let (out, into) = std::io::pipe().unwrap();
    let message = || b.message().fds(&[into.as_raw_fd(); 4]);
    assert_eq!(message().to(&[to, dead]).send(), Err(E::HOSTUNREACH));
    assert_eq!(message().to(&[to, UNKNOWN_ID]).send(), Err(E::NXIO));
    assert_eq!(message().to(&[to]).vector(NOWHERE, 1).send(), Err(E::FAULT));
    assert_eq!(message().to(&[to]).fds(&[-1]).send(), Err(E::BADF));
    let all_dead = message().to(&[dead]).proceed();
    assert_eq!(all_dead.send(), Ok(()));
    drop(into);
    expect_end(out);
}

#[case("abi.md#send-nowhere", "abi.md#fds-kept")]
fn message_without_destination_keeps_none(env: &Env) {
    let peer = env.peer();
    let (out, into) = std::io::pipe().unwrap();
    assert_eq!(peer.message().fds(&[into.as_raw_fd()]).send(), Ok(()));
    drop(into);
    expect_end(out);
}
