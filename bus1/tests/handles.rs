// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles: one ID is one handle, and everything is given back when the last clone goes.

mod common;

use std::collections::HashSet;

use bus1::{Error, Event, Outgoing};
use common::*;

#[test]
fn the_owner_is_notified_when_the_last_clone_is_dropped() {
    let (owner, node, _user, handle) = pair();
    let clone = handle.clone();
    drop(handle);
    nothing(&owner);
    drop(clone);
    released(&owner, &node);
    nothing(&owner);
}

#[test]
#[allow(clippy::mutable_key_type)] // The changing parts of a handle have no part in its hash.
fn received_again_it_is_the_same_handle_and_all_references_go_with_it() {
    let (owner, node, user, first) = pair();
    let inbox = user.create_node().unwrap();
    let to_user = give(&inbox, &user, &owner);

    let twice = Outgoing::new().handle(node.handle()).handle(node.handle());
    owner.send(&to_user, &twice).unwrap();
    let handles = message(&user).take_handles();
    let mut all: HashSet<_> = handles.into_iter().flatten().collect();
    assert_eq!(all.len(), 1);
    assert!(all.contains(&first));

    all.insert(give(&node, &owner, &user));
    assert_eq!(all.len(), 1);

    drop(all);
    nothing(&owner);
    drop(first);
    released(&owner, &node);
}

#[test]
fn handles_that_are_not_taken_go_with_the_message() {
    let (owner, node, user, handle) = pair();
    let inbox = user.create_node().unwrap();
    let to_user = give(&inbox, &user, &owner);
    drop(handle);
    released(&owner, &node);

    owner
        .send(&to_user, &Outgoing::new().handle(node.handle()))
        .unwrap();
    let received = message(&user);
    assert!(received.handles()[0].is_some());
    nothing(&owner);
    drop(received);
    released(&owner, &node);
}

#[test]
fn a_message_that_nobody_receives_gives_its_handles_back() {
    let (owner, node, user, handle) = pair();
    let inbox = user.create_node().unwrap();
    let to_user = give(&inbox, &user, &owner);
    owner
        .send(&to_user, &Outgoing::new().handle(node.handle()))
        .unwrap();
    drop(handle);
    nothing(&owner);
    drop(inbox);
    // The user's node, then what waited for it.
    destroyed(&owner, to_user.id());
    released(&owner, &node);
    nothing(&user);
}

#[test]
fn a_received_handle_works_and_passes_on() {
    let (owner, node, user, handle) = pair();
    let third = peer();
    let inbox = third.create_node().unwrap();
    let to_third = give(&inbox, &third, &user);
    user.send(&to_third, &Outgoing::new().handle(&handle))
        .unwrap();

    let passed = message(&third).take_handles().remove(0).unwrap();
    third.send(&passed, &text(b"from the third")).unwrap();
    let received = message(&owner);
    assert_eq!(received.payload(), b"from the third");
    assert_eq!(received.destination(), node.id());
}

#[test]
fn leaked_references_stay_until_somebody_adopts_them() {
    let (owner, node, user, handle) = pair();
    let id = handle.leak();
    nothing(&owner);

    let adopted = user.adopt_handle(id);
    user.send(&adopted, &text(b"still valid")).unwrap();
    assert_eq!(message(&owner).payload(), b"still valid");
    drop(adopted);
    released(&owner, &node);

    let gone = user.adopt_handle(id);
    assert_eq!(user.send(&gone, &text(b"")), Err(Error::UnknownHandle));
}

#[test]
fn a_leak_gives_one_reference_away_and_others_are_still_released() {
    let (owner, node, user, handle) = pair();
    let again = give(&node, &owner, &user);
    let id = handle.leak();
    drop(again);
    nothing(&owner);
    drop(user.adopt_handle(id));
    released(&owner, &node);
}

#[test]
fn a_transfer_by_descriptor_names_the_handle_for_the_receiver() {
    let (owner, user) = (peer(), peer());
    let node = owner.create_node().unwrap();
    let id = owner.transfer_to_fd(node.handle(), &user).unwrap().unwrap();
    assert!(id.is_remote() && id.is_managed());
    let handle = user.adopt_handle(id);
    user.send(&handle, &text(b"hello")).unwrap();
    assert_eq!(message(&owner).payload(), b"hello");
}

#[test]
fn handles_keep_their_peer_connected() {
    let (owner, node, user, handle) = pair();
    drop(user);
    nothing(&owner);
    drop(handle);
    released(&owner, &node);
}

#[test]
fn references_add_up_however_threads_race() {
    const THREADS: usize = 3;
    const MESSAGES: usize = 2000;
    let (owner, user) = (peer(), peer());
    let node = owner.create_node().unwrap();
    let inbox = user.create_node().unwrap();
    let to_user = give(&inbox, &user, &owner);

    std::thread::scope(|threads| {
        let receivers: Vec<_> = (0..THREADS)
            .map(|_| {
                threads.spawn(|| {
                    let mut kept = Vec::new();
                    let mut received = 0;
                    loop {
                        let Event::Message(mut message) = user.recv().unwrap() else {
                            panic!("only messages were sent");
                        };
                        if message.payload() == b"end" {
                            return received;
                        }
                        received += 1;
                        let handle = message.take_handles().remove(0).unwrap();
                        user.send(&handle, &text(b"it works")).unwrap();
                        // Now and then it is the last clone that goes.
                        kept.push(handle);
                        if received % 3 == 0 {
                            kept.clear();
                        }
                    }
                })
            })
            .collect();
        let mut answers = 0;
        let mut take = || match owner.try_recv().unwrap() {
            Some(Event::Message(_)) => answers += 1,
            Some(Event::NodeReleased(_)) | None => {}
            other => panic!("{other:?}"),
        };
        let send = |message: Outgoing<'_>, take: &mut dyn FnMut()| {
            while let Err(error) = owner.send(&to_user, &message) {
                assert!(error.is_temporary(), "{error}");
                take();
            }
        };
        for _ in 0..MESSAGES {
            send(Outgoing::new().handle(node.handle()), &mut take);
            take();
        }
        for _ in 0..THREADS {
            send(text(b"end"), &mut take);
        }
        let received: usize = receivers.into_iter().map(|r| r.join().unwrap()).sum();
        assert_eq!(received, MESSAGES);
        while answers < MESSAGES {
            match owner.recv().unwrap() {
                Event::Message(_) => answers += 1,
                Event::NodeReleased(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });

    // All is given back: the next handle is the only one again, and goes as such.
    while let Some(event) = owner.try_recv().unwrap() {
        assert!(matches!(event, Event::NodeReleased(_)), "{event:?}");
    }
    let only = give(&node, &owner, &user);
    nothing(&owner);
    drop(only);
    released(&owner, &node);
    inbox.leak();
    user.flush().unwrap();
}
