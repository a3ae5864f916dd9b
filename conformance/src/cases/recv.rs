// SPDX-License-Identifier: MIT OR Apache-2.0

//! RECV.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::read_only;

#[case("abi.md#recv-eagain")]
fn nothing_ready_is_eagain(env: &Env) {
    let peer = env.peer();
    for flags in [0, abi::RECV_FLAG_INSTALL_FDS, abi::RECV_FLAG_SEED] {
        assert_eq!(peer.receive().flags(flags).expect_errno(), E::AGAIN);
    }
    assert_eq!(peer.receive().max_offset(0).expect_errno(), E::AGAIN);
}

#[case("abi.md#recv-erange", "abi.md#recv-stays")]
fn slice_beyond_max_offset_is_erange(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"too far").send().unwrap();
    for _ in 0..3 {
        assert_eq!(a.receive().max_offset(0).expect_errno(), E::RANGE);
        assert_eq!(a.receive().max_offset(7).expect_errno(), E::RANGE);
    }
    assert!(a.events().readable);
    a.expect_text(b"too far");
}

#[case("abi.md#recv-erange")]
fn max_offset_at_the_end_is_enough(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(&[1; 24]).send().unwrap();
    let offset = a.expect_text(&[1; 24]).msg.offset;
    a.release_slice(offset).unwrap();
    b.message().to(&[to]).bytes(&[2; 24]).send().unwrap();
    let refused = (0..1 << 16)
        .step_by(8)
        .find(|&end| match a.receive().max_offset(end).run() {
            Err(E::RANGE) => false,
            Ok(message) => {
                assert_eq!(message.msg.offset + 24, end, "the first end that is enough");
                true
            }
            Err(errno) => panic!("RECV says {errno:?}"),
        });
    assert!(
        refused.is_some(),
        "a fresh pool is not filled from its beginning"
    );
}

#[case("abi.md#recv-erange")]
fn max_offset_covers_handles_and_descriptors(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let null = std::fs::File::open("/dev/null").unwrap();
    let send = || {
        let message = b
            .message()
            .to(&[to])
            .bytes(b"seven..")
            .handles(&[b.new_node()]);
        message.fds(&[null.as_raw_fd()]).send().unwrap();
    };
    send();
    let offset = a.expect_data().msg.offset;
    a.release_slice(offset).unwrap();
    send();
    let message = (0..1 << 16).step_by(4).find_map(|end| {
        let result = a.receive().max_offset(end).run();
        assert!(result.is_ok() || result.as_ref().err() == Some(&E::RANGE));
        result.ok().map(|message| (message, end))
    });
    let (message, end) = message.expect("a fresh pool is not filled from its beginning");
    assert_eq!(
        message.msg.offset + 24,
        end,
        "payload, handle and descriptor are in it"
    );
    assert_eq!((message.handles.len(), message.fds.len()), (1, 1));
}

#[case("abi.md#recv-erange")]
fn notices_need_no_room(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    b.release(id).unwrap();
    let msg = a.receive().max_offset(0).run().unwrap().msg;
    assert_eq!((msg.kind, msg.destination), (abi::MSG_NODE_RELEASE, node));
}

#[case("abi.md#recv-head", "abi.md#notify-free")]
fn notices_have_no_slice(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    a.destroy(&[node]).unwrap();
    let expected = abi::Msg {
        kind: abi::MSG_NODE_DESTROY,
        flags: 0,
        destination: id,
        offset: abi::OFFSET_INVALID,
        n_bytes: 0,
        n_handles: 0,
        n_fds: 0,
    };
    assert_eq!(b.expect_message().msg, expected);
    a.expect_node_destroy(node);
    let (node, id) = a.node_for(&b);
    b.release(id).unwrap();
    let kind = abi::MSG_NODE_RELEASE;
    assert_eq!(
        a.expect_message().msg,
        abi::Msg {
            kind,
            destination: node,
            ..expected
        }
    );
}

#[case("abi.md#recv-efault", "abi.md#recv-stays")]
fn fault_on_the_way_out_keeps_the_message(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.message()
        .to(&[to])
        .bytes(b"precious")
        .handles(&[node])
        .send()
        .unwrap();
    let page = read_only(
        &abi::CmdRecv {
            max_offset: a.mapped(),
            ..Default::default()
        }
        .to_bytes(),
    );
    for _ in 0..5 {
        assert_eq!(a.ioctl(abi::CMD_RECV, page.addr(0)), Err(E::FAULT));
    }
    b.expect_nothing();
    let id = a.expect_text(b"precious").expect_handle();
    a.expect_nothing();
    a.release(id).unwrap();
    assert_eq!(a.release(id), Err(E::NXIO), "it came with one reference");
    b.expect_node_release(node);
}

