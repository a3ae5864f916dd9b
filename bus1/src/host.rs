// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the bus runs.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::kernel;

/// Where the bus runs that a peer is on. Peers reach peers of the same host alone.
///
/// ```
/// use bus1::Host;
///
/// assert_eq!("embedded".parse(), Ok(Host::Embedded));
/// assert_eq!(Host::Kernel.to_string(), "kernel");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Host {
    /// The module `bus1.ko`, behind `/dev/bus1`: peers in all processes of the machine.
    Kernel,
    /// This process: the same bus, for peers of its own threads and nobody else.
    Embedded,
}

impl Host {
    /// The host that [`Peer::open`](crate::Peer::open) takes: the one that `BUS1_HOST` in the
    /// environment names (`kernel` or `embedded`); else, or if it says `auto` or nothing, the
    /// kernel if `/dev/bus1` exists, and otherwise this process.
    ///
    /// It looks each time, and does not try to open the device.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownHost`] if `BUS1_HOST` says something else.
    ///
    /// ```
    /// let host = bus1::Host::preferred()?;
    /// println!("peers will be on the {host} host");
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn preferred() -> Result<Self> {
        match std::env::var_os("BUS1_HOST") {
            Some(name) if !name.is_empty() && name != "auto" => {
                name.to_str().ok_or(Error::UnknownHost)?.parse()
            }
            _ if kernel::is_present() => Ok(Self::Kernel),
            _ => Ok(Self::Embedded),
        }
    }
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "kernel" => Ok(Self::Kernel),
            "embedded" => Ok(Self::Embedded),
            _ => Err(Error::UnknownHost),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Embedded => "embedded",
        })
    }
}
