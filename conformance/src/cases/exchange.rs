// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE: its argument and its three steps. Batches are in `exchange_batch.rs`, failures in the
//! middle in `exchange_progress.rs`, waits in `exchange_wait.rs`.

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Limits;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{before_hole, Pages, NOWHERE};

fn addr<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).expose_provenance() as u64
}

#[case("abi.md#command-extension")]
fn published_layout_is_met(env: &Env) {
    let peer = env.peer();
    let node = [8_u64];
    let payload = *b"published";
    let vec = [addr(&payload), payload.len() as u64];
    let mut msg = [0_u64; 7];
    let room = std::ptr::from_mut(&mut msg).expose_provenance() as u64;
    let never = u64::MAX;
    let mut raw = [
        144,
        1,
        0,
        0,
        1,
        room,
        peer.mapped(),
        never,
        0,
        addr(&node),
        0,
        1,
        addr(&vec),
    ];
    let mut arg = [0_u64; 18];
    arg[..13].copy_from_slice(&raw);
    arg[13] = 1;
    peer.command(0xc008_9680, &mut arg).expect("EXCHANGE");
    assert_eq!(
        (msg[0], msg[2], msg[4]),
        (1, 8, 9),
        "DATA for the node, with its bytes"
    );
    assert_eq!(peer.read_pool(msg[3], 9), payload);

    let offset = [msg[3]];
    raw = [144, 0, addr(&offset), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    arg = [0; 18];
    arg[..13].copy_from_slice(&raw);
    peer.command(0xc008_9680, &mut arg).expect("EXCHANGE");
    assert_eq!(peer.release_slice(offset[0]), Err(E::NXIO));
}

#[case("abi.md#exchange-einval-size")]
fn size_is_checked(env: &Env) {
    let peer = env.peer();
    let sized = |size: u64| {
        // The argument, and more zeroes than may count.
        let page = Pages::new(3);
        let arg = abi::CmdExchange {
            size,
            ..Default::default()
        };
        page.poke(0, &arg.to_bytes());
        peer.ioctl(abi::CMD_EXCHANGE, page.addr(0))
    };
    for size in [
        0,
        1,
        8,
        72,
        136,
        143,
        145,
        148,
        151,
        144 + 4097,
        144 + 4104,
        1 << 32,
        u64::MAX,
    ] {
        assert_eq!(sized(size), Err(E::INVAL), "{size}");
    }
    for size in [144, 152, 400, 408, 144 + 4088, 144 + 4096] {
        assert_eq!(sized(size), Ok(()), "{size}");
    }
}

#[case("abi.md#exchange-e2big", "abi.md#exchange-efault-size")]
fn bytes_beyond_the_size_must_be_zero(env: &Env) {
    let peer = env.peer();
    let arg = abi::CmdExchange {
        size: 144 + 16,
        ..Default::default()
    };
    let mut bytes = arg.to_bytes().to_vec();
    bytes.extend([0; 16]);
    for at in [144, 151, 152, 159] {
        let mut bytes = bytes.clone();
        bytes[at] = 1;
        let page = Pages::new(1);
        page.poke(0, &bytes);
        assert_eq!(
            peer.ioctl(abi::CMD_EXCHANGE, page.addr(0)),
            Err(E::TOOBIG),
            "byte {at}"
        );
    }
    // Behind the size there may be anything.
    let page = Pages::new(1);
    page.poke(0, &bytes);
    page.poke(160, &[1]);
    assert_eq!(peer.ioctl(abi::CMD_EXCHANGE, page.addr(0)), Ok(()));
    let (_page, addr) = before_hole(&bytes[..152]);
    assert_eq!(peer.ioctl(abi::CMD_EXCHANGE, addr), Err(E::FAULT));
}

#[case("abi.md#exchange-emsgsize", "abi.md#every-bounded")]
fn counts_are_bounded(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"stays");
    for huge in [1025, 1 << 31, 1 << 61, u64::MAX] {
        assert_eq!(
            a.exchange().edit(|arg| arg.n_slices = huge).expect_errno(),
            E::MSGSIZE
        );
        assert_eq!(
            a.exchange().edit(|arg| arg.n_msgs = huge).expect_errno(),
            E::MSGSIZE
        );
    }
    a.expect_text(b"stays");
    // As many as are allowed, from and to memory that is not there.
    assert_eq!(
        a.exchange().edit(|arg| arg.n_slices = 1024).expect_errno(),
        E::FAULT
    );
    assert_eq!(
        a.exchange().edit(|arg| arg.n_msgs = 1024).expect_errno(),
        E::AGAIN
    );
    a.expect_nothing();
}

