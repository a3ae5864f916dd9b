// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the module as the kernel tree checks its own code.
//!
//! The tools are those of the build root, whose versions are the kernel's. They run in the prepared
//! tree and with its settings, so that a complaint there is one here.

use std::process::ExitCode;

use anyhow::Result;

use crate::archive::Wanted;
use crate::kernel::{self, Kernel};
use crate::{module, repo, run};

/// Runs every check for a kernel; the exit status tells whether all is well.
pub fn run(wanted: &Wanted) -> Result<ExitCode> {
    let kernel = kernel::prepare(wanted, false)?;
    format(&kernel)?;
    let complaints = module::lint(&kernel)?;
    if complaints > 0 {
        eprintln!("error: {complaints} lines of complaint about the module; see above");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares with the kernel's format all that the module is compiled from. Fails with the
/// difference.
fn format(kernel: &Kernel) -> Result<()> {
    run::step("rustfmt of the kernel tree on the module", |step| {
        let settings = kernel
            .root
            .outside(&format!("{}/.rustfmt.toml", kernel.tree()));
        let mut rustfmt = kernel.root.program("/usr/bin/rustfmt");
        // It follows `mod` into the core and the binary interface.
        rustfmt
            .arg("--check")
            .arg("--config-path")
            .arg(settings)
            .arg(repo::dir().join("kernel/main.rs"));
        step.run(&mut rustfmt)
    })
}
