// SPDX-License-Identifier: MIT OR Apache-2.0

//! Arrays that cannot be read, at every pointer and at every place in the array; and the order in
//! which SEND looks at its arguments.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::UNKNOWN_ID;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{before_hole, NOWHERE};

#[case("abi.md#every-efault")]
fn argument_that_ends_in_a_hole_is_efault(env: &Env) {
    let peer = env.peer();
    for (cmd, size) in [
        (abi::CMD_PEER_QUERY, 32),
        (abi::CMD_PEER_RESET, 32),
        (abi::CMD_HANDLE_RELEASE, 8),
        (abi::CMD_HANDLE_TRANSFER, 32),
        (abi::CMD_NODES_DESTROY, 24),
        (abi::CMD_SLICE_RELEASE, 8),
        (abi::CMD_SEND, 80),
        (abi::CMD_RECV, 72),
    ] {
        let (_page, addr) = before_hole(&vec![0; size - 8]);
        assert_eq!(peer.ioctl(cmd, addr), Err(E::FAULT), "{cmd:#x}");
    }
}

#[case(
    "abi.md#send-efault-vecs",
    "abi.md#send-efault-handles",
    "abi.md#send-efault-destinations",
    "abi.md#send-efault-fds",
    "abi.md#send-efault-payload",
    "abi.md#send-efault-errors"
)]
fn send_pointers_to_nowhere_are_efault(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = b.node_for(&a);
    let pipe = rustix::pipe::pipe().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&pipe.0);
    for bad in [0, NOWHERE, u64::MAX - 7] {
        let full = || {
            a.message()
                .to(&[to])
                .bytes(b"x")
                .handles(&[8])
                .fds(&[fd])
                .proceed()
        };
        let edits: [fn(&mut abi::CmdSend, u64); 5] = [
            |arg, bad| arg.ptr_destinations = bad,
            |arg, bad| arg.ptr_errors = bad,
            |arg, bad| arg.ptr_vecs = bad,
            |arg, bad| arg.ptr_handles = bad,
            |arg, bad| arg.ptr_fds = bad,
        ];
        for (i, edit) in edits.into_iter().enumerate() {
            let sent = full().edit(|arg| edit(arg, bad)).send();
            assert_eq!(sent, Err(E::FAULT), "pointer {i} is {bad:#x}");
        }
        assert_eq!(
            a.message().to(&[to]).vector(bad, 8).send(),
            Err(E::FAULT),
            "base {bad:#x}"
        );
    }
    b.expect_nothing();
}

#[case(
    "abi.md#send-efault-vecs",
    "abi.md#send-efault-handles",
    "abi.md#send-efault-destinations",
    "abi.md#send-efault-fds",
    "abi.md#send-efault-payload",
    "abi.md#send-efault-errors"
)]
fn send_arrays_that_end_in_a_hole_are_efault(env: &Env) {
    let [a, b] = env.peers();
    let (_, first) = b.node_for(&a);
    let (_, second) = b.node_for(&a);
    let to = [first, second];

    let (_page, half) = before_hole(&first.to_ne_bytes());
    let sent = a
        .message()
        .to(&to)
        .edit(|arg| arg.ptr_destinations = half)
        .send();
    assert_eq!(sent, Err(E::FAULT), "destinations");
    let (_page, half) = before_hole(&[0; 4]);
    let sent = a
        .message()
        .to(&to)
        .proceed()
        .edit(|arg| arg.ptr_errors = half)
        .send();
    assert_eq!(sent, Err(E::FAULT), "errors");
    let (_page, half) = before_hole(&[0; 16]);
    let sent = a
        .message()
        .to(&to)
        .edit(|arg| (arg.ptr_vecs, arg.n_vecs) = (half, 2))
        .send();
    assert_eq!(sent, Err(E::FAULT), "vecs");
    let (_page, half) = before_hole(&8_u64.to_ne_bytes());
    let sent = a
        .message()
        .to(&to)
        .edit(|arg| (arg.ptr_handles, arg.n_handles) = (half, 2))
        .send();
    assert_eq!(sent, Err(E::FAULT), "handles");
    let (_page, half) = before_hole(&0_i32.to_ne_bytes());
    let sent = a
        .message()
        .to(&to)
        .edit(|arg| (arg.ptr_fds, arg.n_fds) = (half, 2))
        .send();
    assert_eq!(sent, Err(E::FAULT), "fds");
    let (_page, half) = before_hole(b"payload");
    assert_eq!(
        a.message().to(&to).vector(half, 8).send(),
        Err(E::FAULT),
        "payload"
    );
    b.expect_nothing();
    assert_eq!(a.message().to(&to).vector(half, 7).send(), Ok(()));
    assert!(b.expect_text(b"payload").more());
}

