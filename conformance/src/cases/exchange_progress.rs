// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE that fails in the middle: it writes the remaining work back, so that the same call
//! again does exactly that work.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Peer, UNKNOWN_ID};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{before_hole, read_only, Pages, PAGE};
use crate::sys::process::{open_descriptors, DescriptorLimit};
use crate::sys::thread::monotonic;

/// Slices that the peer has received.
fn held<const N: usize>(peer: &Peer) -> [u64; N] {
    let own = peer.new_node();
    std::array::from_fn(|_| {
        peer.expect_sent(own, b"held");
        peer.expect_text(b"held").msg.offset
    })
}

#[case("abi.md#exchange-enxio", "abi.md#exchange-left")]
fn failing_slice_stops_it(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let [first, second] = held(&a);
    let message = a.message().to(&[to]).bytes(b"at last");
    let offsets = [first, 1 << 31, second];
    let mut exchange = a.exchange().release(&offsets).send(message).room(4);
    let before = exchange.arg;
    let left = abi::CmdExchange {
        ptr_slices: before.ptr_slices + 8,
        n_slices: 2,
        ..before
    };
    for _ in 0..3 {
        assert_eq!(exchange.call(), Err(E::NXIO));
        assert_eq!(exchange.arg, left, "one slice is done");
    }
    assert_eq!(a.release_slice(first), Err(E::NXIO));
    b.expect_nothing();
    // The caller takes the bad one off.
    exchange.arg.ptr_slices += 8;
    exchange.arg.n_slices -= 1;
    assert_eq!(exchange.call(), Err(E::AGAIN));
    assert_eq!(a.release_slice(second), Err(E::NXIO));
    b.expect_text(b"at last");
    b.expect_nothing();
}

#[case("abi.md#exchange-enxio")]
fn slice_named_twice(env: &Env) {
    let a = env.peer();
    let [first, second] = held(&a);
    let mut exchange = a.exchange().release(&[first, first, second]);
    assert_eq!(exchange.call(), Err(E::NXIO));
    assert_eq!(exchange.arg.n_slices, 2);
    assert_eq!(a.release_slice(second), Ok(()));
}

#[case("abi.md#exchange-efault-slices", "abi.md#exchange-left")]
fn unreadable_offset_stops_it(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let offsets: [u64; 2] = held(&a);
    let bytes: Vec<u8> = offsets
        .iter()
        .flat_map(|offset| offset.to_ne_bytes())
        .collect();
    let (_page, addr) = before_hole(&bytes);
    let message = a.message().to(&[to]).bytes(b"not sent");
    let mut exchange = a.exchange().send(message).edit(|arg| {
        arg.ptr_slices = addr;
        arg.n_slices = 3;
    });
    assert_eq!(exchange.call(), Err(E::FAULT));
    assert_eq!(
        (exchange.arg.ptr_slices, exchange.arg.n_slices),
        (addr + 16, 1)
    );
    assert_eq!(
        exchange.arg.flags & abi::EXCHANGE_FLAG_SEND,
        abi::EXCHANGE_FLAG_SEND
    );
    assert!(offsets
        .iter()
        .all(|&offset| a.release_slice(offset) == Err(E::NXIO)));
    b.expect_nothing();
}

#[case("abi.md#exchange-left", "abi.md#exchange-send-errors")]
fn failing_send_is_left_to_do(env: &Env) {
    let [a, b] = env.peers();
    let [slice] = held(&a);
    let (node, dead) = b.node_for(&a);
    b.destroy_and_release(&[node]).unwrap();
    a.expect_node_destroy(dead);
    let to_a = b.handle_of(&a);
    b.expect_sent(to_a, b"stays");
    let message = a.message().to(&[dead]).bytes(b"to nobody");
    let mut exchange = a
        .exchange()
        .release(&[slice])
        .send(message)
        .room(1)
        .patient();
    let before = exchange.arg;
    let left = abi::CmdExchange {
        ptr_slices: before.ptr_slices + 8,
        n_slices: 0,
        ..before
    };
    for _ in 0..3 {
        assert_eq!(exchange.call(), Err(E::HOSTUNREACH));
        assert_eq!(
            exchange.arg, left,
            "the slices are done, the message is not"
        );
    }
    assert_eq!(a.release_slice(slice), Err(E::NXIO));
    // The caller gives the message up.
    exchange.arg.flags &= !abi::EXCHANGE_FLAG_SEND;
    assert_eq!(exchange.expect_messages()[0].bytes, b"stays");
}

