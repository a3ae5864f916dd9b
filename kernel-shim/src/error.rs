// SPDX-License-Identifier: MIT OR Apache-2.0

//! Error numbers, as `kernel::error`.
//!
//! Invariant: an [`Error`] holds a negated errno in `-4095..0`. The numbers are
//! those of the C library; those that never leave the kernel are its own.

use crate::alloc::AllocError;
use core::{
    convert::Infallible,
    ffi::{c_int, CStr},
    fmt,
    num::{NonZeroI32, TryFromIntError},
    str::Utf8Error,
};

const MAX_ERRNO: c_int = 4095;

/// A kernel error: one errno.
///
/// # Examples
///
/// ```
/// use kernel_shim::prelude::*;
///
/// assert_eq!(Error::from_errno(-22), EINVAL);
/// assert_eq!(EINVAL.to_errno(), -22);
/// assert_eq!(format!("{EINVAL:?}"), "EINVAL");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(NonZeroI32);

/// A `Result` whose error is the kernel's by default.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

impl Error {
    /// Makes an error of a negated errno. A number outside `-4095..0` is a bug
    /// of the caller and gives `EINVAL`.
    pub fn from_errno(errno: c_int) -> Error {
        Self::try_from_errno(errno).unwrap_or_else(|| {
            crate::pr_warn!("errno {errno} is out of range, EINVAL is used instead\n");
            code::EINVAL
        })
    }

    const fn try_from_errno(errno: c_int) -> Option<Error> {
        if errno < -MAX_ERRNO || errno >= 0 {
            return None;
        }
        match NonZeroI32::new(errno) {
            Some(errno) => Some(Error(errno)),
            None => None,
        }
    }

    /// Returns the negated errno.
    pub fn to_errno(self) -> c_int {
        self.0.get()
    }

    /// Returns the symbolic name, where there is one. Of two names for one number the
    /// first in the list of [`code`] is given.
    pub fn name(&self) -> Option<&'static CStr> {
        code::NAMES.iter().find(|(e, _)| e == self).map(|(_, n)| *n)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name().and_then(|n| n.to_str().ok()) {
            Some(name) => f.debug_tuple(name).finish(),
            None => f.debug_tuple("Error").field(&-self.0.get()).finish(),
        }
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Error {
        code::ENOMEM
    }
}

impl From<TryFromIntError> for Error {
    fn from(_: TryFromIntError) -> Error {
        code::EINVAL
    }
}

impl From<Utf8Error> for Error {
    fn from(_: Utf8Error) -> Error {
        code::EINVAL
    }
}

impl From<fmt::Error> for Error {
    fn from(_: fmt::Error) -> Error {
        code::EINVAL
    }
}

impl From<Infallible> for Error {
    fn from(e: Infallible) -> Error {
        match e {}
    }
}

/// Returns `Ok` for zero and above, otherwise the error of the negated errno.
pub fn to_result(err: c_int) -> Result {
    if err < 0 {
        Err(Error::from_errno(err))
    } else {
        Ok(())
    }
}

/// The error codes.
pub mod code {
    use super::Error;
    use core::ffi::CStr;

