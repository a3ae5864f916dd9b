// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every command with each of its allocations and user copies failing in turn.
//!
//! A command that fails leaves no trace: counts and charges of all peers, their readiness and the
//! open descriptors are as before, and the same command then does what it would have done without
//! the fault. The sweep counts up from the first point where a command can fail, until the command
//! succeeds without reaching the point. Each point fails [alone](Mode::Once), so that code which
//! tries again shows, and [with all that follow](Mode::Onwards), so that a failure shows which a
//! second attempt would hide.
//!
//! Each [`Kind`] of points is counted and let fail apart, so a call that has one more point of one
//! kind than the call before moves no point of another. Where points move nevertheless, all of that
//! kind fail anew, until their number is the same twice in a row.
//!
//! The kernel needs fault injection, which no stock kernel has; `cargo xtask test --debug-kernel`
//! boots one.

// Floors, bottom to top:
//   scene
//   trace
//   commands, injector
//   walk

mod commands;
mod injector;
mod scene;
#[cfg(test)]
mod tests;
mod trace;
mod walk;

use std::fmt;
use std::io::Write;
use std::ops::AddAssign;

use crate::host::Bus;

pub use injector::Injector;

/// The extent of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One point fails, and all later ones succeed.
    Once,
    /// A point fails, and all later ones do.
    Onwards,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Once => "once",
            Self::Onwards => "onwards",
        })
    }
}

/// The kind of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An allocation from a slab.
    Slabs,
    /// An allocation of pages, except those that become a slab: that one is a point of its own.
    Pages,
    /// A copy from or to user space.
    Copies,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Slabs, Self::Pages, Self::Copies];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slabs => "slabs",
            Self::Pages => "pages",
            Self::Copies => "copies",
        })
    }
}

/// Numbers of points or of faults, by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Allocations from slabs.
    pub slabs: u64,
    /// Allocations of pages.
    pub pages: u64,
    /// Copies from and to user space.
    pub copies: u64,
}

impl Counts {
    /// Returns the number of all kinds together.
    pub fn sum(self) -> u64 {
        self.slabs + self.pages + self.copies
    }

    /// Returns the number of this kind.
    pub fn of(self, kind: Kind) -> u64 {
        match kind {
            Kind::Slabs => self.slabs,
            Kind::Pages => self.pages,
            Kind::Copies => self.copies,
        }
    }

    /// Returns the number of this kind, to be changed.
    pub fn of_mut(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Slabs => &mut self.slabs,
            Kind::Pages => &mut self.pages,
            Kind::Copies => &mut self.copies,
        }
    }

    /// Whether there is any.
    pub fn any(self) -> bool {
        self.sum() > 0
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.slabs += other.slabs;
        self.pages += other.pages;
        self.copies += other.copies;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            slabs,
            pages,
            copies,
        } = self;
        write!(f, "{slabs} slabs, {pages} pages and {copies} copies")
    }
}

/// A host that lets allocations and user copies of the bus fail.
pub trait Faults {
    /// Lets point number `nth` of this kind fail in the calling thread, counted from 1 and from now
    /// on. Points of another kind do not fail, and are not counted.
    ///
    /// # Errors
    ///
    /// The host refuses; the message names the file.
    fn arm(&self, kind: Kind, mode: Mode, nth: u32) -> std::io::Result<()>;

    /// Lets nothing fail any more, and returns the faults since [`arm`](Self::arm): none if the
    /// point was not reached.
    ///
    /// # Errors
    ///
    /// The host refuses; the message names the file.
    fn disarm(&self) -> std::io::Result<Counts>;
}

/// Counts of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Commands that passed.
    pub passed: usize,
    /// Commands that failed.
    pub failed: usize,
    /// Points of the commands that passed.
    pub points: Counts,
    /// Faults in the commands that passed: more than points, since each fails in both modes, and
    /// [`Mode::Onwards`] injects several.
    pub injected: Counts,
    /// Kinds of points that moved in the commands that passed, and were walked again for it.
    pub moved: usize,
}

/// Runs all commands whose name contains `filter`, and prints the result of each to `out`.
///
/// # Errors
///
/// `out` cannot be written. A command that fails is no error; the returned counts show it.
pub fn run(
    bus: &dyn Bus,
    faults: &dyn Faults,
    first_user: u32,
    filter: Option<&str>,
    out: &mut dyn Write,
) -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    for command in commands::all() {
        if filter.is_some_and(|filter| !command.name.contains(filter)) {
            continue;
        }
        let name = command.name;
        match walk::walk(bus, faults, first_user, &command) {
            Ok(walk) => {
                tally.passed += 1;
                tally.points += walk.points;
                tally.injected += walk.injected;
                tally.moved += walk.moved;
                let moved = match walk.moved {
                    0 => String::new(),
                    n => format!(", walked again for {n} kinds that moved"),
                };
                writeln!(
                    out,
                    "test sweep::{name} ... ok: {}, refused {}, survived {}{moved}",
                    walk.points, walk.refused, walk.survived
                )?;
            }
            Err(why) => {
                tally.failed += 1;
                writeln!(out, "test sweep::{name} ... FAILED\n    {why}")?;
            }
        }
        out.flush()?;
    }
    if let Some(what) = bus.left_over() {
        tally.failed += 1;
        writeln!(out, "all peers are closed, but the bus still counts {what}")?;
    }
    writeln!(
        out,
        "sweep: {} failed in turn, with {} in all; {} kinds of points moved",
        tally.points, tally.injected, tally.moved
    )?;
    writeln!(out, "{} passed, {} failed", tally.passed, tally.failed)?;
    Ok(tally)
}
