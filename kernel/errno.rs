// SPDX-License-Identifier: GPL-2.0-only

//! Error numbers that the `kernel` crate of 7.2 lacks.

/// Makes an error of a positive number; the functions of the `kernel` crate that do are not
/// `const`.
#[cfg(bus1_lacks_errno)]
const fn error(number: u32) -> kernel::error::Error {
    assert!(number <= kernel::bindings::MAX_ERRNO);
    let negative = core::num::NonZeroI32::new(-(number as i32)).unwrap();
    // SAFETY: An `Error` has one field, of this type, and the compiler checks that it is as
    // large; and the number is in its range.
    unsafe { core::mem::transmute::<core::num::NonZeroI32, kernel::error::Error>(negative) }
}

macro_rules! errors {
    ($($name:ident)*) => {
        #[cfg(not(bus1_lacks_errno))]
        pub(crate) use kernel::error::code::{$($name),*};
        $(
            #[cfg(bus1_lacks_errno)]
            pub(crate) const $name: kernel::error::Error = error(kernel::bindings::$name);
        )*
    };
}

errors! { EDQUOT EHOSTUNREACH ENOTUNIQ EOPNOTSUPP EREMOTE ESHUTDOWN ESTALE EXFULL }
