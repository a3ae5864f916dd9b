// SPDX-License-Identifier: MIT OR Apache-2.0

//! RECV.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use bus1_uapi as abi;

use super::Case;
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::read_only;

pub const CASES: &[Case] = &[
    case!(nothing_ready_is_eagain, "5 RECV: nothing ready EAGAIN"),
    case!(slice_beyond_max_offset_is_erange, "5 RECV: ERANGE, and the message stays"),
    case!(max_offset_at_the_end_is_enough, "5 RECV: a slice that ends beyond max_offset"),
    case!(max_offset_covers_handles_and_descriptors, "5 RECV: a slice that ends beyond"),
    case!(notices_need_no_room, "5 RECV: for notifications offset is OFFSET_INVALID"),
    case!(notices_have_no_slice, "5 RECV: OFFSET_INVALID and the counts are 0"),
    case!(fault_on_the_way_out_keeps_the_message, "5: EFAULT on the way out included"),
    case!(fault_on_the_way_out_keeps_a_notice, "5: EFAULT on the way out included"),
    case!(without_install_descriptors_are_dropped, "5 RECV: the files are dropped, n_fds is 0"),
    case!(without_install_handles_still_come, "5 RECV: handles get IDs and user references"),
    case!(messages_of_many_senders_keep_their_order, "3.2: causality"),
    case!(threads_that_receive_share_the_messages, "2: one peer is one message queue"),
    case!(thousands_of_messages_wait, "3.5: a send that returned is receivable"),
    case!(receiving_is_no_acknowledgement, "5 SEND, RECV: a send does not wait"),
    case!(dead_sender_does_not_matter, "2: it belongs to no process"),
    case!(offsets_are_in_the_pool, "6: up to 4 GiB of address space"),
];

fn nothing_ready_is_eagain(env: &Env) {
    let peer = env.peer();
    for flags in [0, abi::RECV_FLAG_INSTALL_FDS, abi::RECV_FLAG_SEED] {
        assert_eq!(peer.receive().flags(flags).refused(), E::AGAIN);
    }
    assert_eq!(peer.receive().max_offset(0).refused(), E::AGAIN);
}

fn slice_beyond_max_offset_is_erange(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(b"too far").send().unwrap();
    for _ in 0..3 {
        assert_eq!(a.receive().max_offset(0).refused(), E::RANGE);
        assert_eq!(a.receive().max_offset(7).refused(), E::RANGE);
    }
    assert!(a.events().readable);
    a.text(b"too far");
}

fn max_offset_at_the_end_is_enough(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).bytes(&[1; 24]).send().unwrap();
    let offset = a.text(&[1; 24]).msg.offset;
    a.release_slice(offset).unwrap();
    b.message().to(&[to]).bytes(&[2; 24]).send().unwrap();
    let refused = (0..1 << 16).step_by(8).find(|&end| {
        match a.receive().max_offset(end).run() {
            Err(E::RANGE) => false,
            Ok(message) => {
                assert_eq!(message.msg.offset + 24, end, "the first end that is enough");
                true
            }
            Err(errno) => panic!("RECV says {errno:?}"),
        }
    });
    assert!(refused.is_some(), "a fresh pool is not filled from its beginning");
}

fn max_offset_covers_handles_and_descriptors(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let null = std::fs::File::open("/dev/null").unwrap();
    let send = || {
        let message = b.message().to(&[to]).bytes(b"seven..").handles(&[b.new_node()]);
        message.fds(&[null.as_raw_fd()]).send().unwrap();
    };
    send();
    let offset = a.data().msg.offset;
    a.release_slice(offset).unwrap();
    send();
    let message = (0..1 << 16).step_by(4).find_map(|end| {
        let result = a.receive().max_offset(end).run();
        assert!(result.is_ok() || result.as_ref().err() == Some(&E::RANGE));
        result.ok().map(|message| (message, end))
    });
    let (message, end) = message.expect("a fresh pool is not filled from its beginning");
    assert_eq!(message.msg.offset + 24, end, "payload, handle and descriptor are in it");
    assert_eq!((message.handles.len(), message.fds.len()), (1, 1));
}

fn notices_need_no_room(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    b.release(id).unwrap();
    let msg = a.receive().max_offset(0).run().unwrap().msg;
    assert_eq!((msg.kind, msg.destination), (abi::MSG_NODE_RELEASE, node));
}

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
    assert_eq!(b.any().msg, expected);
    a.node_destroy(node);
    let (node, id) = a.node_for(&b);
    b.release(id).unwrap();
    let kind = abi::MSG_NODE_RELEASE;
    assert_eq!(a.any().msg, abi::Msg { kind, destination: node, ..expected });
}

