// SPDX-License-Identifier: MIT OR Apache-2.0

//! Short runs of the history and the storm on the embedded host.

#![cfg(not(feature = "broken-order"))]

use bus1_conformance::host::{self, Kind};
use bus1_conformance::{history, storm};

const USER: u32 = 1000;

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