/// A change of the message.
type Edit = fn(&mut abi::CmdSend);

#[case("abi.md#exchange-send-errors")]
fn failing_send_reports_destinations(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let mut errors = [7_i32; 2];
    let addr = errors.as_mut_ptr().expose_provenance() as u64;
    let message = a
        .message()
        .to(&[to, UNKNOWN_ID])
        .edit(|arg| arg.ptr_errors = addr);
    let mut exchange = a.exchange().send(message);
    assert_eq!(exchange.call(), Err(E::NXIO));
    assert_eq!(errors, [0, libc::ENXIO]);
    // All that SEND refuses, it refuses here.
    let bad: [(Edit, E); 4] = [
        (|arg| arg.flags = 4, E::INVAL),
        (|arg| arg.n_vecs = 1025, E::MSGSIZE),
        (|arg| arg.n_fds = 257, E::MSGSIZE),
        (|arg| arg.n_handles = u64::MAX, E::INVAL),
    ];
    for (edit, wanted) in bad {
        let message = a.message().to(&[to]).edit(edit);
        assert_eq!(a.exchange().send(message).expect_errno(), wanted);
    }
    b.expect_nothing();
}

#[case("abi.md#exchange-left", "abi.md#exchange-eagain")]
fn sent_and_nothing_ready(env: &Env) {
    let [a, b] = env.peers();
    let (to_a, to_b) = (b.handle_of(&a), a.handle_of(&b));
    let [slice] = held(&a);
    let message = a.message().to(&[to_b]).bytes(b"once");
    let mut exchange = a.exchange().release(&[slice]).send(message).room(2);
    let before = exchange.arg;
    let left = abi::CmdExchange {
        flags: before.flags & !abi::EXCHANGE_FLAG_SEND,
        ptr_slices: before.ptr_slices + 8,
        n_slices: 0,
        ..before
    };
    for _ in 0..3 {
        assert_eq!(exchange.call(), Err(E::AGAIN));
        assert_eq!(exchange.arg, left, "all is done but to receive");
    }
    b.expect_text(b"once");
    b.expect_nothing();
    b.expect_sent(to_a, b"answer");
    assert_eq!(exchange.expect_messages()[0].bytes, b"answer");
    b.expect_nothing();
}

#[case("abi.md#exchange-left", "abi.md#exchange-etimedout")]
fn sent_and_timed_out(env: &Env) {
    let [a, b] = env.peers();
    let to_b = a.handle_of(&b);
    let message = a.message().to(&[to_b]).bytes(b"once");
    let deadline = monotonic() + 3_000_000;
    let mut exchange = a.exchange().send(message).room(1).until(deadline);
    for _ in 0..3 {
        assert_eq!(exchange.call(), Err(E::TIMEDOUT));
        assert_eq!(exchange.arg.flags, abi::EXCHANGE_FLAG_INSTALL_FDS);
        assert_eq!((exchange.arg.n_msgs, exchange.arg.deadline), (1, deadline));
    }
    b.expect_text(b"once");
    b.expect_nothing();
}

