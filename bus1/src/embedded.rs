// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host inside this process.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use bus1_embedded::{Bus, Map, Peer};

use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::transport::Transport;

/// A peer of the process's bus.
pub(crate) struct Embedded {
    peer: Peer,
    /// Made when it is first needed: a peer that only sends has none.
    map: OnceLock<Map>,
}

impl Embedded {
    /// A new peer.
    pub(crate) fn open() -> Result<Self> {
        match Bus::global().open() {
            Ok(peer) => Ok(Self {
                peer,
                map: OnceLock::new(),
            }),
            Err(error) => Err(Error::from_command(
                "opening a peer",
                Errno::from_raw(error.raw_os_error().unwrap_or(0)),
            )),
        }
    }
}

// SAFETY: the host leaves a slice as it is from its receipt to its release, and its memory lives
// as long as the map.
unsafe impl Transport for Embedded {
    fn host(&self) -> Host {
        Host::Embedded
    }

    unsafe fn ioctl(&self, cmd: u32, arg: u64) -> Result<(), Errno> {
        let arg = usize::try_from(arg).map_err(|_| Errno::from(rustix::io::Errno::FAULT))?;
        // SAFETY: the caller's promise.
        unsafe { self.peer.ioctl(cmd, arg) }.map_err(Errno::from)
    }

    fn pool(&self) -> Result<(*const u8, u64), Errno> {
        let map = match self.map.get() {
            Some(map) => map,
            None => {
                let map = self.peer.pool()?;
                self.map.get_or_init(|| map)
            }
        };
        Ok((map.as_ptr(), map.len() as u64))
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        Ok(self.peer.descriptor()?)
    }
}
