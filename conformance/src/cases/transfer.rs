// SPDX-License-Identifier: MIT OR Apache-2.0

//! HANDLE_TRANSFER.

use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Limits, Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::read_only;

#[case("abi.md#transfer-gives")]
fn to_another_peer(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    b.message().to(&[id]).bytes(b"works").send().unwrap();
    assert_eq!(a.expect_text(b"works").msg.destination, node);
    b.expect_nothing();
}

#[case("abi.md#transfer-gives")]
fn to_itself_by_all_ones(env: &Env) {
    let peer = env.peer();
    let node = peer.new_node();
    assert_eq!(peer.give_fd(u64::MAX, node), Ok(node));
    peer.release(node).unwrap();
    peer.expect_node_release(node);
}

#[case("abi.md#transfer-gives")]
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

#[case("abi.md#transfer-gives")]
fn source_keeps_its_own(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    let at_b = a.give(&b, at_a).unwrap();
    a.message().to(&[at_a]).bytes(b"a").send().unwrap();
    owner.expect_text(b"a");
    a.release(at_a).unwrap();
    owner.expect_nothing();
    b.message().to(&[at_b]).bytes(b"b").send().unwrap();
    owner.expect_text(b"b");
    b.release(at_b).unwrap();
    owner.expect_node_release(node);
}

#[case("abi.md#handle-one", "abi.md#ref-transfer")]
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

#[case("abi.md#handle-one")]
fn back_to_the_owner_is_the_owners_id(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, at_a) = owner.node_for(&a);
    assert_eq!(a.give(&owner, at_a), Ok(node));
    let at_b = a.give(&b, at_a).unwrap();
    assert_eq!(b.give(&owner, at_b), Ok(node));
}

#[case("abi.md#handle-pass")]
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
    owner.expect_nothing();
    last.message().to(&[id]).bytes(b"from afar").send().unwrap();
    owner.expect_text(b"from afar");
    last.close();
    owner.expect_node_release(node);
    owner.expect_nothing();
}

#[case("abi.md#id-clear")]
fn clear_id_creates_a_node(env: &Env) {
    let [a, b] = env.peers();
    let first = a.give(&b, 40).unwrap();
    let second = a.give(&b, 44).unwrap();
    assert_ne!(first, second);
    assert_eq!(a.give(&b, 40), Ok(first));
}

#[case("abi.md#id-clear")]
fn any_clear_id_will_do(env: &Env) {
    let [a, b] = env.peers();
    for node in [0, 4, 8, 0x1234_5678_9abc_def0, u64::MAX - 3] {
        let to = a.give(&b, node).unwrap();
        b.message().to(&[to]).send().unwrap();
        assert_eq!(a.expect_data().msg.destination, node);
    }
}