    macro_rules! declare_codes {
        ($($name:ident = $value:expr,)*) => {
            $(
                #[doc = concat!("`", stringify!($name), "`, as in `errno(3)`.")]
                pub const $name: Error = match Error::try_from_errno(-($value)) {
                    Some(e) => e,
                    None => panic!("errno out of range"),
                };
            )*

            pub(super) const NAMES: &[(Error, &CStr)] = &[$((
                $name,
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("bad name"),
                },
            ),)*];
        };
    }

    declare_codes! {
        EPERM = libc::EPERM,
        ENOENT = libc::ENOENT,
        ESRCH = libc::ESRCH,
        EINTR = libc::EINTR,
        EIO = libc::EIO,
        ENXIO = libc::ENXIO,
        E2BIG = libc::E2BIG,
        ENOEXEC = libc::ENOEXEC,
        EBADF = libc::EBADF,
        ECHILD = libc::ECHILD,
        EAGAIN = libc::EAGAIN,
        ENOMEM = libc::ENOMEM,
        EACCES = libc::EACCES,
        EFAULT = libc::EFAULT,
        ENOTBLK = libc::ENOTBLK,
        EBUSY = libc::EBUSY,
        EEXIST = libc::EEXIST,
        EXDEV = libc::EXDEV,
        ENODEV = libc::ENODEV,
        ENOTDIR = libc::ENOTDIR,
        EISDIR = libc::EISDIR,
        EINVAL = libc::EINVAL,
        ENFILE = libc::ENFILE,
        EMFILE = libc::EMFILE,
        ENOTTY = libc::ENOTTY,
        ETXTBSY = libc::ETXTBSY,
        EFBIG = libc::EFBIG,
        ENOSPC = libc::ENOSPC,
        ESPIPE = libc::ESPIPE,
        EROFS = libc::EROFS,
        EMLINK = libc::EMLINK,
        EPIPE = libc::EPIPE,
        EDOM = libc::EDOM,
        ERANGE = libc::ERANGE,
        EDEADLK = libc::EDEADLK,
        ENAMETOOLONG = libc::ENAMETOOLONG,
        ENOLCK = libc::ENOLCK,
        ENOSYS = libc::ENOSYS,
        ENOTEMPTY = libc::ENOTEMPTY,
        ELOOP = libc::ELOOP,
        ENOMSG = libc::ENOMSG,
        EIDRM = libc::EIDRM,
        ECHRNG = libc::ECHRNG,
        EL2NSYNC = libc::EL2NSYNC,
        EL3HLT = libc::EL3HLT,
        EL3RST = libc::EL3RST,
        ELNRNG = libc::ELNRNG,
        EUNATCH = libc::EUNATCH,
        ENOCSI = libc::ENOCSI,
        EL2HLT = libc::EL2HLT,
        EBADE = libc::EBADE,
        EBADR = libc::EBADR,
        EXFULL = libc::EXFULL,
        ENOANO = libc::ENOANO,
        EBADRQC = libc::EBADRQC,
        EBADSLT = libc::EBADSLT,
        EBFONT = libc::EBFONT,
        ENOSTR = libc::ENOSTR,
        ENODATA = libc::ENODATA,
        ETIME = libc::ETIME,
        ENOSR = libc::ENOSR,
        ENONET = libc::ENONET,
        ENOPKG = libc::ENOPKG,
        EREMOTE = libc::EREMOTE,
        ENOLINK = libc::ENOLINK,
        EADV = libc::EADV,
        ESRMNT = libc::ESRMNT,
        ECOMM = libc::ECOMM,
        EPROTO = libc::EPROTO,
        EMULTIHOP = libc::EMULTIHOP,
        EDOTDOT = libc::EDOTDOT,
        EBADMSG = libc::EBADMSG,
        EFSBADCRC = libc::EBADMSG,
        EOVERFLOW = libc::EOVERFLOW,
        ENOTUNIQ = libc::ENOTUNIQ,
        EBADFD = libc::EBADFD,
        EREMCHG = libc::EREMCHG,
        ELIBACC = libc::ELIBACC,
        ELIBBAD = libc::ELIBBAD,
        ELIBSCN = libc::ELIBSCN,
        ELIBMAX = libc::ELIBMAX,
        ELIBEXEC = libc::ELIBEXEC,
        EILSEQ = libc::EILSEQ,
        ERESTART = libc::ERESTART,
        ESTRPIPE = libc::ESTRPIPE,
        EUSERS = libc::EUSERS,
        ENOTSOCK = libc::ENOTSOCK,
        EDESTADDRREQ = libc::EDESTADDRREQ,
        EMSGSIZE = libc::EMSGSIZE,
        EPROTOTYPE = libc::EPROTOTYPE,
        ENOPROTOOPT = libc::ENOPROTOOPT,
        EPROTONOSUPPORT = libc::EPROTONOSUPPORT,
        ESOCKTNOSUPPORT = libc::ESOCKTNOSUPPORT,
        EOPNOTSUPP = libc::EOPNOTSUPP,
        EPFNOSUPPORT = libc::EPFNOSUPPORT,
        EAFNOSUPPORT = libc::EAFNOSUPPORT,
        EADDRINUSE = libc::EADDRINUSE,
        EADDRNOTAVAIL = libc::EADDRNOTAVAIL,
        ENETDOWN = libc::ENETDOWN,
        ENETUNREACH = libc::ENETUNREACH,
        ENETRESET = libc::ENETRESET,
        ECONNABORTED = libc::ECONNABORTED,
        ECONNRESET = libc::ECONNRESET,
        ENOBUFS = libc::ENOBUFS,
        EISCONN = libc::EISCONN,
        ENOTCONN = libc::ENOTCONN,
        ESHUTDOWN = libc::ESHUTDOWN,
        ETOOMANYREFS = libc::ETOOMANYREFS,
        ETIMEDOUT = libc::ETIMEDOUT,
        ECONNREFUSED = libc::ECONNREFUSED,
        EHOSTDOWN = libc::EHOSTDOWN,
        EHOSTUNREACH = libc::EHOSTUNREACH,
        EALREADY = libc::EALREADY,
        EINPROGRESS = libc::EINPROGRESS,
        ESTALE = libc::ESTALE,
        EUCLEAN = libc::EUCLEAN,
        EFSCORRUPTED = libc::EUCLEAN,
        ENOTNAM = libc::ENOTNAM,
        ENAVAIL = libc::ENAVAIL,
        EISNAM = libc::EISNAM,
        EREMOTEIO = libc::EREMOTEIO,
        EDQUOT = libc::EDQUOT,
        ENOMEDIUM = libc::ENOMEDIUM,
        EMEDIUMTYPE = libc::EMEDIUMTYPE,
        ECANCELED = libc::ECANCELED,
        ENOKEY = libc::ENOKEY,
        EKEYEXPIRED = libc::EKEYEXPIRED,
        EKEYREVOKED = libc::EKEYREVOKED,
        EKEYREJECTED = libc::EKEYREJECTED,
        EOWNERDEAD = libc::EOWNERDEAD,
        ENOTRECOVERABLE = libc::ENOTRECOVERABLE,
        ERFKILL = libc::ERFKILL,
        EHWPOISON = libc::EHWPOISON,
        EFTYPE = 134,
        ERESTARTSYS = 512,
        ERESTARTNOINTR = 513,
        ERESTARTNOHAND = 514,
        ENOIOCTLCMD = 515,
        ERESTART_RESTARTBLOCK = 516,
        EPROBE_DEFER = 517,
        EOPENSTALE = 518,
        ENOPARAM = 519,
        EBADHANDLE = 521,
        ENOTSYNC = 522,
        EBADCOOKIE = 523,
        ENOTSUPP = 524,
        ETOOSMALL = 525,
        ESERVERFAULT = 526,
        EBADTYPE = 527,
        EJUKEBOX = 528,
        EIOCBQUEUED = 529,
        ERECALLCONFLICT = 530,
        ENOGRACE = 531,
    }
}

