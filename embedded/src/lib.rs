// SPDX-License-Identifier: MIT OR Apache-2.0

//! bus1 inside one process.
//!
//! The same core that the kernel module is built from runs here with memory, descriptors and
//! wake-ups of the process. It serves tests, programs whose peers are threads, and machines
//! without the module. Order, rights and quota are those of the device, to the bit. It cannot reach
//! another process.
//!
//! A [`Bus`] stands for the device, a [`Peer`] for a descriptor of it, [`Peer::ioctl`] for
//! `ioctl(2)`, and a [`Map`] for a mapping. There is nothing above: applications use the crate
//! `bus1`, which runs on either host.
//!
//! # Differences from the device
//!
//! - A descriptor ([`Peer::descriptor`]) is an eventfd: it is readable where the device would
//!   report POLLIN or POLLHUP, and cannot be passed on. It is edge-triggered as
//!   [`Peer::descriptor`] says. [`Peer::poll`] distinguishes the two.
//! - A descriptor in flight takes a number of this process (two while it is being sent), and counts
//!   as one in flight over sockets for the system. So SEND may fail with EMFILE if the process has
//!   no number left, or if its user has as many descriptors in flight as `RLIMIT_NOFILE` of the
//!   process says (a privileged process may have more), and with ENFILE. A security module that
//!   refuses a receiver a descriptor shows as EMFILE of RECV.
//! - SEND leaves the POSIX record locks (`F_SETLK`) of the process as they are. A received
//!   descriptor belongs to this very process: to close it drops the locks that the process has on
//!   the file, as POSIX says of any descriptor. A RECV or an EXCHANGE that fails after it got
//!   descriptors, or that is overtaken by another thread, closes them again, with the same effect.
//!   Locks of the open file description (`F_OFD_SETLK`, `flock(2)`) are not concerned.
//! - Nobody is protected from others in the same process. Users are numbers that quota is
//!   booked on.
//! - After `fork(2)` the child must not use the parent's peers.
//!
//! # Costs
//!
//! A message costs no system call unless somebody waits for it, it carries descriptors, or the pool
//! has never been as full. An idle peer costs some hundred bytes; one that received something costs
//! two mappings of 4 GiB of address space, and the memory that its slices need. The memory of
//! released slices goes back to the system, except the lowest 4 MiB of the pool, or up to 64 MiB of
//! a pool that needs them again and again.
//!
//! # Example
//!
//! ```
//! use bus1_embedded::abi::{
//!     CmdHandleTransfer, CmdRecv, CmdSend, CMD_HANDLE_TRANSFER, CMD_RECV, CMD_SEND,
//!     HANDLE_INVALID, MSG_DATA,
//! };
//! use bus1_embedded::Bus;
//! use std::os::fd::AsRawFd;
//!
//! let bus = Bus::new()?;
//! let (server, client) = (bus.open()?, bus.open()?);
//!
//! // The server makes a node, which it calls 8, and gives the client a handle.
//! let mut transfer = CmdHandleTransfer {
//!     src_handle: 8,
//!     dst_fd: client.as_raw_fd() as u64,
//!     dst_handle: HANDLE_INVALID,
//!     ..Default::default()
//! };
//! // SAFETY: the argument is ours, and points nowhere.
//! unsafe { server.ioctl_checked(CMD_HANDLE_TRANSFER, &raw mut transfer as usize) }?;
//!
//! // The client sends to it.
//! let payload = b"hello";
//! let vec = [payload.as_ptr() as usize, payload.len()];
//! let mut send = CmdSend {
//!     ptr_destinations: &raw const transfer.dst_handle as u64,
//!     n_destinations: 1,
//!     ptr_vecs: vec.as_ptr() as u64,
//!     n_vecs: 1,
//!     ..Default::default()
//! };
//! // SAFETY: the argument is ours, and the memory that it points to is only read.
//! unsafe { client.ioctl_checked(CMD_SEND, &raw mut send as usize) }?;
//!
//! // The server receives.
//! let pool = server.pool()?;
//! assert!(server.wait(None).readable);
//! let mut recv = CmdRecv { max_offset: pool.len() as u64, ..Default::default() };
//! // SAFETY: the argument is ours, and points nowhere.
//! unsafe { server.ioctl_checked(CMD_RECV, &raw mut recv as usize) }?;
//! assert_eq!((recv.msg.kind, recv.msg.destination), (MSG_DATA, 8));
//! let mut received = vec![0; recv.msg.n_bytes as usize];
//! assert!(pool.read(recv.msg.offset, &mut received));
//! assert_eq!(received, payload);
//! # Ok::<(), std::io::Error>(())
//! ```

// Floors, bottom to top; `cargo xtask layers` checks that no file imports a higher one:
//   error, eventfd, residency
//   descriptor, event, pool
//   file, signal
//   scope
//   waker
//   host
//   memory, registry
//   travel
//   call
//   peer
//   bus

// The client of the tests knows this crate by its name.
#[cfg(test)]
extern crate self as bus1_embedded;

mod bus;
mod call;
mod descriptor;
mod error;
mod event;
mod eventfd;
mod file;
mod host;
mod memory;
mod peer;
mod pool;
mod registry;
mod residency;
mod scope;
mod signal;
mod travel;
mod waker;

pub use bus::{Bus, Limits};
pub use bus1_core::abi;
pub use bus1_core::bus::{Info, Ready, Usage};
pub use peer::Peer;
pub use pool::Map;
/// The number of an error. `Display` is what `strerror(3)` says; it converts into
/// [`std::io::Error`].
pub use rustix::io::Errno;
