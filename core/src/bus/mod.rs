// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The bus: peers, nodes, handles, queues, transactions, pools and quotas.
//!
//! `docs/design.md` draws the whole, and names the files that a message travels through.
//!
//! # Locks
//!
//! All are spin locks. A lock is only taken while all locks held are of a lower rank.
//!
//! | rank | lock | where |
//! |---|---|---|
//! | 1 | `bus1::table` | [`object::peer`], a peer's handles by ID |
//! | 2 | `bus1::inbox` | [`object::peer`], all that others may touch of a peer |
//! | 3 | `bus1::users` | [`object::bus`] |
//! | 4 | `bus1::account` | [`quota::user`] |
//! | 5 | `bus1::waits` | [`object::waits`], a user's waits for room |
//!
//! Never are two of the same rank held together. Under a lock nothing is allocated and nothing
//! sleeps; objects that are removed there and could reach a peer, a pool or a file when dropped are
//! handed out of the critical section first.

// Floors, bottom to top; `cargo xtask layers` checks that no file imports a higher one:
//   allocation, tree: the ground
//   quota, order, pool
//   host
//   object
//   command

mod allocation;
mod command;
mod host;
mod object;
mod order;
#[cfg(test)]
mod planted;
mod pool;
mod quota;
#[cfg(test)]
#[path = "../../tests/common/mod.rs"]
mod testing;
mod tree;

pub use command::{dispatch, Caller, Flush, Installed, Outgoing, Receiver};
pub use host::{Files, Host, Payload, Pool, WakeHint, Waker};
pub use object::{Bus, Info, Peer, Ready, Usage};
pub use quota::{
    user_limits, Amounts, KeptCharges, Limits, BYTES, FDS, HANDLES, PEER_LIMITS, RESOURCES, SLICES,
};

/// Names of the locks, lowest rank first; a debug host checks the order.
pub const LOCK_ORDER: [&str; 6] = [
    "bus1::permit",
    "bus1::table",
    "bus1::inbox",
    "bus1::users",
    "bus1::account",
    "bus1::waits",
];
