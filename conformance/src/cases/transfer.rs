// SPDX-License-Identifier: MIT OR Apache-2.0

//! HANDLE_TRANSFER.

use std::os::fd::AsRawFd;

use bus1_uapi as abi;

use super::Case;
use crate::client::Peer;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::read_only;

pub const CASES: &[Case] = &[
    case!(to_another_peer, "5 HANDLE_TRANSFER: the destination gains a user reference"),
    case!(to_itself_by_all_ones, "5 HANDLE_TRANSFER: dst_fd all-ones is the same peer"),
    case!(to_itself_by_descriptor, "5 HANDLE_TRANSFER: its ID comes back"),
    case!(source_keeps_its_own, "5 HANDLE_TRANSFER: the source keeps its own"),
    case!(same_node_same_id, "2: a peer holds at most one live handle for a node"),
    case!(back_to_the_owner_is_the_owners_id, "2: the owner has one too (its anchor)"),
    case!(passed_on_by_a_holder, "2: handles pass on freely"),
    case!(clear_id_creates_a_node, "2: creates a node of that ID in the calling peer"),
    case!(any_clear_id_will_do, "2: 0 is valid; so is any 4-aligned number"),
    case!(failed_transfer_creates_no_node, "2: if the operation as a whole succeeds"),
    case!(unknown_flagged_source_is_enxio, "5 HANDLE_TRANSFER: unknown flagged source ID ENXIO"),
    case!(dst_fd_that_is_no_int_is_ebadf, "5 HANDLE_TRANSFER: a value that is no int EBADF"),
    case!(dst_fd_that_is_not_open_is_ebadf, "5 HANDLE_TRANSFER: no open descriptor EBADF"),
    case!(dst_fd_of_another_kind_is_eopnotsupp, "5 HANDLE_TRANSFER: not bus1 EOPNOTSUPP"),
    case!(dst_handle_must_be_invalid, "5 HANDLE_TRANSFER: dst_handle must be INVALID on entry"),
    case!(destroyed_node_gives_invalid, "5 HANDLE_TRANSFER: a node already destroyed: success"),
    case!(destroyed_remote_node_gives_invalid, "5 HANDLE_TRANSFER: a node already destroyed"),
    case!(over_quota_is_edquot, "5 HANDLE_TRANSFER: EDQUOT as in section 7"),
    case!(fault_on_the_way_out_gives_nothing, "5: EFAULT on the way out included"),
    case!(threads_transfer_the_same_node, "2: a peer holds at most one live handle for a node"),
];

fn to_another_peer(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    b.message().to(&[id]).bytes(b"works").send().unwrap();
    assert_eq!(a.text(b"works").msg.destination, node);
    b.nothing();
}

fn to_itself_by_all_ones(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    assert_eq!(peer.give_fd(u64::MAX, node), Ok(node));
    peer.release(node).unwrap();
    peer.node_release(node);
}

fn to_itself_by_descriptor(env: &Env) {
    let [a, b] = env.peers();
    let node = a.new_node();
    assert_eq!(a.give(&a, node), Ok(node));
    let (_, id) = b.node_for(&a);
    assert_eq!(a.give(&a, id), Ok(id));
    assert_eq!(a.release(id), Ok(()));
    assert_eq!(a.release(id), Ok(()));
    assert_eq!(a.release(id), Err(E::NXIO));
}

fn source_keeps_its_own(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let at_b = a.give(&b, at_a).unwrap();
    a.message().to(&[at_a]).bytes(b"a").send().unwrap();
    owner.text(b"a");
    a.release(at_a).unwrap();
    owner.nothing();
    b.message().to(&[at_b]).bytes(b"b").send().unwrap();
    owner.text(b"b");
    b.release(at_b).unwrap();
    owner.node_release(node);
}

fn same_node_same_id(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_b) = owner.node_for(&b);
    let at_a = owner.give(&a, node).unwrap();
    assert_eq!(owner.give(&b, node), Ok(at_b));
    assert_eq!(a.give(&b, at_a), Ok(at_b), "whoever gives it");
    for _ in 0..3 {
        b.release(at_b).unwrap();
    }
    assert_eq!(b.release(at_b), Err(E::NXIO));
}

fn back_to_the_owner_is_the_owners_id(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    assert_eq!(a.give(&owner, at_a), Ok(node));
    let at_b = a.give(&b, at_a).unwrap();
    assert_eq!(b.give(&owner, at_b), Ok(node));
}

fn passed_on_by_a_holder(env: &Env) {
    let owner = env.peer();
    let node = owner.new_node();
    let (mut last, mut id) = (env.peer(), 0);
    id = owner.give(&last, node).unwrap_or(id);
    for _ in 0..10 {
        let next = env.peer();
        id = last.give(&next, id).unwrap();
        last = next;
    }
    owner.nothing();
    last.message().to(&[id]).bytes(b"from afar").send().unwrap();
    owner.text(b"from afar");
    last.close();
    owner.node_release(node);
    owner.nothing();
}

fn clear_id_creates_a_node(env: &Env) {
    let [a, b] = env.peers();
    let first = a.give(&b, 40).unwrap();
    let second = a.give(&b, 44).unwrap();
    assert_ne!(first, second);
    assert_eq!(a.give(&b, 40), Ok(first));
}

fn any_clear_id_will_do(env: &Env) {
    let [a, b] = env.peers();
    for node in [0, 4, 8, 0x1234_5678_9abc_def0, u64::MAX - 3] {
        let to = a.give(&b, node).unwrap();
        b.message().to(&[to]).send().unwrap();
        assert_eq!(a.data().msg.destination, node);
    }
}

