// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands of the sweep, and the system calls on a peer that are no commands.

// Floors, bottom to top:
//   peers, handles, sends, exchanges, receipts
//   room

mod exchanges;
mod handles;
mod peers;
mod receipts;
mod room;
mod sends;

use super::scene::Scene;
use crate::host::{Bus, Result};

/// A command on a scene.
pub struct Command {
    pub name: &'static str,
    /// Makes the peers that it is tried on.
    pub scene: for<'a> fn(&'a dyn Bus, u32) -> Scene<'a>,
    /// Gives the command without its first steps, which are done; 0 for the whole command.
    pub call: fn(&mut Scene<'_>, usize) -> Result,
    /// The steps that stay done if a later one fails, each by a command of its own.
    pub steps: &'static [fn(&mut Scene<'_>) -> Result],
    pub points: Points,
    /// Whether it receives several messages, the later ones only if nothing fails.
    pub many: bool,
}

/// Whether a command has allocations, of slabs or pages, and user copies: of what it has, at least
/// one is a point.
///
/// An allocation ends in ENOMEM or is survived, a user copy in EFAULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// It allocates nothing, and copies no more than one number.
    None,
    Allocations,
    Copies,
    Both,
}

impl Points {
    /// Whether the command has allocations that can fail it.
    pub fn has_allocations(self) -> bool {
        matches!(self, Self::Allocations | Self::Both)
    }

    /// Whether the command has user copies.
    pub fn has_copies(self) -> bool {
        matches!(self, Self::Copies | Self::Both)
    }
}

impl Command {
    const fn new(
        name: &'static str,
        scene: for<'a> fn(&'a dyn Bus, u32) -> Scene<'a>,
        points: Points,
        call: fn(&mut Scene<'_>, usize) -> Result,
    ) -> Self {
        Self {
            name,
            scene,
            call,
            steps: &[],
            points,
            many: false,
        }
    }

    const fn steps(mut self, steps: &'static [fn(&mut Scene<'_>) -> Result]) -> Self {
        self.steps = steps;
        self
    }

    const fn many(mut self) -> Self {
        self.many = true;
        self
    }
}

/// Returns all commands.
pub fn all() -> Vec<Command> {
    [
        peers::all(),
        handles::all(),
        sends::all(),
        room::all(),
        receipts::all(),
        exchanges::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
