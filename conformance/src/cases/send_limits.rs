// SPDX-License-Identifier: MIT OR Apache-2.0

//! The limits of the lists that one SEND names.

use std::os::fd::AsRawFd;

use bus1_conformance_case::case;

use crate::client::Limits;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::NOWHERE;
#[case("abi.md#send-emsgsize-vecs")]
fn up_to_1024_vectors(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let send = |n| {
        let message = b.message().to(&[to]);
        (0..n)
            .fold(message, |message, _| message.bytes(b"v"))
            .send()
    };
    assert_eq!(send(1024), Ok(()));
    a.expect_text(&[b'v'; 1024]);
    assert_eq!(send(1025), Err(E::MSGSIZE));
    for n_vecs in [1025, 1 << 31, 1 << 60, u64::MAX] {
        let sent = b
            .message()
            .to(&[to])
            .edit(|arg| (arg.n_vecs, arg.ptr_vecs) = (n_vecs, NOWHERE));
        assert_eq!(sent.send(), Err(E::MSGSIZE), "{n_vecs}");
    }
    a.expect_nothing();
}

#[case("abi.md#send-emsgsize-fds")]
fn up_to_256_descriptors(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let null = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(
        b.message().to(&[to]).fds(&[null.as_raw_fd(); 256]).send(),
        Ok(())
    );
    let fds = a.expect_data().fds;
    assert_eq!(fds.len(), 256);
    assert_eq!(
        b.message().to(&[to]).fds(&[null.as_raw_fd(); 257]).send(),
        Err(E::MSGSIZE)
    );
    for n_fds in [257, 1 << 31, 1 << 62, u64::MAX] {
        let sent = b
            .message()
            .to(&[to])
            .edit(|arg| (arg.n_fds, arg.ptr_fds) = (n_fds, NOWHERE));
        assert_eq!(sent.send(), Err(E::MSGSIZE), "{n_fds}");
    }
    a.expect_nothing();
}

#[case("abi.md#send-emsgsize-destinations")]
fn more_than_int_max_destinations_is_emsgsize(env: &Env) {
    let peer = env.peer();
    for n in [1 << 31, 1 << 32, 1 << 61, u64::MAX] {
        let sent = peer.message().edit(|arg| arg.n_destinations = n);
        assert_eq!(sent.send(), Err(E::MSGSIZE), "{n}");
    }
}

