// SPDX-License-Identifier: MIT OR Apache-2.0

//! SEND with a wait for room, and what ends the wait.

use bus1_uapi as abi;

use super::receipts::recv;
use super::{Command, Points};
use crate::client::Limits;
use crate::host::{Bus, Errno, Result};
use crate::sweep::scene::{self, Scene};

/// Returns SEND with a wait for room, and the commands that meet a wait or its notice.
pub(super) fn all() -> Vec<Command> {
    vec![
        Command::new("send: ROOM", full, Points::Both, |scene, _| ask(scene)),
        Command::new("send: ROOM, to several", full, Points::Both, |scene, _| {
            let message = scene.a().message().to(&[scene.to[1], scene.to[0]]);
            let sent = message.bytes(b"several").handles(&[4]).room().outcome();
            refused(sent.result)
        }),
        // A wait that gets no memory is an error of its destination, which stops no other one.
        Command::new("send: ROOM, CONTINUE", full, Points::Both, |scene, done| {
            if done == 1 {
                return ask(scene);
            }
            let message = scene.a().message().to(&[scene.to[1], scene.to[0]]);
            let sent = message.bytes(b"partial").room().proceed().outcome();
            sent.result?;
            match sent.errors[..] {
                [0, libc::EDQUOT] => Ok(()),
                [0, libc::ENOMEM] => Err(Errno::NOMEM),
                _ => panic!("the destinations' errors are {:?}", sent.errors),
            }
        })
        .steps(&[|scene| {
            let message = scene.a().message().to(&scene.to[1..]);
            message.bytes(b"partial").proceed().send()
        }]),
        Command::new(
            "recv: room notice",
            room_again,
            Points::Copies,
            |scene, _| recv(scene, 0),
        ),
        Command::new(
            "peer_reset: flush a room notice",
            room_again,
            Points::Copies,
            |scene, _| scene.a().flush(abi::PEER_RESET_FLAG_FLUSH),
        ),
        Command::new("slice_release: room", wanted, Points::None, |scene, _| {
            scene.b().release_slice(scene.slices[0])
        }),
        Command::new("handle_release: wait", wanted, Points::None, |scene, _| {
            scene.a().release(scene.to[0])
        }),
        Command::new("nodes_destroy: wait", wanted, Points::Copies, |scene, _| {
            scene.b().destroy(&[0])
        }),
    ]
}

/// Makes a scene in which the second takes no more messages of the first; one of them is received.
fn full(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let mut scene = scene::idle(bus, first_user);
    let few = Limits {
        slices: 8,
        ..Limits::KEEP
    };
    scene.b().limit(few).unwrap();
    let send = || scene.a().message().to(&scene.to[..1]).bytes(b"full").send();
    let end = loop {
        if let Err(errno) = send() {
            break errno;
        }
    };
    assert_eq!(end, Errno::DQUOT);
    let slice = scene.b().expect_data().msg.offset;
    scene.slices.push(slice);
    scene
}

/// Makes a scene in which the first waits for room at the second.
fn wanted(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let scene = full(bus, first_user);
    ask(&scene).unwrap();
    scene
}

/// Makes a scene with the notice that there is room at the head of the first's queue.
fn room_again(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let scene = wanted(bus, first_user);
    scene.b().release_slice(scene.slices[0]).unwrap();
    scene
}

/// Sends from the first to the second, which has to refuse, with a wait for room.
fn ask(scene: &Scene<'_>) -> Result {
    let message = scene.a().message().to(&scene.to[..1]).bytes(b"more");
    refused(message.room().outcome().result)
}

/// Returns success for the refusal that begins a wait.
fn refused(sent: Result) -> Result {
    match sent {
        Err(Errno::DQUOT) => Ok(()),
        Ok(()) => panic!("a message to a peer without room is not refused"),
        other => other,
    }
}
