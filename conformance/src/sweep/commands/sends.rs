// SPDX-License-Identifier: MIT OR Apache-2.0

//! SEND.

use super::{Command, Points};
use crate::client::Send;
use crate::sweep::scene::{self, Scene};

/// More than one row of pages, in no whole number of them.
static LARGE: [u8; 150_000] = [b'x'; 150_000];

/// Returns SEND in all its forms, except with a wait for room.
pub(super) fn all() -> Vec<Command> {
    vec![
        Command::new("send: unicast", scene::busy, Points::Both, |scene, _| {
            scene
                .c()
                .message()
                .to(&scene.back[1..])
                .bytes(b"text")
                .send()
        }),
        Command::new("send: large", scene::idle, Points::Both, |scene, _| {
            scene
                .b()
                .message()
                .to(&scene.back[..1])
                .bytes(&LARGE)
                .send()
        }),
        Command::new(
            "send: many vectors",
            scene::idle,
            Points::Both,
            |scene, _| {
                let message = scene.b().message().to(&scene.back[..1]);
                let parts = LARGE.chunks(5_000);
                parts.fold(message, Send::bytes).send()
            },
        ),
        Command::new(
            "send: to a new node",
            scene::idle,
            Points::Both,
            |scene, _| scene.a().message().to(&[4]).bytes(b"own").send(),
        ),
        Command::new("send: handles", scene::waiting, Points::Both, |scene, _| {
            let message = scene.a().message().to(&scene.to[..1]).bytes(b"handles");
            let [b, c] = scene.to;
            message.handles(&[24, 0, b, c, 24]).send()
        }),
        Command::new(
            "send: descriptors",
            scene::busy,
            Points::Both,
            |scene, _| {
                let message = scene.c().message().to(&scene.back[1..]).bytes(b"files");
                message.fds(&[scene.fd(); 20]).send()
            },
        ),
        Command::new("send: multicast", scene::busy, Points::Both, |scene, _| {
            everything(scene).send()
        }),
        Command::new("send: CONTINUE", scene::busy, Points::Both, |scene, _| {
            everything(scene).proceed().send()
        }),
        Command::new(
            "send: CONTINUE past the dead",
            scene::bereft,
            Points::Both,
            |scene, _| {
                let message = scene.a().message().to(&scene.to).bytes(b"partial");
                let sent = message.handles(&[4]).proceed().outcome();
                // Lack of memory is no matter of one destination.
                if sent.result.is_ok() {
                    assert_eq!(sent.errors, [libc::EHOSTUNREACH, 0]);
                }
                sent.result
            },
        ),
        Command::new("send: to nobody", scene::idle, Points::Both, |scene, _| {
            scene.a().message().handles(&[4, 8]).send()
        }),
        Command::new("send: SEED", scene::waiting, Points::Both, |scene, _| {
            let message = scene.a().message().seed().bytes(&LARGE[..9_000]);
            message
                .handles(&[4, scene.to[1], 28])
                .fds(&[scene.fd()])
                .send()
        }),
    ]
}

/// A message to several nodes of several peers, two of them new, with everything.
fn everything<'a>(scene: &'a Scene<'_>) -> Send<'a> {
    let [b, c] = scene.to;
    let message = scene.a().message().to(&[c, 4, b, 8]).bytes(b"everything");
    message.handles(&[12, b, 4]).fds(&[scene.fd(); 2])
}
