// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guard: figures that are counted in instructions, beside those that were recorded before.
//!
//! Recorded figures are medians, and are those of one release of the kernel: another one costs
//! another tool for the same work, so its figures are shown and not judged.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};

use crate::report::data::Data;
use crate::report::table::{label, number};
use crate::row::Mode;

/// Most that a figure may differ from the recorded one, in percent of it.
const TOLERANCE: f64 = 3.0;
/// The command that renews the recorded figures.
const RENEW: &str = "cargo xtask bench --record";
/// The head of the file of recorded figures.
const HEAD: &str = "\
# SPDX-License-Identifier: MIT OR Apache-2.0
# What bus1 cost when it was last looked at: instructions, medians. `cargo xtask test` fails if a
# figure is more than 3 % above the one here. `cargo xtask bench --record` writes this file. A
# commit that changes it says why.
";

/// Returns whether the guard looks at this point.
#[must_use]
pub fn covers(scenario: &str, implementation: &str, param: u64) -> bool {
    /// Beyond this, the figure is that of the kernel's `memcpy`.
    const LARGEST: u64 = 64 << 10;
    ["unicast", "multicast", "round trip"].contains(&scenario)
        && implementation.starts_with("bus1 ")
        && param <= LARGEST
}

/// One figure, as it is recorded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Figure {
    kernel: String,
    scenario: String,
    implementation: String,
    param: u64,
    instructions: u64,
}

impl Figure {
    fn same_point(&self, other: &Self) -> bool {
        self.scenario == other.scenario
            && self.implementation == other.implementation
            && self.param == other.param
    }

    fn percent_above(&self, before: &Self) -> f64 {
        let [now, before] = [self, before].map(|figure| figure.instructions as f64);
        100.0 * (now - before) / before
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scenario,
            implementation,
            param,
            instructions,
            ..
        } = self;
        let param = label(scenario, *param);
        let figure = number(*instructions as f64);
        write!(
            f,
            "{scenario}, {implementation}, {param}: {figure} instructions"
        )
    }
}

/// Returns the medians of what was measured.
fn measured(data: &Data, kernel: &str) -> Vec<Figure> {
    let mode = Mode::Instructions;
    let mut figures = Vec::new();
    for scenario in data.scenarios(mode) {
        for implementation in data.implementations(mode, scenario) {
            for param in data.params(mode, scenario) {
                let cell = data.get(mode, scenario, implementation, param);
                figures.extend(cell.map(|cell| Figure {
                    kernel: kernel.to_owned(),
                    scenario: scenario.to_owned(),
                    implementation: implementation.to_owned(),
                    param,
                    instructions: cell.median.round() as u64,
                }));
            }
        }
    }
    figures
}

/// The figures beside the recorded ones.
#[derive(Default, PartialEq, Debug)]
struct Verdict {
    passed: usize,
    /// Faults, and how to mend them.
    failed: Vec<String>,
    /// Gains, and how to record them.
    better: Vec<String>,
}

fn compare(measured: &[Figure], recorded: &[Figure]) -> Verdict {
    let mut verdict = Verdict::default();
    for figure in measured {
        let Some(before) = recorded.iter().find(|other| other.same_point(figure)) else {
            let text = format!("{figure}, and none is recorded; record it: {RENEW}");
            verdict.failed.push(text);
            continue;
        };
        let change = figure.percent_above(before);
        let percent = change.abs();
        let was = number(before.instructions as f64);
        if change > TOLERANCE {
            verdict.failed.push(format!(
                "{figure}, {percent:.1} % above the recorded {was}; make it cheaper, or record \
                 what it costs now ({RENEW}) in a commit that says what it is worth"
            ));
        } else {
            verdict.passed += 1;
            if change < -TOLERANCE {
                verdict.better.push(format!(
                    "{figure}, {percent:.1} % below the recorded {was}; record it, or it may rise \
                     again unnoticed: {RENEW}"
                ));
            }
        }
    }
    for gone in recorded {
        if !measured.iter().any(|figure| figure.same_point(gone)) {
            verdict.failed.push(format!(
                "{gone} are recorded, and it was not measured; if it is gone for good: {RENEW}"
            ));
        }
    }
    verdict
}

/// Lists each figure with its change, for a kernel of which none is recorded.
fn beside(measured: &[Figure], recorded: &[Figure]) -> String {
    let mut text = String::new();
    for figure in measured {
        let before = recorded.iter().find(|other| other.same_point(figure));
        let change = before.map_or_else(
            || "none recorded".to_owned(),
            |before| format!("{:+.1} %", figure.percent_above(before)),
        );
        let _ = writeln!(text, "{figure} ({change})");
    }
    text
}

fn read_measured(csv: &Path, kernel: &str) -> Result<Vec<Figure>> {
    let file = File::open(csv).with_context(|| format!("cannot open {}", csv.display()))?;
    let figures = measured(&Data::read(file)?, kernel);
    ensure!(!figures.is_empty(), "{} has no figures", csv.display());
    Ok(figures)
}

fn read_recorded(path: &Path) -> Result<Vec<Figure>> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_path(path)
        .with_context(|| format!("cannot open {}; write it: {RENEW}", path.display()))?;
    let rows: Result<Vec<Figure>, _> = reader.deserialize().collect();
    let figures =
        rows.with_context(|| format!("cannot read {}; write it: {RENEW}", path.display()))?;
    ensure!(
        !figures.is_empty(),
        "{} is empty; write it: {RENEW}",
        path.display()
    );
    Ok(figures)
}

