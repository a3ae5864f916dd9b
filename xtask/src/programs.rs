// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs that run in the VM.
//!
//! They are linked statically, so that the VM needs no libraries: Rust programs with the C library
//! of this machine, 32-bit C programs without a C library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::archive::Wanted;
use crate::kernel::{self, Kernel};
use crate::{module, repo, run, vm};

/// The one target that every toolchain for this machine has.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The folder of the 32-bit programs, in the repository.
const COMPAT: &str = "conformance/compat";
/// The time limit of the demo.
const DEMO_TIMEOUT: Duration = Duration::from_secs(3600);

/// Returns a command for the `cargo` that runs this process, without the variables that it set for
/// this process: build scripts would run again.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let own = [
            "CARGO_MANIFEST_",
            "CARGO_PKG_",
            "CARGO_BIN_",
            "CARGO_CRATE_NAME",
        ];
        if own.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.current_dir(repo::dir());
    command
}

/// Builds a program of the workspace for the VM and returns its file. The next build of the same
/// program with other features replaces this file.
pub fn build(package: &str, program: &str, features: &[&str]) -> Result<PathBuf> {
    let with: String = features
        .iter()
        .map(|feature| format!(" with {feature}"))
        .collect();
    let what = format!("{program}{with}, linked statically");
    let features = features.join(",");
    let args = [
        "--package",
        package,
        "--bin",
        program,
        "--features",
        &features,
    ];
    build_static(&what, &args, Path::new(program))
}

/// Builds an example of a package for the VM and returns its file.
pub fn example(package: &str, name: &str) -> Result<PathBuf> {
    let what = format!("the example {name}, linked statically");
    let args = ["--package", package, "--example", name];
    build_static(&what, &args, &Path::new("examples").join(name))
}

/// Runs `cargo build` with these arguments and returns the file that is then in the output folder.
fn build_static(what: &str, args: &[&str], file: &Path) -> Result<PathBuf> {
    let dir = repo::target().join("static");
    run::step(what, |step| {
        let mut command = cargo();
        command
            .args(["build", "--release"])
            .args(args)
            .args(["--target", TARGET, "--target-dir"])
            .arg(&dir)
            .env("RUSTFLAGS", "-C target-feature=+crt-static");
        step.run_lines(&mut command, |step, line| {
            if line.starts_with("warning") || line.starts_with("error") {
                step.show(line);
            }
        })
    })?;
    let file = dir.join(TARGET).join("release").join(file);
    ensure!(file.is_file(), "cargo left no {}", file.display());
    Ok(file)
}

/// Builds every 32-bit program and returns their files: none if there is no folder of them.
pub fn compat(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let sources = repo::dir().join(COMPAT);
    if !sources.is_dir() {
        return Ok(Vec::new());
    }
    let output = repo::target().join("static/compat");
    fs::create_dir_all(&output)?;
    let work = kernel.root.outside("/build/compat");
    let mut programs = Vec::new();
    for source in sorted(&sources)? {
        if source.extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        let name = source
            .file_stem()
            .context("a source has a name")?
            .to_string_lossy()
            .into_owned();
        run::step(&format!("{name}, a 32-bit program"), |step| {
            let _lock = repo::lock()?;
            crate::root::remove(&work)?;
            fs::create_dir_all(&work)?;
            fs::copy(&source, work.join("main.c"))?;
            copy_tree(&repo::dir().join("uapi/include"), &work.join("include"))?;
            let script = "cd /build/compat
                gcc-14 -m32 -O1 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pie \
                    -nostdlib -static -I include \
                    -idirafter \"/usr/include/$(gcc-14 -print-multiarch)\" -o main main.c";
            step.run(&mut kernel.root.shell(script, &[])?)?;
            let program = output.join(&name);
            fs::copy(work.join("main"), &program)?;
            programs.push(program);
            Ok(())
        })?;
    }
    Ok(programs)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let copy = to.join(entry.path().strip_prefix(from)?);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&copy)?;
        } else {
            fs::copy(entry.path(), &copy)?;
        }
    }
    Ok(())
}

/// Runs `bus1 demo` on the real module.
pub fn demo(wanted: &Wanted, mut args: Vec<String>) -> Result<ExitCode> {
    let copies = inputs(&mut args)?;
    let kernel = kernel::prepare(wanted, false)?;
    let module = module::build(&kernel)?;
    let program = build("bus1-tool", "bus1", &[])?;
    let mut command = vec!["./bus1".to_owned(), "demo".to_owned()];
    command.append(&mut args);
    let job = vm::Job {
        command,
        copies: [vec![program], copies].concat(),
        timeout: DEMO_TIMEOUT,
        ..vm::Job::new(Some(module))
    };
    Ok(vm::run(&kernel, &job)?.exit_code())
}

/// Returns the files that `--input` names, and replaces each in `args` by its name in the VM.
fn inputs(args: &mut [String]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut next_is_file = false;
    for arg in args {
        let (prefix, file) = match arg.strip_prefix("--input=") {
            Some(file) => ("--input=", file),
            None if next_is_file => ("", arg.as_str()),
            None => {
                next_is_file = arg == "--input";
                continue;
            }
        };
        next_is_file = false;
        let path = PathBuf::from(file);
        ensure!(path.is_file(), "--input {file}: no such file");
        let name = path.canonicalize()?;
        let name = name
            .file_name()
            .context("a file has a name")?
            .to_string_lossy()
            .into_owned();
        *arg = format!("{prefix}{name}");
        files.push(path);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_copied_and_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("text");
        fs::write(&file, "x").unwrap();
        let name = file.to_str().unwrap().to_owned();
        for (given, wanted) in [
            (
                vec!["--input".to_owned(), name.clone()],
                vec!["--input", "text"],
            ),
            (vec![format!("--input={name}")], vec!["--input=text"]),
        ] {
            let mut args = given;
            assert_eq!(inputs(&mut args).unwrap(), std::slice::from_ref(&file));
            assert_eq!(args, wanted);
        }
        assert!(inputs(&mut ["--input".to_owned(), format!("{name}.not")]).is_err());
        assert!(inputs(&mut ["--publishers".to_owned(), "3".to_owned()])
            .unwrap()
            .is_empty());
    }
}
