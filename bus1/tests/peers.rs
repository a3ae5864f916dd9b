// SPDX-License-Identifier: MIT OR Apache-2.0

//! Peers: waiting, limits, flush and seed, the end.

mod common;

use std::thread;
use std::time::Duration;

use bus1::{Error, Event, Host, Limits, Peer};
use common::*;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

#[test]
fn a_thread_that_waits_is_woken_by_a_message_and_by_the_end() {
    let (owner, _node, user, handle) = pair();
    thread::scope(|threads| {
        let waiter = threads.spawn(|| {
            let first = owner.recv();
            (first, owner.recv())
        });
        user.send(&handle, &text(b"wake up")).unwrap();
        thread::sleep(Duration::from_millis(20));
        owner.disconnect().unwrap();
        let (first, second) = waiter.join().unwrap();
        assert!(matches!(first, Ok(Event::Message(message)) if message.payload() == b"wake up"));
        assert_eq!(second.unwrap_err(), Error::Disconnected);
    });
}

#[test]
fn the_descriptor_shows_readiness() {
    let (owner, _node, user, handle) = pair();
    let readable = |seconds| {
        let timeout = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&owner, PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).unwrap() == 1
    };
    assert!(!readable(0));
    user.send(&handle, &text(b"ready")).unwrap();
    assert!(readable(10));
    message(&owner);
    nothing(&owner);
    assert!(!readable(0));
    owner.disconnect().unwrap();
    assert!(readable(10));
}

#[test]
fn everything_fails_after_a_disconnect_and_holders_are_notified() {
    let (owner, node, user, handle) = pair();
    owner.disconnect().unwrap();
    assert_eq!(owner.disconnect(), Err(Error::Disconnected));
    assert_eq!(owner.limits(), Err(Error::Disconnected));
    assert_eq!(
        owner.send(node.handle(), &text(b"")),
        Err(Error::Disconnected)
    );
    assert_eq!(owner.try_recv().unwrap_err(), Error::Disconnected);
    assert_eq!(
        owner.recv_timeout(Duration::ZERO).unwrap_err(),
        Error::Disconnected
    );
    assert_eq!(owner.create_node().unwrap_err(), Error::Disconnected);
    assert_eq!(owner.flush(), Err(Error::InUse));
    drop(node);
    assert_eq!(owner.flush(), Err(Error::Disconnected));
    destroyed(&user, handle.id());
}

#[test]
fn limits_are_set_and_checked() {
    let peer = peer();
    let limits = Limits {
        slices: 1,
        handles: 2,
        inflight_bytes: 3,
        inflight_fds: 4,
    };
    peer.set_limits(limits).unwrap();
    assert_eq!(peer.limits(), Ok(limits));
    for wrong in [Limits::MAX + 1, u32::MAX] {
        let wrong = Limits {
            inflight_fds: wrong,
            ..limits
        };
        assert_eq!(peer.set_limits(wrong), Err(Error::OutOfRange));
    }
    assert_eq!(peer.limits(), Ok(limits));
}

#[test]
fn a_flush_needs_the_peer_to_be_unused_and_spares_the_seed() {
    let (owner, node, user, handle) = pair();
    let other = owner.create_node().unwrap();
    let other_handle = give(&other, &owner, &user);
    owner
        .set_seed(&text(b"state").handle(node.handle()))
        .unwrap();
    user.send(&handle, &text(b"waits")).unwrap();

    let (id, _) = (node.leak(), other.leak());
    let held = message(&owner);
    assert_eq!(owner.flush(), Err(Error::InUse));
    assert_eq!(held.payload(), b"waits");
    drop(held);
    user.send(&other_handle, &text(b"waits, too")).unwrap();
    owner.flush().unwrap();

    nothing(&owner);
    destroyed(&user, other_handle.id());
    nothing(&user);
    let node = owner.create_node_with_id(id).unwrap();
    user.send(&handle, &text(b"again")).unwrap();
    let received = message(&owner);
    assert_eq!(
        (received.payload(), received.destination()),
        (&b"again"[..], node.id())
    );
}

#[test]
fn a_seed_can_be_received_again_and_again() {
    let owner = peer();
    assert!(owner.recv_seed().unwrap().is_none());
    let node = owner.create_node().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    owner
        .set_seed(&text(b"first").handle(node.handle()).fd(&file))
        .unwrap();
    let seeds: Vec<_> = (0..3)
        .map(|_| owner.recv_seed().unwrap().unwrap())
        .collect();
    owner.set_seed(&text(b"second")).unwrap();
    for mut seed in seeds {
        assert_eq!(seed.payload(), b"first");
        assert_eq!(seed.destination(), bus1::HandleId::INVALID);
        assert_eq!(seed.handles(), [Some(node.handle().clone())]);
        assert_eq!(seed.take_fds().len(), 1);
    }
    assert_eq!(owner.recv_seed().unwrap().unwrap().payload(), b"second");
    owner.drop_seed().unwrap();
    assert!(owner.recv_seed().unwrap().is_none());
}

#[test]
fn clones_are_one_peer_and_the_last_one_ends_it() {
    let (owner, node, user, handle) = pair();
    let clone = owner.clone();
    drop(owner);
    user.send(&handle, &text(b"to the clone")).unwrap();
    assert_eq!(message(&clone).payload(), b"to the clone");
    drop(clone);
    nothing(&user);
    drop(node);
    destroyed(&user, handle.id());
}

#[test]
fn peers_of_the_embedded_host_stay_in_their_process() {
    let peer = Peer::open_on(Host::Embedded).unwrap();
    assert_eq!(peer.duplicate_fd().unwrap_err(), Error::NotOnThisHost);
}

#[test]
fn only_peers_are_taken_for_peers() {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    for fd in [reader, null.into()] {
        // SAFETY: it is no peer at all.
        let error = unsafe { Peer::from_fd(fd) }.unwrap_err();
        assert_eq!(error, Error::NotAPeer);
    }
}

#[test]
fn names_of_hosts_are_checked() {
    assert_eq!("kernel".parse(), Ok(Host::Kernel));
    assert_eq!("daemon".parse::<Host>(), Err(Error::UnknownHost));
}

#[test]
fn a_transfer_needs_a_peer() {
    let (owner, node, ..) = pair();
    let null = std::fs::File::open("/dev/null").unwrap();
    let refused = owner.transfer_to_fd(node.handle(), &null);
    assert_eq!(refused, Err(Error::DescriptorRefused));
}

#[test]
fn a_handle_of_a_destroyed_node_is_not_transferred() {
    let (owner, user) = (peer(), peer());
    let node = owner.create_node().unwrap();
    let handle = node.handle().clone();
    drop(node);
    assert_eq!(owner.transfer(&handle, &user), Ok(None));
}