#[case("abi.md#recv-efault", "abi.md#recv-stays")]
fn fault_on_the_way_out_keeps_a_notice(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    b.release(id).unwrap();
    let page = read_only(&abi::CmdRecv::default().to_bytes());
    for _ in 0..3 {
        assert_eq!(a.ioctl(abi::CMD_RECV, page.addr(0)), Err(E::FAULT));
    }
    a.expect_node_release(node);
    a.expect_nothing();
}

#[case("abi.md#recv-fds")]
fn without_install_descriptors_are_dropped(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let (mut out, into) = std::io::pipe().unwrap();
    b.message()
        .to(&[to])
        .bytes(b"x")
        .fds(&[into.as_raw_fd()])
        .send()
        .unwrap();
    drop(into);
    let message = a.receive().flags(0).run().unwrap();
    assert_eq!((message.msg.n_fds, &*message.bytes), (0, &b"x"[..]));
    let mut all = Vec::new();
    out.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"", "the other end is closed");
}

#[case("abi.md#recv-handles", "abi.md#ref-message")]
fn without_install_handles_still_come(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message()
        .to(&[to])
        .handles(&[b.new_node()])
        .send()
        .unwrap();
    let id = a.receive().flags(0).run().unwrap().expect_handle();
    assert_eq!(a.message().to(&[id]).send(), Ok(()));
    b.expect_data();
}

#[case("ordering.md#causality")]
fn messages_of_many_senders_keep_their_order(env: &Env) {
    let receiver = env.peer();
    let senders: [_; 7] = env.peers();
    let to = senders.each_ref().map(|sender| sender.handle_of(&receiver));
    for i in 0..200_u32 {
        let sender = (i * 5 % 7) as usize;
        senders[sender]
            .message()
            .to(&[to[sender]])
            .bytes(&i.to_ne_bytes())
            .send()
            .unwrap();
    }
    for i in 0..200_u32 {
        receiver.expect_text(&i.to_ne_bytes());
    }
}

#[case("abi.md#concurrent-callers")]
fn threads_that_receive_share_the_messages(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    const ALL: u32 = 2000;
    let taken = AtomicUsize::new(0);
    let mut got = std::thread::scope(|scope| {
        let receive = || {
            let mut mine = Vec::new();
            while taken.load(Ordering::Relaxed) < ALL as usize {
                match a.recv() {
                    Ok(message) => {
                        taken.fetch_add(1, Ordering::Relaxed);
                        a.release_slice(message.msg.offset).unwrap();
                        mine.push(u32::from_ne_bytes(message.bytes.try_into().unwrap()));
                    }
                    Err(E::AGAIN) => std::thread::yield_now(),
                    Err(errno) => panic!("RECV says {errno:?}"),
                }
            }
            assert!(mine.is_sorted(), "each thread sees the order");
            mine
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(receive)).collect();
        for i in 0..ALL {
            b.message()
                .to(&[to])
                .bytes(&i.to_ne_bytes())
                .send()
                .unwrap();
        }
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    got.sort_unstable();
    assert_eq!(got, (0..ALL).collect::<Vec<_>>(), "each message once");
}

#[case("ordering.md#ready")]
fn thousands_of_messages_wait(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for i in 0..5000_u32 {
        b.message()
            .to(&[to])
            .bytes(&i.to_ne_bytes())
            .send()
            .unwrap();
    }
    for i in 0..5000_u32 {
        a.expect_text(&i.to_ne_bytes());
    }
    a.expect_nothing();
}

#[case("abi.md#send-keeps")]
fn receiving_is_no_acknowledgement(env: &Env) {
    let [a, b] = env.peers();
    let (_, to_a) = a.node_for(&b);
    let (_, to_b) = b.node_for(&a);
    for _ in 0..100 {
        a.message().to(&[to_b]).send().unwrap();
        b.message().to(&[to_a]).send().unwrap();
    }
    assert_eq!((a.expect_all().len(), b.expect_all().len()), (100, 100));
}

#[case("abi.md#send-keeps")]
fn dead_sender_does_not_matter(env: &Env) {
    let receiver = env.peer();
    for i in 0..10_u8 {
        let sender = env.peer();
        let to = sender.handle_of(&receiver);
        sender.message().to(&[to]).bytes(&[i]).send().unwrap();
        sender.close();
    }
    let data = receiver
        .expect_all()
        .into_iter()
        .filter(|message| message.msg.kind == abi::MSG_DATA);
    let bytes: Vec<_> = data.map(|message| message.bytes[0]).collect();
    assert_eq!(bytes, (0..10).collect::<Vec<_>>());
}

#[case("abi.md#mmap-size")]
fn offsets_are_in_the_pool(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for len in [0, 1, 100, 10_000, 1 << 20] {
        b.message().to(&[to]).bytes(&vec![3; len]).send().unwrap();
        let msg = a.expect_data().msg;
        assert!(
            msg.offset % 8 == 0 && msg.offset + msg.n_bytes <= 1 << 32,
            "{msg:?}"
        );
    }
}
