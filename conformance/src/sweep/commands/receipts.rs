// SPDX-License-Identifier: MIT OR Apache-2.0

//! RECV.

use bus1_uapi as abi;

use super::{Command, Points};
use crate::host::{Bus, Result};
use crate::sweep::scene::{self, Scene};

/// Returns RECV in all its forms.
pub(super) fn all() -> Vec<Command> {
    vec![
        Command::new("recv", scene::busy, Points::Copies, |scene, _| {
            recv(scene, 0)
        }),
        Command::new(
            "recv: handles",
            scene::waiting,
            Points::Copies,
            |scene, _| recv(scene, 0),
        ),
        Command::new(
            "recv: INSTALL_FDS",
            scene::waiting,
            Points::Both,
            |scene, _| recv(scene, abi::RECV_FLAG_INSTALL_FDS),
        ),
        Command::new(
            "recv: notification",
            notified,
            Points::Copies,
            |scene, _| recv(scene, 0),
        ),
        Command::new("recv: SEED", scene::waiting, Points::Both, |scene, _| {
            recv(scene, abi::RECV_FLAG_SEED)
        }),
        Command::new(
            "recv: SEED, INSTALL_FDS",
            scene::waiting,
            Points::Both,
            |scene, _| recv(scene, abi::RECV_FLAG_SEED | abi::RECV_FLAG_INSTALL_FDS),
        ),
    ]
}

/// Makes a scene with a notification at the head of the first's queue.
fn notified(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let scene = scene::idle(bus, first_user);
    scene.b().destroy(&[0]).unwrap();
    scene
}

/// RECV at the first.
pub(super) fn recv(scene: &mut Scene<'_>, flags: u64) -> Result {
    let message = scene.a().receive().flags(flags).run()?;
    scene.keep(message);
    Ok(())
}
