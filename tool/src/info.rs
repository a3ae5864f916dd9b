// SPDX-License-Identifier: MIT OR Apache-2.0

//! `bus1 info`: shows the host that would be taken, and its limits.

use std::process::ExitCode;

use anyhow::Result;
use bus1::Host;
use clap::Args;

use crate::host::HostChoice;

#[derive(Args)]
pub struct Options {
    /// Where the bus runs
    #[arg(long, value_enum, default_value_t = HostChoice::Auto)]
    host: HostChoice,
}

/// Shows them.
pub fn run(options: &Options) -> Result<ExitCode> {
    let peer = options.host.open()?;
    let reach = match peer.host() {
        Host::Kernel => "/dev/bus1: peers in all processes of this machine",
        _ => "inside the process: peers in its own threads",
    };
    let limits = peer.limits()?;
    println!("host                  {} ({reach})", peer.host());
    println!("messages              {}", limits.slices);
    println!("handles               {}", limits.handles);
    println!("bytes in flight       {}", limits.inflight_bytes);
    println!("descriptors in flight {}", limits.inflight_fds);
    println!("These are the limits of a new peer. One sender may take half of what is free.");
    Ok(ExitCode::SUCCESS)
}
