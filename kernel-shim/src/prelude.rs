// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names that nearly every file of the core needs, as `kernel::prelude`.

#[doc(no_inline)]
pub use core::{
    ffi::{c_int, c_long, c_uint, c_ulong, c_void, CStr},
    mem::{align_of, align_of_val, size_of, size_of_val},
    pin::Pin,
};

#[doc(no_inline)]
pub use pinned_init::{pin_data, pinned_drop, InPlaceWrite, Init, PinInit, Zeroable};

#[doc(no_inline)]
pub use crate::{
    alloc::{flags::*, Box, KBox, KVBox, KVVec, KVec, VBox, VVec, Vec},
    error::{code::*, Error, Result},
    init,
    init::InPlaceInit,
    pin_init, pr_alert, pr_crit, pr_debug, pr_emerg, pr_err, pr_info, pr_notice, pr_warn,
    static_assert, try_init, try_pin_init,
};
