// SPDX-License-Identifier: MIT OR Apache-2.0

//! Handles, nodes and slices.

use super::{Command, Points};
use crate::sweep::scene;

/// Returns the commands about handles, nodes and slices.
pub(super) fn all() -> Vec<Command> {
    vec![
        Command::new(
            "handle_transfer: new node",
            scene::busy,
            Points::Both,
            |scene, _| scene.a().give(scene.b(), 4).map(drop),
        ),
        Command::new(
            "handle_transfer: to itself",
            scene::idle,
            Points::Both,
            |scene, _| scene.a().give_self(4).map(drop),
        ),
        Command::new(
            "handle_transfer: known handle",
            scene::idle,
            Points::Copies,
            |scene, _| scene.a().give(scene.b(), 0).map(drop),
        ),
        Command::new(
            "handle_transfer: passed on",
            scene::waiting,
            Points::Both,
            |scene, _| scene.a().give(scene.c(), scene.to[0]).map(drop),
        ),
        Command::new(
            "handle_release",
            scene::waiting,
            Points::None,
            |scene, _| scene.b().release(scene.back[0]),
        ),
        Command::new(
            "nodes_destroy: one",
            scene::waiting,
            Points::Copies,
            |scene, _| scene.a().destroy(&[0]),
        ),
        Command::new(
            "nodes_destroy: many",
            scene::waiting,
            Points::Both,
            |scene, _| scene.a().destroy(&[12, 0, 4, 16]),
        ),
        Command::new(
            "nodes_destroy: release handles",
            scene::waiting,
            Points::Both,
            |scene, _| scene.a().destroy_and_release(&[0, 4, 20]),
        ),
        Command::new(
            "slice_release",
            scene::received,
            Points::None,
            |scene, _| scene.a().release_slice(scene.slices[1]),
        ),
    ]
}
