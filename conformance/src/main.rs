// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `conformance`.

use std::process::ExitCode;
use std::time::Duration;

use bus1_conformance::host::Kind;
use bus1_conformance::{cases, run};
use clap::{Args, Parser, Subcommand};

/// One suite for every host of bus1
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    cases: Cases,
}

#[derive(Subcommand)]
enum Command {
    /// List all cases with the line of the contract that each one checks
    List,
}

#[derive(Args)]
struct Cases {
    /// The host to run the cases on
    #[arg(long, default_value = "embedded")]
    host: Kind,
    /// Run only cases whose name contains this
    filter: Option<String>,
    /// Cases at once
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Seconds after which a case counts as hanging
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => run_cases(cli.cases),
        Some(Command::List) => list(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_cases(options: Cases) -> std::io::Result<ExitCode> {
    let options = run::Options {
        kind: options.host,
        filter: options.filter,
        jobs: options.jobs,
        patience: Duration::from_secs(options.timeout),
    };
    let tally = run::run(&options, &mut std::io::stdout())?;
    if tally.passed + tally.failed == 0 {
        eprintln!("conformance: no case has that in its name; `conformance list` shows them all");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for subject in cases::SUBJECTS {
        for case in subject.cases {
            use std::io::Write;
            writeln!(out, "{}::{}  [{}]", subject.name, case.name, case.spec)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