#[case("abi.md#send-empty")]
fn pointers_of_empty_arrays_are_not_looked_at(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let sent = a.message().to(&[to]).edit(|arg| {
        arg.ptr_errors = 0;
        arg.ptr_vecs = NOWHERE;
        arg.ptr_handles = NOWHERE;
        arg.ptr_fds = NOWHERE;
    });
    assert_eq!(sent.send(), Ok(()));
    b.expect_text(b"");
    let sent = a.message().proceed().edit(|arg| {
        arg.ptr_destinations = NOWHERE;
        arg.ptr_errors = NOWHERE;
    });
    assert_eq!(sent.send(), Ok(()), "no destinations");
    assert_eq!(
        a.message().to(&[to]).vector(0, 0).bytes(b"y").send(),
        Ok(()),
        "an empty vector"
    );
    b.expect_text(b"y");
}

#[case("abi.md#destroy-efault")]
fn destroy_array_is_efault(env: &Env) {
    let peer = env.peer();
    let destroy = |ptr_nodes, n_nodes| {
        let mut arg = abi::CmdNodesDestroy {
            flags: 0,
            ptr_nodes,
            n_nodes,
        };
        peer.command(abi::CMD_NODES_DESTROY, &mut arg)
    };
    assert_eq!(destroy(0, 1), Err(E::FAULT));
    assert_eq!(destroy(NOWHERE, 1), Err(E::FAULT));
    let (_page, half) = before_hole(&8_u64.to_ne_bytes());
    assert_eq!(destroy(half, 2), Err(E::FAULT));
    assert_eq!(destroy(NOWHERE, 0), Ok(()));
    peer.expect_nothing();
}

#[case(
    "abi.md#send-emsgsize-vecs",
    "abi.md#send-emsgsize-fds",
    "abi.md#send-emsgsize-destinations"
)]
fn emsgsize_comes_before_einval(env: &Env) {
    let peer = env.peer();
    let edits: [fn(&mut abi::CmdSend); 3] = [
        |arg| arg.n_vecs = 1025,
        |arg| arg.n_fds = 257,
        |arg| arg.n_destinations = 0x8000_0000,
    ];
    for edit in edits {
        let sent = peer
            .message()
            .edit(edit)
            .edit(|arg| arg.n_handles = u64::MAX);
        assert_eq!(sent.send(), Err(E::MSGSIZE));
    }
}

#[case("abi.md#send-einval-counts")]
fn einval_of_counts_comes_before_vecs(env: &Env) {
    let peer = env.peer();
    let max = u64::from(env.bus().user_limits().handles);
    let bad_vec = || peer.message().vector(NOWHERE, 8);
    assert_eq!(
        bad_vec().edit(|arg| arg.n_destinations = max + 1).send(),
        Err(E::INVAL)
    );
    assert_eq!(
        bad_vec().edit(|arg| arg.n_handles = max + 1).send(),
        Err(E::INVAL)
    );
}

#[case("abi.md#send-efault-vecs", "abi.md#send-emsgsize-bytes")]
fn vecs_come_before_handles(env: &Env) {
    let peer = env.peer();
    let sent = peer
        .message()
        .handles(&[UNKNOWN_ID])
        .edit(|arg| (arg.ptr_vecs, arg.n_vecs) = (NOWHERE, 1));
    assert_eq!(sent.send(), Err(E::FAULT));
    let (_page, page) = before_hole(&[0; 8]);
    let sent = peer
        .message()
        .handles(&[UNKNOWN_ID])
        .vector(page, 0x4000_0000)
        .vector(page, 0x4000_0000);
    assert_eq!(sent.send(), Err(E::MSGSIZE));
}

#[case("abi.md#send-einval-vec")]
fn negative_length_is_einval(env: &Env) {
    let peer = env.peer();
    let (_page, base) = before_hole(&[0; 8]);
    for len in [1 << 63, u64::MAX - 7, u64::MAX] {
        for base in [base, NOWHERE] {
            let message = peer.message().vector(base, len).handles(&[UNKNOWN_ID]);
            assert_eq!(message.send(), Err(E::INVAL), "{len:#x} at {base:#x}");
        }
    }
}

/// An address at which no program of this width has memory.
const OUTSIDE: u64 = 1 << 63;

#[case("abi.md#send-efault-vec", kernel)]
fn vecs_outside_of_user_memory_come_first(env: &Env) {
    let peer = env.peer();
    let (_page, page) = before_hole(&[0; 8]);
    // An ID that is refused later.
    let message = || peer.message().handles(&[UNKNOWN_ID]);
    assert_eq!(
        message().vector(NOWHERE, 8).send(),
        Err(E::NXIO),
        "the payload is read at last"
    );
    for (start, len) in [
        (OUTSIDE, 8),
        (OUTSIDE, 0),
        (u64::MAX - 7, 8),
        (page, i64::MAX as u64),
    ] {
        assert_eq!(
            message().vector(start, len).send(),
            Err(E::FAULT),
            "{start:#x}+{len:#x}"
        );
        let two = message().vector(page, u64::MAX).vector(start, len);
        assert_eq!(
            two.send(),
            Err(E::FAULT),
            "a negative length before {start:#x}"
        );
        let three = message()
            .vector(page, 0x4000_0000)
            .vector(page, 0x4000_0000)
            .vector(start, len);
        assert_eq!(three.send(), Err(E::FAULT), "too long before {start:#x}");
    }
    assert_eq!(message().vector(page, u64::MAX).send(), Err(E::INVAL));
    peer.expect_nothing();
}

