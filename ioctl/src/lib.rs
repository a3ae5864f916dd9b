// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands of bus1 as calls, for every client: the crate `bus1`, the benchmarks, the suite.
//!
//! | item | is |
//! |---|---|
//! | [`ioctl()`] | the system call, with its number and argument as they are |
//! | [`Execute`] | a peer that executes commands: a [`Device`], or a peer of another host |
//! | [`Commands`] | the commands whose arguments are built here, on everything that executes |
//! | [`SendArgs`] | the argument of SEND, built from borrowed slices |
//! | [`ExchangeArgs`] | the argument of EXCHANGE, and how far the command came |
//!
//! The crate holds no state and owns no resource: it knows neither pools nor rights.
//! It checks no argument either, since the bus does.
//!
//! ```
//! use bus1_ioctl::{Commands, Execute, SendArgs};
//! use bus1_uapi::CMD_HANDLE_TRANSFER;
//! use std::io::IoSlice;
//!
//! /// A peer of the bus in this process.
//! struct Peer(bus1_embedded::Peer);
//!
//! impl Execute for Peer {
//!     unsafe fn ioctl(&self, cmd: u32, arg: usize) -> rustix::io::Result<()> {
//!         // SAFETY: the caller's promise.
//!         unsafe { self.0.ioctl(cmd, arg) }
//!     }
//! }
//!
//! let peer = Peer(bus1_embedded::Bus::new()?.open()?);
//! // A message without destinations creates the node that it names ...
//! peer.send(&mut SendArgs::new().handles(&[8]))?;
//! // ... which messages can be sent to from then on.
//! let payload = [IoSlice::new(b"hello")];
//! peer.send(&mut SendArgs::new().destinations(&[8]).payload(&payload))?;
//! assert!(peer.0.poll().readable);
//! # Ok::<(), std::io::Error>(())
//! ```

// Floors, bottom to top:
//   send, execute
//   exchange
//   commands

mod commands;
mod exchange;
mod execute;
mod send;

pub use commands::Commands;
pub use exchange::ExchangeArgs;
pub use execute::{ioctl, Device, Execute};
pub use send::{RawVec, SendArgs};
