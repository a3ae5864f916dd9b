// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE: its argument, what it does, and what it brings. How it fails in the middle is in
//! `exchange_progress.rs`, how it waits in `exchange_wait.rs`.

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_uapi as abi;

use super::Case;
use crate::client::{Message, Peer};
use crate::env::Env;
use crate::host::Errno as E;
use crate::sys::memory::{before_hole, Pages, NOWHERE};

pub const CASES: &[Case] = &[
    case!(published_layout_is_met, "4: a size field first; 9 exchange"),
    case!(size_is_checked, "4: a size field first, so that they can grow"),
    case!(what_is_beyond_the_size_must_be_zero, "4: a size field first, so that they can grow"),
    case!(counts_are_bounded, "5 SEND: nothing is allocated in proportion to a number"),
    case!(checks_are_made_in_order, "5: checks are made in the order given"),
    case!(refused_argument_does_nothing, "5: a failed command leaves no trace"),
    case!(nothing_asked_nothing_done, "9 exchange: sends (optionally)"),
    case!(releases_alone, "9 exchange; 5 SLICE_RELEASE"),
    case!(sends_alone, "9 exchange: sends (optionally)"),
    case!(receives_alone, "9 exchange: receives it"),
    case!(all_three_in_one_call, "9 exchange: a round trip costs one syscall on each side"),
    case!(release_comes_before_send, "9 exchange; 7: slices are given back at SLICE_RELEASE"),
    case!(own_message_is_received, "9 exchange: a message is ready"),
    case!(multicast_and_its_errors, "9 exchange; 5 SEND: CONTINUE"),
    case!(seed_is_set, "9 exchange; 5 SEND: SEED"),
    case!(creates_nodes, "2: created on demand"),
    case!(as_many_as_there_is_room_for, "9 batch receive: many messages in one ioctl"),
    case!(more_room_than_messages, "9 batch receive; 5: results are written to user memory"),
    case!(a_thousand_at_once, "9 batch receive"),
    case!(parts_in_a_row, "9 batch receive; 3.3: every part but the last carries CONTINUE"),
    case!(notices_in_a_row, "9 batch receive; 2: both are queue entries"),
    case!(handles_come_along, "9 batch receive; 5 RECV: handles get IDs and user references"),
    case!(descriptors_come_along, "9 batch receive; 5 RECV: with INSTALL_FDS"),
    case!(without_install_descriptors_are_dropped, "9 batch receive; 5 RECV: n_fds is 0"),
    case!(room_for_one_leaves_the_count_alone, "9 exchange: receives it"),
];

fn addr<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).expose_provenance() as u64
}

/// The payloads in a word.
fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| std::str::from_utf8(&message.bytes).unwrap()).collect()
}

