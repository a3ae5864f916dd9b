// SPDX-License-Identifier: MIT OR Apache-2.0

//! Services of the system itself, apart from the bus: memory of every bad sort, processes, threads
//! that sleep, user faults, a file system.

pub mod cgroup;
pub mod fuse;
pub mod memory;
pub mod process;
pub mod thread;
pub mod userfault;
