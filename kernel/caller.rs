// SPDX-License-Identifier: GPL-2.0-only

//! The task in whose ioctl the core runs: its memory and its descriptors.

use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;

use crate::bus::{Caller, Files};
use crate::file::{self, Received};
use crate::host::Kernel;
use crate::payload::Payload;
use crate::peer::{Peer, PeerFile};
use crate::user;

/// The running task, in an ioctl.
pub(crate) struct Task<'a> {
    /// The file of the ioctl.
    pub(crate) file: &'a PeerFile<'a>,
    /// It is a 32-bit program on a 64-bit kernel.
    pub(crate) compat: bool,
}

impl Caller<Kernel> for Task<'_> {
    type Payload = Payload;
    type Installed = Received;

    #[inline]
    fn read(&self, addr: u64, to: &mut [u8]) -> Result {
        user::read(addr, to)
    }

    #[inline]
    fn write(&self, addr: u64, from: &[u8]) -> Result {
        user::write(addr, from)
    }

    #[inline]
    fn payload(&self, addr: u64, n: usize) -> Result<Payload> {
        Payload::import(addr, n, self.compat)
    }

    fn file(&self, fd: i32) -> Result<ARef<File>> {
        file::get_cargo(fd, self.file)
    }

    fn peer(&self, fd: i32) -> Result<Arc<Peer>> {
        self.file.peer_of(&*file::get(fd)?)
    }

    fn install(&self, files: &Files<Kernel>) -> Result<Received> {
        Received::install(files.as_slice())
    }
}
