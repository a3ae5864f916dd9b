// SPDX-License-Identifier: GPL-2.0-only

//! `/dev/bus1`: every open file is a peer.
//!
//! # Invariants
//!
//! - The release of a file disconnects its peer, which others may go on holding for a while.
//! - [`DEVICE`] is set while files can be opened.
//! - Every file, here and in `mapping.rs`, keeps the module loaded. Peers and pools are held only
//!   by each other and by files, so none is left when the module goes, and all charges are back.

use core::ptr;

use kernel::bindings::{self, __poll_t, file, file_operations, poll_table_struct};
use kernel::error::{from_result, to_result};
use kernel::mm::virt::VmaNew;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::Arc;
use kernel::warn_on;

use crate::abi::CMD_PEER_DISCONNECT;
use crate::bus::{dispatch, Bus, Limits, Usage};
use crate::caller::Task;
use crate::closer::Workers;
use crate::fdinfo::show_fdinfo;
use crate::glue;
use crate::mapping;
use crate::peer::{Kernel, PeerFile};
use crate::pool::Pool;
use crate::shrinker::Pools;
use crate::waker::Waiters;

const PEER_FILE: &file_operations = &file_operations {
    owner: glue::OWNER,
    open: Some(open),
    release: Some(release),
    unlocked_ioctl: Some(ioctl),
    #[cfg(CONFIG_COMPAT)]
    compat_ioctl: Some(compat_ioctl),
    poll: Some(poll),
    mmap: Some(mmap),
    show_fdinfo: Some(show_fdinfo),
    llseek: Some(bindings::noop_llseek),
    ..pin_init::zeroed()
};

/// The services that every new peer gets.
struct Services {
    bus: Arc<Bus<Kernel>>,
    pools: Arc<Pools>,
    workers: Workers,
}

/// The services of the one device, from its registration to its end.
static DEVICE: Atomic<*const Services> = Atomic::new(ptr::null());

/// The device.
///
/// It is no misc device: all of these are opened under one lock, so one task that opens a peer
/// while memory is short would keep all others waiting.
pub(crate) struct Device {
    services: KBox<Services>,
}

impl Device {
    /// Makes the device appear, until it is dropped, for users of these limits.
    ///
    /// # Errors
    ///
    /// ENOMEM, and those of registering a character device.
    pub(crate) fn register(limits: Limits) -> Result<Self> {
        let services = KBox::new(
            Services {
                bus: Bus::new(limits)?,
                pools: Pools::new()?,
                workers: Workers::new(&limits)?,
            },
            GFP_KERNEL,
        )?;
        // The device may be opened at once.
        DEVICE.store(&*services, Release);
        to_result(glue::bus1_register(PEER_FILE))?;
        Ok(Self { services })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // There are no open files, for they would hold the module; so there are no messages with
        // files either.
        glue::bus1_unregister();
        warn_on!(self.services.bus.usage() != Usage::default());
    }
}

/// Makes a peer for a file.
///
/// # Safety
///
/// Called for a file of the device that is being opened.
unsafe extern "C" fn open(_inode: *mut bindings::inode, file: *mut file) -> c_int {
    // SAFETY: By the invariant it is set, and the file holds the module, with which it would go.
    let device = unsafe { &*DEVICE.load(Acquire) };
    // SAFETY: A file keeps the credentials with which it is opened; they are constant.
    let uid = unsafe { (*(*file).f_cred).uid.val };
    from_result(|| {
        let peer = Bus::open(
            &device.bus,
            uid,
            Pool::new(&device.pools)?,
            Waiters::new(device.workers.0.clone()),
        )?;
        // SAFETY: The file is ours while it is being opened.
        unsafe { PeerFile::attach(file, peer) };
        Ok(0)
    })
}

/// Disconnects the peer of a file.
///
/// # Safety
///
/// Called for a file with our operations, at its end.
unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut file) -> c_int {
    // SAFETY: This is the end of the file.
    let peer = unsafe { PeerFile::detach(file) };
    // It fails if a command was faster.
    let _ = peer.disconnect();
    0
}

/// Executes a command.
fn command(file: &PeerFile<'_>, cmd: u32, arg: u64, compat: bool) -> c_long {
    from_result(|| {
        dispatch(&file.peer, &Task { file, compat }, cmd, arg)?;
        if cmd == CMD_PEER_DISCONNECT {
            // The core woke only the waiters that want something to read.
            file.peer.waker().hang_up();
        }
        Ok(0)
    })
}

/// Executes a command of a program of the kernel's own width.
///
/// # Safety
///
/// Called for a file with our operations.
unsafe extern "C" fn ioctl(file: *mut file, cmd: c_uint, arg: c_ulong) -> c_long {
    // SAFETY: The caller holds the file.
    command(&unsafe { PeerFile::from_raw(file) }, cmd, arg as u64, false)
}

/// Executes a command of a 32-bit program.
///
/// # Safety
///
/// Called for a file with our operations.
#[cfg(CONFIG_COMPAT)]
unsafe extern "C" fn compat_ioctl(file: *mut file, cmd: c_uint, arg: c_ulong) -> c_long {
    // A pointer of 32 bits, as compat_ptr() makes it one of 64.
    let arg = u64::from(arg as u32);
    // SAFETY: The caller holds the file.
    command(&unsafe { PeerFile::from_raw(file) }, cmd, arg, true)
}

/// Returns the events that a peer is ready for, and puts the caller into the queue of its waiters.
///
/// # Safety
///
/// Called for a file with our operations; `table` is null or valid.
unsafe extern "C" fn poll(file: *mut file, table: *mut poll_table_struct) -> __poll_t {
    // SAFETY: The caller holds the file.
    let peer = unsafe { PeerFile::from_raw(file) }.peer;
    // SAFETY: The caller lends us both, and the file holds the peer.
    unsafe { peer.waker().join(file, table) };
    Waiters::events(peer.ready())
}

/// Maps the pool of a peer.
///
/// # Safety
///
/// Called for a file with our operations, and a mapping that is being set up.
unsafe extern "C" fn mmap(file: *mut file, vma: *mut bindings::vm_area_struct) -> c_int {
    // SAFETY: The caller holds the file.
    let peer = unsafe { PeerFile::from_raw(file) }.peer;
    // SAFETY: The mapping is being set up.
    let vma = unsafe { VmaNew::from_raw(vma) };
    from_result(|| mapping::map(&peer.pool()?, vma).map(|()| 0))
}
