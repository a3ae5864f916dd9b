// SPDX-License-Identifier: MIT OR Apache-2.0

//! EXCHANGE.

use bus1_uapi as abi;

use super::{Command, Points};
use crate::client::{Exchange, Send};
use crate::host::{Errno, Result};
use crate::sweep::scene::{self, Scene};

/// The parts of one EXCHANGE.
#[derive(Clone, Copy)]
struct Parts {
    release: bool,
    send: bool,
    room: usize,
}

impl Parts {
    const NONE: Self = Self {
        release: false,
        send: false,
        room: 0,
    };
    const RELEASE: Self = Self {
        release: true,
        ..Self::NONE
    };
    const SEND: Self = Self {
        send: true,
        ..Self::NONE
    };
    const RECEIVE: Self = Self {
        room: 1,
        ..Self::NONE
    };
    const RECEIVE_MANY: Self = Self {
        room: 5,
        ..Self::NONE
    };
    const ALL: Self = Self {
        release: true,
        send: true,
        room: 5,
    };
}

/// Returns EXCHANGE with each step by itself, and with all together.
pub(super) fn all() -> Vec<Command> {
    vec![
        Command::new(
            "exchange: release",
            scene::received,
            Points::Copies,
            |scene, done| exchange(scene, Parts::RELEASE, done),
        )
        .steps(&[release_first, release_second]),
        Command::new(
            "exchange: send",
            scene::busy,
            Points::Both,
            |scene, done| exchange(scene, Parts::SEND, done),
        ),
        Command::new(
            "exchange: receive",
            scene::received,
            Points::Both,
            |scene, done| exchange(scene, Parts::RECEIVE, done),
        ),
        Command::new(
            "exchange: receive many",
            scene::received,
            Points::Both,
            |scene, done| exchange(scene, Parts::RECEIVE_MANY, done),
        )
        .many(),
        Command::new(
            "exchange: all",
            scene::received,
            Points::Both,
            |scene, done| exchange(scene, Parts::ALL, done),
        )
        .steps(&[release_first, release_second, send_alone])
        .many(),
    ]
}

fn release_first(scene: &mut Scene<'_>) -> Result {
    scene.a().release_slice(scene.slices[0])
}

fn release_second(scene: &mut Scene<'_>) -> Result {
    scene.a().release_slice(scene.slices[1])
}

fn send_alone(scene: &mut Scene<'_>) -> Result {
    outgoing(scene).send()
}

/// The message that EXCHANGE sends.
fn outgoing<'a>(scene: &'a Scene<'_>) -> Send<'a> {
    let message = scene.a().message().to(&scene.to).bytes(b"question");
    message.handles(&[32, scene.to[1]]).fds(&[scene.fd()])
}

/// EXCHANGE at the first without the first `done` of its steps: a release for each slice, a SEND.
fn exchange(scene: &mut Scene<'_>, parts: Parts, done: usize) -> Result {
    let slices = if parts.release {
        scene.slices.clone()
    } else {
        Vec::new()
    };
    let released = done.min(slices.len());
    let mut call = scene.a().exchange().release(&slices[released..]);
    if parts.send && done == released {
        call = call.send(outgoing(scene));
    }
    if parts.room > 0 {
        call = call.room(parts.room);
    }
    match call.call() {
        Ok(()) => {
            let messages = call.messages();
            drop(call);
            messages.into_iter().for_each(|message| scene.keep(message));
            Ok(())
        }
        Err(errno) => {
            let all = slices.len() + usize::from(parts.send);
            let reported = all - left(&call);
            drop(call);
            // EFAULT can mean that the structure was not written.
            scene.reported = (errno != Errno::FAULT).then_some(reported);
            Err(errno)
        }
    }
}

/// Returns the number of steps that a failed EXCHANGE reports as left.
fn left(call: &Exchange<'_>) -> usize {
    call.arg.n_slices as usize + usize::from(call.arg.flags & abi::EXCHANGE_FLAG_SEND != 0)
}
