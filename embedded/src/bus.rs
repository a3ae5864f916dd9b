// SPDX-License-Identifier: MIT OR Apache-2.0

//! An independent bus of this process.

use std::io;
use std::sync::OnceLock;

use bus1_core::bus::{Bus as Core, Usage, DEFAULT_LIMITS};
use kernel::sync::Arc;

use crate::error::to_errno;
use crate::host::Embedded;
use crate::peer::Peer;

/// A bus: peers that can reach each other. A clone is the same bus.
///
/// The transactions of one bus have one order; peers of different buses never meet. A bus needs no
/// descriptor and no memory worth speaking of, so a test can have one of its own. It lives as
/// long as anything refers to it, peers included.
///
/// ```
/// use bus1_embedded::{Bus, Limits};
///
/// let bus = Bus::with_limits(Limits { fds: 16, ..Limits::DEFAULT })?;
/// let peer = bus.open()?;
/// assert_eq!(peer.info().queued, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Bus(Arc<Core<Embedded>>);

/// Limits of a user, or of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slices in the pool.
    pub slices: u32,
    /// Handles, nodes included.
    pub handles: u32,
    /// Payload bytes in flight.
    pub bytes: u32,
    /// Descriptors in flight.
    pub fds: u32,
}

impl Limits {
    /// The limits of a user on a bus that was made without others.
    pub const DEFAULT: Limits = {
        let [slices, handles, bytes, fds] = DEFAULT_LIMITS;
        Limits {
            slices,
            handles,
            bytes,
            fds,
        }
    };
}

impl Bus {
    /// Makes a bus with the default limits for each user.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub fn new() -> io::Result<Self> {
        Self::with_limits(Limits::DEFAULT)
    }

    /// Makes a bus with these limits for each user.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub fn with_limits(limits: Limits) -> io::Result<Self> {
        // Debug builds check from now on that locks are taken in this order.
        kernel::lockdep::declare(&bus1_core::bus::LOCK_ORDER);
        let Limits {
            slices,
            handles,
            bytes,
            fds,
        } = limits;
        let core = Core::new([slices, handles, bytes, fds]).map_err(to_errno)?;
        Ok(Self(core))
    }

    /// Returns the bus of the process, the counterpart of the machine's `/dev/bus1`.
    ///
    /// # Panics
    ///
    /// Panics if there is no memory for it on the first call.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<Bus> = OnceLock::new();
        GLOBAL.get_or_init(|| Self::new().expect("no memory for the bus of the process"))
    }

    /// Opens a peer for the real user of the process.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub fn open(&self) -> io::Result<Peer> {
        self.open_as(rustix::process::getuid().as_raw())
    }

    /// Opens a peer for any user.
    ///
    /// The user is a number that quota is booked on, and grants nothing in the system; it need
    /// not exist. It is there so that a program can keep clients apart, or a test try out quota.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub fn open_as(&self, uid: u32) -> io::Result<Peer> {
        Ok(Peer::open(&self.0, uid).map_err(to_errno)?)
    }

    /// Returns the amounts that all users together hold. All of it is zero once every peer is gone.
    pub fn usage(&self) -> Usage {
        self.0.usage()
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}
