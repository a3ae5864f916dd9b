// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host: which types the core uses here, and one call of a client.
//!
//! A [`Call`] lives for one command. What differs between trusted and checked addresses is its
//! [`Memory`]; descriptors are the same for both, those of the process.

use bus1_core::bus::host;
use bus1_core::bus::message::Files;
use bus1_core::bus::peer::Peer;
use kernel::error::Result;
use kernel::sync::Arc;

use crate::bus::Bus;
use crate::file::{self, File, Installed};
use crate::memory::{Memory, Payload};
use crate::pool::Pool;
use crate::registry;
use crate::waker::Waker;

/// The bus inside this process.
pub(crate) enum Embedded {}

impl host::Host for Embedded {
    type Pool = Pool;
    type File = File;
    type Waker = Waker;
}

/// One command by a thread of this process.
pub(crate) struct Call<'a, M> {
    /// The bus of the calling peer.
    pub(crate) bus: &'a Bus,
    /// How its addresses are reached.
    pub(crate) memory: M,
}

impl<M: Memory> host::Caller<Embedded> for Call<'_, M> {
    type Payload = Payload<M>;
    type Installed = Installed;

    #[inline]
    fn read(&self, addr: u64, to: &mut [u8]) -> Result {
        self.memory.read(addr, to)
    }

    #[inline]
    fn write(&self, addr: u64, from: &[u8]) -> Result {
        self.memory.write(addr, from)
    }

    fn payload(&self, addr: u64, n: usize) -> Result<Payload<M>> {
        Payload::import(self.memory, addr, n)
    }

    fn file(&self, fd: i32) -> Result<File> {
        file::take(fd)
    }

    fn peer(&self, fd: i32) -> Result<Arc<Peer<Embedded>>> {
        registry::find(self.bus, fd)
    }

    fn install(&self, files: &Files<Embedded>) -> Result<Installed> {
        Installed::new(files.as_slice())
    }
}
