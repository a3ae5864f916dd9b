// SPDX-License-Identifier: MIT OR Apache-2.0

//! The costs of bus1, beside those of the things it can replace.
//!
//! [`scenario`] holds what is measured, [`measure`] how, [`report`] what becomes of it, [`guard`]
//! what may not rise. The program runs in a VM on `/dev/bus1` and natively on the embedded host;
//! `cargo xtask bench` does both. `docs/benchmarks.md` says what each figure means.

// No file imports one that stands before it here, from top to bottom: report, report::goals,
// scenario, measure, guard, report::plot, report::table, report::data, report::stats, peer,
// process, socket, row.

pub mod guard;
pub mod measure;
pub mod peer;
pub mod process;
pub mod report;
pub mod row;
pub mod scenario;
pub mod socket;