fn fault_on_the_way_out_keeps_the_message(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let node = b.new_node();
    b.message().to(&[to]).bytes(b"precious").handles(&[node]).send().unwrap();
    let page = read_only(&abi::CmdRecv { max_offset: a.mapped(), ..Default::default() }.to_bytes());
    for _ in 0..5 {
        assert_eq!(a.ioctl(abi::CMD_RECV, page.addr(0)), Err(E::FAULT));
    }
    b.nothing();
    let id = a.text(b"precious").handle();
    a.nothing();
    a.release(id).unwrap();
    assert_eq!(a.release(id), Err(E::NXIO), "it came with one reference");
    b.node_release(node);
}

fn fault_on_the_way_out_keeps_a_notice(env: &Env) {
    let [a, b] = env.peers();
    let (node, id) = a.node_for(&b);
    b.release(id).unwrap();
    let page = read_only(&abi::CmdRecv::default().to_bytes());
    for _ in 0..3 {
        assert_eq!(a.ioctl(abi::CMD_RECV, page.addr(0)), Err(E::FAULT));
    }
    a.node_release(node);
    a.nothing();
}

fn without_install_descriptors_are_dropped(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    let (mut out, into) = std::io::pipe().unwrap();
    b.message().to(&[to]).bytes(b"x").fds(&[into.as_raw_fd()]).send().unwrap();
    drop(into);
    let message = a.receive().flags(0).run().unwrap();
    assert_eq!((message.msg.n_fds, &*message.bytes), (0, &b"x"[..]));
    let mut all = Vec::new();
    out.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"", "the other end is closed");
}

fn without_install_handles_still_come(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    b.message().to(&[to]).handles(&[b.new_node()]).send().unwrap();
    let id = a.receive().flags(0).run().unwrap().handle();
    assert_eq!(a.message().to(&[id]).send(), Ok(()));
    b.data();
}

fn messages_of_many_senders_keep_their_order(env: &Env) {
    let receiver = env.peer();
    let senders: [_; 7] = env.peers();
    let to = senders.each_ref().map(|sender| sender.handle_of(&receiver));
    for i in 0..200_u32 {
        let sender = (i * 5 % 7) as usize;
        senders[sender].message().to(&[to[sender]]).bytes(&i.to_ne_bytes()).send().unwrap();
    }
    for i in 0..200_u32 {
        receiver.text(&i.to_ne_bytes());
    }
}

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
            b.message().to(&[to]).bytes(&i.to_ne_bytes()).send().unwrap();
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    got.sort_unstable();
    assert_eq!(got, (0..ALL).collect::<Vec<_>>(), "each message once");
}

fn thousands_of_messages_wait(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for i in 0..5000_u32 {
        b.message().to(&[to]).bytes(&i.to_ne_bytes()).send().unwrap();
    }
    for i in 0..5000_u32 {
        a.text(&i.to_ne_bytes());
    }
    a.nothing();
}

fn receiving_is_no_acknowledgement(env: &Env) {
    let [a, b] = env.peers();
    let (_, to_a) = a.node_for(&b);
    let (_, to_b) = b.node_for(&a);
    for _ in 0..100 {
        a.message().to(&[to_b]).send().unwrap();
        b.message().to(&[to_a]).send().unwrap();
    }
    assert_eq!((a.drain().len(), b.drain().len()), (100, 100));
}

fn dead_sender_does_not_matter(env: &Env) {
    let receiver = env.peer();
    for i in 0..10_u8 {
        let sender = env.peer();
        let to = sender.handle_of(&receiver);
        sender.message().to(&[to]).bytes(&[i]).send().unwrap();
        sender.close();
    }
    let data = receiver.drain().into_iter().filter(|message| message.msg.kind == abi::MSG_DATA);
    let bytes: Vec<_> = data.map(|message| message.bytes[0]).collect();
    assert_eq!(bytes, (0..10).collect::<Vec<_>>());
}

fn offsets_are_in_the_pool(env: &Env) {
    let [a, b] = env.peers();
    let (_, to) = a.node_for(&b);
    for len in [0, 1, 100, 10_000, 1 << 20] {
        b.message().to(&[to]).bytes(&vec![3; len]).send().unwrap();
        let msg = a.data().msg;
        assert!(msg.offset % 8 == 0 && msg.offset + msg.n_bytes <= 1 << 32, "{msg:?}");
    }
}