fn published_layout_is_met(env: &Env) {
    let peer = env.peer();
    let node = [8_u64];
    let payload = *b"published";
    let vec = [addr(&payload), payload.len() as u64];
    let mut msg = [0_u64; 7];
    let room = std::ptr::from_mut(&mut msg).expose_provenance() as u64;
    let never = u64::MAX;
    let mut raw = [144, 1, 0, 0, 1, room, peer.mapped(), never, 0, addr(&node), 0, 1, addr(&vec)];
    let mut arg = [0_u64; 18];
    arg[..13].copy_from_slice(&raw);
    arg[13] = 1;
    peer.command(0xc008_9680, &mut arg).expect("EXCHANGE");
    assert_eq!((msg[0], msg[2], msg[4]), (1, 8, 9), "DATA for the node, with its bytes");
    assert_eq!(peer.read_pool(msg[3], 9), payload);

    let offset = [msg[3]];
    raw = [144, 0, addr(&offset), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    arg = [0; 18];
    arg[..13].copy_from_slice(&raw);
    peer.command(0xc008_9680, &mut arg).expect("EXCHANGE");
    assert_eq!(peer.release_slice(offset[0]), Err(E::NXIO));
}

fn size_is_checked(env: &Env) {
    let peer = env.peer();
    let sized = |size: u64| {
        // The argument, and more zeroes than may count.
        let page = Pages::new(3);
        let arg = abi::CmdExchange { size, ..Default::default() };
        page.poke(0, &arg.to_bytes());
        peer.ioctl(abi::CMD_EXCHANGE, page.addr(0))
    };
    for size in [0, 1, 8, 72, 136, 143, 145, 148, 151, 144 + 4097, 144 + 4104, 1 << 32, u64::MAX] {
        assert_eq!(sized(size), Err(E::INVAL), "{size}");
    }
    for size in [144, 152, 400, 408, 144 + 4088, 144 + 4096] {
        assert_eq!(sized(size), Ok(()), "{size}");
    }
}

fn what_is_beyond_the_size_must_be_zero(env: &Env) {
    let peer = env.peer();
    let arg = abi::CmdExchange { size: 144 + 16, ..Default::default() };
    let mut bytes = arg.to_bytes().to_vec();
    bytes.extend([0; 16]);
    for at in [144, 151, 152, 159] {
        let mut bytes = bytes.clone();
        bytes[at] = 1;
        let page = Pages::new(1);
        page.poke(0, &bytes);
        assert_eq!(peer.ioctl(abi::CMD_EXCHANGE, page.addr(0)), Err(E::TOOBIG), "byte {at}");
    }
    // Behind the size there may be anything.
    let page = Pages::new(1);
    page.poke(0, &bytes);
    page.poke(160, &[1]);
    assert_eq!(peer.ioctl(abi::CMD_EXCHANGE, page.addr(0)), Ok(()));
    let (_page, addr) = before_hole(&bytes[..152]);
    assert_eq!(peer.ioctl(abi::CMD_EXCHANGE, addr), Err(E::FAULT));
}

fn counts_are_bounded(env: &Env) {
    let (a, b, to) = env.linked();
    b.say(to, b"stays");
    for huge in [1025, 1 << 31, 1 << 61, u64::MAX] {
        assert_eq!(a.exchange().edit(|arg| arg.n_slices = huge).refused(), E::MSGSIZE);
        assert_eq!(a.exchange().edit(|arg| arg.n_msgs = huge).refused(), E::MSGSIZE);
    }
    a.text(b"stays");
    // As many as are allowed, from and to memory that is not there.
    assert_eq!(a.exchange().edit(|arg| arg.n_slices = 1024).refused(), E::FAULT);
    assert_eq!(a.exchange().edit(|arg| arg.n_msgs = 1024).refused(), E::AGAIN);
    a.nothing();
}

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
        assert_eq!(peer.ioctl(abi::CMD_EXCHANGE, page.addr(0)), Err(wanted), "{arg:?}");
    };
    check(bad, E::INVAL);
    let beyond = abi::CmdExchange { size: 160, ..bad };
    check(beyond, E::TOOBIG);
    let flags = abi::CmdExchange { size: 144, ..bad };
    check(flags, E::INVAL);
    let counts = abi::CmdExchange { flags: 1, ..flags };
    check(counts, E::MSGSIZE);
    // What is to be sent is looked at after the slices, and room for messages at last.
    let slices = abi::CmdExchange { n_slices: 1, n_msgs: 1, ..counts };
    check(slices, E::FAULT);
    let mut sending = abi::CmdExchange { n_slices: 0, ..slices };
    sending.send.flags = 1 << 40;
    check(sending, E::INVAL);
    sending.send.flags = 0;
    check(sending, E::AGAIN);
}

/// A change of the argument.
type Edit = fn(&mut abi::CmdExchange);

fn refused_argument_does_nothing(env: &Env) {
    let (a, b, to) = env.linked();
    b.say(to, b"held");
    let held = a.text(b"held").msg.offset;
    b.say(to, b"waits");
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
    a.text(b"waits");
    a.nothing();
    assert_eq!(a.release_slice(held), Ok(()));
}

