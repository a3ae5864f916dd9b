// SPDX-License-Identifier: GPL-2.0-only

//! The types of the kernel host.

use kernel::fs::File;
use kernel::sync::aref::ARef;

use crate::bus;
use crate::pool::Pool;
use crate::waker::Waiters;

/// The host of the kernel module.
pub(crate) struct Kernel;

impl bus::Host for Kernel {
    type Pool = Pool;
    type File = ARef<File>;
    type Waker = Waiters;
}
