// SPDX-License-Identifier: MIT OR Apache-2.0

//! The history checker against a core whose order is broken on purpose:
//! `cargo test -p bus1-conformance --features broken-order --test broken_order`.

#![cfg(feature = "broken-order")]

use bus1_conformance::history::{self, Violation};
use bus1_conformance::host::{self, Kind};

const USER: u32 = 1000;

fn violation(options: &history::Options) -> Violation {
    let bus = host::open(Kind::Embedded).unwrap();
    let recorded = history::record(&*bus, USER, options).unwrap();
    history::check(&recorded).expect_err("the checker sees nothing")
}

#[test]
fn every_history_is_found_out() {
    for seed in 0..3 {
        let multicasts = 3_000;
        violation(&history::Options {
            multicasts,
            seed,
            ..history::Options::default()
        });
    }
}

#[test]
fn receivers_that_disagree_are_found() {
    // With one node for each receiver it mostly shows between receivers.
    let disagree = (0..20).any(|seed| {
        let found = violation(&history::Options {
            multicasts: 3_000,
            slots: 1,
            seed,
            ..history::Options::default()
        });
        matches!(found, Violation::Consistency(..) | Violation::Circle(_))
    });
    assert!(disagree, "nothing that was found is about two receivers");
}
