// SPDX-License-Identifier: MIT OR Apache-2.0

//! One command by a thread of this process: the memory and the descriptors that it names.
//!
//! Trusted and checked addresses differ in their [`Memory`]. Descriptors are those of the process
//! in either case.

use bus1_core::bus::{Bus, Caller, Peer};
use kernel::error::Result;
use kernel::sync::Arc;

use crate::file::{Files, Installed};
use crate::host::Embedded;
use crate::memory::{Memory, Payload};
use crate::registry;
use crate::travel;

/// One command.
pub(crate) struct Call<'a, M> {
    /// The bus of the calling peer.
    pub(crate) bus: &'a Arc<Bus<Embedded>>,
    /// The way to its addresses.
    pub(crate) memory: M,
}

impl<M: Memory> Caller<Embedded> for Call<'_, M> {
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

    fn files(&self, fds: &[i32]) -> Result<Files> {
        let files = fds.iter().map(|&fd| travel::take(fd));
        Ok(Files(std::sync::Arc::new(files.collect::<Result<_>>()?)))
    }

    fn peer(&self, fd: i32) -> Result<Arc<Peer<Embedded>>> {
        registry::find(self.bus, fd)
    }

    fn install(&self, files: Files) -> Result<Installed> {
        Installed::new(&files)
    }
}
