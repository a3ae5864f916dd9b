// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guard against cost that rises unnoticed: what bus1 costs in instructions, beside the figures
//! in the repository.
//!
//! The program `bus1-bench` knows what is guarded, compares and records; this runs it, in the VM to
//! measure and here for the rest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Result};

use crate::bench::{self, INSTRUCTIONS};
use crate::kernel::Kernel;
use crate::{module, repo, run, vm};

/// The recorded figures, in the repository.
const RECORDED: &str = "bench/recorded.csv";

/// Measures; the rest is up to what is returned, which says what it did and whether all is well.
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
    ensure!(outcome.is_ok(), "not everything could be measured");
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

/// Measures, and gives the program that compares.
pub fn check(kernel: &Kernel) -> Result<Command> {
    measured(kernel, "check")
}

/// Measures, and writes the figures into the repository.
pub fn record(kernel: &Kernel) -> Result<()> {
    let (_, ok) = run::watch(measured(kernel, "record")?)?;
    ensure!(ok, "the figures could not be recorded");
    run::say(&format!(
        "{RECORDED} has the figures of {}; commit it, and say why they changed",
        kernel.release
    ));
    Ok(())
}
