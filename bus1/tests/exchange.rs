// SPDX-License-Identifier: MIT OR Apache-2.0

//! Round trips and batches.

mod common;

use std::fs::File;
use std::thread;
use std::time::Duration;

use bus1::{Error, Event, Handle, Node, Outgoing, Peer};
use common::*;

/// Makes two peers that each have a handle to the other's node.
fn both() -> (Peer, Node, Handle, Peer, Node, Handle) {
    let (a, node_a, b, to_a) = pair();
    let node_b = b.create_node().unwrap();
    let to_b = give(&node_b, &b, &a);
    (a, node_a, to_b, b, node_b, to_a)
}

/// Counts how many more messages of any sender a peer can hold.
fn room(peer: &Peer) -> usize {
    let node = peer.create_node().unwrap();
    let mut held = Vec::new();
    while peer.send(node.handle(), &text(b"-")).is_ok() {
        held.push(message(peer));
    }
    held.len()
}

/// Lowers the peer's limits, so that they show the slices that it holds.
fn limited(peer: &Peer, slices: u32) {
    let mut limits = peer.limits().unwrap();
    limits.slices = slices;
    peer.set_limits(limits).unwrap();
}

#[test]
fn a_round_trip_leaves_nothing_behind() {
    let (client, node, to_server, server, _service, to_client) = both();
    limited(&server, 64);
    limited(&client, 64);
    let before = (room(&server), room(&client));
    thread::scope(|threads| {
        let server = &server;
        threads.spawn(move || {
            let mut question = server.recv().unwrap().into_message().unwrap();
            for _ in 1..200 {
                let answer = question.payload().to_vec();
                let next = server.reply_and_wait(question, &to_client, &text(&answer));
                question = next.unwrap().into_message().unwrap();
            }
            let answer = question.payload().to_vec();
            server.send(&to_client, &text(&answer)).unwrap();
        });
        for number in 0..200u32 {
            let bytes = number.to_ne_bytes();
            let answer = client.call(&to_server, &text(&bytes)).unwrap();
            assert_eq!(answer.into_message().unwrap().payload(), bytes);
        }
    });
    released(&client, &node);
    assert_eq!((room(&server), room(&client)), before);
}

#[test]
fn the_answered_message_is_dropped_with_all_that_it_held() {
    let (client, node, to_server, server, _service, to_client) = both();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let extra = client.create_node().unwrap();
    let question = text(b"all of it").handle(extra.handle()).fd(&writer);
    client.send(&to_server, &question).unwrap();
    drop(writer);
    let received = message(&server);
    assert_eq!((received.handles().len(), received.fds().len()), (1, 1));
    let timeout = Duration::from_millis(1);
    let next = server.reply_and_wait_timeout(received, &to_client, &text(b"yes"), timeout);
    assert!(next.unwrap().is_none());
    released(&client, &extra);
    assert_eq!(message(&client).destination(), node.id());
    assert_eq!(
        std::io::Read::read(&mut File::from(reader), &mut [0; 1]).unwrap(),
        0
    );
}

#[test]
fn a_message_that_was_not_sent_says_so() {
    let (client, node, to_server, server, service, to_client) = both();
    client.send(&to_server, &text(b"question")).unwrap();
    drop(node);
    let question = message(&server);
    destroyed(&server, to_client.id());
    let error = server
        .reply_and_wait(question, &to_client, &text(b"answer"))
        .unwrap_err();
    assert_eq!((error.error(), error.sent()), (Error::NodeDestroyed, false));
    assert_eq!(Error::from(error), Error::NodeDestroyed);

    let error = client.call(service.handle(), &text(b"")).unwrap_err();
    assert_eq!((error.error(), error.sent()), (Error::WrongPeer, false));
    let huge = vec![0; 64];
    let many = (0..1025).fold(Outgoing::new(), |message, _| message.payload(&huge));
    let error = client.call(&to_server, &many).unwrap_err();
    assert_eq!((error.error(), error.sent()), (Error::TooLarge, false));
    nothing(&server);
}

#[test]
fn a_message_of_another_peer_is_refused() {
    let (client, _node, to_server, server, _service, to_client) = both();
    client.send(&to_server, &text(b"question")).unwrap();
    let question = message(&server);
    let error = client
        .reply_and_wait(question, &to_server, &text(b"answer"))
        .unwrap_err();
    assert_eq!(error.error(), Error::WrongPeer);
    server.send(&to_client, &text(b"another")).unwrap();
    let other = message(&client);
    assert_eq!(
        server.try_recv_many([other], 1).unwrap_err(),
        Error::WrongPeer
    );
    nothing(&server);
    nothing(&client);
}

