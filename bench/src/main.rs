// SPDX-License-Identifier: MIT OR Apache-2.0

//! The program `bus1-bench`: measures, or makes tables and plots of what was measured.

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use bus1_bench::measure::{Bench, Effort, Selection};
use bus1_bench::row::Mode;
use bus1_bench::{guard, report, scenario};
use clap::{Args, Parser};

/// Measures bus1 beside sockets, pipes and channels
#[derive(Parser)]
#[command(version)]
enum Cli {
    /// Measure, and write a line of CSV for each figure to stdout
    ///
    /// In a VM as root, with limits of the module that are out of the way; `--mode native` runs
    /// anywhere. `cargo xtask bench` does all of it.
    Run {
        /// By which clock, and on which host
        #[arg(long)]
        mode: Mode,
        /// A tenth of the work, for figures that are less sure
        #[arg(long)]
        quick: bool,
        /// Only scenarios and implementations whose name contains this; may be given again
        #[arg(long, value_name = "WORD")]
        only: Vec<String>,
        /// Only what `check` and `record` look at
        #[arg(long, conflicts_with = "only")]
        guarded: bool,
    },
    /// Read DIR/bench.csv, write tables (bench.md) and plots beside it, print the summary
    Report {
        /// Where bench.csv is
        dir: PathBuf,
        /// When, where and by which command it was measured
        #[arg(long, value_name = "TEXT", default_value = "")]
        about: String,
    },
    /// Fail if a figure in FILE is too far above the recorded one
    Check(Recorded),
    /// Write the figures in FILE as the recorded ones
    Record(Recorded),
}

#[derive(Args)]
struct Recorded {
    /// The file that `run --mode instructions --guarded` wrote
    file: PathBuf,
    /// Where the recorded figures are
    recorded: PathBuf,
    /// The kernel that it was run on
    #[arg(long, value_name = "RELEASE")]
    kernel: String,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does it; false if a figure is too high, which has been said.
fn dispatch(cli: Cli) -> Result<bool> {
    match cli {
        Cli::Run {
            mode,
            quick,
            only,
            guarded,
        } => {
            let only = if guarded {
                Selection::Guarded
            } else {
                Selection::Words(only)
            };
            let mut bench = Bench::new(mode, Effort::of(mode, quick), only);
            scenario::run(&mut bench)?;
            bench.finish(stdout())?;
        }
        Cli::Report { dir, about } => report::write(&dir, &about)?,
        Cli::Check(it) => return guard::check(&it.file, &it.recorded, &it.kernel),
        Cli::Record(it) => guard::record(&it.file, &it.recorded, &it.kernel)?,
    }
    Ok(true)
}
