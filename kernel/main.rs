// SPDX-License-Identifier: GPL-2.0-only

//! bus1, the kernel module: capability-based communication between the processes of one machine.
//!
//! The bus itself is in [`bus`], which is the same in every host. The rest of this crate lends it
//! the parts of a Linux kernel that it needs, by exported symbols only.
//!
//! Floors, bottom to top; `cargo xtask layers` checks that no file imports a higher one:
//! - `glue`: the border to a bit of C, for macros and inline functions
//! - `errno`, `gfp`, `abi`: what the `kernel` crate lacks; the binary interface
//! - `bus`: the core
//! - `closer`: the files of messages, and the workers that close them
//! - `entry`: a page and its pins
//! - `memory`: the pages of a pool, and the way out of page tables
//! - `shrinker`: the list of all pools
//! - `pool`: the memory of one peer, as the core uses it
//! - `mapping`, `sleep`: the memory of one peer, as its owner sees it; the sleep of a waiter
//! - `waker`: waiters
//! - `peer`: the types of this host; whether a file is a peer, and whose
//! - `file`: descriptors in messages
//! - `caller`, `fdinfo`: the task that makes a call; numbers about a peer
//! - `device`: the file operations of `/dev/bus1`

#![crate_name = "bus1"]

use kernel::prelude::*;

/// The binary interface.
#[path = "../uapi/src/abi.rs"]
pub mod abi;
#[path = "../core/src/bus/mod.rs"]
pub mod bus;

mod caller;
mod closer;
mod device;
mod entry;
mod errno;
mod fdinfo;
mod file;
mod gfp;
mod glue;
mod mapping;
mod memory;
mod peer;
mod pool;
mod shrinker;
mod sleep;
mod waker;

use bus::{Limits, BYTES};
use device::Device;

module! {
    type: Device,
    name: "bus1",
    description: "Capability-based communication between processes",
    license: "GPL",
}

/// Returns the limits of each user, from the module's parameters.
///
/// # Errors
///
/// EINVAL if one, except that in bytes, is larger than a peer's limit can be.
fn limits() -> Result<Limits> {
    // SAFETY: Parameters are set before the module starts, and are read-only afterwards.
    let limits = unsafe { *glue::bus1_user_limits() };
    let limits = limits.map(|limit| limit as u64);
    let most = i32::MAX as u64;
    let is_too_large = |(r, &limit): (usize, &u64)| r != BYTES && limit > most;
    if limits.iter().enumerate().any(is_too_large) {
        pr_err!("a limit is too large: give each at most {most}\n");
        return Err(EINVAL);
    }
    Ok(limits)
}

impl kernel::Module for Device {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Self::register(limits()?)
    }
}