#[case("abi.md#exchange-einval-size", "abi.md#exchange-einval-flags")]
fn checks_are_made_in_order(env: &Env) {
    let peer = env.peer();
    let bad = abi::CmdExchange {
        size: 145,
        flags: 1 << 40,
        ptr_slices: NOWHERE,
        n_slices: 1025,
        n_msgs: 1025,
        ..Default::default()
    };
    let page = Pages::new(1);
    page.poke(152, &[1]);
    let check = |arg: abi::CmdExchange, wanted| {
        page.poke(0, &arg.to_bytes());
        assert_eq!(
            peer.ioctl(abi::CMD_EXCHANGE, page.addr(0)),
            Err(wanted),
            "{arg:?}"
        );
    };
    check(bad, E::INVAL);
    let beyond = abi::CmdExchange { size: 160, ..bad };
    check(beyond, E::TOOBIG);
    let flags = abi::CmdExchange { size: 144, ..bad };
    check(flags, E::INVAL);
    let counts = abi::CmdExchange { flags: 1, ..flags };
    check(counts, E::MSGSIZE);
    // The message to send is checked after the slices, and the room for messages at last.
    let slices = abi::CmdExchange {
        n_slices: 1,
        n_msgs: 1,
        ..counts
    };
    check(slices, E::FAULT);
    let mut sending = abi::CmdExchange {
        n_slices: 0,
        ..slices
    };
    sending.send.flags = 1 << 40;
    check(sending, E::INVAL);
    sending.send.flags = 0;
    check(sending, E::AGAIN);
}

/// A change of the argument.
type Edit = fn(&mut abi::CmdExchange);

#[case("abi.md#no-trace")]
fn refused_argument_does_nothing(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"held");
    let held = a.expect_text(b"held").msg.offset;
    b.expect_sent(to, b"waits");
    let own = a.new_node();
    let full = || {
        let message = a.message().to(&[own]).bytes(b"not sent");
        a.exchange().release(&[held]).send(message).room(1)
    };
    let edits: [(Edit, E); 4] = [
        (|arg| arg.size = 136, E::INVAL),
        (|arg| arg.flags |= 4, E::INVAL),
        (|arg| arg.n_slices = 1025, E::MSGSIZE),
        (|arg| arg.n_msgs = 1025, E::MSGSIZE),
    ];
    for (edit, wanted) in edits {
        let mut exchange = full().edit(edit);
        let before = exchange.arg;
        assert_eq!(exchange.call(), Err(wanted));
        assert_eq!(exchange.arg, before, "it is not touched either");
    }
    a.expect_text(b"waits");
    a.expect_nothing();
    assert_eq!(a.release_slice(held), Ok(()));
}

#[case("abi.md#exchange-receive")]
fn empty_request_does_nothing(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"stays");
    for deadline in [abi::DEADLINE_NOW, 1, abi::DEADLINE_NEVER] {
        let mut exchange = a.exchange().until(deadline);
        let before = exchange.arg;
        assert_eq!(exchange.call(), Ok(()));
        assert_eq!(exchange.arg, before);
        // Without SEND the message is not read.
        let bad = a.exchange().until(deadline).edit(|arg| {
            arg.send.flags = u64::MAX;
            arg.send.ptr_vecs = NOWHERE;
            arg.send.n_vecs = u64::MAX;
        });
        assert!({ bad }.expect_messages().is_empty());
    }
    a.expect_text(b"stays");
    a.expect_nothing();
}

#[case("abi.md#exchange-release")]
fn only_releases(env: &Env) {
    let (a, b, to) = env.linked();
    let held: Vec<u64> = (0..5)
        .map(|_| {
            b.expect_sent(to, b"held");
            a.expect_text(b"held").msg.offset
        })
        .collect();
    b.expect_sent(to, b"stays");
    assert!(a
        .exchange()
        .release(&held)
        .patient()
        .expect_messages()
        .is_empty());
    for offset in held {
        assert_eq!(a.release_slice(offset), Err(E::NXIO));
    }
    a.expect_text(b"stays");
}

#[case("abi.md#exchange-send")]
fn only_sends(env: &Env) {
    let (a, b, to) = env.linked();
    let message = b.message().to(&[to]).bytes(b"sent");
    let mut exchange = b.exchange().send(message).patient();
    assert_eq!(exchange.call(), Ok(()));
    a.expect_text(b"sent");
    assert_eq!(exchange.call(), Ok(()));
    a.expect_text(b"sent");
    a.expect_nothing();
}

