// SPDX-License-Identifier: MIT OR Apache-2.0

//! The device itself: numbers, sizes, and the rules of every command.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, Peer};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::NOWHERE;

/// Every command with a pointer, by its published number.
const WITH_POINTER: [u32; 9] = [
    0xc020_9601,
    0xc020_9602,
    0xc008_9610,
    0xc020_9611,
    0xc018_9620,
    0xc008_9630,
    0xc050_9640,
    0xc048_9650,
    0xc008_9680,
];
const DISCONNECT: u32 = 0xc008_9600;

#[case("abi.md#command-numbers")]
fn published_numbers_are_met(env: &Env) {
    let [a, b] = env.peers();
    let node: u64 = 8;

    let mut query = [0_u64; 4];
    a.command(0xc020_9601, &mut query).expect("PEER_QUERY");
    let mut reset = [0, u64::MAX, u64::MAX, u64::MAX];
    a.command(0xc020_9602, &mut reset).expect("PEER_RESET");
    let mut transfer = [0, node, b.fd() as u64, u64::MAX];
    a.command(0xc020_9611, &mut transfer)
        .expect("HANDLE_TRANSFER");
    let mut handle = transfer[3];

    let to = [handle];
    let payload = *b"published";
    let vec = [addr(&payload), payload.len() as u64];
    let mut send = [0, addr(&to), 0, 1, addr(&vec), 1, 0, 0, 0, 0];
    b.command(0xc050_9640, &mut send).expect("SEND");
    let mut recv = [0, a.mapped(), 0, 0, 0, 0, 0, 0, 0_u64];
    a.command(0xc048_9650, &mut recv).expect("RECV");
    assert_eq!(recv[2], 1, "type is DATA");
    assert_eq!(recv[4], node, "destination");
    assert_eq!(recv[6], 9, "n_bytes");
    let mut offset = recv[5];
    assert_eq!(a.read_pool(offset, 9), payload);
    a.command(0xc008_9630, &mut offset).expect("SLICE_RELEASE");

    b.command(0xc008_9610, &mut handle).expect("HANDLE_RELEASE");
    let nodes = [node];
    let mut destroy = [1, addr(&nodes), 1];
    a.command(0xc018_9620, &mut destroy).expect("NODES_DESTROY");
    a.ioctl(DISCONNECT, 0).expect("PEER_DISCONNECT");
}

fn addr<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).expose_provenance() as u64
}

#[case("abi.md#command-structures")]
fn published_constants_are_met(env: &Env) {
    assert_eq!(abi::FD_MAX, 256);
    assert_eq!(
        (abi::HANDLE_INVALID, abi::OFFSET_INVALID),
        (u64::MAX, u64::MAX)
    );
    assert_eq!((abi::HANDLE_FLAG_MANAGED, abi::HANDLE_FLAG_REMOTE), (1, 2));
    assert_eq!(
        (abi::PEER_RESET_FLAG_FLUSH, abi::PEER_RESET_FLAG_FLUSH_SEED),
        (1, 2)
    );
    assert_eq!(abi::NODES_DESTROY_FLAG_RELEASE_HANDLES, 1);
    assert_eq!((abi::SEND_FLAG_CONTINUE, abi::SEND_FLAG_SEED), (1, 2));
    assert_eq!((abi::SEND_FLAG_ROOM, abi::MSG_ROOM), (0x100, 16));
    assert_eq!((abi::RECV_FLAG_SEED, abi::RECV_FLAG_INSTALL_FDS), (1, 2));
    assert_eq!((abi::MSG_NONE, abi::MSG_DATA), (0, 1));
    assert_eq!((abi::MSG_NODE_DESTROY, abi::MSG_NODE_RELEASE), (2, 3));
    assert_eq!(abi::MSG_FLAG_CONTINUE, 1);
    assert_eq!(
        (abi::EXCHANGE_FLAG_SEND, abi::EXCHANGE_FLAG_INSTALL_FDS),
        (1, 2)
    );
    assert_eq!((abi::DEADLINE_NOW, abi::DEADLINE_NEVER), (0, u64::MAX));
    assert_eq!(abi::EXCHANGE_MAX, 1024);

    // The values as a host uses them: an ID that it chose, and the types of notices.
    let [a, b] = env.peers();
    let (node, there) = a.node_for(&b);
    assert_eq!(
        there & 3,
        3,
        "a handle of another's node is MANAGED and REMOTE: {there:#x}"
    );
    b.release(there).unwrap();
    assert_eq!(a.expect_node_release(node).msg.kind, 3);
    let (node, there) = a.node_for(&b);
    a.destroy(&[node]).unwrap();
    assert_eq!(b.expect_node_destroy(there).msg.kind, 2);
}

