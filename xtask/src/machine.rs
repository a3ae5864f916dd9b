// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks this machine for Debian packages and for the rights of root.

use std::process::Command;

use anyhow::{bail, Result};

use crate::run;

/// A program and the Debian package that contains it.
pub struct Tool {
    pub program: &'static str,
    pub package: &'static str,
}

/// The tools that make the build root, in which all others are installed.
pub const BUILD: &[Tool] = &[Tool {
    program: "mmdebstrap",
    package: "mmdebstrap",
}];

/// Tells whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks that this process runs as root.
///
/// # Errors
///
/// Names the command to run as root.
pub fn need_root(why: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!("{why} needs root; run: {}", as_root());
}

/// Returns the command line that runs this very command as root.
pub fn as_root() -> String {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args = shlex::try_join(args.iter().map(String::as_str)).unwrap_or_default();
    format!("sudo -E env \"PATH=$PATH\" cargo xtask {args}")
}

/// Installs the packages of missing tools, as root.
///
/// # Errors
///
/// Names the command that installs them, if this process is not root or has no apt-get.
pub fn need(tools: &[Tool]) -> Result<()> {
    let mut packages: Vec<&str> = tools
        .iter()
        .filter(|t| which::which(t.program).is_err())
        .map(|t| t.package)
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !is_root() {
        bail!("packages are missing; run: sudo apt-get install --no-install-recommends {list}");
    }
    if which::which("apt-get").is_err() {
        bail!("this machine has no apt-get; install by hand the equivalents of: {list}");
    }
    run::step(&format!("install {list}"), |step| {
        step.run(apt_get().arg("update"))?;
        step.run(
            apt_get()
                .args(["install", "--yes", "--no-install-recommends"])
                .args(&packages),
        )
    })
}

/// Returns a command for `apt-get` that asks nothing.
pub fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "Acquire::Retries=3"]);
    command
}