#[case("abi.md#id-whole")]
fn failed_transfer_creates_no_node(env: &Env) {
    let [a, b, gone] = env.peers();
    gone.disconnect().unwrap();
    b.limit(Limits {
        handles: 0,
        ..Limits::KEEP
    })
    .unwrap();
    a.limit(Limits {
        handles: 2,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(a.give(&b, 8), Err(E::DQUOT));
    assert_eq!(a.give(&gone, 16), Err(E::SHUTDOWN));
    assert_eq!(a.give_fd(u64::from(u32::MAX >> 1), 24), Err(E::BADF));
    // There is room for a single node, so none of these was left behind.
    assert_eq!(a.message().handles(&[32]).send(), Ok(()));
    assert_eq!(a.message().handles(&[40]).send(), Err(E::DQUOT));
}

#[case("abi.md#transfer-enxio", "abi.md#id-invalid")]
fn unknown_flagged_source_is_enxio(env: &Env) {
    let [a, b] = env.peers();
    for id in [1, 2, 3, UNKNOWN_ID, abi::HANDLE_INVALID] {
        assert_eq!(a.give(&b, id), Err(E::NXIO), "{id:#x}");
        assert_eq!(a.give_self(id), Err(E::NXIO), "{id:#x}");
    }
}

#[case("abi.md#transfer-ebadf")]
fn dst_fd_that_is_no_int_is_ebadf(env: &Env) {
    let [a, b] = env.peers();
    let fd = b.fd() as u64;
    for bad in [
        1 << 32 | fd,
        1 << 31,
        1 << 63 | fd,
        u64::from(u32::MAX),
        u64::MAX - 1,
    ] {
        assert_eq!(a.give_fd(bad, 8), Err(E::BADF), "{bad:#x}");
    }
    b.expect_nothing();
}

#[case("abi.md#transfer-ebadf")]
fn dst_fd_that_is_not_open_is_ebadf(env: &Env) {
    let peer = env.peer();
    // Above every limit of open descriptors.
    assert_eq!(peer.give_fd(0x7fff_ffff, 8), Err(E::BADF));
}

#[case("abi.md#transfer-eopnotsupp")]
fn dst_fd_of_another_kind_is_eopnotsupp(env: &Env) {
    let peer = env.peer();
    let null = std::fs::File::open("/dev/null").unwrap();
    let (pipe, _end) = rustix::pipe::pipe().unwrap();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    for fd in [null.as_raw_fd(), pipe.as_raw_fd(), event.as_raw_fd()] {
        assert_eq!(peer.give_fd(fd as u64, 8), Err(E::OPNOTSUPP));
    }
}

#[case("abi.md#transfer-einval")]
fn dst_handle_must_be_invalid(env: &Env) {
    let [a, b] = env.peers();
    for dst_handle in [0, 8, u64::MAX - 1] {
        let mut arg = abi::CmdHandleTransfer {
            flags: 0,
            src_handle: 8,
            dst_fd: b.fd() as u64,
            dst_handle,
        };
        assert_eq!(a.transfer(&mut arg), Err(E::INVAL));
        assert_eq!(arg.dst_handle, dst_handle);
    }
}

#[case("abi.md#transfer-dead")]
fn destroyed_node_gives_invalid(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    a.destroy(&[node]).unwrap();
    assert_eq!(a.give(&b, node), Ok(abi::HANDLE_INVALID));
    assert_eq!(a.give_self(node), Ok(abi::HANDLE_INVALID));
    b.expect_node_destroy(id);
    assert_eq!(b.release(id), Ok(()));
    assert_eq!(b.release(id), Err(E::NXIO), "it gained no reference");
}

#[case("abi.md#transfer-dead")]
fn destroyed_remote_node_gives_invalid(env: &Env) {
    let [owner, a, b] = env.peers();
    let (node, id) = owner.node_for(&a);
    owner.destroy(&[node]).unwrap();
    assert_eq!(a.give(&b, id), Ok(abi::HANDLE_INVALID));
    b.expect_nothing();
    owner.close();
    assert_eq!(a.give(&b, id), Ok(abi::HANDLE_INVALID));
}

#[case("abi.md#transfer-edquot")]
fn over_quota_is_edquot(env: &Env) {
    let [a, b] = env.peers();
    b.limit(Limits {
        handles: 8,
        ..Limits::KEEP
    })
    .unwrap();
    // One peer of the same user may take half.
    let ids: Vec<_> = (0..4).map(|_| a.node_for(&b).1).collect();
    let node = a.new_node();
    assert_eq!(a.give(&b, node), Err(E::DQUOT));
    b.release(ids[0]).unwrap();
    assert!(a.give(&b, node).is_ok());
    assert_eq!(a.give(&b, a.new_node()), Err(E::DQUOT));
}

#[case("abi.md#every-efault-late", "abi.md#no-trace")]
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
        assert_eq!(
            owner.ioctl(abi::CMD_HANDLE_TRANSFER, page.addr(0)),
            Err(E::FAULT)
        );
        // Nothing was given, so nothing was given back either.
        owner.expect_nothing();
    }
    let id = owner.give(&holder, node).unwrap();
    holder.release(id).unwrap();
    assert_eq!(holder.release(id), Err(E::NXIO), "it had one reference");
    owner.expect_node_release(node);
}

#[case("abi.md#handle-one", "abi.md#concurrent-callers")]
fn threads_transfer_the_same_node(env: &Env) {
    for _ in 0..30 {
        let [owner, a, b, holder] = env.peers();
        let (node, at_a) = owner.node_for(&a);
        let at_b = owner.give(&b, node).unwrap();
        let give = |from: &Peer, id| {
            (0..20)
                .map(|_| from.give(&holder, id).unwrap())
                .collect::<Vec<_>>()
        };
        let ids = std::thread::scope(|scope| {
            let first = scope.spawn(|| give(&a, at_a));
            let second = scope.spawn(|| give(&b, at_b));
            [first.join().unwrap(), second.join().unwrap()].concat()
        });
        assert!(
            ids.iter().all(|&id| id == ids[0]),
            "one node, one handle: {ids:x?}"
        );
        for _ in 0..40 {
            holder.release(ids[0]).unwrap();
        }
        assert_eq!(holder.release(ids[0]), Err(E::NXIO));
        a.close();
        b.close();
        owner.expect_node_release(node);
    }
}