#[case("abi.md#send-enxio-handles")]
fn handles_come_before_fds(env: &Env) {
    let peer = env.peer();
    assert_eq!(
        peer.message().handles(&[UNKNOWN_ID]).fds(&[-1]).send(),
        Err(E::NXIO)
    );
}

#[case("abi.md#send-ebadf")]
fn fds_come_before_seed(env: &Env) {
    let peer = env.peer();
    assert_eq!(
        peer.message().fds(&[-1]).seed().proceed().send(),
        Err(E::BADF)
    );
}

#[case("abi.md#send-einval-seed")]
fn seed_comes_before_destinations(env: &Env) {
    let peer = env.peer();
    let sent = peer
        .message()
        .to(&[UNKNOWN_ID])
        .seed()
        .edit(|arg| arg.ptr_errors = 0);
    assert_eq!(sent.send(), Err(E::INVAL));
}

#[case(
    "abi.md#send-ehostunreach",
    "abi.md#send-enxio",
    "abi.md#send-enotuniq"
)]
fn first_bad_destination_decides(env: &Env) {
    let [a, b] = env.peers();
    let live = a.handle_of(&b);
    let (node, dead) = b.node_for(&a);
    b.destroy_and_release(&[node]).unwrap();
    let unknown = UNKNOWN_ID;
    assert_eq!(
        a.message().to(&[live, dead, unknown]).send(),
        Err(E::HOSTUNREACH)
    );
    assert_eq!(a.message().to(&[live, unknown, dead]).send(), Err(E::NXIO));
    assert_eq!(a.message().to(&[live, live, dead]).send(), Err(E::NOTUNIQ));
    b.expect_nothing();
}

#[case(
    "abi.md#every-einval-flags",
    "abi.md#transfer-ebadf",
    "abi.md#transfer-eopnotsupp",
    "abi.md#transfer-eshutdown",
    "abi.md#transfer-einval",
    "abi.md#transfer-enxio"
)]
fn transfer_checks_in_order(env: &Env) {
    let [a, b, gone] = env.peers();
    gone.disconnect().unwrap();
    let unknown = UNKNOWN_ID;
    let transfer = |flags, src_handle, dst_fd, dst_handle| {
        let mut arg = abi::CmdHandleTransfer {
            flags,
            src_handle,
            dst_fd,
            dst_handle,
        };
        a.transfer(&mut arg)
    };
    let (pipe, _end) = rustix::pipe::pipe().unwrap();
    let pipe = std::os::fd::AsRawFd::as_raw_fd(&pipe) as u64;
    let none = u64::from(u32::MAX >> 1);
    assert_eq!(transfer(1, unknown, none, 8), Err(E::INVAL), "flags first");
    assert_eq!(
        transfer(0, unknown, none, 8),
        Err(E::BADF),
        "then the descriptor"
    );
    assert_eq!(
        transfer(0, unknown, pipe, 8),
        Err(E::OPNOTSUPP),
        "then its kind"
    );
    assert_eq!(
        transfer(0, unknown, gone.fd() as u64, 8),
        Err(E::SHUTDOWN),
        "then its peer"
    );
    assert_eq!(
        transfer(0, unknown, b.fd() as u64, 8),
        Err(E::INVAL),
        "then dst_handle"
    );
    assert_eq!(
        transfer(0, unknown, b.fd() as u64, u64::MAX),
        Err(E::NXIO),
        "then the source"
    );
}

#[case("abi.md#reset-einval")]
fn reset_checks_before_it_acts(env: &Env) {
    let [a, b] = env.peers();
    let (node, there) = a.node_for(&b);
    b.message()
        .to(&[there])
        .bytes(b"still here")
        .send()
        .unwrap();
    let flags = abi::PEER_RESET_FLAG_FLUSH;
    let mut arg = abi::CmdPeerReset {
        flags,
        max_slices: 5,
        ..Default::default()
    };
    arg.peer_flags = u64::MAX;
    arg.max_handles = 0x8000_0000;
    assert_eq!(a.reset(arg), Err(E::INVAL));
    assert_ne!(a.query().unwrap().max_slices, 5);
    assert_eq!(a.expect_text(b"still here").msg.destination, node);
    b.expect_nothing();
}
