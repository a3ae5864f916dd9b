// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages: payload in place, and what is given back when they are dropped.

mod common;

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::OwnedFd;

use bus1::{Error, Outgoing};
use common::*;

fn pipe() -> (File, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    (File::from(reader), writer)
}

#[test]
fn payloads_of_all_sizes_arrive_as_they_were() {
    let (owner, _node, user, handle) = pair();
    for len in [0, 1, 7, 8, 9, 4095, 4096, 4097, 100_000] {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
        let (head, tail) = bytes.split_at(len / 3);
        let sent = Outgoing::new().iovecs(&[IoSlice::new(head), IoSlice::new(tail)]);
        assert_eq!(sent.payload_len(), len);
        user.send(&handle, &sent).unwrap();
        assert_eq!(message(&owner).payload(), bytes);
    }
}

#[test]
fn many_messages_can_be_held_and_do_not_change() {
    let (owner, _node, user, handle) = pair();
    let held: Vec<_> = (0..200u32)
        .map(|number| {
            user.send(&handle, &text(&number.to_ne_bytes().repeat(100)))
                .unwrap();
            message(&owner)
        })
        .collect();
    for (number, message) in held.iter().enumerate() {
        assert_eq!(message.payload(), (number as u32).to_ne_bytes().repeat(100));
    }
}

#[test]
fn dropping_messages_gives_their_slices_back() {
    let (owner, _node, user, handle) = pair();
    let mut limits = owner.limits().unwrap();
    limits.slices = 8;
    owner.set_limits(limits).unwrap();

    // Half of them for one sender.
    let mut held = Vec::new();
    let refused = loop {
        match user.send(&handle, &text(b"slice")) {
            Ok(()) => held.push(message(&owner)),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, Error::Quota);
    assert!(refused.is_temporary());
    assert_eq!(held.len(), 4);

    held.pop();
    user.send(&handle, &text(b"slice")).unwrap();
    for _ in 0..100 {
        drop(message(&owner));
        user.send(&handle, &text(b"slice")).unwrap();
    }
}

#[test]
fn descriptors_arrive_and_are_close_on_exec() {
    let (owner, _node, user, handle) = pair();
    let (mut reader, writer) = pipe();
    let nothing_else = File::open("/dev/null").unwrap();
    user.send(&handle, &text(b"fds").fd(&writer).fd(&nothing_else))
        .unwrap();
    drop(writer);

    let mut received = message(&owner);
    assert_eq!(received.fds().len(), 2);
    let fds = received.take_fds();
    drop(received);
    for fd in &fds {
        let flags = rustix::io::fcntl_getfd(fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
    File::from(fds.into_iter().next().unwrap())
        .write_all(b"through the pipe")
        .unwrap();
    let mut found = String::new();
    reader.read_to_string(&mut found).unwrap();
    assert_eq!(found, "through the pipe");
}

#[test]
fn descriptors_that_are_not_taken_are_closed() {
    let (owner, node, user, handle) = pair();
    let end_of_file = |mut reader: File| assert_eq!(reader.read(&mut [0]).unwrap(), 0);

    // Received and dropped.
    let (reader, writer) = pipe();
    user.send(&handle, &text(b"").fd(&writer)).unwrap();
    drop(writer);
    drop(message(&owner));
    end_of_file(reader);

    // Received without them.
    let (reader, writer) = pipe();
    user.send(&handle, &text(b"kept").fd(&writer)).unwrap();
    drop(writer);
    match owner.try_recv_without_fds().unwrap() {
        Some(bus1::Event::Message(received)) => {
            assert!(received.fds().is_empty());
            assert_eq!(received.payload(), b"kept");
        }
        other => panic!("{other:?}"),
    }
    end_of_file(reader);

    // Never received.
    let (reader, writer) = pipe();
    user.send(&handle, &text(b"").fd(&writer)).unwrap();
    drop(writer);
    drop(node);
    end_of_file(reader);
}

#[test]
fn a_held_message_survives_the_disconnect_as_it_was() {
    let (owner, _node, user, handle) = pair();
    let bytes: Vec<u8> = (0..6 << 20)
        .map(|at: u32| (at >> 7) as u8 ^ at as u8)
        .collect();
    user.send(&handle, &text(&bytes)).unwrap();
    let held = message(&owner);
    owner.disconnect().unwrap();
    assert!(held.payload() == bytes);
    drop(owner);
    assert!(held.payload() == bytes);
}

#[test]
fn a_message_can_be_sent_on_from_where_it_lies() {
    let (owner, _node, user, handle) = pair();
    let inbox = user.create_node().unwrap();
    let back = give(&inbox, &user, &owner);
    user.send(&handle, &text(b"echo")).unwrap();
    let received = message(&owner);
    owner.send(&back, &text(received.payload())).unwrap();
    assert_eq!(message(&user).payload(), b"echo");
}
