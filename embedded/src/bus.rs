// SPDX-License-Identifier: MIT OR Apache-2.0

//! An independent bus of this process.

use std::io;
use std::sync::OnceLock;

use bus1_core::bus::{user_limits, Bus as Core, Usage};
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
/// let bus = Bus::with_limits(Limits { fds: 16, ..Limits::default() })?;
/// let peer = bus.open()?;
/// assert_eq!(peer.info().queued, 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Bus(Arc<Core<Embedded>>);

/// Limits of a user: the amounts that all of its peers together may be sent and keep. A peer has
/// limits of its own, which it starts with as far as its user's are not lower: 16384 slices, 65536
/// handles, 16 MiB and 4096 descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Slices in the pools.
    pub slices: u32,
    /// Handles, nodes included.
    pub handles: u32,
    /// Bytes of payload in the pools.
    pub bytes: u64,
    /// Descriptors in flight.
    pub fds: u32,
}

impl Default for Limits {
    /// Returns the limits of a user on a bus that was made without others: eight times the
    /// slices and descriptors that a peer starts with, 32 times the handles, and an eighth of the
    /// machine's memory in bytes.
    fn default() -> Self {
        let machine = rustix::system::sysinfo();
        let memory = machine.totalram as u64 * u64::from(machine.mem_unit);
        let [slices, handles, bytes, fds] = user_limits(memory);
        Self {
            slices: slices as u32,
            handles: handles as u32,
            bytes,
            fds: fds as u32,
        }
    }
}

impl Bus {
    /// Makes a bus with the default limits for each user.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub fn new() -> io::Result<Self> {
        Self::with_limits(Limits::default())
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
        let [slices, handles, fds] = [slices, handles, fds].map(u64::from);
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
