// SPDX-License-Identifier: GPL-2.0

//! The prototypes of `glue.c`, which says what each does.

use kernel::bindings;
use kernel::prelude::*;

extern "C" {
    pub(crate) static bus1_user_max: [c_uint; 4];
    pub(crate) fn bus1_file_pins_files(file: *mut bindings::file) -> bool;
    pub(crate) fn bus1_take_back_fd(fd: c_uint, file: *mut bindings::file) -> bool;
    pub(crate) fn bus1_new_pool_file(
        fops: *const bindings::file_operations,
        pages: *mut c_void,
    ) -> *mut bindings::file;
    pub(crate) fn bus1_lock_page(address: *const c_void) -> *mut bindings::page;
    pub(crate) fn bus1_trylock_page(address: *const c_void) -> bool;
    pub(crate) fn bus1_unlock_page(address: *const c_void);
}
