// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sending to many, and what is refused.

mod common;

use std::os::unix::net::UnixStream;
use std::thread;

use bus1::{Error, Event, Handle, Node, Outgoing, Peer, Refusal};
use common::*;

/// Subscribers with a node each, and the handles of a publisher.
fn subscribers(publisher: &Peer, n: usize) -> (Vec<(Peer, Node)>, Vec<Handle>) {
    (0..n)
        .map(|_| {
            let peer = peer();
            let node = peer.create_node().unwrap();
            let handle = give(&node, &peer, publisher);
            ((peer, node), handle)
        })
        .unzip()
}

#[test]
fn a_multicast_reaches_all() {
    let publisher = peer();
    let (subscribers, handles) = subscribers(&publisher, 5);
    publisher.send_to(&handles, &text(b"news")).unwrap();
    for (peer, node) in &subscribers {
        let received = message(peer);
        assert_eq!(received.payload(), b"news");
        assert_eq!(received.destination(), node.id());
        assert!(!received.more());
        nothing(peer);
    }
}

#[test]
fn a_multicast_reaches_all_or_nobody() {
    let publisher = peer();
    let (subscribers, handles) = subscribers(&publisher, 3);
    let mut limits = subscribers[1].0.limits().unwrap();
    limits.inflight_bytes = 100;
    subscribers[1].0.set_limits(limits).unwrap();

    let large = [0; 1000];
    let error = publisher.send_to(&handles, &text(&large)).unwrap_err();
    assert_eq!(error.error(), Error::TooLarge);
    let refusal = Refusal {
        index: 1,
        error: Error::TooLarge,
    };
    assert_eq!(error.refusals(), [refusal]);
    assert!(error
        .to_string()
        .starts_with("destination 1: the message is too large"));
    subscribers.iter().for_each(|(peer, _)| nothing(peer));

    let results = publisher.send_to_each(&handles, &text(&large)).unwrap();
    assert_eq!(results, [Ok(()), Err(Error::TooLarge), Ok(())]);
    assert_eq!(message(&subscribers[0].0).payload(), large);
    nothing(&subscribers[1].0);
    assert_eq!(message(&subscribers[2].0).payload(), large);
}

#[test]
fn parts_for_one_peer_follow_each_other_and_say_so() {
    let (publisher, receiver) = (peer(), peer());
    let nodes: Vec<_> = (0..3).map(|_| receiver.create_node().unwrap()).collect();
    let handles: Vec<_> = nodes
        .iter()
        .map(|node| give(node, &receiver, &publisher))
        .collect();
    publisher
        .send_to([&handles[2], &handles[0], &handles[1]], &text(b"part"))
        .unwrap();
    for (node, more) in [(&nodes[2], true), (&nodes[0], true), (&nodes[1], false)] {
        let part = message(&receiver);
        assert_eq!((part.destination(), part.more()), (node.id(), more));
    }
    nothing(&receiver);
}

#[test]
fn all_receivers_see_concurrent_multicasts_in_one_order() {
    const PUBLISHERS: usize = 3;
    const MESSAGES: u32 = 300;
    let publishers: Vec<Peer> = (0..PUBLISHERS).map(|_| peer()).collect();
    let subscribers: Vec<(Peer, Node)> = (0..3)
        .map(|_| {
            let peer = peer();
            let node = peer.create_node().unwrap();
            (peer, node)
        })
        .collect();

    let orders: Vec<Vec<(u32, u32)>> = thread::scope(|threads| {
        for (number, publisher) in (0..).zip(&publishers) {
            let handles: Vec<_> = subscribers
                .iter()
                .map(|(peer, node)| give(node, peer, publisher))
                .collect();
            threads.spawn(move || {
                for sequence in 0..MESSAGES {
                    let bytes = [u32::to_ne_bytes(number), u32::to_ne_bytes(sequence)].concat();
                    while let Err(error) = publisher.send_to(&handles, &text(&bytes)) {
                        assert!(error.error().is_temporary(), "{error}");
                        thread::yield_now();
                    }
                }
            });
        }
        let receivers: Vec<_> = subscribers
            .iter()
            .map(|(peer, _)| {
                threads.spawn(move || {
                    let mut order = Vec::new();
                    while order.len() < PUBLISHERS * MESSAGES as usize {
                        if let Event::Message(message) = peer.recv().unwrap() {
                            let (number, sequence) = message.payload().split_at(4);
                            order.push((
                                u32::from_ne_bytes(number.try_into().unwrap()),
                                u32::from_ne_bytes(sequence.try_into().unwrap()),
                            ));
                        }
                    }
                    order
                })
            })
            .collect();
        receivers
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(orders.iter().all(|order| *order == orders[0]));
    for publisher in 0..PUBLISHERS as u32 {
        let own = orders[0].iter().filter(|(number, _)| *number == publisher);
        assert!(own.map(|(_, sequence)| *sequence).eq(0..MESSAGES));
    }
}

#[test]
fn handles_of_another_peer_are_refused() {
    let (owner, node, user, handle) = pair();
    assert_eq!(owner.send(&handle, &text(b"")), Err(Error::WrongPeer));
    let foreign = Outgoing::new().handle(node.handle());
    assert_eq!(user.send(&handle, &foreign), Err(Error::WrongPeer));
    let mixed = Outgoing::new().handle(&handle).handle(node.handle());
    assert_eq!(user.send(&handle, &mixed), Err(Error::WrongPeer));
    assert_eq!(owner.transfer(&handle, &user), Err(Error::WrongPeer));
    assert_eq!(user.destroy_nodes([node]), Err(Error::WrongPeer));
}

#[test]
fn a_destination_is_named_once() {
    let (owner, _node, user, handle) = pair();
    let error = user.send_to([&handle, &handle], &text(b"")).unwrap_err();
    assert_eq!(error.error(), Error::Duplicate);
    let results = user.send_to_each([&handle, &handle], &text(b"")).unwrap();
    assert_eq!(results, [Ok(()), Err(Error::Duplicate)]);
    message(&owner);
    nothing(&owner);
}

#[test]
fn descriptors_that_could_form_cycles_are_refused() {
    let (owner, _node, user, handle) = pair();
    let (socket, _other) = UnixStream::pair().unwrap();
    assert_eq!(
        user.send(&handle, &text(b"").fd(&socket)),
        Err(Error::DescriptorRefused)
    );
    assert_eq!(
        user.send(&handle, &text(b"").fd(&owner)),
        Err(Error::DescriptorRefused)
    );
    nothing(&owner);
}

#[test]
fn too_much_of_anything_is_refused() {
    let (owner, _node, user, handle) = pair();
    let file = std::fs::File::open("/dev/null").unwrap();
    let fds = (0..257).fold(Outgoing::new(), |message, _| message.fd(&file));
    assert_eq!(user.send(&handle, &fds), Err(Error::TooLarge));
    let pieces = (0..1025).fold(Outgoing::new(), |message, _| message.payload(b"x"));
    assert_eq!(user.send(&handle, &pieces), Err(Error::TooLarge));
    nothing(&owner);
}

#[test]
fn a_multicast_to_nobody_succeeds() {
    let user = peer();
    user.send_to(&[] as &[Handle], &text(b"nobody")).unwrap();
    assert_eq!(
        user.send_to_each(&[] as &[Handle], &text(b"nobody")),
        Ok(vec![])
    );
}
