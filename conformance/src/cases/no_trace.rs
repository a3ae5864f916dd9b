// SPDX-License-Identifier: MIT OR Apache-2.0

//! A failed command leaves no trace: not in queues, tables, counts, nor in IDs.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_uapi as abi;

use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{read_only, NOWHERE};

pub const CASES: &[Case] = &[
    case!(refused_send_with_handles_gives_no_release, "5: a failed command leaves no trace"),
    case!(refused_send_does_not_withdraw_a_release, "5: a failed command leaves no trace"),
    case!(refused_destroy_is_not_seen, "5 NODES_DESTROY: a failed command leaves no trace"),
    case!(refused_transfer_is_not_seen, "5 HANDLE_TRANSFER: a failed command leaves no trace"),
    case!(refused_query_writes_nothing, "5 PEER_QUERY: a failed command leaves no trace"),
    case!(query_into_read_only_memory_is_efault, "5: EFAULT on the way out included"),
    case!(read_only_arguments_are_enough_where_nothing_is_written, "4: pointer to u64"),
    case!(nodes_of_a_refused_send_are_free_to_be_made, "2: if the operation as a whole succeeds"),
    case!(nodes_of_racing_refused_sends_are_clean, "2: if the operation as a whole succeeds"),
    case!(a_storm_of_failures, "5: a failed command leaves no trace"),
];

/// A handle at `holder` of a node that is gone.
fn dead(env: &Env, holder: &Peer) -> u64 {
    let owner = env.peer();
    let id = holder.handle_of(&owner);
    owner.close();
    holder.node_destroy(id);
    id
}

fn refused_send_with_handles_gives_no_release(env: &Env) {
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    let dead = dead(env, &sender);
    let node = sender.new_node();
    for _ in 0..20 {
        let message = sender.message().handles(&[node]);
        assert_eq!(message.to(&[to, dead]).send(), Err(E::HOSTUNREACH));
        // The count would rise to one, and fall to zero again.
        sender.nothing();
        receiver.nothing();
    }
}

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
    sender.node_release(node);
    sender.nothing();
}

fn refused_destroy_is_not_seen(env: &Env) {
    let [owner, holder] = env.peers();
    let (node, id) = owner.node_for(&holder);
    for bad in [0x7f3, node] {
        assert!(owner.destroy_and_release(&[node, bad]).is_err());
        assert!(owner.destroy(&[bad, node, 0x7f3]).is_err());
    }
    owner.nothing();
    holder.nothing();
    holder.message().to(&[id]).bytes(b"lives").send().unwrap();
    owner.text(b"lives");
}

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
    assert_eq!(owner.ioctl(abi::CMD_HANDLE_TRANSFER, page.addr(0)), Err(E::FAULT));
    assert_eq!(holder.release(id), Err(E::NXIO));
    // The notice from before is neither withdrawn nor doubled.
    owner.node_release(node);
    owner.nothing();
}

fn refused_query_writes_nothing(env: &Env) {
    let peer = env.peer();
    let mut arg = abi::CmdPeerReset { flags: 1, peer_flags: 77, ..Default::default() };
    let before = arg;
    assert_eq!(peer.command(abi::CMD_PEER_QUERY, &mut arg), Err(E::INVAL));
    assert_eq!(arg, before);
}

fn query_into_read_only_memory_is_efault(env: &Env) {
    let peer = env.peer();
    let page = read_only(&[0; 32]);
    assert_eq!(peer.ioctl(abi::CMD_PEER_QUERY, page.addr(0)), Err(E::FAULT));
    assert!(peer.query().is_ok());
}

fn read_only_arguments_are_enough_where_nothing_is_written(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).send().unwrap();
    let offset = a.data().msg.offset;
    let page = read_only(&offset.to_ne_bytes());
    assert_eq!(a.ioctl(abi::CMD_SLICE_RELEASE, page.addr(0)), Ok(()));
    let page = read_only(&to.to_ne_bytes());
    assert_eq!(b.ioctl(abi::CMD_HANDLE_RELEASE, page.addr(0)), Ok(()));
}

fn nodes_of_a_refused_send_are_free_to_be_made(env: &Env) {
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    let dead = dead(env, &sender);
    for node in [0x2000, 0x2004, 0x2008] {
        let message = sender.message().to(&[to, dead]).handles(&[node]);
        assert_eq!(message.send(), Err(E::HOSTUNREACH));
        assert_eq!(sender.release(node), Err(E::BUSY), "an unknown ID that would create");
        sender.message().to(&[to]).handles(&[node]).send().unwrap();
        let id = receiver.data().handle();
        receiver.message().to(&[id]).send().unwrap();
        assert_eq!(sender.data().msg.destination, node);
        receiver.release(id).unwrap();
        sender.node_release(node);
    }
}

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
        let id = receiver.data().handle();
        receiver.message().to(&[id]).bytes(b"lives").send().unwrap();
        assert_eq!(sender.text(b"lives").msg.destination, node);
        receiver.release(id).unwrap();
        sender.node_release(node);
        sender.nothing();
    }
}

fn a_storm_of_failures(env: &Env) {
    let [sender, receiver] = env.peers();
    let to = sender.handle_of(&receiver);
    let dead = dead(env, &sender);
    let null = File::open("/dev/null").unwrap();
    receiver.limit([8, 10, 80, 8]).unwrap();
    let (node, id) = sender.node_for(&receiver);
    let fd = null.as_raw_fd();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for i in 0..200_u64 {
                    let fresh = 0x40000 + 4 * (i % 7);
                    let full = || sender.message().bytes(b"12345").handles(&[node, fresh]).fds(&[fd]);
                    assert!(full().to(&[to, dead]).send().is_err());
                    assert!(full().to(&[to, to]).send().is_err());
                    assert!(full().to(&[to]).vector(NOWHERE, 4).send().is_err());
                    assert!(full().to(&[to]).fds(&[-1]).send().is_err());
                    assert!(full().to(&[to]).bytes(&[0; 100]).send().is_err());
                    assert!(sender.destroy(&[node, 0x7f3]).is_err());
                    assert!(sender.give_fd(1 << 40, fresh).is_err());
                }
            });
        }
    });
    sender.nothing();
    receiver.nothing();
    receiver.release(id).unwrap();
    sender.node_release(node);
    for _ in 0..4 {
        let message = sender.message().to(&[to]).bytes(&[1; 10]).handles(&[node]).fds(&[fd]);
        assert_eq!(message.send(), Ok(()));
    }
    assert_eq!(sender.message().to(&[to]).send(), Err(E::DQUOT));
}
