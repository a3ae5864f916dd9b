// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host inside this process. Every instance is a bus of its own.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use bus1_embedded::{Ready, Usage};

use super::kernel::poll_fd;
use super::{Bus, Door, Errno, Events, Kind, Result, View};
use crate::client::Limits;

/// A bus of this process.
pub struct Embedded(bus1_embedded::Bus);

impl Embedded {
    /// Returns a new bus, with the default limits.
    pub fn new() -> Self {
        Self(bus1_embedded::Bus::new().expect("no memory for a bus"))
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}

fn to_errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or_else(|| panic!("an error without errno: {error}"))
}

impl Bus for Embedded {
    fn kind(&self) -> Kind {
        Kind::Embedded
    }

    fn open(&self, uid: u32) -> Result<Box<dyn Door>> {
        let peer = self.0.open_as(uid).map_err(to_errno)?;
        peer.descriptor()?;
        Ok(Box::new(EmbeddedDoor(peer)))
    }

    fn open_here(&self) -> Result<Box<dyn Door>> {
        self.open(0)
    }

    fn user_limits(&self) -> Limits {
        let limits = bus1_embedded::Limits::default();
        Limits {
            slices: limits.slices,
            handles: limits.handles,
            bytes: limits.bytes.try_into().unwrap_or(u32::MAX),
            fds: limits.fds,
        }
    }

    fn left_over(&self) -> Option<String> {
        let usage = self.0.usage();
        (usage != Usage::default()).then(|| format!("{usage:?}"))
    }
}

/// Returns the answer of poll(2) on the device for a peer in this state.
fn events(ready: Ready) -> Events {
    Events {
        hangup: ready.hangup,
        readable: ready.readable,
        // A host without a device has no POLLOUT; it is there unless the peer hung up.
        writable: !ready.hangup,
        other: false,
    }
}

/// A peer of the bus.
struct EmbeddedDoor(bus1_embedded::Peer);

impl Door for EmbeddedDoor {
    fn ioctl(&self, cmd: u32, arg: u64) -> Result {
        // SAFETY: as in `raw_ioctl`: addresses are of the suite's own memory, or nothing is mapped
        // there.
        unsafe { self.0.ioctl_checked(cmd, arg as usize) }
    }

    /// Waits by poll(2), as on the device; the peer then shows the state that the eventfd cannot.
    fn poll(&self, timeout: Duration) -> Events {
        let end = Instant::now() + timeout;
        loop {
            let ready = self.0.poll();
            let left = end.saturating_duration_since(Instant::now());
            if ready.any() || left.is_zero() {
                return events(ready);
            }
            // It may be readable without reason: then the next look lowers it.
            poll_fd(&self.0, left);
        }
    }

    fn map(&self, len: u64) -> Result<Box<dyn View>> {
        let map = self.0.pool()?;
        assert!(len <= map.len() as u64);
        Ok(Box::new(EmbeddedView { map, len }))
    }

    fn pool_size(&self) -> u64 {
        1 << 32
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let info = self.0.info();
        let mut counts = Vec::new();
        for (r, name) in ["slices", "handles", "bytes", "fds"].iter().enumerate() {
            counts.push((format!("charged-{name}"), info.charged[r]));
            counts.push((format!("user-charged-{name}"), info.user_charged[r]));
            counts.push((format!("user-max-{name}"), info.user_limits[r]));
        }
        let others = [
            ("nodes", info.nodes),
            ("handles", info.handles),
            ("queued", info.queued),
            ("staged", info.staged),
            ("slices", info.slices),
            ("user-sent-fds", info.sent_fds),
        ];
        counts.extend(others.map(|(name, n)| (name.to_owned(), n)));
        counts
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

struct EmbeddedView {
    map: bus1_embedded::Map,
    len: u64,
}

impl View for EmbeddedView {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, to: &mut [u8]) {
        let end = offset.checked_add(to.len() as u64);
        assert!(end.is_some_and(|end| end <= self.len), "beyond the mapping");
        assert!(self.map.read(offset, to), "beyond the pool");
    }
}
