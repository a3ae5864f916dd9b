// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs a body often enough, and writes a line of CSV for each repetition.
//!
//! The number of runs in a repetition is a power of two that fits a budget. So figures of one
//! build of one kernel are the same every time when time is a count of instructions.
//!
//! Results are kept until the end: whatever passes them on would run beside what is measured.

use std::io::Write;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use rustix::time::{clock_gettime, ClockId};

use crate::guard;
use crate::row::{Mode, Row, Unit};

/// The amount to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Repetitions, each of which gives one figure.
    pub repetitions: u32,
    /// The budget of one repetition, in ns or instructions.
    pub budget: u64,
}

impl Effort {
    /// Returns the budget of a mode for figures that can be distinguished, or about a tenth of it.
    #[must_use]
    pub fn of(mode: Mode, quick: bool) -> Self {
        let (repetitions, budget) = match (mode, quick) {
            // Counting gives the same figure again, except for the timer's interrupts.
            (Mode::Instructions, false) => (5, 8_000_000),
            (Mode::Instructions, true) => (3, 2_000_000),
            (Mode::Time, false) => (15, 20_000_000),
            (Mode::Time, true) => (3, 5_000_000),
            (Mode::Native, false) => (25, 40_000_000),
            (Mode::Native, true) => (5, 10_000_000),
        };
        Self {
            repetitions,
            budget,
        }
    }
}

/// A measurement: its place in the table.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The work.
    pub scenario: &'static str,
    /// The implementation that does it.
    pub implementation: &'static str,
    /// The number that the scenario varies.
    pub param: u64,
    /// By how much a run's cost is divided: messages, destinations.
    pub per_run: u64,
}

/// The measurements that are asked for.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Points with one of these words in the name of their scenario or implementation; every point
    /// if there are none.
    Words(Vec<String>),
    /// Only measurements that the guard looks at.
    Guarded,
}

impl Selection {
    /// Returns whether all of a point except its parameter is asked for.
    fn names(&self, scenario: &str, implementation: &str) -> bool {
        match self {
            Self::Words(words) => {
                let named =
                    |word: &String| scenario.contains(word) || implementation.contains(word);
                words.is_empty() || words.iter().any(named)
            }
            Self::Guarded => guard::covers(scenario, implementation, 0),
        }
    }

    /// Returns whether a point is asked for that is asked for by name.
    fn has(&self, point: Point) -> bool {
        match self {
            Self::Words(_) => true,
            Self::Guarded => guard::covers(point.scenario, point.implementation, point.param),
        }
    }
}

/// A run of the program: where results go, and which are wanted.
pub struct Bench {
    mode: Mode,
    effort: Effort,
    only: Selection,
    rows: Vec<Row>,
    scenario: &'static str,
    failed: Vec<String>,
}

impl Bench {
    /// Makes a bench that has measured nothing yet.
    #[must_use]
    pub fn new(mode: Mode, effort: Effort, only: Selection) -> Self {
        Self {
            mode,
            effort,
            only,
            rows: Vec::new(),
            scenario: "",
            failed: Vec::new(),
        }
    }

    /// Returns the clock.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns whether this is asked for. Says what is next when that changes.
    pub fn wants(&mut self, scenario: &'static str, implementation: &str) -> bool {
        let wanted = self.only.names(scenario, implementation);
        if wanted && scenario != self.scenario {
            self.scenario = scenario;
            eprintln!("{scenario}");
            // Until a slow line has it.
            std::thread::sleep(Duration::from_millis(20));
        }
        wanted
    }

    /// Runs what `set_up` gives, if it is asked for: a warm-up, then the repetitions. A failure is
    /// reported, and does not keep others from running.
    pub fn run<B>(&mut self, point: Point, set_up: impl FnOnce() -> Result<B>)
    where
        B: FnMut() -> Result<()>,
    {
        if self.wants(point.scenario, point.implementation) && self.only.has(point) {
            let outcome = set_up().and_then(|body| self.repeat(point, body));
            self.note(point, outcome);
        }
    }

    /// Records one figure, measured here or elsewhere.
    pub fn record(&mut self, point: Point, repetition: u32, value: f64, unit: Unit) {
        self.rows.push(Row {
            mode: self.mode,
            scenario: point.scenario.to_owned(),
            implementation: point.implementation.to_owned(),
            param: point.param,
            repetition,
            value: (value * 10.0).round() / 10.0,
            unit,
        });
    }

