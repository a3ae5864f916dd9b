// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that build, boot and check bus1.
//!
//! Results go to stdout and progress goes to stderr, so that each can be piped separately.
//! Downloads and builds are kept below `target/vm/`; each is made again only if it is missing or
//! older than its sources.

mod archive;
mod bench;
mod dbus;
mod guard;
mod initramfs;
mod kernel;
mod layers;
mod lines;
mod lint;
mod machine;
mod module;
mod programs;
mod repo;
mod root;
mod run;
mod scan;
mod selftest;
mod size;
mod source;
mod test;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{ensure, Result};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    about,
    long_about = "Builds bus1.ko for a stock Debian kernel, boots that kernel in a VM and runs \
                  programs in it.\n\
                  Downloads and builds are kept below target/vm/.\n\
                  BUS1_MIRROR=URL in the environment names the Debian mirror to fetch from."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every test: user space first, then the module in VMs
    Test(test::Options),
    /// Measure bus1 beside sockets, pipes, relays and channels; results go to target/bench/
    Bench(bench::Options),
    /// Run `bus1 demo` in a VM on the real module
    Demo {
        #[command(flatten)]
        kernel: KernelArg,
        /// Arguments of `bus1 demo`, for example --publishers 4; the file of --input is copied
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build bus1.ko for the stock kernel and print its path
    Module {
        #[command(flatten)]
        kernel: KernelArg,
        /// Ask the archive for the list of kernels, even if a list is cached
        #[arg(long)]
        refresh: bool,
    },
    /// Check the module as the kernel tree checks its own code: rustfmt, clippy, W=1, sparse
    Lint {
        #[command(flatten)]
        kernel: KernelArg,
    },
    /// Boot the stock kernel, load the module, run a command and exit with its status
    Vm(VmArgs),
    /// Count lines of code and unsafe blocks, and check both against their limits
    Size,
    /// Check that no source file imports one of a higher floor
    Layers,
}

#[derive(Args)]
struct KernelArg {
    /// `newest`, `previous` (newest of the series before), `rt` (newest realtime kernel), `debug`
    /// (built with KASAN, lockdep and kmemleak), or a release such as 7.3.4+deb13-amd64
    #[arg(long, value_name = "RELEASE", default_value = "newest")]
    kernel: archive::Wanted,
}

#[derive(Args)]
struct VmArgs {
    #[command(flatten)]
    kernel: KernelArg,
    /// Let time in the VM be a count of instructions, on one CPU: every run takes the same time
    #[arg(long, conflicts_with = "cpus")]
    icount: bool,
    /// Number of CPUs [default: 2, and 1 with --icount]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Copy a file or folder into the working directory of the command
    #[arg(long, value_name = "FILE")]
    copy: Vec<PathBuf>,
    /// Load a module of the kernel package as well, with its dependencies
    #[arg(long, value_name = "NAME")]
    modprobe: Vec<String>,
    /// Load this file in place of a bus1.ko that is built from the sources
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Parameters for the module, for example user_slices_max=64
    #[arg(long, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// End the VM after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = vm::TIMEOUT.as_secs())]
    timeout: u64,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Demo { kernel, args } => programs::demo(&kernel.kernel, args),
        Command::Module { kernel, refresh } => {
            let kernel = kernel::prepare(&kernel.kernel, refresh)?;
            println!("{}", module::build(&kernel)?.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Lint { kernel } => lint::run(&kernel.kernel),
        Command::Vm(args) => {
            // Checked first, since the kernel and the module may take minutes.
            for file in args.copy.iter().chain(&args.module) {
                ensure!(file.exists(), "{}: no such file", file.display());
            }
            let kernel = kernel::prepare(&args.kernel.kernel, false)?;
            let module = match args.module {
                Some(file) => file,
                None => module::build(&kernel)?,
            };
            let job = vm::Job {
                command: args.command,
                copies: args.copy,
                module: Some(module),
                params: args.param,
                modprobe: args.modprobe,
                cpus: args.cpus,
                icount: args.icount,
                cpu: None,
                quiet: false,
                timeout: std::time::Duration::from_secs(args.timeout),
            };
            Ok(vm::run(&kernel, &job)?.exit_code())
        }
        Command::Size => size::run(),
        Command::Layers => layers::run(),
    }
}
