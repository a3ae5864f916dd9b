// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The semantic core of bus1, compiled for user space.
//!
//! Everything is in [`bus`]; the kernel module includes that very folder as a module of its own
//! crate. There, `kernel` is the kernel's crate, [`abi`] is the same file of `uapi/`, and [`errno`]
//! and [`gfp`] make up for what that crate lacks; here, `kernel` is the shim.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Its name in the kernel.
extern crate pinned_init as pin_init;
// So that the host of the tests compiles here and in `tests/` alike.
#[cfg(test)]
extern crate self as bus1_core;
#[cfg(test)]
extern crate std;

pub use bus1_uapi::abi;

/// Error numbers that not every kernel has in its prelude.
pub mod errno {
    pub use kernel::error::code::{
        EDQUOT, EHOSTUNREACH, ENOTUNIQ, EOPNOTSUPP, EREMOTE, ESHUTDOWN, ESTALE, EXFULL,
    };
}

/// Flags of allocations that the kernel's crate lacks.
pub mod gfp {
    pub use kernel::alloc::flags::GFP_KERNEL_ACCOUNT as ACCOUNT_MAYFAIL;
}

pub mod bus;
