// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host inside this process.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use bus1_embedded::{Bus, Map, Peer};
use bus1_ioctl::Execute;
use rustix::io::Errno as Raw;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::transport::{PoolView, Transport};

/// A peer of the process's bus.
pub(crate) struct Embedded {
    peer: Peer,
    /// Made when it is first needed: a peer that only sends has none.
    map: OnceLock<Map>,
}

impl Embedded {
    /// Opens a new peer.
    pub(crate) fn open() -> Result<Self> {
        let peer = Bus::global().open().map_err(|error| {
            let errno = Raw::from_io_error(&error).unwrap_or(Raw::NOMEM);
            Error::from_host("opening a peer", errno)
        })?;
        Ok(Self {
            peer,
            map: OnceLock::new(),
        })
    }
}

impl Execute for Embedded {
    unsafe fn ioctl(&self, cmd: u32, arg: usize) -> rustix::io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.peer.ioctl(cmd, arg) }
    }
}

// SAFETY: the host leaves a slice as it is from its receipt to its release, and its memory lives
// as long as the map.
unsafe impl Transport for Embedded {
    fn host(&self) -> Host {
        Host::Embedded
    }

    fn pool(&self) -> Result<PoolView> {
        let map = match self.map.get() {
            Some(map) => map,
            None => {
                let map = self
                    .peer
                    .pool()
                    .map_err(|errno| Error::from_host("mapping the pool", errno))?;
                self.map.get_or_init(|| map)
            }
        };
        Ok(PoolView {
            start: map.as_ptr(),
            len: map.len() as u64,
        })
    }

    fn fd(&self) -> Result<BorrowedFd<'_>> {
        self.peer
            .descriptor()
            .map_err(|errno| Error::from_host("making a descriptor", errno))
    }
}
