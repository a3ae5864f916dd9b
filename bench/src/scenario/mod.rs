// SPDX-License-Identifier: MIT OR Apache-2.0

//! The scenarios that are measured. Each file is one scenario; each of its functions sets an
//! implementation up and gives the body that does one message, round trip or multicast.

pub mod binder;
pub mod cargo;
pub mod contention;
pub mod dbus;
pub mod embedded;
pub mod growth;
pub mod memory;
pub mod multicast;
pub mod round_trip;
pub mod scaling;
pub mod unicast;
pub mod users;

use anyhow::Result;

use crate::measure::{settle, Bench};
use crate::process::{cpus, pin};
use crate::row::Mode;

/// Runs all that make sense in the mode.
pub fn run(bench: &mut Bench) -> Result<()> {
    if bench.mode() == Mode::Native {
        embedded::run(bench);
        return Ok(());
    }
    let cpus = cpus()?;
    pin(0)?;
    settle(bench.mode())?;
    unicast::run(bench);
    multicast::run(bench);
    cargo::run(bench);
    round_trip::run(bench);
    binder::run(bench);
    dbus::run(bench);
    growth::run(bench);
    users::run(bench);
    contention::run(bench, cpus);
    if cpus > 1 {
        scaling::run(bench);
    }
    memory::run(bench);
    Ok(())
}