#[cfg(test)]
mod tests {
    use super::{code::*, *};

    #[test]
    fn numbers_are_those_of_the_c_library() {
        assert_eq!(EPERM.to_errno(), -libc::EPERM);
        assert_eq!(EDQUOT.to_errno(), -libc::EDQUOT);
        assert_eq!(ERESTARTSYS.to_errno(), -512);
        assert_eq!(ENOGRACE.to_errno(), -531);
    }

    #[test]
    fn every_code_survives_the_way_through_its_number() {
        assert_eq!(NAMES.len(), 153);
        for (error, name) in NAMES {
            assert_eq!(Error::from_errno(error.to_errno()), *error, "{name:?}");
        }
    }

    #[test]
    fn numbers_out_of_range_become_einval() {
        assert_eq!(Error::from_errno(0), EINVAL);
        assert_eq!(Error::from_errno(1), EINVAL);
        assert_eq!(Error::from_errno(-4096), EINVAL);
        assert_eq!(Error::from_errno(-4095).to_errno(), -4095);
    }

    #[test]
    fn debug_shows_the_name_or_the_number() {
        assert_eq!(std::format!("{EXFULL:?}"), "EXFULL");
        assert_eq!(
            std::format!("{:?}", Error::from_errno(-4000)),
            "Error(4000)"
        );
        // Two names, one number: the first of the list.
        assert_eq!(std::format!("{EFSCORRUPTED:?}"), "EUCLEAN");
    }

    #[test]
    fn other_errors_become_codes() {
        fn narrow(n: i64) -> Result<u8> {
            Ok(u8::try_from(n)?)
        }
        assert_eq!(narrow(7), Ok(7));
        assert_eq!(narrow(256), Err(EINVAL));
        assert_eq!(Error::from(AllocError), ENOMEM);
        assert_eq!(to_result(-libc::EAGAIN), Err(EAGAIN));
        assert_eq!(to_result(3), Ok(()));
    }
}
