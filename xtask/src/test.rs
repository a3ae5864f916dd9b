// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs every test there is.
//!
//! [`STEPS`] is the list, and [`DEBUG_STEPS`] that of the debug kernel. A step that fails does not
//! keep the others from running. What can be counted is counted from what the programs print; a
//! step that prints no counts is one case, and a step that fails without a failed case has one
//! more.

mod steps;

use std::ops::AddAssign;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use self::steps::{TestStep, Work, DEBUG_STEPS, STEPS};
use crate::archive::Wanted;
use crate::kernel::{self, Build, Kernel};
use crate::{guard, module, programs, repo, run, selftest, vm};

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Run only the steps whose name contains one of these
    #[arg(value_name = "WORD")]
    only: Vec<String>,
    /// Run the steps of the debug kernel in place of all others; the first run builds the kernel,
    /// which takes about 10 minutes
    #[arg(long, conflicts_with = "kernel")]
    debug_kernel: bool,
    /// List the steps and run none
    #[arg(long)]
    list: bool,
    /// Kernel to test in a VM, as `newest`, `previous`, `rt` or a release; may be given again
    /// [default: all three for the conformance suite, the newest for all else]
    #[arg(long, value_name = "RELEASE")]
    kernel: Vec<Wanted>,
}

/// Cases by how they went.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl Counts {
    const FAILED: Counts = Counts {
        passed: 0,
        failed: 1,
        ignored: 0,
    };

    /// What a program's output says, corrected by how the program ended.
    fn of(output: &str, ok: bool) -> Counts {
        let mut counts = Counts::default();
        let mut counted = false;
        for line in output.lines() {
            let line = line.trim();
            if let Some(rest) = line.strip_prefix("test result: ") {
                counts += Counts::parse(rest.split_once(". ").map_or(rest, |(_, rest)| rest));
            } else if line.contains(" passed, ")
                && [" failed", " ignored"]
                    .iter()
                    .any(|end| line.ends_with(end))
            {
                counts += Counts::parse(&line.replace(',', ";"));
            } else {
                continue;
            }
            counted = true;
        }
        if counts.failed == 0 {
            match (ok, counted) {
                (false, _) => counts.failed = 1,
                // A filter that fits nothing any more is no success.
                (true, true) if counts.passed + counts.ignored == 0 => counts.failed = 1,
                (true, true) => (),
                (true, false) => counts.passed = 1,
            }
        }
        counts
    }

    /// Reads `3 passed; 1 failed; 0 ignored`.
    fn parse(text: &str) -> Counts {
        let of = |word: &str| {
            text.split(';')
                .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
                .unwrap_or(0)
        };
        Counts {
            passed: of("passed"),
            failed: of("failed"),
            ignored: of("ignored"),
        }
    }
}

