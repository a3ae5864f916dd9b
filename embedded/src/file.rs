// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files in flight, and the descriptors that a receiver gets for them.
//!
//! A file in flight lies in the queue of a socket of our own, as a datagram with SCM_RIGHTS. So the
//! system holds the file, and the process has no descriptor of it meanwhile. A duplicate would have
//! to be closed some time, and to close any descriptor of a file drops the POSIX record locks
//! (`F_SETLK`) that the process has on the file: the sender would lose locks because of a SEND,
//! even of one that fails. A file that the system drops from a socket is not closed by the process,
//! and its locks stay.
//!
//! Each file has a socket of its own, because messages are received and dropped in any order. The
//! socket takes one number of the process (two while the file is put in). The file is read with
//! MSG_PEEK and stays in the queue, for the other receivers of a multicast, and for a receipt that
//! fails.
//!
//! A descriptor that was given to a receiver is one of this process. When it is closed the locks of
//! the process on the file go, as POSIX says; that includes descriptors of a RECV that fails after
//! it got them (with EFAULT, or with EMFILE at a later one) or that another thread overtakes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use bus1_core::bus;
use kernel::error::{code::*, Result};
use rustix::io::Errno;
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::error::to_core;

/// Bytes for the ancillary data of one descriptor.
const ANCILLARY: usize = rustix::cmsg_space!(ScmRights(1));

/// A file in flight: a socket with only this file in its queue.
pub(crate) struct File(OwnedFd);

impl File {
    /// Takes a reference to the file behind a descriptor, which stays as it is.
    ///
    /// # Errors
    ///
    /// EBADF if it is not open. EMFILE if the process has no two numbers left, or if the user has
    /// as many files in flight, in all sockets of the system, as this process may have descriptors
    /// (`RLIMIT_NOFILE`). ENFILE, ENOMEM.
    pub(crate) fn take(named: BorrowedFd<'_>) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // The holder is the lower number, so that no gaps stay.
        let (holder, sender) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .map_err(|errno| match errno {
                // The system has no more memory for sockets.
                Errno::NOBUFS => ENOMEM,
                errno => to_core(errno),
            })?;
        let named = [named];
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(&named));
        assert!(fits, "the space is for one descriptor");
        let byte = [IoSlice::new(b"f")];
        match sendmsg(&sender, &byte, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(Self(holder)),
            Err(Errno::TOOMANYREFS) => Err(EMFILE),
            Err(Errno::NOBUFS | Errno::AGAIN) => Err(ENOMEM),
            // The system knows of a kind that must not travel which we do not.
            Err(Errno::INVAL) => Err(EOPNOTSUPP),
            Err(errno) => Err(to_core(errno)),
        }
    }

    /// Gives the file a number of this process. The file stays in flight.
    ///
    /// # Errors
    ///
    /// EMFILE, also if a security module refuses it: the system does not distinguish the two.
    fn install(&self) -> Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            flags,
        )
        .map_err(to_core)?;
        let installed = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        installed.ok_or(EMFILE)
    }
}

/// The files of a message.
///
/// The task that drops the last reference closes their sockets, and waits where that ends a file
/// that takes long to end.
#[derive(Clone)]
pub(crate) struct Files(pub(crate) Arc<Vec<File>>);

impl bus::Files for Files {
    fn count(&self) -> usize {
        self.0.len()
    }
}

/// Descriptors that a receiver was given, until they are final. Dropping it closes them.
pub(crate) struct Installed {
    numbers: Vec<i32>,
    fds: Vec<OwnedFd>,
}

impl Installed {
    /// Gives a number to each file: all or none.
    ///
    /// # Errors
    ///
    /// EMFILE.
    pub(crate) fn new(files: &Files) -> Result<Self> {
        let fds = files
            .0
            .iter()
            .map(File::install)
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            numbers: fds.iter().map(AsRawFd::as_raw_fd).collect(),
            fds,
        })
    }
}

impl bus::Installed for Installed {
    fn numbers(&self) -> &[i32] {
        &self.numbers
    }

    fn keep(self) {
        for fd in self.fds {
            // From here on the number is the receiver's to close.
            let _ = fd.into_raw_fd();
        }
    }
}
