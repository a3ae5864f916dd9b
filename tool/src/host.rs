// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host that the user wants.

use anyhow::{Context, Result};
use bus1::{Host, Peer};
use clap::ValueEnum;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HostChoice {
    /// The one that BUS1_HOST names; otherwise the kernel if /dev/bus1 exists, or this process
    Auto,
    /// The module bus1.ko
    Kernel,
    /// This process
    Embedded,
}

impl HostChoice {
    /// Opens a peer on the host.
    pub fn open(self) -> Result<Peer> {
        let host = match self {
            Self::Auto => Host::preferred()?,
            Self::Kernel => Host::Kernel,
            Self::Embedded => Host::Embedded,
        };
        Peer::open_on(host).with_context(|| format!("cannot use the {host} host"))
    }
}
