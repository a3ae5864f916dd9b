// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `conformance`.

use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bus1_conformance::host::{self, Kind};
use bus1_conformance::{attacks, cases, history, run, storm, sweep};
use clap::{Args, Parser, Subcommand};

/// One suite for every host of bus1
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    cases: Cases,
}

#[derive(Subcommand)]
enum Command {
    /// List all cases with the requirements that each of them checks
    List,
    /// Record the calls and receipts of many senders and receivers, and check their order
    History(HistoryArgs),
    /// Give random commands from everywhere, and check that nothing is left behind
    Storm(StormArgs),
    /// Let each allocation and user copy of every command fail in turn (kernel, root)
    Sweep {
        /// Run only commands whose name contains this
        filter: Option<String>,
    },
    /// Measure what one client can do to others (root); no figure is a failure
    Attacks(AttackArgs),
    /// Run the part of a case that is another program
    #[command(hide = true)]
    TakeOver {
        /// Number of the inherited descriptor
        fd: i32,
    },
}

#[derive(Args)]
struct AttackArgs {
    /// The host to attack
    #[arg(long, default_value = "kernel")]
    host: Kind,
    /// Run only attacks whose name contains this
    #[arg(default_value = "")]
    filter: String,
}

#[derive(Args)]
struct HistoryArgs {
    /// The host to run on: processes on the kernel, threads embedded
    #[arg(long, default_value = "embedded")]
    host: Kind,
    /// Actors that send
    #[arg(long, default_value_t = 4)]
    senders: usize,
    /// Actors that receive
    #[arg(long, default_value_t = 6)]
    receivers: usize,
    /// Multicasts in all
    #[arg(long, default_value_t = 100_000)]
    multicasts: usize,
    /// Parts in all, in place of the number of multicasts; with --stalls it is 1,000,000
    #[arg(long)]
    deliveries: Option<usize>,
    /// Stop senders in the middle, by signals and by a want of CPU time (kernel)
    #[arg(long)]
    stalls: bool,
    /// Nodes of each receiver that messages go to
    #[arg(long, default_value_t = history::SLOTS)]
    slots: usize,
    /// Where all chances come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Expect a violation: the core was built with its order broken on purpose
    #[arg(long = "break")]
    expect_broken: bool,
}

#[derive(Args)]
struct Cases {
    /// The host to run the cases on
    #[arg(long, default_value = "embedded")]
    host: Kind,
    /// Run only cases whose name contains this
    filter: Option<String>,
    /// Cases at once
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Seconds after which a case counts as hanging
    #[arg(long, default_value_t = 120)]
    timeout: u64,
}