#[case("abi.md#exchange-receive")]
fn only_receives(env: &Env) {
    let (a, b, to) = env.linked();
    for deadline in [abi::DEADLINE_NOW, 1, abi::DEADLINE_NEVER] {
        b.expect_sent(to, b"there");
        let message = a.exchange().room(1).until(deadline).expect_one();
        assert_eq!(message.bytes, b"there");
        assert_eq!(message.msg.kind, abi::MSG_DATA);
        a.release_slice(message.msg.offset).unwrap();
    }
    a.expect_nothing();
}

#[case(
    "abi.md#exchange-release",
    "abi.md#exchange-send",
    "abi.md#exchange-receive"
)]
fn all_three_in_one_call(env: &Env) {
    let [client, server] = env.peers();
    let (to_server, to_client) = (client.handle_of(&server), server.handle_of(&client));
    let mut held = None;
    for i in 0..20_u32 {
        server.expect_sent(to_client, &i.to_ne_bytes());
        let release = held.as_slice();
        let bytes = (i + 100).to_ne_bytes();
        let message = client.message().to(&[to_server]).bytes(&bytes);
        let got = client
            .exchange()
            .release(release)
            .send(message)
            .room(1)
            .patient()
            .expect_one();
        assert_eq!(got.bytes, i.to_ne_bytes());
        assert_eq!(client.count("slices"), 1, "the one before is gone");
        held = Some(got.msg.offset);
        let asked = server.expect_data();
        assert_eq!(asked.bytes, bytes);
        server.release_slice(asked.msg.offset).unwrap();
    }
    client.expect_nothing();
    server.expect_nothing();
}

#[case("abi.md#exchange-send")]
fn release_comes_before_send(env: &Env) {
    let peer = env.peer();
    let own = peer.new_node();
    // Half of it for its own messages: one slice.
    peer.limit(Limits {
        slices: 2,
        ..Limits::KEEP
    })
    .unwrap();
    peer.expect_sent(own, b"first");
    let held = peer.expect_text(b"first").msg.offset;
    let message = || peer.message().to(&[own]).bytes(b"second");
    assert_eq!(
        peer.exchange().send(message()).room(1).expect_errno(),
        E::DQUOT
    );
    let got = peer
        .exchange()
        .release(&[held])
        .send(message())
        .room(1)
        .expect_one();
    assert_eq!(got.bytes, b"second");
}

#[case("abi.md#exchange-receive")]
fn own_message_is_received(env: &Env) {
    let peer = env.peer();
    let own = peer.new_node();
    let message = peer.message().to(&[own]).bytes(b"note");
    let got = peer.exchange().send(message).room(1).patient().expect_one();
    assert_eq!((got.msg.destination, &*got.bytes), (own, &b"note"[..]));
    peer.expect_nothing();
}

#[case("abi.md#exchange-send")]
fn multicast_and_its_errors(env: &Env) {
    let [sender, a, b] = env.peers();
    let (to_a, to_b) = (sender.handle_of(&a), sender.handle_of(&b));
    let (node, dead) = a.node_for(&sender);
    a.destroy_and_release(&[node]).unwrap();
    sender.expect_node_destroy(dead);
    let message = sender
        .message()
        .to(&[to_a, dead, to_b])
        .bytes(b"to all")
        .proceed();
    let mut exchange = sender.exchange().send(message);
    assert_eq!(exchange.call(), Ok(()));
    assert_eq!(exchange.errors, [0, libc::EHOSTUNREACH, 0]);
    a.expect_text(b"to all");
    b.expect_text(b"to all");
}

#[case("abi.md#exchange-send")]
fn seed_is_set(env: &Env) {
    let peer = env.peer();
    let message = peer.message().bytes(b"state").seed();
    assert_eq!(
        peer.exchange().send(message).room(1).expect_errno(),
        E::AGAIN
    );
    assert_eq!(peer.recv_seed().unwrap().bytes, b"state");
}

#[case("abi.md#id-clear")]
fn creates_nodes(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let node = a.new_node();
    let message = a.message().to(&[to]).handles(&[node]);
    assert!(a.exchange().send(message).expect_messages().is_empty());
    let id = b.expect_data().expect_handle();
    b.expect_sent(id, b"to the new node");
    assert_eq!(a.expect_text(b"to the new node").msg.destination, node);
}
