// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host: the types that the core uses here.

use bus1_core::bus::Host;

use crate::file::Files;
use crate::pool::Pool;
use crate::waker::Waker;

/// The bus inside this process.
pub(crate) enum Embedded {}

impl Host for Embedded {
    type Pool = Pool;
    type Files = Files;
    type Waker = Waker;

    fn uid() -> Option<u32> {
        // One process, whatever users its peers belong to.
        None
    }
}