/// Compares the measurements in `csv` with the recorded figures, prints what is to be said and the
/// counts, and returns whether none is too high.
pub fn check(csv: &Path, recorded: &Path, kernel: &str) -> Result<bool> {
    let (measured, recorded) = (read_measured(csv, kernel)?, read_recorded(recorded)?);
    if let Some(other) = recorded.iter().find(|figure| figure.kernel != kernel) {
        print!("{}", beside(&measured, &recorded));
        println!(
            "NOT COMPARED: recorded are figures of {}, and this is {kernel}. What changed may be \
             the kernel's. To guard this one: {RENEW}",
            other.kernel
        );
        println!("0 passed, 0 failed, {} ignored", measured.len());
        return Ok(true);
    }
    let verdict = compare(&measured, &recorded);
    for text in &verdict.better {
        println!("better: {text}");
    }
    for text in &verdict.failed {
        println!("FAILED: {text}");
    }
    println!("{} passed, {} failed", verdict.passed, verdict.failed.len());
    Ok(verdict.failed.is_empty())
}

/// Writes the measurements in `csv` as the recorded figures.
pub fn record(csv: &Path, recorded: &Path, kernel: &str) -> Result<()> {
    let mut writer = csv::Writer::from_writer(HEAD.as_bytes().to_vec());
    for figure in read_measured(csv, kernel)? {
        writer.serialize(figure)?;
    }
    let text = writer.into_inner().context("cannot write the figures")?;
    fs::write(recorded, text).with_context(|| format!("cannot write {}", recorded.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "7.3.4+deb13-amd64";

    fn figure(param: u64, instructions: u64) -> Figure {
        Figure {
            kernel: KERNEL.to_owned(),
            scenario: "unicast".to_owned(),
            implementation: "bus1 raw".to_owned(),
            param,
            instructions,
        }
    }

    /// Measurements of one point, three times each.
    fn csv(values: &[(u64, f64)]) -> String {
        let mut text = "mode,scenario,implementation,param,repetition,value,unit\n".to_owned();
        for (param, value) in values {
            for (repetition, more) in [900.0, 0.0, 0.3].into_iter().enumerate() {
                let value = value + more;
                let _ = writeln!(
                    text,
                    "instructions,unicast,bus1 raw,{param},{repetition},{value},instructions"
                );
            }
        }
        text
    }

    #[test]
    fn up_to_3_percent_more_pass() {
        let recorded = [figure(0, 1000), figure(64, 2000)];
        let verdict = compare(&[figure(0, 1030), figure(64, 1940)], &recorded);
        assert_eq!((verdict.passed, verdict.failed.len()), (2, 0));
        assert!(verdict.better.is_empty(), "{:?}", verdict.better);
    }

    #[test]
    fn more_fails_and_says_what_by_how_much_and_what_to_do() {
        let recorded = [figure(0, 1000), figure(64, 20_000)];
        let verdict = compare(&[figure(0, 1000), figure(64, 20_700)], &recorded);
        assert_eq!((verdict.passed, verdict.failed.len()), (1, 1));
        let text = &verdict.failed[0];
        for part in [
            "unicast, bus1 raw, 64 B: 20,700 instructions",
            "3.5 % above the recorded 20,000",
            RENEW,
        ] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    #[test]
    fn less_passes_and_is_to_be_recorded() {
        let verdict = compare(&[figure(0, 900)], &[figure(0, 1000)]);
        assert_eq!((verdict.passed, verdict.failed.len()), (1, 0));
        assert!(verdict.better[0].contains("10.0 % below the recorded 1,000"));
    }

    #[test]
    fn a_figure_on_one_side_only_fails() {
        let verdict = compare(&[figure(0, 1000)], &[figure(64, 1000)]);
        assert_eq!((verdict.passed, verdict.failed.len()), (0, 2));
    }

    #[test]
    fn the_recorded_figures_are_the_compared_ones() {
        let dir = tempfile::tempdir().unwrap();
        let [before, now, recorded] =
            ["before", "now", "recorded"].map(|name| dir.path().join(name));
        fs::write(&before, csv(&[(0, 1000.0), (64, 2000.0)])).unwrap();
        record(&before, &recorded, KERNEL).unwrap();
        assert!(fs::read_to_string(&recorded).unwrap().starts_with(HEAD));
        assert_eq!(
            read_recorded(&recorded).unwrap(),
            [figure(0, 1000), figure(64, 2000)]
        );
        assert!(check(&before, &recorded, KERNEL).unwrap());

        fs::write(&now, csv(&[(0, 1000.0), (64, 2100.0)])).unwrap();
        assert!(!check(&now, &recorded, KERNEL).unwrap());
        // Of another kernel it is no verdict.
        assert!(check(&now, &recorded, "7.4.0+deb13-amd64").unwrap());
    }

    #[test]
    fn no_figures_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let [none, recorded] = ["none", "recorded"].map(|name| dir.path().join(name));
        fs::write(&none, csv(&[])).unwrap();
        assert!(check(&none, &recorded, KERNEL).is_err());
        assert!(record(&none, &recorded, KERNEL).is_err());
        fs::write(&none, csv(&[(0, 1000.0)])).unwrap();
        assert!(
            check(&none, &recorded, KERNEL).is_err(),
            "nothing is recorded"
        );
        fs::write(&recorded, HEAD).unwrap();
        assert!(check(&none, &recorded, KERNEL).is_err(), "still nothing");
    }

    #[test]
    fn the_guard_looks_at_bus1_alone() {
        assert!(covers("unicast", "bus1 raw", 64 << 10));
        assert!(!covers("unicast", "bus1 raw", 1 << 20));
        assert!(!covers("unicast", "seqpacket", 64));
        assert!(!covers("growth: peers", "bus1 raw", 10));
    }
}
