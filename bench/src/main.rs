// SPDX-License-Identifier: MIT OR Apache-2.0

//! The program `bus1-bench`: measures, or makes tables and plots of what was measured.

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use bus1_bench::measure::{Bench, Effort};
use bus1_bench::row::Mode;
use bus1_bench::{report, scenario};
use clap::Parser;

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
    },
    /// Read DIR/bench.csv, write tables (bench.md) and plots beside it, print the summary
    Report {
        /// Where bench.csv is
        dir: PathBuf,
        /// When, where and by which command it was measured
        #[arg(long, value_name = "TEXT", default_value = "")]
        about: String,
    },
}

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<()> {
    match cli {
        Cli::Run { mode, quick, only } => {
            let effort = Effort::of(mode, quick);
            let mut bench = Bench::new(mode, effort, only);
            scenario::run(&mut bench)?;
            bench.finish(stdout())
        }
        Cli::Report { dir, about } => report::write(&dir, &about),
    }
}