/// Runs the steps; the last line printed is the sum.
pub fn run(options: &Options) -> Result<ExitCode> {
    let chosen = |step: &&TestStep| {
        options.only.is_empty() || options.only.iter().any(|word| step.name.contains(word))
    };
    let (all, kernels) = if options.debug_kernel {
        (DEBUG_STEPS, vec![Wanted::Debug])
    } else {
        (STEPS, options.kernel.clone())
    };
    let steps: Vec<&TestStep> = all.iter().filter(chosen).collect();
    if steps.is_empty() {
        bail!(
            "no step's name contains {}; --list shows them",
            options.only.join(" or ")
        );
    }
    if options.list {
        for step in steps {
            println!("{}", step.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut sum = Counts::default();
    let mut table = Vec::new();
    for step in &steps {
        for wanted in step.work.kernels(&kernels) {
            let name = match &wanted {
                Some(wanted) => format!("{} ({})", step.name, wanted.name()),
                None => step.name.to_owned(),
            };
            run::say(&format!("== {name} =="));
            let counts = step.work.run(wanted.as_ref()).unwrap_or_else(|error| {
                eprintln!("error: {name}: {error:#}");
                Counts::FAILED
            });
            table.push((name, counts));
            sum += counts;
        }
    }
    for (name, counts) in table {
        let Counts {
            passed,
            failed,
            ignored,
        } = counts;
        let ignored = if ignored > 0 {
            format!(", {ignored} not run")
        } else {
            String::new()
        };
        println!("{name}: {passed} passed, {failed} failed{ignored}");
    }
    if steps.len() < all.len() {
        println!(
            "{} of {} steps were left out as asked",
            all.len() - steps.len(),
            all.len()
        );
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Work {
    /// The kernels to run on: those that were asked for, if any; None for this machine's own.
    fn kernels(&self, asked: &[Wanted]) -> Vec<Option<Wanted>> {
        let default: &[Wanted] = match self {
            Work::Cargo { .. } | Work::Here(..) => return vec![None],
            Work::Suite(_) => &[Wanted::Newest, Wanted::Previous, Wanted::Rt],
            Work::Vm(_) | Work::OneCpu(_) | Work::Compat | Work::Example(_) | Work::Guard => {
                &[Wanted::Newest]
            }
            Work::Selftest => &[Wanted::Debug],
        };
        let chosen = if asked.is_empty() { default } else { asked };
        chosen.iter().cloned().map(Some).collect()
    }

    fn run(&self, wanted: Option<&Wanted>) -> Result<Counts> {
        let kernel = || kernel::prepare(wanted.unwrap_or(&Wanted::Newest), false);
        match self {
            Work::Cargo { args, rustflags } => {
                let mut command = programs::cargo();
                command.args(*args);
                if let Some((flags, folder)) = rustflags {
                    command.env("RUSTFLAGS", flags);
                    command.arg("--target-dir").arg(repo::target().join(folder));
                }
                counted(command)
            }
            Work::Here(features, args) => {
                let mut command = std::process::Command::new(conformance(features)?);
                command.args(*args);
                counted(command)
            }
            Work::Vm(args) => in_vm(&kernel()?, conformance(&[])?, args, &[], None),
            Work::OneCpu(args) => in_vm(&kernel()?, conformance(&[])?, args, &[], Some(1)),
            Work::Suite(modules) => {
                let kernel = kernel()?;
                let mut there = Vec::new();
                for module in *modules {
                    if kernel.has_module(module)? {
                        there.push(*module);
                    }
                }
                in_vm(
                    &kernel,
                    conformance(&[])?,
                    &["--host", "kernel"],
                    &there,
                    None,
                )
            }
            Work::Compat => {
                let kernel = kernel()?;
                let programs = programs::compat(&kernel)?;
                ensure!(
                    !programs.is_empty(),
                    "the repository has no 32-bit programs"
                );
                let mut counts = Counts::default();
                for program in programs {
                    counts += in_vm(&kernel, program, &[], &[], None)?;
                }
                Ok(counts)
            }
            Work::Example(name) => {
                in_vm(&kernel()?, programs::example("bus1", name)?, &[], &[], None)
            }
            Work::Guard => counted(guard::check(&kernel()?)?),
            Work::Selftest => Ok(Counts::of(&selftest::run(&kernel()?)?, true)),
        }
    }
}

/// The time limit of one program in the debug kernel, which is about ten times as slow.
const DEBUG_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);

fn conformance(features: &[&str]) -> Result<PathBuf> {
    programs::build("bus1-conformance", "conformance", features)
}

/// Runs a program on this machine, shows its output as it comes, and counts.
fn counted(command: std::process::Command) -> Result<Counts> {
    let (output, ok) = run::watch(command)?;
    Ok(Counts::of(&output, ok))
}

/// Runs a program in a VM with these modules of the kernel and, if it matters, so many CPUs, and
/// counts.
fn in_vm(
    kernel: &Kernel,
    program: PathBuf,
    args: &[&str],
    modules: &[&str],
    cpus: Option<u32>,
) -> Result<Counts> {
    let name = program
        .file_name()
        .context("a program has a name")?
        .to_string_lossy();
    let mut job = vm::Job::new(Some(module::build(kernel)?));
    job.command = vec![format!("./{name}")];
    job.command.extend(args.iter().map(|arg| (*arg).to_owned()));
    job.copies = vec![program];
    job.cpus = cpus;
    if kernel.build == Build::Debug {
        job.timeout = DEBUG_TIMEOUT;
    }
    job.modprobe = modules.iter().map(|name| (*name).to_owned()).collect();
    run::say(&format!(
        "{} in a VM with {}",
        job.command.join(" "),
        kernel.release
    ));
    let outcome = vm::run(kernel, &job)?;
    Ok(Counts::of(&outcome.output, outcome.is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: usize, failed: usize, ignored: usize) -> Counts {
        Counts {
            passed,
            failed,
            ignored,
        }
    }

    #[test]
    fn counts_of_cargo_are_summed() {
        let output = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 2 passed; 4 failed; 0 ignored; finished in 0.0s\n";
        assert_eq!(Counts::of(output, false), counts(5, 4, 1));
    }

    #[test]
    fn counts_of_the_suite_are_read() {
        assert_eq!(
            Counts::of("test a ... ok\n12 passed, 0 failed\n", true),
            counts(12, 0, 0)
        );
        assert_eq!(
            Counts::of("test a ... ignored\n12 passed, 0 failed, 1 ignored\n", true),
            counts(12, 0, 1)
        );
    }

    #[test]
    fn a_filter_that_fits_nothing_is_a_failure() {
        let output =
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 66 filtered out\n";
        assert_eq!(Counts::of(output, true), counts(0, 1, 0));
    }

    #[test]
    fn cases_that_were_not_run_are_no_failure_and_no_success() {
        let output = "0 passed, 0 failed, 24 ignored\n";
        assert_eq!(Counts::of(output, true), counts(0, 0, 24));
    }

    #[test]
    fn the_suite_runs_on_every_kernel_and_all_else_on_one() {
        let names = |work: &Work, asked: &[Wanted]| -> Vec<String> {
            let kernels = work.kernels(asked).into_iter().flatten();
            kernels.map(|wanted| wanted.name().to_owned()).collect()
        };
        let suite = Work::Suite(&["x"]);
        assert_eq!(names(&suite, &[]), ["newest", "previous", "rt"]);
        assert_eq!(names(&Work::Compat, &[]), ["newest"]);
        assert_eq!(names(&suite, &[Wanted::Rt]), ["rt"]);
        assert!(names(&Work::Here(&[], &[]), &[Wanted::Rt]).is_empty());
    }

    #[test]
    fn all_steps_of_the_debug_kernel_run_in_it_alone() {
        for step in DEBUG_STEPS {
            let kernels = step.work.kernels(&[Wanted::Debug]);
            assert_eq!(kernels, [Some(Wanted::Debug)], "{}", step.name);
        }
    }

    #[test]
    fn a_failure_without_a_failed_case_counts() {
        assert_eq!(Counts::of("12 passed, 0 failed\n", false), counts(12, 1, 0));
        assert_eq!(Counts::of("", false), counts(0, 1, 0));
        assert_eq!(Counts::of("all is well\n", true), counts(1, 0, 0));
    }
}
