// SPDX-License-Identifier: MIT OR Apache-2.0

//! `bus1 demo`: publishers multicast a text to subscribers, and everything is checked.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use bus1::Peer;
use clap::Args;

use crate::crew::Crew;
use crate::directory::Directory;
use crate::host::HostChoice;
use crate::input::Input;
use crate::interrupt::{Interrupt, Interrupted};
use crate::pieces::Block;
use crate::progress::Progress;
use crate::verdict::{count, Verdict};
use crate::wire::{Control, Header};

/// Multicasts that a demo has at least without `--rounds` ...
const ENOUGH_MULTICASTS: u64 = 20_000;

/// ... as long as the text is not published in more bytes than these.
const ENOUGH_BYTES: u64 = 256 << 20;

#[derive(Args)]
#[command(after_help = "\
A directory peer starts publishers and subscribers: processes on the kernel host, threads on the \
embedded one. Subscribers hand their capabilities to the publishers through the directory. Every \
piece of the text is one atomic multicast to all subscribers. Each of them checks the sum of every \
message, and at the end the orders in which they received are compared.

Exit status: 0 if the verdict is good, 1 if it is bad or something failed, 130 after an interrupt.")]
pub struct Options {
    /// The text to publish; - is stdin. Without it, one that is found on this machine
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Number of publishers, up to 128
    #[arg(long, value_name = "P", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=128))]
    publishers: u32,

    /// Number of subscribers, up to 128
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=128))]
    subscribers: u32,

    /// How to cut the text: `lines`, or a size such as 4096, 64k or 1M
    #[arg(long, value_name = "SIZE", default_value = "lines")]
    block: Block,

    /// How often to publish the text; without it, as often as makes a worthwhile demo
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rounds: Option<u64>,

    /// Where the bus runs
    #[arg(long, value_enum, default_value_t = HostChoice::Auto)]
    host: HostChoice,
}

/// Runs the demo; the exit status is that of its verdict.
pub fn run(options: &Options) -> Result<ExitCode> {
    match demonstrate(options) {
        Ok(good) => Ok(ExitCode::from(u8::from(!good))),
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("bus1: {error}");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(error),
    }
}

/// The amount to be published.
struct Plan {
    rounds: u64,
    /// Multicasts of all publishers.
    multicasts: u64,
    /// Receipts of all subscribers.
    deliveries: u64,
}

impl Plan {
    fn new(options: &Options, input: &Input) -> Result<Self> {
        let rounds = options.rounds.unwrap_or_else(|| enough_rounds(input));
        let plan = || {
            let pieces = input.pieces.checked_mul(rounds)?;
            // Each publisher says in a message of its own that it has ended.
            let multicasts = pieces.checked_add(options.publishers.into())?;
            let deliveries = multicasts.checked_mul(options.subscribers.into())?;
            Some(Self {
                rounds,
                multicasts,
                deliveries,
            })
        };
        plan().context("too many messages; take fewer --rounds")
    }
}

/// Returns whether the verdict is good.
fn demonstrate(options: &Options) -> Result<bool> {
    let (publishers, subscribers) = (options.publishers, options.subscribers);
    let input = Input::open(options.input.as_deref(), options.block)?;
    let plan = Plan::new(options, &input)?;
    // From here on there is something to tidy up. Before, a signal ends the program, also while it
    // waits for its input.
    let interrupt = Interrupt::watch()?;

    let peer = options.host.open()?;
    check_quota(&peer, &input, subscribers)?;
    let mut crew = Crew::new(&peer);
    println!(
        "{} host: {} and {}, all of them {}",
        peer.host(),
        count(publishers.into(), "publisher"),
        count(subscribers.into(), "subscriber"),
        crew.kind()
    );
    println!(
        "text: {}, {} in {} ({}), {}",
        input.name,
        count(input.bytes, "byte"),
        count(input.pieces, "piece"),
        options.block,
        count(plan.rounds, "time")
    );

    let mut directory = Directory::new(peer, interrupt.clone(), publishers, subscribers)?;
    directory.start(&mut crew)?;
    directory.gather(&mut crew)?;
    let order = Control::Publish {
        publishers,
        rounds: plan.rounds,
        block: options.block,
    };
    directory.begin(&order, &input.file)?;
    let mut progress = Progress::new(plan.deliveries);
    directory.collect(&mut crew, &mut progress)?;
    drop(progress);
    crew.join(&interrupt)?;

    let verdict = Verdict::new(&directory, plan.multicasts);
    println!("{verdict}");
    Ok(verdict.is_good())
}

/// Returns the number of times to publish a text that may be short.
fn enough_rounds(input: &Input) -> u64 {
    let for_messages = ENOUGH_MULTICASTS.div_ceil(input.pieces);
    let for_bytes = ENOUGH_BYTES / input.bytes;
    for_messages.min(for_bytes).max(1)
}

/// Checks that one multicast fits below the quota: one sender may have half of what a user may have
/// in flight, so a larger one would never go.
fn check_quota(peer: &Peer, input: &Input, subscribers: u32) -> Result<()> {
    let limit = u64::from(peer.limits()?.inflight_bytes);
    // Charges are kept in batches, which may take 1/32 of the limit.
    let most = (limit - limit / 32) / 2;
    let one = (input.longest + Header::SIZE) as u64;
    ensure!(
        one * u64::from(subscribers) <= most,
        "pieces of {} bytes to {subscribers} subscribers at once are more than one sender may have \
         in flight ({most} bytes); take a smaller --block or fewer --subscribers",
        input.longest
    );
    Ok(())
}
