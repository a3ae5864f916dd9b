// SPDX-License-Identifier: GPL-2.0-only

//! Descriptors in messages: which may travel, and how they are given to the receiver.
//!
//! # Which may travel
//!
//! A message holds its files until it is received or its peer goes. A file that can in turn hold
//! the peer's file would close a circle that nothing ever opens again. Three kinds can hold any
//! file that user space hands them, and a bus1 file is the fourth: AF_UNIX sockets (SCM_RIGHTS),
//! io_uring (registered files, requests) and binder (descriptors in transactions). A fifth keeps a
//! whole address space in use after its process has ended, and with it all files that are mapped
//! there, an io_uring for instance, or that AIO polls: vhost. They are refused. Not refused are
//!
//! - descriptors opened with O_PATH: they hold a place in the tree and never the object there;
//! - epoll: it watches files without holding them;
//! - kinds that hold one particular kind, none of which leads back here: eventfd, pidfd, BPF maps,
//!   dma-buf, loop and network block devices, TLS and tunnels over TCP, FUSE;
//! - kinds that refer to an address space and let it end with its process (mmgrab(), not mmget()):
//!   KVM, VFIO, iommufd, userfaultfd, RDMA, GPUs, and the files of /proc/PID;
//! - kinds that only an administrator can point at any file or address space: a 9p mount, a BPF
//!   iterator over mappings.
//!
//! # How they arrive
//!
//! The check of the security modules, security_file_receive(), is exported only as a part of
//! receive_fd(), which also publishes the descriptor. So between [`Received::install`] and the last
//! step of RECV, the receiver's other threads can already see it. If RECV fails the descriptors are
//! taken back, each only if the number still stands for the file: a file that another thread put
//! in its place stays. That is no close: the file's operation `flush`, which can take as long as the
//! file's maker likes, is not called. The alternative, to reserve numbers first and publish last,
//! could not ask the security modules.

use core::ptr::{self, NonNull};

use kernel::bindings::{fget_raw, receive_fd};
use kernel::error::to_result;
use kernel::fs::file::flags;
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::types::NotThreadSafe;

use crate::bus::{self, Files};
use crate::closer::Cargo;
use crate::errno::EOPNOTSUPP;
use crate::gfp::ACCOUNT_MAYFAIL;
use crate::glue;
use crate::peer::PeerFile;

/// Returns the file behind descriptor `fd`, of any kind, O_PATH too.
///
/// # Errors
///
/// EBADF.
pub(crate) fn get(fd: i32) -> Result<ARef<File>> {
    // SAFETY: No requirement; a number that is no descriptor, a negative one too, gives null.
    let file = unsafe { fget_raw(fd as u32) };
    let file = NonNull::new(file).ok_or(EBADF)?;
    // SAFETY: fget_raw() took a reference, which the result owns. This thread is in an ioctl, which
    // does not take the position of any file.
    Ok(unsafe { ARef::from_raw(file.cast()) })
}

/// Returns the files behind `fds`, which `sender` sends, if they may travel.
///
/// # Errors
///
/// EBADF; EOPNOTSUPP for a kind that may not travel; those of [`Cargo::new`].
pub(crate) fn get_cargo(fds: &[i32], sender: &PeerFile<'_>) -> Result<Cargo> {
    let mut files = KVec::with_capacity(fds.len(), ACCOUNT_MAYFAIL)?;
    for &fd in fds {
        let file = get(fd)?;
        // SAFETY: The file is valid.
        if sender.is_like(&file) || unsafe { glue::bus1_file_pins_files(file.as_ptr()) } {
            return Err(EOPNOTSUPP);
        }
        files.push(file, ACCOUNT_MAYFAIL)?;
    }
    Cargo::new(&sender.peer.waker().closer, files)
}

/// Descriptors that this task was given. They are taken back on drop, unless kept.
///
/// Invariant: `numbers[i]` was returned by receive_fd() for the `i`-th of `files`, in the running
/// task.
pub(crate) struct Received {
    numbers: KVec<i32>,
    files: Cargo,
    _task: NotThreadSafe,
}

impl Received {
    /// Gives the running task a close-on-exec descriptor for each file: all or none.
    pub(crate) fn install(files: Cargo) -> Result<Self> {
        let mut received = Self {
            numbers: KVec::with_capacity(files.count(), ACCOUNT_MAYFAIL)?,
            files,
            _task: NotThreadSafe,
        };
        for file in received.files.files() {
            // SAFETY: The file is valid; a null pointer makes the number the return value.
            let fd = unsafe { receive_fd(file.as_ptr(), ptr::null_mut(), flags::O_CLOEXEC) };
            to_result(fd)?;
            // There is room, so it does not fail.
            received.numbers.push(fd, ACCOUNT_MAYFAIL)?;
        }
        Ok(received)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        for (&fd, file) in self.numbers.iter().zip(self.files.files()) {
            // SAFETY: The file is valid. By the invariant the task is the one that got the number,
            // and the file is no bus1 file, so closing is no concern of the running ioctl.
            unsafe { glue::bus1_take_back_fd(fd as u32, file.as_ptr()) };
        }
    }
}

impl bus::Installed for Received {
    fn numbers(&self) -> &[i32] {
        &self.numbers
    }

    fn keep(mut self) {
        self.numbers.clear();
        self.files.hand_over();
    }
}
