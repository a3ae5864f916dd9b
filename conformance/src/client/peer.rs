// SPDX-License-Identifier: MIT OR Apache-2.0

//! One peer and its commands.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

use bus1_uapi as abi;

use super::{Exchange, Limits, Recv, Send};
use crate::host::{Door, Events, Result, View};

/// Bytes of the pool that [`Peer`] maps; slices beyond are ERANGE to it.
const MAPPED: u64 = 64 << 20;

/// The first ID that [`Peer::new_node`] returns.
pub const FIRST_NODE: u64 = 0x1000;

/// Returns `n` rounded up to a multiple of 8.
pub fn align8(n: u64) -> u64 {
    n.next_multiple_of(8)
}

/// A peer of any host.
pub struct Peer {
    door: Box<dyn Door>,
    view: OnceLock<Box<dyn View>>,
    next_node: AtomicU64,
}

impl Peer {
    /// Returns a peer behind an open door.
    pub fn new(door: Box<dyn Door>) -> Self {
        Self {
            door,
            view: OnceLock::new(),
            next_node: AtomicU64::new(FIRST_NODE),
        }
    }

    /// Returns the host's side of the peer.
    pub fn door(&self) -> &dyn Door {
        &*self.door
    }

    /// Returns the number that stands for the peer as a descriptor.
    pub fn fd(&self) -> RawFd {
        self.door.fd()
    }

    /// Calls any command with any argument.
    pub fn ioctl(&self, cmd: u32, arg: u64) -> Result {
        self.door.ioctl(cmd, arg)
    }

    /// Calls a command on a structure or number that is read and written in place.
    pub fn command<T>(&self, cmd: u32, arg: &mut T) -> Result {
        let addr = std::ptr::from_mut(arg).expose_provenance() as u64;
        self.door.ioctl(cmd, addr)
    }

    /// Closes the peer, as dropping does, visibly in the text of a case.
    pub fn close(self) {}

    /// PEER_DISCONNECT
    pub fn disconnect(&self) -> Result {
        self.ioctl(abi::CMD_PEER_DISCONNECT, 0)
    }

    /// PEER_QUERY
    pub fn query(&self) -> Result<abi::CmdPeerReset> {
        let mut arg = abi::CmdPeerReset::default();
        self.command(abi::CMD_PEER_QUERY, &mut arg)?;
        Ok(arg)
    }

    /// PEER_RESET with everything given.
    pub fn reset(&self, mut arg: abi::CmdPeerReset) -> Result {
        self.command(abi::CMD_PEER_RESET, &mut arg)
    }

    /// PEER_RESET that keeps the limits.
    pub fn flush(&self, flags: u64) -> Result {
        self.reset(abi::CmdPeerReset {
            flags,
            ..Limits::KEEP.reset()
        })
    }

    /// PEER_RESET that only sets the limits.
    pub fn limit(&self, limits: Limits) -> Result {
        self.reset(limits.reset())
    }

    /// PEER_QUERY of the limits, which has to succeed.
    #[track_caller]
    pub fn expect_limits(&self) -> Limits {
        self.query().expect("PEER_QUERY failed").into()
    }

    /// HANDLE_RELEASE
    pub fn release(&self, mut id: u64) -> Result {
        self.command(abi::CMD_HANDLE_RELEASE, &mut id)
    }

    /// HANDLE_TRANSFER with everything given.
    pub fn transfer(&self, arg: &mut abi::CmdHandleTransfer) -> Result {
        self.command(abi::CMD_HANDLE_TRANSFER, arg)
    }

    /// HANDLE_TRANSFER of the handle `id` to `to`; the ID there.
    pub fn give(&self, to: &Peer, id: u64) -> Result<u64> {
        self.give_fd(to.fd() as u64, id)
    }

    /// HANDLE_TRANSFER to the peer itself.
    pub fn give_self(&self, id: u64) -> Result<u64> {
        self.give_fd(u64::MAX, id)
    }

    /// HANDLE_TRANSFER to the peer behind a number.
    pub fn give_fd(&self, dst_fd: u64, src_handle: u64) -> Result<u64> {
        let mut arg = abi::CmdHandleTransfer {
            flags: 0,
            src_handle,
            dst_fd,
            dst_handle: abi::HANDLE_INVALID,
        };
        self.transfer(&mut arg)?;
        Ok(arg.dst_handle)
    }

