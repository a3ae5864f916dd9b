// SPDX-License-Identifier: GPL-2.0-only

//! The types of the kernel host, and the files that are peers: whether a file is one, and whose.
//!
//! Invariant: the private data of a file of the device is a reference to its peer, from
//! [`PeerFile::attach`] to [`PeerFile::detach`].

use core::mem::ManuallyDrop;
use core::ptr;

use kernel::bindings;
use kernel::fs::file::flags;
use kernel::fs::LocalFile;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus;
use crate::closer::Cargo;
use crate::errno::EOPNOTSUPP;
use crate::glue;
use crate::pool::Pool;
use crate::waker::Waiters;

/// The host of the kernel module.
pub(crate) struct Kernel;

impl bus::Host for Kernel {
    type Pool = Arc<Pool>;
    type Files = Cargo;
    type Waker = Waiters;

    fn is_killed() -> bool {
        glue::bus1_is_killed()
    }

    fn uid() -> Option<u32> {
        // SAFETY: The running task keeps its credentials while it runs here; they are constant.
        Some(unsafe { (*(*kernel::task::Task::current_raw()).cred).uid.val })
    }
}

/// A peer of this host.
pub(crate) type Peer = bus::Peer<Kernel>;

/// A file of the device, as long as its caller holds it.
pub(crate) struct PeerFile<'a> {
    file: &'a LocalFile,
    /// The peer that the file stands for: the file's own reference.
    pub(crate) peer: ManuallyDrop<Arc<Peer>>,
}

impl PeerFile<'_> {
    /// Borrows a file.
    ///
    /// # Safety
    ///
    /// The file has the operations of the device, has a peer, and is held as long as the result.
    #[inline]
    pub(crate) unsafe fn from_raw(file: *mut bindings::file) -> Self {
        // SAFETY: The caller vouches for the file. By the invariant it owns a reference, which
        // stays its own.
        let peer = ManuallyDrop::new(unsafe { Arc::from_raw((*file).private_data.cast()) });
        // SAFETY: As above.
        let file = unsafe { LocalFile::from_raw_file(file) };
        Self { file, peer }
    }

    /// Makes a file that is being opened stand for `peer`.
    ///
    /// # Safety
    ///
    /// The file has the operations of the device, and nobody else uses it yet.
    pub(crate) unsafe fn attach(file: *mut bindings::file, peer: Arc<Peer>) {
        // SAFETY: By the caller.
        unsafe { (*file).private_data = peer.into_raw().cast_mut().cast() };
    }

    /// Takes the peer off a file that is being released.
    ///
    /// # Safety
    ///
    /// The file has the operations of the device, has a peer, and is not used afterwards.
    pub(crate) unsafe fn detach(file: *mut bindings::file) -> Arc<Peer> {
        // SAFETY: By the invariant the file owns a reference.
        unsafe { Arc::from_raw((*file).private_data.cast()) }
    }

    /// Returns whether another file is a peer, too: all peers have the same operations.
    pub(crate) fn is_like(&self, other: &LocalFile) -> bool {
        // SAFETY: Both are valid, and the operations of a file do not change once it is open.
        unsafe { ptr::eq((*self.file.as_ptr()).f_op, (*other.as_ptr()).f_op) }
    }

    /// Returns the peer that another file stands for.
    ///
    /// # Errors
    ///
    /// EBADF if the file was opened with O_PATH, EOPNOTSUPP if it is of another kind.
    pub(crate) fn peer_of(&self, other: &LocalFile) -> Result<Arc<Peer>> {
        if other.flags() & flags::O_PATH != 0 {
            return Err(EBADF);
        }
        if !self.is_like(other) {
            return Err(EOPNOTSUPP);
        }
        // SAFETY: It is a peer, and the caller holds it.
        let other = unsafe { PeerFile::from_raw(other.as_ptr()) };
        Ok(Arc::clone(&other.peer))
    }
}
