// SPDX-License-Identifier: MIT OR Apache-2.0

//! The whole suite on the embedded host, and short runs of the history and the storm.

#![cfg(not(feature = "broken-order"))]

use std::time::Duration;

use bus1_conformance::host::{self, Kind};
use bus1_conformance::{history, run, storm};

const USER: u32 = 1000;

#[test]
fn all_cases_pass() {
    let options = run::Options {
        kind: Kind::Embedded,
        filter: None,
        jobs: 4,
        patience: Duration::from_secs(120),
    };
    let mut out = Vec::new();
    let tally = run::run(&options, &mut out).unwrap();
    assert_eq!(tally.failed, 0, "{}", String::from_utf8_lossy(&out));
    assert!(tally.passed >= 400, "only {} cases ran", tally.passed);
}

#[test]
fn a_history_is_in_order() {
    let bus = host::open(Kind::Embedded).unwrap();
    let options = history::Options {
        multicasts: 5_000,
        ..history::Options::default()
    };
    let recorded = history::record(&*bus, USER, &options).unwrap();
    let summary = history::check(&recorded).unwrap_or_else(|violation| panic!("{violation}"));
    assert!(summary.multicasts >= 5_000);
}

#[test]
fn a_storm_leaves_nothing() {
    let bus = host::open(Kind::Embedded).unwrap();
    let options = storm::Options {
        rounds: 2_000,
        ..storm::Options::default()
    };
    let summary = storm::run(&*bus, USER, &options).unwrap_or_else(|failed| panic!("{failed}"));
    assert_eq!(summary.commands, 16_000);
    assert!(summary.deaths > 0);
}