fn failed_transfer_creates_no_node(env: &Env) {
    let [a, b, gone] = env.peers();
    gone.disconnect().unwrap();
    b.limit([u32::MAX, 0, u32::MAX, u32::MAX]).unwrap();
    a.limit([u32::MAX, 2, u32::MAX, u32::MAX]).unwrap();
    assert_eq!(a.give(&b, 8), Err(E::DQUOT));
    assert_eq!(a.give(&gone, 16), Err(E::SHUTDOWN));
    assert_eq!(a.give_fd(u64::from(u32::MAX >> 1), 24), Err(E::BADF));
    // There is room for a single node, so none of these was left behind.
    assert_eq!(a.message().handles(&[32]).send(), Ok(()));
    assert_eq!(a.message().handles(&[40]).send(), Err(E::DQUOT));
}

fn unknown_flagged_source_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    for id in [1, 2, 3, 0x7f3, abi::HANDLE_INVALID] {
        assert_eq!(a.give(&b, id), Err(E::NXIO), "{id:#x}");
        assert_eq!(a.give_self(id), Err(E::NXIO), "{id:#x}");
    }
}

fn dst_fd_that_is_no_int_is_ebadf(env: &Env) {
    let [a, b] = env.peers();
    let fd = b.fd() as u64;
    for bad in [1 << 32 | fd, 1 << 31, 1 << 63 | fd, u64::from(u32::MAX), u64::MAX - 1] {
        assert_eq!(a.give_fd(bad, 8), Err(E::BADF), "{bad:#x}");
    }
    b.nothing();
}

fn dst_fd_that_is_not_open_is_ebadf(env: &Env) {
    let peer = env.peer();
    // Above every limit of open descriptors.
    assert_eq!(peer.give_fd(0x7fff_ffff, 8), Err(E::BADF));
}

fn dst_fd_of_another_kind_is_eopnotsupp(env: &Env) {
    let peer = env.peer();
    let null = std::fs::File::open("/dev/null").unwrap();
    let (pipe, _end) = rustix::pipe::pipe().unwrap();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    for fd in [null.as_raw_fd(), pipe.as_raw_fd(), event.as_raw_fd()] {
        assert_eq!(peer.give_fd(fd as u64, 8), Err(E::OPNOTSUPP));
    }
}

fn dst_handle_must_be_invalid(env: &Env) {
    let [a, b] = env.peers();
    for dst_handle in [0, 8, u64::MAX - 1] {
        let mut arg =
            abi::CmdHandleTransfer { flags: 0, src_handle: 8, dst_fd: b.fd() as u64, dst_handle };
        assert_eq!(a.transfer(&mut arg), Err(E::INVAL));
        assert_eq!(arg.dst_handle, dst_handle);
    }
}

fn destroyed_node_gives_invalid(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    a.destroy(&[node]).unwrap();
    assert_eq!(a.give(&b, node), Ok(abi::HANDLE_INVALID));
    assert_eq!(a.give_self(node), Ok(abi::HANDLE_INVALID));
    b.node_destroy(id);
    assert_eq!(b.release(id), Ok(()));
    assert_eq!(b.release(id), Err(E::NXIO), "it gained no reference");
}

fn destroyed_remote_node_gives_invalid(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, id) = owner.node_for(&a);
    owner.destroy(&[node]).unwrap();
    assert_eq!(a.give(&b, id), Ok(abi::HANDLE_INVALID));
    b.nothing();
    owner.close();
    assert_eq!(a.give(&b, id), Ok(abi::HANDLE_INVALID));
}

fn over_quota_is_edquot(env: &Env) {
    let [a, b] = env.peers();
    b.limit([u32::MAX, 8, u32::MAX, u32::MAX]).unwrap();
    // One peer of the same user may take half.
    let ids: Vec<_> = (0..4).map(|_| a.node_for(&b).1).collect();
    let node = a.new_node();
    assert_eq!(a.give(&b, node), Err(E::DQUOT));
    b.release(ids[0]).unwrap();
    assert!(a.give(&b, node).is_ok());
    assert_eq!(a.give(&b, a.new_node()), Err(E::DQUOT));
}

fn fault_on_the_way_out_gives_nothing(env: &Env) {
    let [owner, holder] = env.peers();
    let node = owner.new_node();
    let arg = abi::CmdHandleTransfer {
        flags: 0,
        src_handle: node,
        dst_fd: holder.fd() as u64,
        dst_handle: abi::HANDLE_INVALID,
    };
    let page = read_only(&arg.to_bytes());
    for _ in 0..3 {
        assert_eq!(owner.ioctl(abi::CMD_HANDLE_TRANSFER, page.addr(0)), Err(E::FAULT));
        // Nothing was given, so nothing was given back either.
        owner.nothing();
    }
    let id = owner.give(&holder, node).unwrap();
    holder.release(id).unwrap();
    assert_eq!(holder.release(id), Err(E::NXIO), "it had one reference");
    owner.node_release(node);
}

fn threads_transfer_the_same_node(env: &Env) {
    for _ in 0..30 {
        let [owner, a, b, holder] = env.peers();
        let (node, at_a) = owner.node_for(&a);
        let at_b = owner.give(&b, node).unwrap();
        let give = |from: &Peer, id| {
            (0..20).map(|_| from.give(&holder, id).unwrap()).collect::<Vec<_>>()
        };
        let ids = std::thread::scope(|scope| {
            let first = scope.spawn(|| give(&a, at_a));
            let second = scope.spawn(|| give(&b, at_b));
            [first.join().unwrap(), second.join().unwrap()].concat()
        });
        assert!(ids.iter().all(|&id| id == ids[0]), "one node, one handle: {ids:x?}");
        for _ in 0..40 {
            holder.release(ids[0]).unwrap();
        }
        assert_eq!(holder.release(ids[0]), Err(E::NXIO));
        a.close();
        b.close();
        owner.node_release(node);
    }
}