fn nothing_asked_nothing_done(env: &Env) {
    let (a, b, to) = env.linked();
    b.say(to, b"stays");
    for deadline in [abi::DEADLINE_NOW, 1, abi::DEADLINE_NEVER] {
        let mut exchange = a.exchange().until(deadline);
        let before = exchange.arg;
        assert_eq!(exchange.call(), Ok(()));
        assert_eq!(exchange.arg, before);
        // Without SEND what is to be sent is not looked at.
        let bad = a.exchange().until(deadline).edit(|arg| {
            arg.send.flags = u64::MAX;
            arg.send.ptr_vecs = NOWHERE;
            arg.send.n_vecs = u64::MAX;
        });
        assert!({ bad }.get().is_empty());
    }
    a.text(b"stays");
    a.nothing();
}

fn releases_alone(env: &Env) {
    let (a, b, to) = env.linked();
    let held: Vec<u64> = (0..5)
        .map(|_| {
            b.say(to, b"held");
            a.text(b"held").msg.offset
        })
        .collect();
    b.say(to, b"stays");
    assert!(a.exchange().release(&held).patient().get().is_empty());
    for offset in held {
        assert_eq!(a.release_slice(offset), Err(E::NXIO));
    }
    a.text(b"stays");
}

fn sends_alone(env: &Env) {
    let (a, b, to) = env.linked();
    let message = b.message().to(&[to]).bytes(b"sent");
    let mut exchange = b.exchange().send(message).patient();
    assert_eq!(exchange.call(), Ok(()));
    a.text(b"sent");
    assert_eq!(exchange.call(), Ok(()));
    a.text(b"sent");
    a.nothing();
}

fn receives_alone(env: &Env) {
    let (a, b, to) = env.linked();
    for deadline in [abi::DEADLINE_NOW, 1, abi::DEADLINE_NEVER] {
        b.say(to, b"there");
        let message = a.exchange().room(1).until(deadline).one();
        assert_eq!(message.bytes, b"there");
        assert_eq!(message.msg.kind, abi::MSG_DATA);
        a.release_slice(message.msg.offset).unwrap();
    }
    a.nothing();
}

/// How many slices the peer has.
fn slices(peer: &Peer) -> u64 {
    let counts = peer.door().counts();
    counts.iter().find(|(name, _)| name == "slices").expect("they are counted").1
}

fn all_three_in_one_call(env: &Env) {
    let [client, server] = env.peers();
    let (to_server, to_client) = (client.handle_of(&server), server.handle_of(&client));
    let mut held = None;
    for i in 0..20_u32 {
        server.say(to_client, &i.to_ne_bytes());
        let release = held.as_slice();
        let bytes = (i + 100).to_ne_bytes();
        let message = client.message().to(&[to_server]).bytes(&bytes);
        let got = client.exchange().release(release).send(message).room(1).patient().one();
        assert_eq!(got.bytes, i.to_ne_bytes());
        assert_eq!(slices(&client), 1, "the one before is gone");
        held = Some(got.msg.offset);
        let asked = server.data();
        assert_eq!(asked.bytes, bytes);
        server.release_slice(asked.msg.offset).unwrap();
    }
    client.nothing();
    server.nothing();
}

