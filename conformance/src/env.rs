// SPDX-License-Identifier: MIT OR Apache-2.0

//! The surroundings of a case: a bus, and users that no other case uses.

use std::time::Duration;

use crate::client::Peer;
use crate::host::{Bus, Kind};
use crate::sys::thread;

/// Longest wait for an event that has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// User IDs that a case may use.
pub const USERS: u32 = 64;

/// The surroundings of one case.
///
/// Two cases have no user in common, hence no quota.
pub struct Env {
    bus: Box<dyn Bus>,
    first_user: u32,
}

impl Env {
    /// Returns the surroundings with the users `first_user` and on.
    pub fn new(bus: Box<dyn Bus>, first_user: u32) -> Self {
        Self { bus, first_user }
    }

    /// Returns the bus.
    pub fn bus(&self) -> &dyn Bus {
        &*self.bus
    }

    /// Returns whether the host is the kernel.
    pub fn on_kernel(&self) -> bool {
        self.bus.kind() == Kind::Kernel
    }

    /// Returns when a thread, of this process or another, sleeps for a message: in the device, or
    /// on a futex of the embedded host.
    ///
    /// The thread can also sleep for a lock, so a case may rely only on the thread being about to
    /// wait.
    #[track_caller]
    pub fn wait_until_asleep(&self, tid: i32) {
        let sleeps = |call| match self.bus.kind() {
            Kind::Kernel => call != libc::SYS_futex,
            Kind::Embedded => [libc::SYS_futex, libc::SYS_ppoll].contains(&call),
        };
        thread::wait_until_asleep(tid, sleeps, PATIENCE);
    }

    /// Returns the system's number of user number `user` of this case.
    pub fn uid(&self, user: u32) -> u32 {
        assert!(user < USERS);
        self.first_user + user
    }

    /// Returns a peer of the case's first user.
    #[track_caller]
    pub fn peer(&self) -> Peer {
        self.peer_of(0)
    }

    /// Returns a receiver, a sender, and the ID of a node of the former at the latter.
    #[track_caller]
    pub fn linked(&self) -> (Peer, Peer, u64) {
        let [a, b] = self.peers();
        let to = b.handle_of(&a);
        (a, b, to)
    }

    /// Opens several peers of the case's first user.
    #[track_caller]
    pub fn peers<const N: usize>(&self) -> [Peer; N] {
        std::array::from_fn(|_| self.peer())
    }

    /// Returns a peer of user number `user`.
    #[track_caller]
    pub fn peer_of(&self, user: u32) -> Peer {
        match self.bus.open(self.uid(user)) {
            Ok(door) => Peer::new(door),
            Err(errno) => panic!("cannot open a peer: {errno:?}"),
        }
    }
}
