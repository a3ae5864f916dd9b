// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tables in Markdown: a row for each parameter, a column for each implementation.

use std::fmt::Write;

use super::data::Data;
use super::stats::Summary;
use crate::row::{Mode, Unit};

/// Implementations that others are compared with: the first that is there.
const REFERENCES: [&str; 2] = ["seqpacket", "crossbeam"];

/// Returns the number that a scenario varies.
#[must_use]
pub fn varies(scenario: &str) -> &'static str {
    match scenario {
        "unicast" | "round trip" | "embedded, one thread" | "embedded, two threads" => "bytes",
        "multicast" | "embedded, multicast" => "receivers",
        "handles" | "growth: handles" => "handles",
        "descriptor" => "descriptors",
        "growth: peers" | "idle peer" => "peers",
        "growth: queued" | "queued 64 B" => "messages",
        "users" | "contention" => "senders",
        "scaling" | "embedded, scaling" => "pairs",
        _ => "",
    }
}

/// Returns a number as people read it: groups of three, and one place after the point where it is
/// small.
#[must_use]
pub fn number(value: f64) -> String {
    if value.abs() < 99.95 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        text.insert(0, '-');
    }
    text
}

/// Bytes, receivers and such as a label.
#[must_use]
pub fn label(scenario: &str, param: u64) -> String {
    match param {
        _ if varies(scenario) != "bytes" => number_of(param),
        0..1024 => format!("{param} B"),
        1024..0x10_0000 => format!("{} KiB", param >> 10),
        _ => format!("{} MiB", param >> 20),
    }
}

fn number_of(param: u64) -> String {
    if param < 100 {
        param.to_string()
    } else {
        number(param as f64)
    }
}

/// Returns the figure that a cell is compared with: the reference at the same parameter, or, if
/// only the implementation itself is measured, the first row.
fn base(data: &Data, mode: Mode, scenario: &str, name: &str, param: u64) -> Option<Summary> {
    let names = data.implementations(mode, scenario);
    match REFERENCES.iter().find(|name| names.contains(name)) {
        Some(&reference) if reference == name => None,
        Some(reference) => data.get(mode, scenario, reference, param),
        None => {
            let first = *data.params(mode, scenario).first()?;
            (first != param)
                .then(|| data.get(mode, scenario, name, first))
                .flatten()
        }
    }
}

fn cell(data: &Data, mode: Mode, scenario: &str, name: &str, param: u64) -> String {
    let Some(summary) = data.get(mode, scenario, name, param) else {
        return String::new();
    };
    let mut text = number(summary.median);
    // Counts are so alike that it would only be in the way.
    if data.unit(mode, scenario) == Unit::Ns || summary.spread >= 0.02 {
        let _ = write!(text, " ± {:.0} %", summary.spread * 50.0);
    }
    if let Some(base) = base(data, mode, scenario, name, param) {
        let _ = write!(text, " (× {:.2})", summary.median / base.median);
    }
    text
}

/// Returns the table of one scenario in one mode.
#[must_use]
pub fn table(data: &Data, mode: Mode, scenario: &str) -> String {
    let names = data.implementations(mode, scenario);
    let mut text = format!("| {} |", varies(scenario));
    for name in &names {
        let _ = write!(text, " {name} |");
    }
    text += "\n|---:|";
    text += &"---:|".repeat(names.len());
    text.push('\n');
    for param in data.params(mode, scenario) {
        let _ = write!(text, "| {} |", label(scenario, param));
        for name in &names {
            let _ = write!(text, " {} |", cell(data, mode, scenario, name, param));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::CSV;
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [
            (0.75, "0.8"),
            (99.94, "99.9"),
            (100.4, "100"),
            (1234.0, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-2000.0, "-2,000"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_table_has_medians_ratios_and_gaps() {
        let data = Data::read(CSV.as_bytes()).unwrap();
        let expected = "| bytes | bus1 raw | seqpacket |\n\
                        |---:|---:|---:|\n\
                        | 0 B |  | 3,300 |\n\
                        | 64 B | 3,001 (× 0.75) | 4,000 |\n";
        assert_eq!(table(&data, Mode::Instructions, "unicast"), expected);
    }

    #[test]
    fn growth_is_compared_with_its_first_row() {
        let csv = "mode,scenario,implementation,param,repetition,value,unit\n\
                   instructions,growth: peers,bus1 raw,10,0,1000,instructions\n\
                   instructions,growth: peers,bus1 raw,10000,0,1150,instructions\n";
        let data = Data::read(csv.as_bytes()).unwrap();
        let text = table(&data, Mode::Instructions, "growth: peers");
        assert!(
            text.contains("| 10 | 1,000 |\n| 10,000 | 1,150 (× 1.15) |\n"),
            "{text}"
        );
    }
}