fn release_comes_before_send(env: &Env) {
    let peer = env.peer();
    let own = peer.new_node();
    // Half of it for its own messages: one slice.
    peer.limit([2, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    peer.say(own, b"first");
    let held = peer.text(b"first").msg.offset;
    let message = || peer.message().to(&[own]).bytes(b"second");
    assert_eq!(peer.exchange().send(message()).room(1).refused(), E::DQUOT);
    let got = peer.exchange().release(&[held]).send(message()).room(1).one();
    assert_eq!(got.bytes, b"second");
}

fn own_message_is_received(env: &Env) {
    let peer = env.peer();
    let own = peer.new_node();
    let message = peer.message().to(&[own]).bytes(b"note");
    let got = peer.exchange().send(message).room(1).patient().one();
    assert_eq!((got.msg.destination, &*got.bytes), (own, &b"note"[..]));
    peer.nothing();
}

fn multicast_and_its_errors(env: &Env) {
    let [sender, a, b] = env.peers();
    let (to_a, to_b) = (sender.handle_of(&a), sender.handle_of(&b));
    let (node, dead) = a.node_for(&sender);
    a.destroy_and_release(&[node]).unwrap();
    sender.node_destroy(dead);
    let message = sender.message().to(&[to_a, dead, to_b]).bytes(b"to all").proceed();
    let mut exchange = sender.exchange().send(message);
    assert_eq!(exchange.call(), Ok(()));
    assert_eq!(exchange.errors, [0, libc::EHOSTUNREACH, 0]);
    a.text(b"to all");
    b.text(b"to all");
}

fn seed_is_set(env: &Env) {
    let peer = env.peer();
    let message = peer.message().bytes(b"state").seed();
    assert_eq!(peer.exchange().send(message).room(1).refused(), E::AGAIN);
    assert_eq!(peer.recv_seed().unwrap().bytes, b"state");
}

fn creates_nodes(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let node = a.new_node();
    let message = a.message().to(&[to]).handles(&[node]);
    assert!(a.exchange().send(message).get().is_empty());
    let id = b.data().handle();
    b.say(id, b"to the new node");
    assert_eq!(a.text(b"to the new node").msg.destination, node);
}

fn as_many_as_there_is_room_for(env: &Env) {
    let (a, b, to) = env.linked();
    for text in ["1", "2", "3", "4", "5"] {
        b.say(to, text.as_bytes());
    }
    assert_eq!(texts(&a.exchange().room(2).get()), ["1", "2"]);
    assert_eq!(texts(&a.exchange().room(2).patient().get()), ["3", "4"]);
    a.text(b"5");
    a.nothing();
}

fn more_room_than_messages(env: &Env) {
    let (a, b, to) = env.linked();
    for text in ["1", "2", "3"] {
        b.say(to, text.as_bytes());
    }
    let mut exchange = a.exchange().room(100).patient();
    assert_eq!(exchange.call(), Ok(()));
    assert_eq!(exchange.arg.n_msgs, 3, "it does not wait for more than the first");
    assert_eq!(texts(&exchange.messages()), ["1", "2", "3"]);
    b.say(to, b"4");
    assert_eq!(texts(&a.exchange().room(2).get()), ["4"]);
    a.nothing();
}

fn a_thousand_at_once(env: &Env) {
    let (a, b, to) = env.linked();
    for i in 0..1030_u32 {
        b.say(to, &i.to_ne_bytes());
    }
    let all = a.exchange().room(1024).get();
    assert_eq!(all.len(), 1024);
    for (i, message) in all.iter().enumerate() {
        assert_eq!(message.bytes, (i as u32).to_ne_bytes());
    }
    // And all of their slices at once.
    let offsets: Vec<u64> = all.iter().map(|message| message.msg.offset).collect();
    let rest = a.exchange().release(&offsets).room(1024).get();
    assert_eq!(rest.len(), 6);
    assert!(offsets.iter().all(|&offset| a.release_slice(offset) == Err(E::NXIO)));
}

fn parts_in_a_row(env: &Env) {
    let [a, b] = env.peers();
    let pairs: [(u64, u64); 5] = std::array::from_fn(|_| a.node_for(&b));
    let to = pairs.map(|(_, id)| id);
    b.message().to(&to).bytes(b"part").send().unwrap();
    b.say(to[0], b"alone");
    let mut exchange = a.exchange().room(3);
    let mut all = exchange.get();
    assert!(all.iter().all(Message::more), "parts of it are still to come");
    all.extend(a.exchange().room(3).get());
    let flags: Vec<bool> = all.iter().map(Message::more).collect();
    assert_eq!(flags, [true, true, true, true, false, false]);
    let nodes: Vec<u64> = all[..5].iter().map(|message| message.msg.destination).collect();
    assert_eq!(nodes, pairs.map(|(node, _)| node));
    assert_eq!(all[5].bytes, b"alone");
}

fn notices_in_a_row(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let (released, id) = a.node_for(&b);
    let (destroyed, at_a) = b.node_for(&a);
    b.say(to, b"first");
    b.release(id).unwrap();
    b.say(to, b"second");
    b.destroy_and_release(&[destroyed]).unwrap();
    let all = a.exchange().room(8).get();
    let kinds: Vec<_> = all.iter().map(|message| (message.msg.kind, message.msg.offset)).collect();
    assert_eq!([kinds[0].0, kinds[2].0], [abi::MSG_DATA; 2]);
    assert_eq!(kinds[1], (abi::MSG_NODE_RELEASE, abi::OFFSET_INVALID));
    assert_eq!(kinds[3], (abi::MSG_NODE_DESTROY, abi::OFFSET_INVALID));
    assert_eq!((all[1].msg.destination, all[3].msg.destination), (released, at_a));
    assert_eq!(all.len(), 4);
}

fn handles_come_along(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let nodes: [u64; 3] = std::array::from_fn(|_| b.new_node());
    b.message().to(&[to]).handles(&nodes).send().unwrap();
    b.message().to(&[to]).handles(&nodes[..1]).send().unwrap();
    let all = a.exchange().room(2).get();
    assert_eq!(all[0].handles[0], all[1].handle(), "the same node, the same ID");
    for (&id, &node) in all[0].handles.iter().zip(&nodes) {
        a.say(id, b"back");
        assert_eq!(b.text(b"back").msg.destination, node);
    }
    // Two messages, two references.
    let twice = all[1].handle();
    assert_eq!([0; 3].map(|_| a.release(twice)), [Ok(()), Ok(()), Err(E::NXIO)]);
}

fn descriptors_come_along(env: &Env) {
    let (a, b, to) = env.linked();
    let null = File::open("/dev/null").unwrap();
    for n in [2, 0, 3] {
        b.message().to(&[to]).bytes(b"files").fds(&vec![null.as_raw_fd(); n]).send().unwrap();
    }
    let all = a.exchange().room(3).get();
    let counts: Vec<_> = all.iter().map(|message| message.fds.len()).collect();
    assert_eq!(counts, [2, 0, 3]);
    let mut numbers: Vec<_> =
        all.iter().flat_map(|message| &message.fds).map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 5, "each is a number of its own");
}

fn without_install_descriptors_are_dropped(env: &Env) {
    let (a, b, to) = env.linked();
    let (mut out, into) = std::io::pipe().unwrap();
    for _ in 0..2 {
        b.message().to(&[to]).fds(&[into.as_raw_fd()]).send().unwrap();
    }
    drop(into);
    let all = a.exchange().room(2).edit(|arg| arg.flags = 0).get();
    assert!(all.iter().all(|message| message.msg.n_fds == 0));
    assert_eq!(std::io::Read::read(&mut out, &mut [0; 1]).unwrap(), 0, "nobody has them any more");
}

fn room_for_one_leaves_the_count_alone(env: &Env) {
    let (a, b, to) = env.linked();
    b.say(to, b"1");
    b.say(to, b"2");
    let mut exchange = a.exchange().room(1);
    let before = exchange.arg;
    for text in [b"1", b"2"] {
        assert_eq!(exchange.call(), Ok(()));
        assert_eq!(exchange.arg, before);
        assert_eq!(exchange.messages()[0].bytes, text);
        exchange.arg.n_msgs = 1;
    }
}