#[test]
fn a_call_that_times_out_was_sent_once() {
    let (client, _node, to_server, server, _service, to_client) = both();
    for timeout in [0, 1, 5].map(Duration::from_millis) {
        assert!(client
            .call_timeout(&to_server, &text(b"once"), timeout)
            .unwrap()
            .is_none());
        assert_eq!(message(&server).payload(), b"once");
        nothing(&server);
    }
    server.send(&to_client, &text(b"late")).unwrap();
    let late = client
        .call_timeout(&to_server, &text(b"again"), Duration::MAX)
        .unwrap();
    assert_eq!(late.unwrap().into_message().unwrap().payload(), b"late");
}

#[test]
fn batches_come_in_order_and_give_back() {
    let (owner, _node, user, handle) = pair();
    limited(&owner, 64);
    let before = room(&owner);
    for number in 0..10u8 {
        user.send(&handle, &text(&[number])).unwrap();
    }
    let (mut seen, mut done) = (Vec::new(), Vec::new());
    while seen.len() < 10 {
        let events = owner.recv_many(done, 3).unwrap();
        assert!(!events.is_empty() && events.len() <= 3);
        done = events.into_iter().filter_map(Event::into_message).collect();
        seen.extend(done.iter().map(|message| message.payload()[0]));
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(owner.try_recv_many(done, 3).unwrap().is_empty());
    assert_eq!(room(&owner), before);
}

#[test]
fn batches_mix_messages_and_news() {
    let (owner, node, user, handle) = pair();
    let service = user.create_node().unwrap();
    let to_user = give(&service, &user, &owner);
    user.send(&handle, &text(b"first").handle(service.handle()))
        .unwrap();
    drop(service);
    drop(handle);
    let events = owner.recv_many([], 100).unwrap();
    let [Event::Message(first), Event::NodeDestroyed(gone), Event::NodeReleased(own)] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(first.handles()[0].as_ref(), Some(&to_user));
    assert_eq!((*gone, *own), (to_user.id(), node.id()));
}

#[test]
fn more_than_fits_one_call_is_given_back() {
    let peer = peer();
    let node = peer.create_node().unwrap();
    limited(&peer, 6000);
    let mut held = Vec::new();
    for _ in 0..2100 {
        peer.send(node.handle(), &text(b"-")).unwrap();
        held.push(message(&peer));
    }
    let before = held.len();
    assert!(peer.try_recv_many(held, 0).unwrap().is_empty());
    assert!(room(&peer) > before);
}

#[test]
fn a_flush_does_not_wait_for_a_waiter() {
    let ways: [fn(&Peer) -> Vec<Event>; 3] = [
        |owner| owner.recv_many([], 1).unwrap(),
        |owner| vec![owner.recv().unwrap()],
        |owner| Vec::from_iter(owner.recv_timeout(Duration::MAX).unwrap()),
    ];
    for wait in ways {
        let (owner, node, user, handle) = pair();
        node.leak();
        thread::scope(|threads| {
            let waiting = threads.spawn(|| wait(&owner));
            // Until it waits, a flush succeeds and finds nothing; then it is refused.
            while owner.flush().is_ok() {
                thread::yield_now();
            }
            assert_eq!(owner.flush(), Err(Error::InUse));
            let again = owner.create_node().unwrap();
            owner.send(again.handle(), &text(b"end")).unwrap();
            let events = waiting.join().unwrap();
            assert_eq!(events.len(), 1);
        });
        drop((user, handle));
    }
}

#[test]
fn the_end_of_the_peer_ends_every_wait() {
    let (client, _node, to_server, server, _service, to_client) = both();
    thread::scope(|threads| {
        let call = threads.spawn(|| client.call(&to_server, &text(b"question")));
        let batch = threads.spawn(|| client.recv_many_timeout([], 4, Duration::MAX));
        let question = server.recv().unwrap().into_message().unwrap();
        client.disconnect().unwrap();
        let error = call.join().unwrap().unwrap_err();
        assert_eq!((error.error(), error.sent()), (Error::Disconnected, true));
        assert_eq!(batch.join().unwrap().unwrap_err(), Error::Disconnected);
        drop(question);
    });
    drop(to_client);
    let error = client.call(&to_server, &text(b"question")).unwrap_err();
    assert_eq!((error.error(), error.sent()), (Error::Disconnected, false));
}
