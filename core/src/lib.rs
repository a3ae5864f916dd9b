// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The semantic core of bus1, compiled for user space.
//!
//! Everything is in [`bus`]; the kernel module includes that very folder as a module of its own
//! crate. There, `kernel` is the kernel's crate and [`abi`] is the same file of `uapi/`; here,
//! `kernel` is the shim.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub use bus1_uapi::abi;

pub mod bus;