#[case("abi.md#exchange-left", "abi.md#exchange-erange")]
fn sent_and_refused_to_receive(env: &Env) {
    let [a, b] = env.peers();
    let (to_a, to_b) = (b.handle_of(&a), a.handle_of(&b));
    b.expect_sent(to_a, b"too far");
    let message = a.message().to(&[to_b]).bytes(b"once");
    let mut exchange = a.exchange().send(message).room(3).max_offset(0).patient();
    for _ in 0..2 {
        assert_eq!(exchange.call(), Err(E::RANGE));
        assert_eq!((exchange.arg.flags, exchange.arg.n_msgs), (2, 3));
    }
    exchange.arg.max_offset = a.mapped();
    assert_eq!(exchange.expect_messages()[0].bytes, b"too far");
    b.expect_text(b"once");
    b.expect_nothing();
}

#[case("abi.md#exchange-batch")]
fn erange_ends_a_batch(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"near");
    let far = vec![b'-'; 1 << 20];
    b.expect_sent(to, &far);
    // One more byte each time, until the first is in reach.
    let mut end = 0;
    let all = loop {
        let mut exchange = a.exchange().room(4).max_offset(end);
        match exchange.call() {
            Ok(()) => break exchange.messages(),
            Err(errno) => assert_eq!((errno, exchange.arg.n_msgs), (E::RANGE, 4)),
        }
        end += 8;
        assert!(
            end < 1 << 16,
            "a small slice in an empty pool is not near its beginning"
        );
    };
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].bytes, b"near");
    assert_eq!(
        a.exchange().room(4).max_offset(end).expect_errno(),
        E::RANGE
    );
    assert!(a.exchange().room(4).expect_one().bytes == far);
}

/// Fills the descriptor table, so that no descriptor can be opened.
fn full_table() -> (DescriptorLimit, Vec<std::os::fd::OwnedFd>) {
    let highest = *open_descriptors().last().expect("some are always open");
    let limit = DescriptorLimit::new(highest + 1);
    let mut fill = Vec::new();
    while let Ok(fd) = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC) {
        fill.push(fd);
    }
    (limit, fill)
}

#[case("abi.md#exchange-emfile", alone)]
fn emfile_stops_the_first(env: &Env) {
    let (a, b, to) = env.linked();
    let null = File::open("/dev/null").unwrap();
    b.message()
        .to(&[to])
        .bytes(b"file")
        .fds(&[null.as_raw_fd()])
        .send()
        .unwrap();
    a.view();
    let mut exchange = a.exchange().room(3).patient();
    let before = exchange.arg;
    let full = full_table();
    for _ in 0..3 {
        assert_eq!(exchange.call(), Err(E::MFILE));
        assert_eq!(exchange.arg, before, "there is room for three still");
    }
    drop(full);
    assert_eq!(exchange.expect_messages()[0].fds.len(), 1);
    a.expect_nothing();
}

#[case("abi.md#exchange-batch", alone)]
fn emfile_ends_a_batch(env: &Env) {
    let (a, b, to) = env.linked();
    let null = File::open("/dev/null").unwrap();
    b.expect_sent(to, b"plain");
    b.message()
        .to(&[to])
        .bytes(b"file")
        .fds(&[null.as_raw_fd()])
        .send()
        .unwrap();
    a.view();
    let mut exchange = a.exchange().room(3);
    let full = full_table();
    assert_eq!(exchange.call(), Ok(()));
    assert_eq!(exchange.arg.n_msgs, 1);
    assert_eq!(
        a.exchange().room(3).expect_errno(),
        E::MFILE,
        "it comes up again"
    );
    drop(full);
    assert_eq!(exchange.messages()[0].bytes, b"plain");
    assert_eq!(a.expect_text(b"file").fds.len(), 1);
}

#[case("abi.md#exchange-efault-msgs")]
fn no_memory_for_the_first(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"not lost");
    let page = read_only(&[0; 64]);
    for n in [1, 2] {
        let mut exchange = a
            .exchange()
            .room(n)
            .edit(|arg| arg.ptr_msgs = page.addr(0))
            .patient();
        let before = exchange.arg;
        assert_eq!(exchange.call(), Err(E::FAULT));
        assert_eq!(exchange.arg, before);
        let above = a.exchange().room(n).edit(|arg| arg.ptr_msgs = u64::MAX - 7);
        assert_eq!(above.expect_errno(), E::FAULT);
    }
    a.expect_text(b"not lost");
    a.expect_nothing();
}