    /// NODES_DESTROY without flags.
    pub fn destroy(&self, ids: &[u64]) -> Result {
        self.destroy_with(0, ids)
    }

    /// NODES_DESTROY that releases the caller's handles as well.
    pub fn destroy_and_release(&self, ids: &[u64]) -> Result {
        self.destroy_with(abi::NODES_DESTROY_FLAG_RELEASE_HANDLES, ids)
    }

    /// NODES_DESTROY
    pub fn destroy_with(&self, flags: u64, ids: &[u64]) -> Result {
        let mut arg = abi::CmdNodesDestroy {
            flags,
            ptr_nodes: ids.as_ptr().expose_provenance() as u64,
            n_nodes: ids.len() as u64,
        };
        self.command(abi::CMD_NODES_DESTROY, &mut arg)
    }

    /// SLICE_RELEASE
    pub fn release_slice(&self, mut offset: u64) -> Result {
        self.command(abi::CMD_SLICE_RELEASE, &mut offset)
    }

    /// Returns a SEND to be filled in.
    pub fn message(&self) -> Send<'_> {
        Send::new(self)
    }

    /// Returns a RECV to be filled in; unchanged, it takes the next message with its descriptors.
    pub fn receive(&self) -> Recv<'_> {
        Recv::new(self)
    }

    /// Returns an EXCHANGE to be filled in; unchanged, it does nothing.
    pub fn exchange(&self) -> Exchange<'_> {
        Exchange::new(self)
    }

    /// QUOTA about a message with these numbers of bytes, handles and descriptors.
    pub fn quota(
        &self,
        handle: u64,
        [n_bytes, n_handles, n_fds]: [usize; 3],
    ) -> Result<abi::CmdQuota> {
        let mut arg = abi::CmdQuota {
            size: abi::CmdQuota::SIZE as u64,
            handle,
            n_bytes: n_bytes as u64,
            n_handles: n_handles as u64,
            n_fds: n_fds as u64,
            ..Default::default()
        };
        self.command(abi::CMD_QUOTA, &mut arg)?;
        Ok(arg)
    }

    /// Returns one of the peer's counts.
    pub fn count(&self, name: &str) -> u64 {
        let counts = self.door.counts();
        let found = counts.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("{name} is not counted")).1
    }

    /// RECV: the next message with its descriptors.
    pub fn recv(&self) -> Result<super::Message> {
        self.receive().run()
    }

    /// RECV of the seed with its descriptors.
    pub fn recv_seed(&self) -> Result<super::Message> {
        self.receive()
            .flags(abi::RECV_FLAG_SEED | abi::RECV_FLAG_INSTALL_FDS)
            .run()
    }

    /// Returns the events that poll reports now.
    pub fn events(&self) -> Events {
        self.door.poll(Duration::ZERO)
    }

    /// Sleeps in poll until there is input or a hang-up, or until `timeout` is over; returns
    /// whether there was one.
    pub fn wait(&self, timeout: Duration) -> bool {
        let events = self.door.poll(timeout);
        events.readable || events.hangup
    }

    /// Returns the mapping of the pool's beginning; the first call makes it.
    pub fn view(&self) -> &dyn View {
        &**self
            .view
            .get_or_init(|| self.door.map(self.mapped()).expect("cannot map the pool"))
    }

    /// Bytes that [`Peer::view`] shows. Does not make the mapping.
    pub fn mapped(&self) -> u64 {
        MAPPED.min(self.door.pool_size())
    }

    /// Copies from the mapping.
    pub fn read_pool(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.view().read(offset, &mut bytes);
        bytes
    }

    /// Returns an ID with clear flag bits that this method did not return before. No command is
    /// made: the first command that names it creates the node.
    pub fn new_node(&self) -> u64 {
        self.next_node.fetch_add(4, Ordering::Relaxed)
    }

    /// Returns a new node of this peer with a handle at `to`: the ID here, and there.
    pub fn node_for(&self, to: &Peer) -> (u64, u64) {
        let id = self.new_node();
        let there = self.give(to, id).expect("cannot give a fresh node away");
        (id, there)
    }

    /// SEND of bytes to one destination, which has to succeed.
    #[track_caller]
    pub fn expect_sent(&self, to: u64, bytes: &[u8]) {
        self.message().to(&[to]).bytes(bytes).send().unwrap();
    }

    /// Returns a handle at this peer of a new node that `owner` has made.
    pub fn handle_of(&self, owner: &Peer) -> u64 {
        owner.node_for(self).1
    }
}
