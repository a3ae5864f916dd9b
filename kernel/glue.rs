// SPDX-License-Identifier: GPL-2.0-only

//! The border between C and Rust: the prototypes of `glue.c`, where each function is described. A
//! change there needs the same change here.

use kernel::bindings::{self, file, file_operations, page};
use kernel::prelude::*;

/// The owner of operations. A file whose operations have it keeps the module.
pub(crate) const OWNER: *mut bindings::module = &raw mut bindings::__this_module;

// SAFETY: These are the prototypes of `glue.c`. Those that are safe take references to what they
// write, and check addresses of user memory themselves.
// The kernel's structures have parts that are empty in this configuration.
#[allow(improper_ctypes)]
unsafe extern "C" {
    pub(crate) fn bus1_user_limits() -> *const [c_ulong; 4];
    pub(crate) fn bus1_pin(entry: *const c_void, n: usize) -> usize;
    pub(crate) fn bus1_unpin(entry: *const c_void, n: usize);
    pub(crate) fn bus1_lock_page(entry: *const c_void) -> *mut page;
    pub(crate) fn bus1_lock_idle_page(address: *const c_void) -> bool;
    pub(crate) fn bus1_take_unmapped(entry: *const c_void) -> usize;
    pub(crate) fn bus1_unlock_page(address: *const c_void);
    pub(crate) fn bus1_page_is_mapped(address: *const c_void) -> bool;
    pub(crate) fn bus1_file_pins_files(file: *mut file) -> bool;
    pub(crate) safe fn bus1_register(operations: &'static file_operations) -> c_int;
    pub(crate) safe fn bus1_unregister();
    pub(crate) fn bus1_take_back_fd(fd: c_uint, file: *mut file);
    pub(crate) safe fn bus1_new_pool_file() -> *mut file;
    pub(crate) safe fn bus1_get_user(to: &mut u64, at: u64) -> bool;
    pub(crate) safe fn bus1_get_iovec(
        start: &mut u64,
        len: &mut i64,
        at: u64,
        compat: bool,
    ) -> bool;
    pub(crate) safe fn bus1_is_killed() -> bool;
    pub(crate) safe fn bus1_host_time(at: i64) -> i64;
}
