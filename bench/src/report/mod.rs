// SPDX-License-Identifier: MIT OR Apache-2.0

//! From `bench.csv` to tables, plots and a verdict on every goal.

pub mod data;
pub mod goals;
pub mod plot;
pub mod stats;
pub mod table;

use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

use crate::row::{Mode, Unit};
use data::Data;

/// Reads `bench.csv` in `dir`, writes `bench.md` and the plots beside it, and prints the summary.
/// `about` says when, where and by which command it was measured.
pub fn write(dir: &Path, about: &str) -> Result<()> {
    let path = dir.join("bench.csv");
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let data = Data::read(file)?;

    let goals = goals::goals(&data);
    for goal in &goals {
        println!("{goal}");
    }
    let mut text = format!("# What bus1 costs\n\n{about}\n\n## Goals\n\n");
    text += "| what | goal | figure | |\n|---|---:|---:|---|\n";
    for goal in &goals {
        text += &goal.row();
    }
    for mode in data.modes() {
        text += &section(&data, mode, dir)?;
    }
    let path = dir.join("bench.md");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes all scenarios of a mode.
fn section(data: &Data, mode: Mode, dir: &Path) -> Result<String> {
    let mut text = format!("\n## {}\n\n{}\n", title(mode), meaning(mode));
    for scenario in data.scenarios(mode) {
        let unit = data.unit(mode, scenario);
        let _ = write!(text, "\n### {scenario}\n\n{}", per(scenario, unit));
        let _ = write!(text, "\n\n{}", table::table(data, mode, scenario));
        let name = file_name(mode, scenario);
        if plot::plot(data, mode, scenario, &dir.join(&name))? {
            let _ = write!(text, "\n![{scenario}]({name})\n");
        }
    }
    Ok(text)
}

fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::Instructions => "Instructions",
        Mode::Time => "Time in the VM",
        Mode::Native => "Time on the machine itself, embedded host",
    }
}

fn meaning(mode: Mode) -> &'static str {
    match mode {
        Mode::Instructions => {
            "Instructions of the guest, kernel and user space together; one CPU. (×) is the ratio to \
             SEQPACKET, or to the first row."
        }
        Mode::Time => {
            "Medians, ± half of the distance of the quartiles. Emulation slows system calls down \
             by 2 to 2.5 and switches of context by far more: only ratios mean something."
        }
        Mode::Native => {
            "Medians, ± half of the distance of the quartiles. (×) is the ratio to the channel."
        }
    }
}

/// Returns the work that one figure is for.
fn per(scenario: &str, unit: Unit) -> String {
    let what = match scenario {
        "round trip" => "question and answer",
        "idle peer" => "peer, or pair of sockets",
        "multicast" | "embedded, multicast" => "destination",
        _ => "message",
    };
    let mut text = unit.name().to_owned();
    // A sentence begins with it.
    text[..1].make_ascii_uppercase();
    if text == "Ns" {
        "Nanoseconds".clone_into(&mut text);
    }
    format!("{text} per {what}.")
}

fn file_name(mode: Mode, scenario: &str) -> String {
    let words = format!("{mode:?} {scenario}").to_lowercase();
    let words: Vec<_> = words
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    format!("{}.svg", words.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_goals_tables_and_the_plots_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bench.csv"), data::tests::CSV).unwrap();
        write(dir.path(), "2030-01-01, by hand").unwrap();
        let text = fs::read_to_string(dir.path().join("bench.md")).unwrap();
        assert!(text.contains("2030-01-01"));
        assert!(
            text.contains(
                "| unicast, 64 B, 3 commands | ≤ 3,700 instructions | 3,001 instructions | met |"
            ),
            "{text}"
        );
        assert!(text.contains("| 64 B | 3,001 (× 0.75) | 4,000 |"));
        assert!(text.contains("(instructions-unicast.svg)"));
        assert!(dir.path().join("instructions-unicast.svg").is_file());
    }

    #[test]
    fn names_of_files_are_plain() {
        let name = file_name(Mode::Native, "embedded, two threads");
        assert_eq!(name, "native-embedded-two-threads.svg");
    }
}
