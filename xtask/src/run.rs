// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a step of work and the programs in it, and shows the progress.
//!
//! On a terminal a step is a spinner with the latest line of output; elsewhere a step prints one
//! line at its start and one at its end. All output of the programs goes to
//! `target/vm/log/STEP.log`; the end of the log is shown if the step fails.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::repo;

/// How many lines of output are shown of a program that failed.
const TAIL: usize = 40;

/// A step that is running.
pub struct Step {
    what: String,
    log: File,
    log_path: PathBuf,
    start: Instant,
    bar: Option<ProgressBar>,
}

/// Returns the seconds since the first call.
fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Prints a line of progress.
pub fn say(text: &str) {
    eprintln!("[{:6.1}s] {text}", clock());
}

/// Runs `work` as the step `what`, and prints its result.
///
/// # Errors
///
/// Those of `work`, with the name of the step.
pub fn step<T>(what: &str, work: impl FnOnce(&mut Step) -> Result<T>) -> Result<T> {
    let slug: String = what
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".+-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let log_path = repo::cache_dir("log")?.join(format!("{slug}.log"));
    let log =
        File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {prefix} ({elapsed}) {wide_msg:.dim}")
            .expect("a constant template");
        let bar = ProgressBar::new_spinner()
            .with_style(style)
            .with_prefix(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    if bar.is_none() {
        say(&format!("{what} ..."));
    }
    let mut step = Step {
        what: what.to_owned(),
        log,
        log_path,
        start: Instant::now(),
        bar,
    };
    let result = work(&mut step);
    if let Some(bar) = &step.bar {
        bar.finish_and_clear();
    }
    let seconds = step.start.elapsed().as_secs_f64();
    let word = if result.is_ok() { "done" } else { "FAILED" };
    say(&format!("{what}: {word} in {seconds:.1} s"));
    result.with_context(|| step.what.clone())
}

impl Step {
    /// Prints a line on the terminal above the spinner.
    pub fn show(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    ///
    /// Fails with the end of the program's output unless the program exits with 0.
    pub fn run(&mut self, command: &mut Command) -> Result<()> {
        self.run_lines(command, |_, _| ())
    }

    /// Runs a program to its end, and calls `each` with every line of its output.
    ///
    /// # Errors
    ///
    /// Fails with the end of the program's output unless the program exits with 0.
    pub fn run_lines(
        &mut self,
        command: &mut Command,
        mut each: impl FnMut(&Step, &str),
    ) -> Result<()> {
        let name = command.get_program().to_string_lossy().into_owned();
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let also = writer.try_clone().context("cannot copy a pipe")?;
        writeln!(self.log, "$ {command:?}")?;
        let spawned = command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(also)
            .spawn();
        // The loop below ends only when all write ends of the pipe are closed.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = spawned.with_context(|| format!("cannot run {name}"))?;
        let mut tail = VecDeque::with_capacity(TAIL);
        for line in BufReader::new(reader).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            writeln!(self.log, "{line}")?;
            each(self, &line);
            if let Some(bar) = &self.bar {
                bar.set_message(line.trim().to_owned());
            }
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        let status = child.wait()?;
        if status.success() {
            return Ok(());
        }
        let tail: Vec<String> = tail.into();
        bail!(
            "{name} failed ({status}); the end of {}:\n{}",
            self.log_path.display(),
            tail.join("\n")
        );
    }
}

/// Runs a short program and returns its output.
///
/// # Errors
///
/// Fails with what the program wrote to stderr unless the program exits with 0.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program, prints its output as it comes, and returns the output and whether the program
/// succeeded. The program inherits stderr.
pub fn watch(mut command: Command) -> Result<(String, bool)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let out = child.stdout.take().context("a pipe was asked for")?;
    let mut all = String::new();
    for line in BufReader::new(out).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        all += &line;
        all.push('\n');
    }
    Ok((all, child.wait()?.success()))
}
