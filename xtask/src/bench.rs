// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures bus1 and the mechanisms that it can replace: natively, in a VM by the clock, and in a
//! VM whose time is a count of instructions.
//!
//! The program `bus1-bench` does the work, in the VM and natively. This file builds it, runs it in
//! each place, and joins its output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::archive::Wanted;
use crate::kernel::{self, Kernel};
use crate::{dbus, guard, module, programs, repo, run, vm};

/// The arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// Do a tenth of the work, for less certain figures
    #[arg(long)]
    quick: bool,
    /// Run only scenarios and implementations whose name contains this; may be given again
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Measure only this: `native`, `time` (VM by the clock) or `instructions`; may be given again
    #[arg(long, value_name = "MODE", value_parser = [NATIVE, TIME, INSTRUCTIONS])]
    mode: Vec<String>,
    /// Measure this file in place of a bus1.ko that is built from the sources
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Measure only the figures that `cargo xtask test` guards, and record them
    #[arg(long, conflicts_with_all = ["quick", "only", "mode", "module"])]
    record: bool,
    /// Measure on this kernel: `newest`, `previous` or a release
    #[arg(long, value_name = "RELEASE", default_value = "newest")]
    kernel: Wanted,
}

const NATIVE: &str = "native";
const TIME: &str = "time";
pub const INSTRUCTIONS: &str = "instructions";

/// Parameters of the module: limits that no scenario reaches.
const PARAMS: &[&str] = &[
    "user_slices_max=4000000",
    "user_handles_max=4000000",
    "user_inflight_bytes_max=2147483647",
    "user_inflight_fds_max=1000000",
];
/// A CPU without fast string instructions for bytes, so that the kernel moves words: the emulator
/// counts each iteration of `rep movsb` and `rep stosb` as one instruction.
const COUNTED_CPU: &str = "max,-erms,-fsrm,-fsrs,-fsrc,-fzrm";
/// The module of Binder, which is loaded if the kernel has it.
const BINDER: &str = "binder_linux";
/// The time limit of one VM.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Measures, writes the results to `target/bench/`, and prints the summary.
pub fn run(options: &Options) -> Result<ExitCode> {
    let wants = |mode: &str| options.mode.is_empty() || options.mode.iter().any(|m| m == mode);
    if options.record {
        guard::record(&kernel::prepare(&options.kernel, false)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &options.module {
        ensure!(file.exists(), "{}: no such file", file.display());
    }
    let program = build()?;
    let output = output()?;

    let mut complete = true;
    let mut csv = String::new();
    let mut about = vec![date(), command(options)];
    if wants(NATIVE) {
        run::say("measuring on this machine");
        let mut command = Command::new(&program);
        command
            .args(arguments(NATIVE, options))
            .stdin(Stdio::null());
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        complete &= output.status.success();
        append(&mut csv, &String::from_utf8_lossy(&output.stdout));
    }
    if wants(TIME) || wants(INSTRUCTIONS) {
        let kernel = kernel::prepare(&options.kernel, false)?;
        about.push(format!(
            "kernel {}, `-cpu {COUNTED_CPU}` where instructions are counted",
            kernel.release
        ));
        let module = match &options.module {
            Some(file) => file.clone(),
            None => module::build(&kernel)?,
        };
        for mode in [TIME, INSTRUCTIONS] {
            if wants(mode) {
                run::say(&format!("measuring {mode} in a VM with {}", kernel.release));
                let mut job = job(mode, arguments(mode, options), &program, &module);
                add_neighbours(&mut job, &kernel)?;
                let outcome = vm::run(&kernel, &job)?;
                complete &= outcome.is_ok();
                append(&mut csv, &outcome.output);
            }
        }
    }
    repo::write_whole(&output.join("bench.csv"), csv.as_bytes())?;
    let status = Command::new(&program)
        .arg("report")
        .arg(&output)
        .arg(format!("--about={}", about.join("; ")))
        .status()
        .context("cannot run the report")?;
    run::say(&format!("tables and plots are in {}", output.display()));
    if !complete {
        eprintln!("error: some figures are missing; see above");
    }
    Ok(if complete && status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds `bus1-bench` and returns its file.
pub fn build() -> Result<PathBuf> {
    programs::build("bus1-bench", "bus1-bench", &[])
}

/// Returns the folder for results, and makes it if it is missing.
pub fn output() -> Result<PathBuf> {
    let output = repo::target().join("bench");
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    Ok(output)
}

/// Returns the date.
fn date() -> String {
    let date = run::output(Command::new("date").arg("+%Y-%m-%d"));
    date.map_or_else(
        |_| "at a time unknown".to_owned(),
        |text| text.trim().to_owned(),
    )
}

/// Returns the command line of this run.
fn command(options: &Options) -> String {
    let mut text = "`cargo xtask bench".to_owned();
    if options.quick {
        text += " --quick";
    }
    for (option, values) in [("mode", &options.mode), ("only", &options.only)] {
        for value in values {
            text += &format!(" --{option} {value}");
        }
    }
    text + "`"
}

fn arguments(mode: &str, options: &Options) -> Vec<String> {
    let mut arguments = vec!["run".to_owned(), "--mode".to_owned(), mode.to_owned()];
    if options.quick {
        arguments.push("--quick".to_owned());
    }
    for word in &options.only {
        arguments.push(format!("--only={word}"));
    }
    arguments
}

/// Returns the job of a VM that measures bus1 and what every kernel has.
pub fn job(mode: &str, arguments: Vec<String>, program: &Path, module: &Path) -> vm::Job {
    let counted = mode == INSTRUCTIONS;
    let mut job = vm::Job::new(Some(module.to_owned()));
    job.command = vec!["./bus1-bench".to_owned()];
    job.command.extend(arguments);
    job.copies = vec![program.to_owned()];
    job.params = PARAMS.iter().map(|param| (*param).to_owned()).collect();
    job.icount = counted;
    job.cpus = Some(if counted { 1 } else { 2 });
    job.cpu = counted.then_some(COUNTED_CPU);
    job.quiet = true;
    job.timeout = TIMEOUT;
    job
}

/// Adds dbus-broker and Binder to a job.
fn add_neighbours(job: &mut vm::Job, kernel: &Kernel) -> Result<()> {
    job.copies.push(dbus::broker(kernel)?);
    if kernel.has_module(BINDER)? {
        job.modprobe = vec![BINDER.to_owned()];
    }
    Ok(())
}

/// Appends the CSV of one run, without its header line if there is one already.
fn append(csv: &mut String, lines: &str) {
    let skip = usize::from(!csv.is_empty());
    for line in lines.lines().skip(skip) {
        csv.push_str(line.trim_end());
        csv.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::append;

    #[test]
    fn only_one_header_line_is_kept() {
        let mut csv = String::new();
        append(&mut csv, "mode,value\r\na,1\r\n");
        append(&mut csv, "mode,value\nb,2\n");
        append(&mut csv, "");
        assert_eq!(csv, "mode,value\na,1\nb,2\n");
    }
}
