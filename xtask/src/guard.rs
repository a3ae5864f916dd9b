// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guards against a cost that rises unnoticed: compares the instructions that bus1 needs with the
//! figures in the repository.
//!
//! The program `bus1-bench` selects what is guarded, compares and records. This file runs it, in
//! the VM to measure, and on this machine for the rest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Result};

use crate::bench::{self, INSTRUCTIONS};
use crate::kernel::Kernel;
use crate::{module, repo, run, vm};

/// The file of the recorded figures, in the repository.
const RECORDED: &str = "bench/recorded.csv";

/// Measures the guarded figures, and returns the command that does `then` with them.
fn measured(kernel: &Kernel, then: &str) -> Result<Command> {
    let program = bench::build()?;
    let module = module::build(kernel)?;
    let arguments = ["run", "--mode", INSTRUCTIONS, "--guarded"].map(str::to_owned);
    let job = bench::job(INSTRUCTIONS, arguments.to_vec(), &program, &module);
    run::say(&format!(
        "measuring {INSTRUCTIONS} in a VM with {}",
        kernel.release
    ));
    let outcome = vm::run(kernel, &job)?;
    ensure!(outcome.is_ok(), "some figures could not be measured");
    let figures = bench::output()?.join("guarded.csv");
    repo::write_whole(&figures, outcome.output.as_bytes())?;
    let mut command = Command::new(program);
    command.arg(then).arg(figures).arg(recorded());
    command.arg(format!("--kernel={}", kernel.release));
    Ok(command)
}

fn recorded() -> PathBuf {
    repo::dir().join(RECORDED)
}

/// Measures the guarded figures, and returns the command that compares them with the recorded ones.
pub fn check(kernel: &Kernel) -> Result<Command> {
    measured(kernel, "check")
}

/// Measures the guarded figures, and writes them into the repository.
pub fn record(kernel: &Kernel) -> Result<()> {
    let (_, ok) = run::watch(measured(kernel, "record")?)?;
    ensure!(ok, "the figures could not be recorded");
    run::say(&format!(
        "{RECORDED} has the figures of {}; commit it, and say why they changed",
        kernel.release
    ));
    Ok(())
}
