// SPDX-License-Identifier: MIT OR Apache-2.0

//! bus1 inside one process.
//!
//! The same core that the kernel module is built from runs here with memory, descriptors and
//! wake-ups of the process. It serves tests, programs whose peers are threads, and machines
//! without the module. Order, rights and quota are those of the device, to the bit; what it
//! cannot do is reach another process.
//!
//! [`Bus`] is what the device is, [`Peer`] what a descriptor of it is, [`Peer::ioctl`] what
//! `ioctl(2)` is, [`Map`] what `mmap(2)` gives. There is nothing above: applications use the crate
//! `bus1`, which runs on either.
//!
//! # Differences from the device
//!
//! - A descriptor ([`Peer::descriptor`]) is an eventfd: it is readable where the device would
//!   report POLLIN or POLLHUP, and cannot be passed on. [`Peer::poll`] tells the two apart.
//! - A descriptor in flight takes a number of this process, so SEND may fail with EMFILE.
//! - Nobody is protected from others in the same process. Users are numbers that quota is
//!   booked on.
//! - After `fork(2)` the child must not use the parent's peers.
//!
//! # Costs
//!
//! A message costs no system call unless somebody waits for it, or the pool has never been as
//! full. An idle peer costs some hundred bytes; one that received something two mappings of 4 GiB
//! of address space, and the memory that its slices need. What released slices leave goes back to
//! the system, except the lowest 4 MiB of the pool, or up to 64 MiB of one that needs them again
//! and again.
//!
//! # Example
//!
//! ```
//! use bus1_embedded::abi::{
//!     CmdHandleTransfer, CmdRecv, CmdSend, CMD_HANDLE_TRANSFER, CMD_RECV, CMD_SEND, HANDLE_INVALID,
//!     MSG_DATA,
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
//! // SAFETY: the argument is ours alone, and points nowhere.
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
//! // SAFETY: the argument is ours alone, and what it points to is only read.
//! unsafe { client.ioctl_checked(CMD_SEND, &raw mut send as usize) }?;
//!
//! // The server receives.
//! let pool = server.pool()?;
//! assert!(server.wait(None).readable);
//! let mut recv = CmdRecv { max_offset: pool.len() as u64, ..Default::default() };
//! // SAFETY: the argument is ours alone, and points nowhere.
//! unsafe { server.ioctl_checked(CMD_RECV, &raw mut recv as usize) }?;
//! assert_eq!((recv.msg.kind, recv.msg.destination), (MSG_DATA, 8));
//! let mut received = vec![0; recv.msg.n_bytes as usize];
//! assert!(pool.read(recv.msg.offset, &mut received));
//! assert_eq!(received, payload);
//! # Ok::<(), std::io::Error>(())
//! ```

mod bus;
mod error;
mod file;
mod host;
mod memory;
mod peer;
mod pool;
mod registry;
mod residency;
mod waker;

pub use bus::{Bus, Limits};
pub use bus1_core::abi;
pub use bus1_core::bus::{Info, Ready, Usage};
pub use peer::Peer;
pub use pool::Map;
/// Numbers of errors. `Display` is what `strerror(3)` says; it converts into [`std::io::Error`].
pub use rustix::io::Errno;