#[case("abi.md#command-structures")]
fn structures_have_the_published_layout(env: &Env) {
    use std::mem::{offset_of, size_of};
    assert_eq!(size_of::<abi::CmdPeerReset>(), 32);
    assert_eq!(offset_of!(abi::CmdPeerReset, peer_flags), 8);
    assert_eq!(offset_of!(abi::CmdPeerReset, max_slices), 16);
    assert_eq!(offset_of!(abi::CmdPeerReset, max_handles), 20);
    assert_eq!(offset_of!(abi::CmdPeerReset, max_inflight_bytes), 24);
    assert_eq!(offset_of!(abi::CmdPeerReset, max_inflight_fds), 28);
    assert_eq!(size_of::<abi::CmdHandleTransfer>(), 32);
    assert_eq!(size_of::<abi::CmdNodesDestroy>(), 24);
    assert_eq!(size_of::<abi::CmdSend>(), 80);
    assert_eq!(size_of::<abi::CmdRecv>(), 72);
    assert_eq!(offset_of!(abi::CmdRecv, msg), 16);

    // The host fills the limits in this order.
    let peer = env.peer();
    peer.limit(Limits {
        slices: 11,
        handles: 22,
        bytes: 33,
        fds: 44,
    })
    .unwrap();
    let mut raw = [0xee_u8; 32];
    peer.command(abi::CMD_PEER_QUERY, &mut raw)
        .expect_err("flags must be 0");
    raw[..8].fill(0);
    peer.command(abi::CMD_PEER_QUERY, &mut raw).unwrap();
    let field = |at: usize| u32::from_ne_bytes(raw[at..at + 4].try_into().unwrap());
    assert_eq!([16, 20, 24, 28].map(field), [11, 22, 33, 44]);
}

#[case("abi.md#every-enotty")]
fn unknown_number_is_enotty(env: &Env) {
    let peer = env.peer();
    let mut room = [0_u64; 16];
    for number in [0x03, 0x0f, 0x12, 0x21, 0x31, 0x41, 0x51, 0x60, 0x7f, 0xff] {
        let cmd = 0xc008_9600 | number;
        assert_eq!(peer.command(cmd, &mut room), Err(E::NOTTY), "{cmd:#x}");
    }
}

#[case("abi.md#every-enotty", "abi.md#command-numbers")]
fn known_number_in_another_size_is_enotty(env: &Env) {
    let peer = env.peer();
    let mut room = [0_u64; 32];
    for known in WITH_POINTER.into_iter().chain([DISCONNECT]) {
        for size in [0, 1, 7, 16, 33, 81, 128] {
            let cmd = (known & 0xc000_ffff) | (size << 16);
            if cmd != known {
                assert_eq!(peer.command(cmd, &mut room), Err(E::NOTTY), "{cmd:#x}");
            }
        }
    }
}

#[case("abi.md#every-enotty", "abi.md#command-numbers")]
fn known_number_in_another_direction_is_enotty(env: &Env) {
    let peer = env.peer();
    let mut room = [0_u64; 32];
    for known in WITH_POINTER.into_iter().chain([DISCONNECT]) {
        for direction in 0..3 {
            let cmd = (known & 0x3fff_ffff) | (direction << 30);
            assert_eq!(peer.command(cmd, &mut room), Err(E::NOTTY), "{cmd:#x}");
        }
    }
}

#[case("abi.md#every-enotty", "abi.md#command-numbers")]
fn another_magic_is_enotty(env: &Env) {
    let peer = env.peer();
    let mut room = [0_u64; 32];
    for known in WITH_POINTER {
        for magic in [0x00, 0x95, 0x97, 0xff] {
            let cmd = (known & 0xffff_00ff) | (magic << 8);
            assert_eq!(peer.command(cmd, &mut room), Err(E::NOTTY), "{cmd:#x}");
        }
    }
}

#[case("abi.md#every-enotty")]
fn unknown_command_looks_at_no_argument(env: &Env) {
    let peer = env.peer();
    for arg in [0, NOWHERE, u64::MAX] {
        assert_eq!(peer.ioctl(0xc008_9603, arg), Err(E::NOTTY));
    }
}

fn dead(env: &Env) -> Peer {
    let peer = env.peer();
    peer.disconnect().unwrap();
    peer
}

