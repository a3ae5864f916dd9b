// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE that receives many messages in one call.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::Message;
use crate::env::Env;
use crate::host::Errno as E;

/// Returns the payloads of messages that carry text.
fn texts(messages: &[Message]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| std::str::from_utf8(&message.bytes).unwrap())
        .collect()
}

#[case("abi.md#exchange-receive")]
fn as_many_as_there_is_room_for(env: &Env) {
    let (a, b, to) = env.linked();
    for text in ["1", "2", "3", "4", "5"] {
        b.expect_sent(to, text.as_bytes());
    }
    assert_eq!(texts(&a.exchange().room(2).expect_messages()), ["1", "2"]);
    assert_eq!(
        texts(&a.exchange().room(2).patient().expect_messages()),
        ["3", "4"]
    );
    a.expect_text(b"5");
    a.expect_nothing();
}

#[case("abi.md#exchange-receive")]
fn more_room_than_messages(env: &Env) {
    let (a, b, to) = env.linked();
    for text in ["1", "2", "3"] {
        b.expect_sent(to, text.as_bytes());
    }
    let mut exchange = a.exchange().room(100).patient();
    assert_eq!(exchange.call(), Ok(()));
    assert_eq!(
        exchange.arg.n_msgs, 3,
        "it does not wait for more than the first"
    );
    assert_eq!(texts(&exchange.messages()), ["1", "2", "3"]);
    b.expect_sent(to, b"4");
    assert_eq!(texts(&a.exchange().room(2).expect_messages()), ["4"]);
    a.expect_nothing();
}

#[case("abi.md#exchange-receive")]
fn a_thousand_at_once(env: &Env) {
    let (a, b, to) = env.linked();
    for i in 0..1030_u32 {
        b.expect_sent(to, &i.to_ne_bytes());
    }
    let all = a.exchange().room(1024).expect_messages();
    assert_eq!(all.len(), 1024);
    for (i, message) in all.iter().enumerate() {
        assert_eq!(message.bytes, (i as u32).to_ne_bytes());
    }
    // And all of their slices at once.
    let offsets: Vec<u64> = all.iter().map(|message| message.msg.offset).collect();
    let rest = a.exchange().release(&offsets).room(1024).expect_messages();
    assert_eq!(rest.len(), 6);
    assert!(offsets
        .iter()
        .all(|&offset| a.release_slice(offset) == Err(E::NXIO)));
}

#[case("abi.md#exchange-room")]
fn parts_in_a_row(env: &Env) {
    let [a, b] = env.peers();
    let pairs: [(u64, u64); 5] = std::array::from_fn(|_| a.node_for(&b));
    let to = pairs.map(|(_, id)| id);
    b.message().to(&to).bytes(b"part").send().unwrap();
    b.expect_sent(to[0], b"alone");
    let mut exchange = a.exchange().room(3);
    let mut all = exchange.expect_messages();
    assert!(
        all.iter().all(Message::more),
        "parts of it are still to come"
    );
    all.extend(a.exchange().room(3).expect_messages());
    let flags: Vec<bool> = all.iter().map(Message::more).collect();
    assert_eq!(flags, [true, true, true, true, false, false]);
    let nodes: Vec<u64> = all[..5]
        .iter()
        .map(|message| message.msg.destination)
        .collect();
    assert_eq!(nodes, pairs.map(|(node, _)| node));
    assert_eq!(all[5].bytes, b"alone");
}

#[case("abi.md#exchange-receive")]
fn notices_in_a_row(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let (released, id) = a.node_for(&b);
    let (destroyed, at_a) = b.node_for(&a);
    b.expect_sent(to, b"first");
    b.release(id).unwrap();
    b.expect_sent(to, b"second");
    b.destroy_and_release(&[destroyed]).unwrap();
    let all = a.exchange().room(8).expect_messages();
    let kinds: Vec<_> = all
        .iter()
        .map(|message| (message.msg.kind, message.msg.offset))
        .collect();
    assert_eq!([kinds[0].0, kinds[2].0], [abi::MSG_DATA; 2]);
    assert_eq!(kinds[1], (abi::MSG_NODE_RELEASE, abi::OFFSET_INVALID));
    assert_eq!(kinds[3], (abi::MSG_NODE_DESTROY, abi::OFFSET_INVALID));
    assert_eq!(
        (all[1].msg.destination, all[3].msg.destination),
        (released, at_a)
    );
    assert_eq!(all.len(), 4);
}

#[case("abi.md#recv-handles")]
fn handles_come_along(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let nodes: [u64; 3] = std::array::from_fn(|_| b.new_node());
    b.message().to(&[to]).handles(&nodes).send().unwrap();
    b.message().to(&[to]).handles(&nodes[..1]).send().unwrap();
    let all = a.exchange().room(2).expect_messages();
    assert_eq!(
        all[0].handles[0],
        all[1].expect_handle(),
        "the same node, the same ID"
    );
    for (&id, &node) in all[0].handles.iter().zip(&nodes) {
        a.expect_sent(id, b"back");
        assert_eq!(b.expect_text(b"back").msg.destination, node);
    }
    // Two messages, two references.
    let twice = all[1].expect_handle();
    assert_eq!(
        [0; 3].map(|_| a.release(twice)),
        [Ok(()), Ok(()), Err(E::NXIO)]
    );
}

#[case("abi.md#recv-fds")]
fn descriptors_come_along(env: &Env) {
    let (a, b, to) = env.linked();
    let null = File::open("/dev/null").unwrap();
    for n in [2, 0, 3] {
        b.message()
            .to(&[to])
            .bytes(b"files")
            .fds(&vec![null.as_raw_fd(); n])
            .send()
            .unwrap();
    }
    let all = a.exchange().room(3).expect_messages();
    let counts: Vec<_> = all.iter().map(|message| message.fds.len()).collect();
    assert_eq!(counts, [2, 0, 3]);
    let mut numbers: Vec<_> = all
        .iter()
        .flat_map(|message| &message.fds)
        .map(AsRawFd::as_raw_fd)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 5, "each is a number of its own");
}

#[case("abi.md#recv-fds")]
fn without_install_descriptors_are_dropped(env: &Env) {
    let (a, b, to) = env.linked();
    let (mut out, into) = std::io::pipe().unwrap();
    for _ in 0..2 {
        b.message()
            .to(&[to])
            .fds(&[into.as_raw_fd()])
            .send()
            .unwrap();
    }
    drop(into);
    let all = a
        .exchange()
        .room(2)
        .edit(|arg| arg.flags = 0)
        .expect_messages();
    assert!(all.iter().all(|message| message.msg.n_fds == 0));
    assert_eq!(
        std::io::Read::read(&mut out, &mut [0; 1]).unwrap(),
        0,
        "nobody has them any more"
    );
}

#[case("abi.md#exchange-room")]
fn room_for_one_does_not_write_the_count(env: &Env) {
    let (a, b, to) = env.linked();
    b.expect_sent(to, b"1");
    b.expect_sent(to, b"2");
    let mut exchange = a.exchange().room(1);
    let before = exchange.arg;
    for text in [b"1", b"2"] {
        assert_eq!(exchange.call(), Ok(()));
        assert_eq!(exchange.arg, before);
        assert_eq!(exchange.messages()[0].bytes, text);
        exchange.arg.n_msgs = 1;
    }
}
