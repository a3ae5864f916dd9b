// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The binary interface of bus1 in Rust, the counterpart of `linux/bus1.h` in C.
//!
//! It holds numbers, layouts and their bytes, and nothing more: it makes no system call, checks no
//! argument and owns no resource. `docs/abi.md` describes what the commands do.
//!
//! ```
//! use bus1_uapi::{CmdRecv, CMD_RECV, RECV_FLAG_INSTALL_FDS};
//!
//! // What a client writes into the memory that it hands to the ioctl ...
//! let call = CmdRecv {
//!     flags: RECV_FLAG_INSTALL_FDS,
//!     max_offset: 1 << 20,
//!     ..Default::default()
//! };
//! let memory: [u8; CmdRecv::SIZE] = call.to_bytes();
//!
//! // ... is what the host reads from it.
//! assert_eq!(CmdRecv::from_bytes(&memory), call);
//! assert_eq!(CMD_RECV, 0xc048_9650);
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

/// Constants, structures and command numbers. Compiled into the kernel module
/// as well, from the same file.
pub mod abi;

pub use abi::*;
