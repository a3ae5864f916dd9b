// SPDX-License-Identifier: MIT OR Apache-2.0

//! One figure, as it stands in `bench.csv`.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The machine and the clock that it was measured by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In a VM whose time is a count of instructions: one CPU, 1 ns is one instruction.
    Instructions,
    /// In a VM with as many CPUs as it has, by the clock.
    Time,
    /// On the machine itself, by the clock, on the embedded host.
    Native,
}

impl Mode {
    /// Returns the unit of its figures.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Instructions => Unit::Instructions,
            Self::Time | Self::Native => Unit::Ns,
        }
    }
}

/// The unit of a figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Instructions of the guest, kernel and user space.
    Instructions,
    /// Nanoseconds.
    Ns,
    /// Bytes of memory.
    Bytes,
}

impl Unit {
    /// Its name in a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Ns => "ns",
            Self::Bytes => "bytes",
        }
    }
}

/// One repetition of one measurement.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The way that it was measured.
    pub mode: Mode,
    /// The work.
    pub scenario: String,
    /// The implementation that did it.
    pub implementation: String,
    /// Bytes, receivers, peers: what the scenario varies.
    pub param: u64,
    /// Counts from 0.
    pub repetition: u32,
    /// Per message, or per what the scenario says.
    pub value: f64,
    /// Of the value.
    pub unit: Unit,
}
