// SPDX-License-Identifier: MIT OR Apache-2.0

//! A failed command leaves no trace: not in queues, tables, counts, nor in IDs.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{read_only, NOWHERE};

/// Returns a handle at `holder` of a node that is gone.
fn dead(env: &Env, holder: &Peer) -> u64 {
    let owner = env.peer();
    let id = holder.handle_of(&owner);
    owner.close();
    holder.expect_node_destroy(id);
    id
}

#[case("abi.md#no-trace")]
fn refused_send_with_handles_gives_no_release(env: &Env) {
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    let dead = dead(env, &sender);
    let node = sender.new_node();
    for _ in 0..20 {
        let message = sender.message().handles(&[node]);
        assert_eq!(message.to(&[to, dead]).send(), Err(E::HOSTUNREACH));
        // The count would rise to one, and fall to zero again.
        sender.expect_nothing();
        receiver.expect_nothing();
    }
}

#[case("abi.md#no-trace")]
fn refused_send_does_not_withdraw_a_release(env: &Env) {
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    let dead = dead(env, &sender);
    let (node, id) = sender.node_for(&receiver);
    receiver.release(id).unwrap();
    let message = sender.message().handles(&[node]);
    assert_eq!(message.to(&[to, dead]).send(), Err(E::HOSTUNREACH));
    let message = sender.message().handles(&[node]).vector(NOWHERE, 8);
    assert_eq!(message.to(&[to]).send(), Err(E::FAULT));
    sender.expect_node_release(node);
    sender.expect_nothing();
}

#[case("abi.md#no-trace", "abi.md#destroy-whole")]
fn refused_destroy_is_not_seen(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    for bad in [UNKNOWN_ID, node] {
        assert!(owner.destroy_and_release(&[node, bad]).is_err());
        assert!(owner.destroy(&[bad, node, UNKNOWN_ID]).is_err());
    }
    owner.expect_nothing();
    holder.expect_nothing();
    holder.message().to(&[id]).bytes(b"lives").send().unwrap();
    owner.expect_text(b"lives");
}

#[case("abi.md#no-trace")]
fn refused_transfer_is_not_seen(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    holder.release(id).unwrap();
    let arg = abi::CmdHandleTransfer {
        flags: 0,
        src_handle: node,
        dst_fd: holder.fd() as u64,
        dst_handle: abi::HANDLE_INVALID,
    };
    let page = read_only(&arg.to_bytes());
    assert_eq!(
        owner.ioctl(abi::CMD_HANDLE_TRANSFER, page.addr(0)),
        Err(E::FAULT)
    );
    assert_eq!(holder.release(id), Err(E::NXIO));
    // The notice from before is neither withdrawn nor doubled.
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#no-trace")]
fn refused_query_writes_nothing(env: &Env) {
    let peer = env.peer();
    let mut arg = abi::CmdPeerReset {
        flags: 1,
        peer_flags: 77,
        ..Default::default()
    };
    let before = arg;
    assert_eq!(peer.command(abi::CMD_PEER_QUERY, &mut arg), Err(E::INVAL));
    assert_eq!(arg, before);
}

#[case("abi.md#every-efault-late")]
fn query_into_read_only_memory_is_efault(env: &Env) {
    let peer = env.peer();
    let page = read_only(&[0; 32]);
    assert_eq!(peer.ioctl(abi::CMD_PEER_QUERY, page.addr(0)), Err(E::FAULT));
    assert!(peer.query().is_ok());
}

#[case("abi.md#every-efault-late")]
fn read_only_arguments_are_enough_where_nothing_is_written(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).send().unwrap();
    let offset = a.expect_data().msg.offset;
    let page = read_only(&offset.to_ne_bytes());
    assert_eq!(a.ioctl(abi::CMD_SLICE_RELEASE, page.addr(0)), Ok(()));
    let page = read_only(&to.to_ne_bytes());
    assert_eq!(b.ioctl(abi::CMD_HANDLE_RELEASE, page.addr(0)), Ok(()));
}

#[case("abi.md#id-whole")]
fn nodes_of_a_refused_send_are_free_to_be_made(env: &Env) {
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    let dead = dead(env, &sender);
    for node in [0x2000, 0x2004, 0x2008] {
        let message = sender.message().to(&[to, dead]).handles(&[node]);
        assert_eq!(message.send(), Err(E::HOSTUNREACH));
        assert_eq!(
            sender.release(node),
            Err(E::BUSY),
            "an unknown ID that would create"
        );
        sender.message().to(&[to]).handles(&[node]).send().unwrap();
        let id = receiver.expect_data().expect_handle();
        receiver.message().to(&[id]).send().unwrap();
        assert_eq!(sender.expect_data().msg.destination, node);
        receiver.release(id).unwrap();
        sender.expect_node_release(node);
    }
}

#[case("abi.md#id-whole")]
fn nodes_of_racing_refused_sends_are_clean(env: &Env) {
    // Two threads make the same node; one call fails, the other does not.
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    let dead = dead(env, &sender);
    for i in 0..200 {
        let node = 0x10000 + 4 * i;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let message = sender.message().to(&[to, dead]).handles(&[node]);
                assert_eq!(message.send(), Err(E::HOSTUNREACH));
            });
            scope.spawn(|| sender.message().to(&[to]).handles(&[node]).send().unwrap());
        });
        let id = receiver.expect_data().expect_handle();
        receiver.message().to(&[id]).bytes(b"lives").send().unwrap();
        assert_eq!(sender.expect_text(b"lives").msg.destination, node);
        receiver.release(id).unwrap();
        sender.expect_node_release(node);
        sender.expect_nothing();
    }
}

#[case("abi.md#no-trace")]
fn a_storm_of_failures(env: &Env) {
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    let dead = dead(env, &sender);
    let null = File::open("/dev/null").unwrap();
    receiver
        .limit(Limits {
            slices: 8,
            handles: 10,
            // Four messages of 10 bytes, an ID and a number, and as much again.
            bytes: 2 * 4 * 22,
            fds: 8,
        })
        .unwrap();
    let (node, id) = sender.node_for(&receiver);
    let fd = null.as_raw_fd();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for i in 0..200_u64 {
                    let fresh = 0x40000 + 4 * (i % 7);
                    let full = || {
                        sender
                            .message()
                            .bytes(b"12345")
                            .handles(&[node, fresh])
                            .fds(&[fd])
                    };
                    assert!(full().to(&[to, dead]).send().is_err());
                    assert!(full().to(&[to, to]).send().is_err());
                    assert!(full().to(&[to]).vector(NOWHERE, 4).send().is_err());
                    assert!(full().to(&[to]).fds(&[-1]).send().is_err());
                    assert!(full().to(&[to]).bytes(&[0; 100]).send().is_err());
                    assert!(sender.destroy(&[node, UNKNOWN_ID]).is_err());
                    assert!(sender.give_fd(1 << 40, fresh).is_err());
                }
            });
        }
    });
    sender.expect_nothing();
    receiver.expect_nothing();
    receiver.release(id).unwrap();
    sender.expect_node_release(node);
    for _ in 0..4 {
        let message = sender
            .message()
            .to(&[to])
            .bytes(&[1; 10])
            .handles(&[node])
            .fds(&[fd]);
        assert_eq!(message.send(), Ok(()));
    }
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
}