#[derive(Args)]
struct StormArgs {
    /// The host to run on: processes on the kernel, threads embedded
    #[arg(long, default_value = "embedded")]
    host: Kind,
    /// Workers at once
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// Peers of each worker
    #[arg(long, default_value_t = 32)]
    peers: usize,
    /// Commands of each worker
    #[arg(long, default_value_t = 20_000)]
    rounds: u64,
    /// Commands of all workers between two deaths; 0 for none
    #[arg(long, default_value_t = 2_000)]
    kill_every: u64,
    /// Where all chances come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Unload the module at the end (kernel, root)
    #[arg(long)]
    unload: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => run_cases(cli.cases),
        Some(Command::List) => list(),
        Some(Command::History(args)) => check_history(&args),
        Some(Command::Storm(args)) => run_storm(&args),
        Some(Command::Sweep { filter }) => run_sweep(filter.as_deref()),
        Some(Command::Attacks(args)) => measure_attacks(&args),
        Some(Command::TakeOver { fd }) => Ok(take_over(fd)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_cases(options: Cases) -> std::io::Result<ExitCode> {
    let options = run::Options {
        kind: options.host,
        filter: options.filter,
        jobs: options.jobs,
        patience: Duration::from_secs(options.timeout),
    };
    let tally = run::run(&options, &mut std::io::stdout())?;
    if tally.passed + tally.failed + tally.ignored == 0 {
        eprintln!("conformance: no case has that in its name; `conformance list` shows them all");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first of the users that storms run as.
const STORMERS: u32 = 910_000;

fn run_storm(args: &StormArgs) -> std::io::Result<ExitCode> {
    let bus = host::open(args.host)?;
    let options = storm::Options {
        workers: args.workers,
        peers: args.peers,
        rounds: args.rounds,
        kill_every: args.kill_every,
        seed: args.seed,
    };
    println!(
        "storm: {} workers with {} peers each, {} commands each, seed {}",
        options.workers, options.peers, options.rounds, options.seed
    );
    let started = Instant::now();
    let summary = match storm::run(&*bus, STORMERS, &options) {
        Ok(summary) => summary,
        Err(failed) => {
            eprintln!("conformance: {failed}");
            return Ok(ExitCode::FAILURE);
        }
    };
    println!(
        "storm: {} commands, {} deaths in {:.1} s: nothing is left",
        summary.commands,
        summary.deaths,
        started.elapsed().as_secs_f64()
    );
    if args.unload {
        drop(bus);
        host::kernel::unload()?;
        println!("storm: the module is unloaded");
    }
    Ok(ExitCode::SUCCESS)
}

/// The first of the users that sweeps run as.
const SWEEPERS: u32 = 920_000;

fn run_sweep(filter: Option<&str>) -> std::io::Result<ExitCode> {
    let bus = host::open(Kind::Kernel)?;
    let faults = sweep::Injector::new()?;
    let started = Instant::now();
    let tally = sweep::run(&*bus, &faults, SWEEPERS, filter, &mut std::io::stdout())?;
    if tally.passed + tally.failed == 0 {
        eprintln!("conformance: no command has that in its name");
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("sweep: {:.1} s", started.elapsed().as_secs_f64());
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The first of the users that attacks run as.
const ATTACKERS: u32 = 930_000;

fn measure_attacks(args: &AttackArgs) -> std::io::Result<ExitCode> {
    if args.host == Kind::Embedded {
        eprintln!("conformance: attacks need processes; use --host kernel");
        return Ok(ExitCode::FAILURE);
    }
    let out = &mut std::io::stdout();
    if attacks::run(args.host, ATTACKERS, &args.filter, out)? == 0 {
        eprintln!("conformance: no attack has that in its name");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The user that histories run as.
const HISTORIAN: u32 = 900_000;

fn check_history(args: &HistoryArgs) -> std::io::Result<ExitCode> {
    if args.expect_broken && !cfg!(feature = "broken-order") {
        eprintln!("conformance: --break needs a build with --features broken-order");
        return Ok(ExitCode::FAILURE);
    }
    let bus = host::open(args.host)?;
    let options = history::Options {
        senders: args.senders,
        receivers: args.receivers,
        multicasts: args.multicasts,
        slots: args.slots,
        deliveries: args
            .deliveries
            .unwrap_or(if args.stalls { 1_000_000 } else { 0 }),
        stalls: args.stalls,
        seed: args.seed,
    };
    println!(
        "history: {} senders, {} receivers, {} multicasts, seed {}",
        options.senders, options.receivers, options.multicasts, options.seed
    );
    let started = Instant::now();
    let recorded = match history::record(&*bus, HISTORIAN, &options) {
        Ok(recorded) => recorded,
        Err(failed) => {
            eprintln!("conformance: {failed}");
            return Ok(ExitCode::FAILURE);
        }
    };
    println!(
        "history: recorded in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let checked = history::check(&recorded);
    match &checked {
        Ok(summary) => println!(
            "history: {} transactions, {} of them multicasts, {} parts: in order",
            summary.transactions, summary.multicasts, summary.parts
        ),
        Err(violation) => println!("history: VIOLATION: {violation}"),
    }
    if args.expect_broken && checked.is_ok() {
        eprintln!("conformance: the order is broken on purpose, and the checker saw nothing");
    }
    Ok(if checked.is_err() == args.expect_broken {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn take_over(fd: i32) -> ExitCode {
    // SAFETY: the program that started this one left the descriptor open for this one only.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    cases::take_over(fd);
    ExitCode::SUCCESS
}

fn list() -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for case in cases::all() {
        let requirements = case.requirements.join(" ");
        writeln!(out, "{}  [{requirements}]", case.full_name())?;
    }
    Ok(ExitCode::SUCCESS)
}
