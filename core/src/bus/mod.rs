// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The bus: peers, nodes, handles, queues, transactions, pools and quotas.
//!
//! `docs/design.md` draws the whole; in short, a message travels through [`command`], [`send`],
//! [`message`], the receiver's [`queue`] and [`recv`].
//!
//! # Locks
//!
//! All are spin locks. One is only taken while those held are of a lower rank.
//!
//! | rank | lock | where |
//! |---|---|---|
//! | 1 | `bus1::table` | [`peer::Peer`], its handles by ID |
//! | 2 | `bus1::inbox` | [`peer::Peer`], all that others may touch of it |
//! | 3 | `bus1::users` | [`instance::Bus`] |
//! | 4 | `bus1::account` | [`user::User`] |
//!
//! Never are two of the same rank held together. Under a lock nothing is allocated and nothing
//! sleeps; what is removed there and could reach a peer, a pool or a file when dropped is handed
//! out of the critical section first.

pub mod account;
pub mod command;
mod destroy;
mod exchange;
mod fifo;
mod handle;
pub mod host;
mod inbox;
pub mod instance;
mod ledger;
pub mod message;
pub mod node;
pub mod peer;
mod queue;
mod recv;
mod release;
mod reset;
mod seed;
mod send;
mod sieve;
mod slices;
mod table;
#[cfg(test)]
#[path = "../../tests/common/mod.rs"]
mod testing;
mod transaction;
mod transfer;
mod user;

pub use account::{Limits, DEFAULT_LIMITS};
pub use command::dispatch;
pub use host::{Caller, Host, Installed, Payload, Pool, Waker};
pub use instance::{Bus, Usage};
pub use message::Files;
pub use peer::{Info, Peer, Ready};
pub use recv::Receiver;
pub use reset::Flush;
pub use send::Outgoing;

/// For what outlives the call that allocates it: charged to the memory cgroup of the caller.
const GFP_KEPT: kernel::alloc::Flags = kernel::alloc::flags::GFP_KERNEL_ACCOUNT;

/// Names of the locks, lowest rank first; a debug host checks the order.
pub const LOCK_ORDER: [&str; 4] = ["bus1::table", "bus1::inbox", "bus1::users", "bus1::account"];
