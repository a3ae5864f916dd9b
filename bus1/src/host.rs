// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host: the place that a bus runs at.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bus1_ioctl::Device;

use crate::error::{Error, Result};

/// The place that the bus of a peer runs at. A peer reaches only peers of the same host.
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
    /// This process: the same bus, only for peers of its own threads.
    Embedded,
}

impl Host {
    /// Returns the host that [`Peer::open`](crate::Peer::open) takes: the one that `BUS1_HOST` in
    /// the environment names (`kernel` or `embedded`). If that is unset, empty or `auto`, the
    /// kernel if `/dev/bus1` exists, otherwise this process.
    ///
    /// It looks each time, and does not try to open the device.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownHost`] if `BUS1_HOST` says anything other than these.
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
            // It may still refuse to be opened.
            _ if Path::new(Device::PATH).exists() => Ok(Self::Kernel),
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