#[case("abi.md#exchange-batch")]
fn no_memory_for_the_second(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"first");
    b.expect_sent(to, b"second");
    let (page, addr) = before_hole(&[0; abi::Msg::SIZE + 8]);
    let mut exchange = a.exchange().room(3).edit(|arg| arg.ptr_msgs = addr);
    assert_eq!(exchange.call(), Ok(()));
    assert_eq!(exchange.arg.n_msgs, 1);
    let bytes = page.peek(PAGE - abi::Msg::SIZE - 8, abi::Msg::SIZE);
    let msg = abi::Msg::from_bytes(&bytes.try_into().unwrap());
    assert_eq!(a.read_pool(msg.offset, msg.n_bytes), b"first");
    a.expect_text(b"second");
    a.expect_nothing();
}

/// Returns the argument in memory that cannot be written.
fn frozen(arg: &abi::CmdExchange) -> Pages {
    read_only(&arg.to_bytes())
}

#[case("abi.md#exchange-efault-msgs")]
fn no_memory_for_the_count(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"not lost");
    let exchange = a.exchange().room(2).patient();
    let page = frozen(&exchange.arg);
    for _ in 0..2 {
        assert_eq!(a.ioctl(abi::CMD_EXCHANGE, page.addr(0)), Err(E::FAULT));
    }
    a.expect_text(b"not lost");
    a.expect_nothing();
}

#[case("abi.md#exchange-room")]
fn one_message_needs_no_count(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"one");
    let mut exchange = a.exchange().room(1).patient();
    let page = frozen(&exchange.arg);
    assert_eq!(a.ioctl(abi::CMD_EXCHANGE, page.addr(0)), Ok(()));
    assert_eq!(exchange.messages()[0].bytes, b"one");
}

#[case("abi.md#exchange-efault-left")]
fn no_memory_for_the_remaining_work(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let message = a.message().to(&[to]).bytes(b"sent all the same");
    let exchange = a.exchange().send(message).room(1);
    let page = frozen(&exchange.arg);
    // Not EAGAIN: the structure does not have the remaining work.
    assert_eq!(a.ioctl(abi::CMD_EXCHANGE, page.addr(0)), Err(E::FAULT));
    b.expect_text(b"sent all the same");
    b.expect_nothing();
}

#[case("abi.md#exchange-deadline", "abi.md#exchange-eagain")]
fn no_wait_at_all(env: &Env) {
    let a = env.peer();
    assert_eq!(a.exchange().room(1).expect_errno(), E::AGAIN);
    assert_eq!(a.exchange().room(7).expect_errno(), E::AGAIN);
}

#[case("abi.md#exchange-deadline")]
fn past_deadline(env: &Env) {
    let (a, b, to) = env.linked();
    for deadline in [1, 1_000, monotonic() - 1, monotonic()] {
        assert_eq!(
            a.exchange().room(1).until(deadline).expect_errno(),
            E::TIMEDOUT
        );
        b.expect_sent(to, b"there");
        assert_eq!(
            a.exchange().room(1).until(deadline).expect_one().bytes,
            b"there"
        );
    }
}

#[case("abi.md#exchange-deadline")]
fn future_deadline(env: &Env) {
    let a = env.peer();
    for nanoseconds in [1, 1_000, 1_000_000, 20_000_000] {
        let deadline = monotonic() + nanoseconds;
        assert_eq!(
            a.exchange().room(1).until(deadline).expect_errno(),
            E::TIMEDOUT
        );
        assert!(
            monotonic() >= deadline,
            "it gave up before {nanoseconds} ns were over"
        );
    }
}
