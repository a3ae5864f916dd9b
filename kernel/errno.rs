// SPDX-License-Identifier: GPL-2.0-only

//! Error numbers that the `kernel` crate of 7.2 lacks.

#[cfg(not(bus1_lacks_errno))]
pub(crate) use kernel::error::code::{
    EDQUOT, EHOSTUNREACH, ENOTUNIQ, EOPNOTSUPP, EREMOTE, ESHUTDOWN, ESTALE, EXFULL,
};

#[cfg(bus1_lacks_errno)]
mod lacking {
    use core::mem::transmute;
    use core::num::NonZeroI32;

    use kernel::bindings;
    use kernel::error::Error;

    /// Makes an error of a positive number; the functions of the `kernel` crate that do are not
    /// `const`.
    const fn error(number: u32) -> Error {
        assert!(number <= bindings::MAX_ERRNO);
        let Some(negative) = NonZeroI32::new(-(number as i32)) else {
            panic!("0 is no error");
        };
        // SAFETY: An `Error` has one field, of this type, and the compiler checks that it is as
        // large; and the number is in its range.
        unsafe { transmute::<NonZeroI32, Error>(negative) }
    }

    pub(crate) const EDQUOT: Error = error(bindings::EDQUOT);
    pub(crate) const EHOSTUNREACH: Error = error(bindings::EHOSTUNREACH);
    pub(crate) const ENOTUNIQ: Error = error(bindings::ENOTUNIQ);
    pub(crate) const EOPNOTSUPP: Error = error(bindings::EOPNOTSUPP);
    pub(crate) const EREMOTE: Error = error(bindings::EREMOTE);
    pub(crate) const ESHUTDOWN: Error = error(bindings::ESHUTDOWN);
    pub(crate) const ESTALE: Error = error(bindings::ESTALE);
    pub(crate) const EXFULL: Error = error(bindings::EXFULL);
}
#[cfg(bus1_lacks_errno)]
pub(crate) use lacking::*;
