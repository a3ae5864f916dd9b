// SPDX-License-Identifier: MIT OR Apache-2.0

//! A host of the bus as the suite sees it: the binary interface and nothing above it.

mod embedded;
pub mod kernel;
mod poller;

use std::os::fd::RawFd;
use std::time::Duration;

use clap::ValueEnum;

use crate::client::Limits;

pub use embedded::Embedded;
pub use kernel::{Kernel, DEVICE};
pub use poller::Poller;

/// An errno, by the name that the interface gives it.
pub type Errno = rustix::io::Errno;

/// Result of a command.
pub type Result<T = ()> = std::result::Result<T, Errno>;

/// The kinds of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// `/dev/bus1`
    Kernel,
    /// The bus inside this process
    Embedded,
}

/// The events that `poll` reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// POLLHUP
    pub hangup: bool,
    /// POLLIN
    pub readable: bool,
    /// POLLOUT
    pub writable: bool,
    /// POLLERR, or any other event that a peer never reports
    pub other: bool,
}

/// One instance of the bus.
pub trait Bus: Send + Sync {
    /// Returns the kind of this host.
    fn kind(&self) -> Kind;

    /// Opens a peer of the user `uid`.
    fn open(&self, uid: u32) -> Result<Box<dyn Door>>;

    /// Opens a peer of the calling thread's user, with all the work in the calling thread. A host
    /// without users of its own takes root.
    fn open_here(&self) -> Result<Box<dyn Door>>;

    /// Returns the limits that every user has.
    fn user_limits(&self) -> Limits;

    /// Describes anything that is still there. Meaningful only when every peer is closed, those of
    /// other processes too.
    fn left_over(&self) -> Option<String>;
}

/// One open file description of `/dev/bus1`, or its counterpart on another host.
///
/// Dropping it closes it.
pub trait Door: Send + Sync {
    /// Calls the command `cmd` with the argument `arg`, both exactly as given.
    fn ioctl(&self, cmd: u32, arg: u64) -> Result;

    /// Waits up to `timeout` for input or a hang-up; zero only looks.
    fn poll(&self, timeout: Duration) -> Events;

    /// Maps the first `len` bytes of the pool.
    fn map(&self, len: u64) -> Result<Box<dyn View>>;

    /// Bytes in the pool.
    fn pool_size(&self) -> u64;

    /// Returns the counts and charges of the peer, by name.
    fn counts(&self) -> Vec<(String, u64)>;

    /// Returns a number that stands for the peer as a descriptor.
    fn fd(&self) -> RawFd;
}

/// A mapping of a pool.
pub trait View: Send + Sync {
    /// Bytes mapped.
    fn len(&self) -> u64;

    /// Returns whether nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `to.len()` bytes from `offset`. Panics beyond the end.
    fn read(&self, offset: u64, to: &mut [u8]);
}

/// Opens the host `kind`.
pub fn open(kind: Kind) -> std::io::Result<Box<dyn Bus>> {
    Ok(match kind {
        Kind::Kernel => Box::new(Kernel::new()?),
        Kind::Embedded => Box::new(Embedded::new()),
    })
}
