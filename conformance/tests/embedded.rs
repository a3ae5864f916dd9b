// SPDX-License-Identifier: MIT OR Apache-2.0

//! All cases on the embedded host. A process of its own: some cases change limits of the process.

#![cfg(not(feature = "broken-order"))]

use std::time::Duration;

use bus1_conformance::host::Kind;
use bus1_conformance::run;

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
