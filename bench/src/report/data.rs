// SPDX-License-Identifier: MIT OR Apache-2.0

//! All rows of a run, by mode, scenario, implementation and parameter, in the order in which they
//! came.

use std::io::Read;

use anyhow::{Context, Result};

use super::stats::Summary;
use crate::row::{Mode, Row, Unit};

/// One cell of a table: all repetitions of one measurement.
struct Cell {
    key: Row,
    values: Vec<f64>,
}

/// All cells.
#[derive(Default)]
pub struct Data(Vec<Cell>);

/// Returns each value once, in the order in which they come first.
fn unique<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

impl Data {
    /// Reads CSV with a head.
    pub fn read(from: impl Read) -> Result<Self> {
        let mut data = Self::default();
        for row in csv::Reader::from_reader(from).into_deserialize() {
            data.push(row.context("cannot read a row of bench.csv")?);
        }
        Ok(data)
    }

    fn push(&mut self, row: Row) {
        let value = row.value;
        let same = |cell: &&mut Cell| {
            let key = &cell.key;
            key.mode == row.mode
                && key.scenario == row.scenario
                && key.implementation == row.implementation
                && key.param == row.param
        };
        match self.0.iter_mut().find(same) {
            Some(cell) => cell.values.push(value),
            None => self.0.push(Cell {
                key: row,
                values: vec![value],
            }),
        }
    }

    fn of<'a>(&'a self, mode: Mode, scenario: &'a str) -> impl Iterator<Item = &'a Row> + 'a {
        let keys = self.0.iter().map(|cell| &cell.key);
        keys.filter(move |key| key.mode == mode && key.scenario == scenario)
    }

    /// Modes that were run.
    #[must_use]
    pub fn modes(&self) -> Vec<Mode> {
        let mut modes = unique(self.0.iter().map(|cell| cell.key.mode));
        modes.sort_unstable();
        modes
    }

    /// Scenarios of a mode.
    #[must_use]
    pub fn scenarios(&self, mode: Mode) -> Vec<&str> {
        let keys = self.0.iter().map(|cell| &cell.key);
        unique(
            keys.filter(|key| key.mode == mode)
                .map(|key| key.scenario.as_str()),
        )
    }

    /// Implementations of a scenario.
    #[must_use]
    pub fn implementations<'a>(&'a self, mode: Mode, scenario: &'a str) -> Vec<&'a str> {
        let keys = self.of(mode, scenario);
        unique(keys.map(|key| key.implementation.as_str()))
    }

    /// Parameters of a scenario, ascending.
    #[must_use]
    pub fn params(&self, mode: Mode, scenario: &str) -> Vec<u64> {
        let mut params = unique(self.of(mode, scenario).map(|key| key.param));
        params.sort_unstable();
        params
    }

    /// Returns the unit of the figures of a scenario.
    #[must_use]
    pub fn unit(&self, mode: Mode, scenario: &str) -> Unit {
        self.of(mode, scenario)
            .next()
            .map_or(mode.unit(), |key| key.unit)
    }

    /// Returns the figures of one cell, if it was measured.
    #[must_use]
    pub fn get(
        &self,
        mode: Mode,
        scenario: &str,
        implementation: &str,
        param: u64,
    ) -> Option<Summary> {
        let cell = self.0.iter().find(|cell| {
            let key = &cell.key;
            key.mode == mode
                && key.scenario == scenario
                && key.implementation == implementation
                && key.param == param
        })?;
        Summary::of(&cell.values)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two implementations at two sizes, and a parameter that one of them lacks.
    pub(in super::super) const CSV: &str =
        "mode,scenario,implementation,param,repetition,value,unit\n\
        instructions,unicast,bus1 raw,64,0,3000,instructions\n\
        instructions,unicast,bus1 raw,64,1,3002,instructions\n\
        instructions,unicast,seqpacket,64,0,4000,instructions\n\
        instructions,unicast,seqpacket,64,1,4000,instructions\n\
        instructions,unicast,seqpacket,0,0,3300,instructions\n\
        time,unicast,bus1 raw,64,0,700.5,ns\n";

    #[test]
    fn rows_of_one_measurement_come_together() {
        let data = Data::read(CSV.as_bytes()).unwrap();
        assert_eq!(data.modes(), [Mode::Instructions, Mode::Time]);
        assert_eq!(data.scenarios(Mode::Instructions), ["unicast"]);
        assert_eq!(data.params(Mode::Instructions, "unicast"), [0, 64]);
        let get = |name, param| data.get(Mode::Instructions, "unicast", name, param);
        assert_eq!(get("bus1 raw", 64).unwrap().median, 3001.0);
        assert_eq!(get("bus1 raw", 0), None);
    }

    #[test]
    fn a_line_that_is_no_row_is_an_error() {
        assert!(Data::read("mode,scenario\ntime,unicast\n".as_bytes()).is_err());
    }
}
