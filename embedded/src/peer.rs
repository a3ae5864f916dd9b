// SPDX-License-Identifier: MIT OR Apache-2.0

//! One peer: what a descriptor of `/dev/bus1` is to the device.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus1_core::bus::peer::Peer as Core;
use bus1_core::bus::{command, Bus as CoreBus, Info, Ready};
use kernel::error::Result as CoreResult;
use kernel::sync::Arc as CoreArc;
use once_cell::sync::OnceCell;
use rustix::event::{eventfd, EventfdFlags};
use rustix::io::Errno;

use crate::bus::Bus;
use crate::error::to_errno;
use crate::host::{Call, Embedded};
use crate::memory::{Checked, Direct, Memory};
use crate::pool::{Map, Pool};
use crate::registry::Entry;
use crate::waker::{Scope, Signal, Waker};

/// A peer of a [`Bus`].
///
/// A clone is the same peer, as a duplicated descriptor is; the last one dropped disconnects it.
/// All threads may use it at once.
///
/// Commands are those of the device, by number and address: see `docs/abi.md` and
/// [`abi`](crate::abi).
#[derive(Clone)]
pub struct Peer(Arc<Shared>);

/// What the clones of a peer share.
pub(crate) struct Shared {
    core: CoreArc<Core<Embedded>>,
    signal: Arc<Signal>,
    bus: Bus,
    event: OnceCell<Event>,
}

/// The descriptor of a peer.
struct Event {
    /// How others find the peer by it. First, so that it goes before the eventfd does.
    _entry: Option<Entry>,
    fd: Arc<OwnedFd>,
}

impl Shared {
    /// The core's part.
    pub(crate) fn core(&self) -> &CoreArc<Core<Embedded>> {
        &self.core
    }

    /// Whether it is a peer of this bus.
    pub(crate) fn is_on(&self, bus: &Bus) -> bool {
        CoreArc::ptr_eq(self.bus.core(), bus.core())
    }

    /// Lowers an eventfd that a command left without reason to be readable.
    fn settle(&self) {
        if self.signal.is_raised() && !self.core.ready().any() {
            self.signal.lower();
            if self.core.ready().any() {
                self.signal.raise();
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _scope = Scope::enter();
        // An error says that it was disconnected before.
        let _ = self.core.disconnect();
    }
}

impl Peer {
    pub(crate) fn open(bus: &Bus, uid: u32) -> CoreResult<Self> {
        let signal = Arc::new(Signal::default());
        let waker = Waker(signal.clone());
        let core = CoreBus::open::<Infallible>(bus.core(), uid, Pool::new(), waker)?;
        Ok(Self(Arc::new(Shared {
            core,
            signal,
            bus: bus.clone(),
            event: OnceCell::new(),
        })))
    }

    fn call(&self, memory: impl Memory, cmd: u32, arg: usize) -> Result<(), Errno> {
        let result = {
            let _scope = Scope::enter();
            let call = Call {
                bus: &self.0.bus,
                memory,
            };
            command::dispatch(&self.0.core, &call, cmd, arg as u64)
        };
        self.0.settle();
        result.map_err(to_errno)
    }

    /// Does one command, as `ioctl(2)` on the device does: `cmd` is one of `CMD_*`, `arg` the
    /// address of its argument. Errors are those of the command.
    ///
    /// Memory is accessed right away. A null pointer is EFAULT, any other that is not valid is
    /// undefined behaviour; [`Peer::ioctl_checked`] takes any.
    ///
    /// # Safety
    ///
    /// Until it returns, the argument and all that it points to must be valid: for reads what the
    /// command reads, for writes what it writes. No other thread may write to the former, or
    /// access the latter, in the meantime.
    pub unsafe fn ioctl(&self, cmd: u32, arg: usize) -> Result<(), Errno> {
        // SAFETY: the caller promised it.
        let memory = unsafe { Direct::new() };
        self.call(memory, cmd, arg)
    }

    /// The same for any address, as in the kernel: what cannot be read or written is EFAULT.
    ///
    /// The price is a system call for each piece of memory. It needs `process_vm_readv(2)` on the
    /// own process, which a sandbox may forbid: then it fails with that error.
    ///
    /// # Safety
    ///
    /// It writes where the command says, if there is memory that can be written. As with a system
    /// call, that has to be memory that nothing else in the program uses until it returns; and what
    /// the command reads must not be written meanwhile by other threads without atomic operations.
    pub unsafe fn ioctl_checked(&self, cmd: u32, arg: usize) -> Result<(), Errno> {
        self.call(Checked, cmd, arg)
    }

    /// The pool, as `mmap(2)` on the device gives it. ESHUTDOWN once disconnected; ENOMEM, EMFILE,
    /// and EFBIG if the process may not have files (`RLIMIT_FSIZE`) of the size of a pool.
    pub fn pool(&self) -> Result<Map, Errno> {
        let pool = self.0.core.pool().map_err(to_errno)?;
        Map::new(pool).map_err(to_errno)
    }

    /// Whether something can be received, or the peer is disconnected. It never blocks.
    pub fn poll(&self) -> Ready {
        self.0.core.ready()
    }

    /// Blocks until something can be received or the peer is disconnected, but not longer than
    /// `timeout`; gives what [`Peer::poll`] gives. Signals do not end it.
    pub fn wait(&self, timeout: Option<Duration>) -> Ready {
        // A time beyond the end of time is as good as none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.0.signal.wait(deadline, || {
            let ready = self.poll();
            (ready.any(), ready)
        })
    }

    /// Its numbers, as fdinfo of the device shows them.
    pub fn info(&self) -> Info {
        self.0.core.info()
    }

    /// A descriptor that stands for the peer: made by the first call, the same in all clones,
    /// closed with the last of them. EMFILE, ENFILE, ENOMEM.
    ///
    /// It is readable when something can be received or the peer is disconnected; it may stay so
    /// until the next command finds nothing (EAGAIN). It is there for `poll(2)` and the like, and
    /// as `dst_fd` of HANDLE_TRANSFER, for which procfs must be mounted. Reading from it or
    /// writing to it breaks the former. It does not mean anything to another process, and a
    /// duplicate of it does not keep the peer connected.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        let event = self.0.event.get_or_try_init(|| {
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let fd = Arc::new(fd);
            self.0.signal.attach(&fd);
            if self.poll().any() {
                self.0.signal.raise();
            }
            let entry = Entry::new(fd.as_fd(), Arc::downgrade(&self.0));
            Ok::<_, Errno>(Event { _entry: entry, fd })
        })?;
        Ok(event.fd.as_fd())
    }
}

/// As [`Peer::descriptor`], for those who need a trait.
///
/// # Panics
///
/// If there is no descriptor yet and none can be made. Call [`Peer::descriptor`] before.
impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
            .expect("the process has no descriptor left for this peer")
    }
}

/// As [`AsFd`].
impl AsRawFd for Peer {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.0.core.id())
            .field("uid", &self.0.core.uid())
            .finish_non_exhaustive()
    }
}
