// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the suite asks of the system itself, apart from the bus: memory of every bad sort,
//! processes, user faults. With `host/kernel.rs` the only place with `unsafe`.

pub mod memory;
pub mod process;
pub mod userfault;
