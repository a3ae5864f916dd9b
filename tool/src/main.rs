// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `bus1`.
//!
//! Results go to stdout, news of the work and errors to stderr. Exit status: 0, 1 for a bad
//! verdict or a failure, 2 for a command line that makes no sense, 130 after an interrupt.

// Floors, bottom to top:
//   clock, pieces, sequence, backoff, interrupt, progress, host
//   wire, input
//   worker
//   publisher, subscriber
//   launch
//   crew
//   directory
//   verdict
//   demo, info

mod backoff;
mod clock;
mod crew;
mod demo;
mod directory;
mod host;
mod info;
mod input;
mod interrupt;
mod launch;
mod pieces;
mod progress;
mod publisher;
mod sequence;
mod subscriber;
mod verdict;
mod wire;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Capability-based messages between the threads and processes of this machine.
///
/// bus1 runs in the kernel (module bus1.ko, /dev/bus1), or, where that is not loaded, inside a
/// process for its own threads. BUS1_HOST=kernel or BUS1_HOST=embedded in the environment chooses
/// one of them.
#[derive(Parser)]
#[command(name = "bus1", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish a text to many subscribers and check that all of them saw the same
    Demo(demo::Options),
    /// Show the host that would be taken, and its limits
    Info(info::Options),
    #[command(flatten)]
    Worker(launch::Command),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Info(options) => info::run(&options),
        Command::Worker(command) => launch::run_process(&command),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bus1: {error:#}");
            ExitCode::FAILURE
        }
    }
}
