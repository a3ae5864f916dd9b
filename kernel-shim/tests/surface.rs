// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every call the core may make, in a file that names only the kernel's paths.
//! `surface/calls.rs` compiles unchanged in a kernel module; here it also runs.

#![cfg(not(loom))]

extern crate kernel_shim as kernel;

#[path = "surface/calls.rs"]
mod calls;

#[test]
fn every_call_does_what_it_does_in_the_kernel() {
    assert_eq!(calls::run(), Ok(()));
}
