// SPDX-License-Identifier: GPL-2.0-only

//! bus1, the kernel module: capability-based communication between the processes of one machine.
//!
//! What the bus does is in [`bus`], which is the same in every host. The rest of this crate lends it
//! what it needs of a Linux kernel, by exported symbols only:
//!
//! - `device`: the file operations of `/dev/bus1`
//! - `caller`: the memory of whoever made the call; `file`: descriptors
//! - `pool`, `pages`, `mapping`, `shrinker`: memory for what was sent
//! - `waker`: who waits
//! - `glue`: a bit of C for what is a macro or inline there

#![crate_name = "bus1"]

use kernel::prelude::*;

/// The binary interface.
#[path = "../uapi/src/abi.rs"]
pub mod abi;
#[path = "../core/src/bus/mod.rs"]
pub mod bus;

mod caller;
mod device;
mod errno;
mod file;
mod glue;
mod mapping;
mod pages;
mod pool;
mod shrinker;
mod waker;

use bus::{Bus, Limits};
use device::Device;
use shrinker::Pools;

module! {
    type: Device,
    name: "bus1",
    description: "Capability-based communication between processes",
    license: "GPL",
}

/// The limits of each user, from the module's parameters. EINVAL if one is beyond what a peer's
/// limit can be.
fn limits() -> Result<Limits> {
    // SAFETY: Parameters are set before the module starts, and are read-only afterwards.
    let limits = unsafe { glue::bus1_user_max };
    if limits.iter().any(|&limit| limit > i32::MAX as u32) {
        pr_err!("a limit is too large: give each at most {}\n", i32::MAX);
        return Err(EINVAL);
    }
    Ok(limits)
}

impl kernel::InPlaceModule for Device {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| Ok(Device::register(Bus::new(limits()?)?, Pools::new()?)))
    }
}