    /// Says what did not work.
    pub fn note(&mut self, point: Point, outcome: Result<()>) {
        if let Err(error) = outcome {
            let Point {
                scenario,
                implementation,
                param,
                ..
            } = point;
            let text = format!("{scenario}, {implementation}, {param}: {error:#}");
            eprintln!("error: {text}");
            self.failed.push(text);
        }
    }

    /// Writes all results. Fails if any measurement did.
    pub fn finish(self, out: impl Write) -> Result<()> {
        let mut out = csv::Writer::from_writer(out);
        for row in &self.rows {
            out.serialize(row).context("cannot write the results")?;
        }
        out.flush().context("cannot write the results")?;
        let failed = self.failed.len();
        ensure!(failed == 0, "{failed} of the measurements failed");
        Ok(())
    }

    fn repeat(&mut self, point: Point, mut body: impl FnMut() -> Result<()>) -> Result<()> {
        let runs = self.warm_up(&mut body)?;
        for repetition in 0..self.effort.repetitions {
            let start = now(self.mode)?;
            for _ in 0..runs {
                body()?;
            }
            let took = now(self.mode)? - start;
            let value = took as f64 / (runs * point.per_run) as f64;
            self.record(point, repetition, value, self.mode.unit());
        }
        Ok(())
    }

    /// Runs the body until the budget is used up, and finds out how often that was.
    fn warm_up(&self, body: &mut impl FnMut() -> Result<()>) -> Result<u64> {
        let start = now(self.mode)?;
        let mut runs = 0_u64;
        let mut next = 1;
        loop {
            for _ in 0..next {
                body()?;
            }
            runs += next;
            let took = now(self.mode)? - start;
            // A body that was run four times has its pages and its pools.
            if took >= self.effort.budget && runs >= 4 {
                let fit = (self.effort.budget as f64 * runs as f64 / took as f64).max(1.0);
                return Ok(1 << (fit as u64).ilog2());
            }
            next = runs;
        }
    }
}

/// Waits until the system does nothing on its own: a kernel that has just booted goes on with
/// work that it put off, and would do it beside the first measurements.
pub fn settle(mode: Mode) -> Result<()> {
    /// A gap beyond this is another task's turn and no mere interrupt.
    const TURN: u64 = 300_000;
    /// Time for which none may show.
    const QUIET: u64 = 50_000_000;
    /// Number of tries of that.
    const TRIES: u32 = 40;
    // A watcher of memory that the stock kernel has; without it there is nothing to stop.
    let _ = std::fs::write("/sys/module/damon_stat/parameters/enabled", "N");
    std::thread::sleep(Duration::from_secs(1));
    if mode != Mode::Instructions {
        // By the clock, the machine around the VM leaves gaps as well.
        return Ok(());
    }
    for _ in 0..TRIES {
        let start = now(mode)?;
        let (mut last, mut longest) = (start, 0);
        while last - start < QUIET && longest < TURN {
            let next = now(mode)?;
            longest = longest.max(next - last);
            last = next;
        }
        if longest < TURN {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("the system does not settle: another process keeps running")
}

/// Returns the clock of a mode, in its unit.
fn now(mode: Mode) -> Result<u64> {
    #[cfg(target_arch = "x86_64")]
    if mode == Mode::Instructions {
        // There the counter counts instructions; every other clock is derived from it.
        // SAFETY: every x86_64 CPU has it, and no kernel of ours forbids it.
        return Ok(unsafe { core::arch::x86_64::_rdtsc() });
    }
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).context("a clock before its start")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_select_scenarios_and_implementations() {
        let only = Selection::Words(vec!["uni".to_owned(), "pipe".to_owned()]);
        let effort = Effort::of(Mode::Native, true);
        let mut bench = Bench::new(Mode::Native, effort, only);
        assert!(bench.wants("unicast", "seqpacket"));
        assert!(bench.wants("round trip", "pipe"));
        assert!(!bench.wants("round trip", "seqpacket"));
    }

    #[test]
    fn a_failure_is_remembered() {
        let effort = Effort::of(Mode::Native, true);
        let mut bench = Bench::new(Mode::Native, effort, Selection::Words(Vec::new()));
        let point = Point {
            scenario: "none",
            implementation: "none",
            param: 0,
            per_run: 1,
        };
        bench.run(point, || Ok(|| anyhow::bail!("broken")));
        assert!(bench.finish(std::io::sink()).is_err());
    }
}