#[case("abi.md#every-eshutdown")]
fn every_command_on_a_dead_peer_is_eshutdown(env: &Env) {
    let peer = dead(env);
    assert_eq!(peer.disconnect(), Err(E::SHUTDOWN));
    assert_eq!(peer.query(), Err(E::SHUTDOWN));
    assert_eq!(peer.flush(0), Err(E::SHUTDOWN));
    assert_eq!(peer.release(8), Err(E::SHUTDOWN));
    assert_eq!(peer.give_self(8), Err(E::SHUTDOWN));
    assert_eq!(peer.destroy(&[]), Err(E::SHUTDOWN));
    assert_eq!(peer.release_slice(0), Err(E::SHUTDOWN));
    assert_eq!(peer.message().send(), Err(E::SHUTDOWN));
    assert_eq!(peer.receive().max_offset(0).expect_errno(), E::SHUTDOWN);
    assert_eq!(peer.exchange().max_offset(0).expect_errno(), E::SHUTDOWN);
}

#[case("abi.md#every-eshutdown")]
fn unknown_command_on_a_dead_peer_is_eshutdown(env: &Env) {
    let peer = dead(env);
    for cmd in [0xc008_9603, 0xc008_96ff, 0, u32::MAX, 0x4008_9600] {
        assert_eq!(peer.ioctl(cmd, 0), Err(E::SHUTDOWN), "{cmd:#x}");
    }
}

#[case("abi.md#every-eshutdown")]
fn dead_peer_looks_at_no_argument(env: &Env) {
    let peer = dead(env);
    for cmd in WITH_POINTER {
        for arg in [0, NOWHERE, u64::MAX] {
            assert_eq!(
                peer.ioctl(cmd, arg),
                Err(E::SHUTDOWN),
                "{cmd:#x} with {arg:#x}"
            );
        }
    }
}

#[case("abi.md#every-einval-flags")]
fn unknown_flags_are_einval(env: &Env) {
    let peer = env.peer();
    for bit in 0..64 {
        let flags = 1_u64 << bit;
        let mut query = abi::CmdPeerReset {
            flags,
            ..Default::default()
        };
        assert_eq!(
            peer.command(abi::CMD_PEER_QUERY, &mut query),
            Err(E::INVAL),
            "QUERY {bit}"
        );
        let mut transfer = abi::CmdHandleTransfer {
            flags,
            src_handle: 8,
            dst_fd: u64::MAX,
            dst_handle: abi::HANDLE_INVALID,
        };
        assert_eq!(
            peer.transfer(&mut transfer),
            Err(E::INVAL),
            "HANDLE_TRANSFER {bit}"
        );
        if bit >= 1 {
            assert_eq!(
                peer.destroy_with(flags, &[]),
                Err(E::INVAL),
                "NODES_DESTROY {bit}"
            );
        }
        if bit >= 2 {
            assert_eq!(peer.flush(flags), Err(E::INVAL), "PEER_RESET {bit}");
            if flags != abi::SEND_FLAG_ROOM {
                let sent = peer.message().flags(flags).send();
                assert_eq!(sent, Err(E::INVAL), "SEND {bit}");
            }
            let recv = peer.receive().max_offset(0).flags(flags);
            assert_eq!(recv.expect_errno(), E::INVAL, "RECV {bit}");
            let exchange = peer.exchange().edit(|arg| arg.flags = flags);
            assert_eq!(exchange.expect_errno(), E::INVAL, "EXCHANGE {bit}");
        }
    }
}

#[case("abi.md#every-einval-flags")]
fn unknown_flags_come_before_other_checks(env: &Env) {
    let peer = env.peer();
    let bad = 1 << 40;
    let sent = peer.message().flags(bad).edit(|arg| {
        arg.n_vecs = 4000;
        arg.ptr_destinations = NOWHERE;
        arg.n_destinations = u64::MAX;
    });
    assert_eq!(sent.send(), Err(E::INVAL));
    let mut destroy = abi::CmdNodesDestroy {
        flags: bad,
        ptr_nodes: NOWHERE,
        n_nodes: 1,
    };
    assert_eq!(
        peer.command(abi::CMD_NODES_DESTROY, &mut destroy),
        Err(E::INVAL)
    );
    // RECV on an empty queue would be EAGAIN.
    assert_eq!(
        peer.receive().max_offset(0).flags(bad).expect_errno(),
        E::INVAL
    );
}

#[case("abi.md#every-efault")]
fn unmapped_argument_is_efault(env: &Env) {
    let peer = env.peer();
    for cmd in WITH_POINTER {
        for arg in [0, NOWHERE, u64::MAX - 7] {
            assert_eq!(
                peer.ioctl(cmd, arg),
                Err(E::FAULT),
                "{cmd:#x} with {arg:#x}"
            );
        }
    }
}