#[case("abi.md#send-einval-counts")]
fn more_destinations_than_max_handles_is_einval(env: &Env) {
    let peer = env.peer();
    let max = u64::from(env.bus().user_limits().handles);
    for n in [max + 1, (1 << 31) - 1] {
        let sent = peer.message().edit(|arg| arg.n_destinations = n);
        assert_eq!(sent.send(), Err(E::INVAL), "{n}");
    }
    // The user's limit is meant, not the peer's.
    peer.limit(Limits {
        handles: 8,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(
        peer.message().edit(|arg| arg.n_destinations = 9).send(),
        Err(E::FAULT)
    );
}

#[case("abi.md#send-einval-counts")]
fn more_handles_than_max_handles_is_einval(env: &Env) {
    let peer = env.peer();
    let max = u64::from(env.bus().user_limits().handles);
    for n in [max + 1, 1 << 31, 1 << 61, u64::MAX] {
        assert_eq!(
            peer.message().edit(|arg| arg.n_handles = n).send(),
            Err(E::INVAL),
            "{n}"
        );
    }
    peer.limit(Limits {
        handles: 8,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(
        peer.message().edit(|arg| arg.n_handles = 9).send(),
        Err(E::FAULT)
    );
}

#[case("abi.md#send-emsgsize-quota")]
fn as_many_handles_as_max_handles_is_quota(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.give_self(node).unwrap();
    let handles = vec![node; env.bus().user_limits().handles as usize];
    assert_eq!(
        b.message().to(&[to]).handles(&handles).send(),
        Err(E::MSGSIZE)
    );
    a.expect_nothing();
}

#[case("abi.md#send-emsgsize-bytes")]
fn more_than_2_gib_is_emsgsize(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let memory = vec![0_u8; 4096];
    let base = memory.as_ptr().expose_provenance() as u64;
    let sent = b.message().to(&[to]).vector(base, 0x7fff_f001);
    assert_eq!(sent.send(), Err(E::MSGSIZE));
    let sent = b
        .message()
        .to(&[to])
        .vector(base, 0x4000_0000)
        .vector(base, 0x4000_0000);
    assert_eq!(sent.send(), Err(E::MSGSIZE));
    let sent = b
        .message()
        .to(&[to])
        .vector(base, 0x7fff_f000)
        .vector(base, 1);
    assert_eq!(sent.send(), Err(E::MSGSIZE));
    a.expect_nothing();
}

#[case("abi.md#send-emsgsize-quota")]
fn exactly_2_gib_is_a_matter_of_quota(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let memory = vec![0_u8; 4096];
    let base = memory.as_ptr().expose_provenance() as u64;
    assert_eq!(
        b.message().to(&[to]).vector(base, 0x7fff_f000).send(),
        Err(E::MSGSIZE)
    );
}

#[case("abi.md#send-edquot", "abi.md#charge-bytes")]
fn bytes_over_quota_are_edquot(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.limit(Limits {
        bytes: 1024,
        ..Limits::KEEP
    })
    .unwrap();
    assert_eq!(
        b.message().to(&[to]).bytes(&[1; 513]).send(),
        Err(E::MSGSIZE)
    );
    assert_eq!(b.message().to(&[to]).bytes(&[1; 512]).send(), Ok(()));
    assert_eq!(b.message().to(&[to]).bytes(&[1; 1]).send(), Err(E::DQUOT));
    assert_eq!(b.message().to(&[to]).send(), Ok(()), "no bytes, no charge");
}

#[case("abi.md#send-edquot", "abi.md#charge-slices")]
fn slices_over_quota_are_edquot(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.limit(Limits {
        slices: 6,
        ..Limits::KEEP
    })
    .unwrap();
    for _ in 0..3 {
        assert_eq!(b.message().to(&[to]).send(), Ok(()));
    }
    assert_eq!(b.message().to(&[to]).send(), Err(E::DQUOT));
}

#[case("abi.md#send-edquot", "abi.md#charge-slots")]
fn handles_over_quota_are_edquot(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    // One of the handles is the node that the message goes to.
    a.limit(Limits {
        handles: 9,
        ..Limits::KEEP
    })
    .unwrap();
    let node = b.new_node();
    b.give_self(node).unwrap();
    assert_eq!(
        b.message().to(&[to]).handles(&[node; 5]).send(),
        Err(E::MSGSIZE)
    );
    assert_eq!(b.message().to(&[to]).handles(&[node; 4]).send(), Ok(()));
    assert_eq!(
        b.message().to(&[to]).handles(&[node; 1]).send(),
        Err(E::DQUOT)
    );
}

#[case("abi.md#send-edquot", "abi.md#charge-fds")]
fn descriptors_over_quota_are_edquot(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.limit(Limits {
        fds: 8,
        ..Limits::KEEP
    })
    .unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let fd = null.as_raw_fd();
    assert_eq!(b.message().to(&[to]).fds(&[fd; 5]).send(), Err(E::MSGSIZE));
    assert_eq!(b.message().to(&[to]).fds(&[fd; 4]).send(), Ok(()));
    assert_eq!(b.message().to(&[to]).fds(&[fd; 1]).send(), Err(E::DQUOT));
}

#[case("abi.md#send-reserve")]
fn quota_comes_before_the_payload(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    a.limit(Limits {
        bytes: 8,
        ..Limits::KEEP
    })
    .unwrap();
    let pages = crate::sys::memory::Pages::new(1);
    pages.forbid(0);
    assert_eq!(
        b.message().to(&[to]).vector(pages.addr(0), 100).send(),
        Err(E::MSGSIZE)
    );
    assert_eq!(
        b.message().to(&[to]).vector(pages.addr(0), 4).send(),
        Err(E::FAULT)
    );
}

#[case("abi.md#recv-handles")]
fn thousands_of_handles_in_one_message(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let nodes: Vec<_> = (0..4000).map(|_| b.new_node()).collect();
    b.message()
        .to(&[to])
        .bytes(b"odd")
        .handles(&nodes)
        .send()
        .unwrap();
    let message = a.expect_text(b"odd");
    assert_eq!(message.handles.len(), 4000);
    for (i, &node) in nodes.iter().enumerate() {
        assert_eq!(a.message().to(&[message.handles[i]]).send(), Ok(()));
        assert_eq!(
            b.expect_data().msg.destination,
            node,
            "handle {i} is of another node"
        );
    }
}

#[case("abi.md#send-edquot-node")]
fn created_destination_over_quota_is_edquot(env: &Env) {
    let peer = env.peer();
    // Room for exactly one node.
    peer.limit(Limits {
        handles: 2,
        ..Limits::KEEP
    })
    .unwrap();
    let (first, second) = (peer.new_node(), peer.new_node());
    peer.expect_sent(first, b"to the first");
    assert_eq!(peer.message().to(&[second]).send(), Err(E::DQUOT));
    peer.expect_text(b"to the first");
    peer.expect_nothing();
}
