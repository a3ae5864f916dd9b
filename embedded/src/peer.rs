// SPDX-License-Identifier: MIT OR Apache-2.0

//! One peer: the counterpart of a descriptor of `/dev/bus1`.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus1_core::abi::{CmdExchange, CMD_EXCHANGE, CMD_PEER_RESET, CMD_RECV};
use bus1_core::bus::{dispatch, Bus, Info, Peer as Core, Ready};
use kernel::error::Result as CoreResult;
use kernel::sync::Arc as CoreArc;
use once_cell::sync::OnceCell;
use rustix::io::Errno;

use crate::call::Call;
use crate::error::to_errno;
use crate::eventfd::Eventfd;
use crate::host::Embedded;
use crate::memory::{Checked, Direct, Memory};
use crate::pool::{Map, Pool};
use crate::registry::{Entry, Registered};
use crate::scope::Scope;
use crate::signal::{Look, Signal};
use crate::waker::Waker;

/// A peer of a [`Bus`](crate::Bus).
///
/// A clone is the same peer, as a duplicated descriptor is; the last one dropped disconnects it.
/// All threads may use it at once.
///
/// Commands are those of the device, by number and address: see `docs/abi.md` and
/// [`abi`](crate::abi).
#[derive(Clone)]
pub struct Peer(Arc<Shared>);

/// The state that the clones of a peer share.
struct Shared {
    core: CoreArc<Core<Embedded>>,
    signal: Arc<Signal>,
    bus: CoreArc<Bus<Embedded>>,
    descriptor: OnceCell<Descriptor>,
}

/// The descriptor of a peer.
struct Descriptor {
    /// The entry by which others find the peer. First, so that it goes before the eventfd does.
    _entry: Option<Entry>,
    eventfd: Arc<Eventfd>,
}

/// The answer of a call to the question whether something is left in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing is left: the caller may wait for the next edge.
    NothingLeft,
    /// Something may be left, or the call did not look.
    Other,
}

impl Answer {
    /// Returns the answer that the result of a command gives. `room` is that of an EXCHANGE, if it
    /// is known.
    fn of(cmd: u32, room: Option<Room>, result: Result<(), Errno>) -> Self {
        let nothing_left = match (cmd, result) {
            (CMD_RECV, result) => result == Err(Errno::AGAIN),
            // A batch ends early where nothing more is ready.
            (CMD_EXCHANGE, Ok(())) => room.is_none_or(|room| room.received < room.offered),
            (CMD_EXCHANGE, Err(errno)) => matches!(errno, Errno::AGAIN | Errno::TIMEDOUT),
            // A flush leaves an empty queue.
            (CMD_PEER_RESET, result) => result.is_ok(),
            _ => false,
        };
        if nothing_left {
            Self::NothingLeft
        } else {
            Self::Other
        }
    }
}

/// Number of messages that an EXCHANGE may receive, and that it did receive if it succeeded.
#[derive(Clone, Copy)]
struct Room {
    offered: u64,
    received: u64,
}

impl Shared {
    /// Returns whether something can be received, or the peer is disconnected.
    fn is_ready(&self) -> bool {
        self.core.ready().any()
    }

    /// Brings the eventfd up to date at the end of each call, once its answer is decided.
    fn answered(&self, answer: Answer) {
        #[cfg(test)]
        tests::between_decision_and_answer();
        let event = self.signal.event();
        match answer {
            Answer::NothingLeft => event.rearm(|| self.is_ready()),
            Answer::Other => event.settle(|| self.is_ready()),
        }
    }
}

impl Registered for Shared {
    fn bus(&self) -> &CoreArc<Bus<Embedded>> {
        &self.bus
    }

    fn core(&self) -> &CoreArc<Core<Embedded>> {
        &self.core
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _scope = Scope::enter();
        // An error says that it was disconnected before.
        let _ = self.core.disconnect();
    }
}

/// Reads `n_msgs` of the argument of an EXCHANGE, if it is readable.
fn messages(memory: impl Memory, arg: usize) -> Option<u64> {
    if arg == 0 {
        return None;
    }
    let addr = (arg as u64).checked_add(offset_of!(CmdExchange, n_msgs) as u64)?;
    let mut bytes = [0; 8];
    memory.read(addr, &mut bytes).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

impl Peer {
    pub(crate) fn open(bus: &CoreArc<Bus<Embedded>>, uid: u32) -> CoreResult<Self> {
        let signal = Arc::new(Signal::new());
        let waker = Waker(signal.clone());
        let core = Bus::open(bus, uid, Pool::new(), waker)?;
        Ok(Self(Arc::new(Shared {
            core,
            signal,
            bus: bus.clone(),
            descriptor: OnceCell::new(),
        })))
    }

    /// Runs a command, then brings the eventfd up to date.
    fn call(&self, memory: impl Memory, cmd: u32, arg: usize) -> Result<(), Errno> {
        // Only for waiters of a descriptor it matters whether a batch ended early.
        let counts = cmd == CMD_EXCHANGE && self.0.signal.event().is_attached();
        let offered = counts.then(|| messages(memory, arg)).flatten();
        let result = self.command(memory, cmd, arg);
        let room = offered.and_then(|offered| {
            let received = messages(memory, arg)?;
            Some(Room { offered, received })
        });
        self.0.answered(Answer::of(cmd, room, result));
        result
    }

    /// Runs a command, and delivers its wake-ups.
    fn command(&self, memory: impl Memory, cmd: u32, arg: usize) -> Result<(), Errno> {
        let _scope = Scope::enter();
        let bus = &self.0.bus;
        let call = Call { bus, memory };
        dispatch(&self.0.core, &call, cmd, arg as u64).map_err(to_errno)
    }

    /// Runs one command, as `ioctl(2)` on the device does: `cmd` is one of `CMD_*`, `arg` the
    /// address of its argument.
    ///
    /// # Errors
    ///
    /// The errors of the command, as `docs/abi.md` lists them. SEND of descriptors may also fail
    /// with EMFILE or ENFILE, see the [differences from the
    /// device](crate#differences-from-the-device).
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

    /// Runs one command with any addresses, as the kernel does: memory that cannot be read or
    /// written is EFAULT.
    ///
    /// Each piece of memory costs a system call.
    ///
    /// # Errors
    ///
    /// The errors of [`Peer::ioctl`]. It needs `process_vm_readv(2)` on the own process, which a
    /// sandbox may forbid: then it fails with that error.
    ///
    /// # Safety
    ///
    /// It writes where the command says, if there is memory that can be written. As with a system
    /// call, that has to be memory that nothing else in the program uses until it returns; and
    /// memory that the command reads must not be written meanwhile by other threads without atomic
    /// operations.
    pub unsafe fn ioctl_checked(&self, cmd: u32, arg: usize) -> Result<(), Errno> {
        self.call(Checked, cmd, arg)
    }

    /// Returns the pool, as `mmap(2)` on the device gives it.
    ///
    /// # Errors
    ///
    /// ESHUTDOWN once disconnected; ENOMEM; EMFILE; EFBIG if the process may not have files
    /// (`RLIMIT_FSIZE`) of the size of a pool.
    pub fn pool(&self) -> Result<Map, Errno> {
        let pool = self.0.core.pool().map_err(to_errno)?;
        Map::new(pool).map_err(to_errno)
    }

    /// Returns whether something can be received, and whether the peer is disconnected. It never
    /// blocks.
    pub fn poll(&self) -> Ready {
        self.answer(self.0.core.ready())
    }

    /// Blocks until something can be received or the peer is disconnected, at most for `timeout`.
    /// Returns the state at the end, as [`Peer::poll`] does. Signals do not end it.
    pub fn wait(&self, timeout: Option<Duration>) -> Ready {
        // A time beyond the end of time is as good as none.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let ready = self.0.signal.wait(deadline, || {
            let found = self.0.core.ready();
            let done = found.any();
            Look { done, found }
        });
        self.answer(ready)
    }

    /// Returns `ready` to a caller, which may wait for the next edge if it says that nothing is
    /// left.
    fn answer(&self, ready: Ready) -> Ready {
        if !ready.any() {
            self.0.answered(Answer::NothingLeft);
        }
        ready
    }

    /// Returns the peer's numbers, as fdinfo of the device shows them.
    pub fn info(&self) -> Info {
        self.0.core.info()
    }

    /// Returns a descriptor that stands for the peer: made by the first call, the same in all
    /// clones, closed with the last of them.
    ///
    /// It is readable when something can be received or the peer is disconnected; it may stay so
    /// until the next call finds nothing. It is there for `poll(2)` and the like, and as `dst_fd`
    /// of HANDLE_TRANSFER, for which procfs must be mounted.
    ///
    /// Edge-triggered waiters (`EPOLLET`) see an edge for each message that arrives after a call
    /// has found nothing left: RECV with EAGAIN, EXCHANGE with EAGAIN, ETIMEDOUT or a batch with
    /// room left, PEER_RESET, [`Peer::poll`] or [`Peer::wait`]. A message that arrives before that,
    /// while others are in the queue, need not be one.
    ///
    /// Reading from it or writing to it breaks all that. It does not mean anything to another
    /// process, and a duplicate of it does not keep the peer connected.
    ///
    /// # Errors
    ///
    /// EMFILE, ENFILE, ENOMEM.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        let descriptor = self.0.descriptor.get_or_try_init(|| {
            let eventfd = Arc::new(Eventfd::new()?);
            self.0.signal.attach(&eventfd);
            if self.0.is_ready() {
                self.0.signal.event().raise();
            }
            let shared = Arc::downgrade(&self.0);
            Ok::<_, Errno>(Descriptor {
                _entry: Entry::new(eventfd.as_fd(), shared),
                eventfd,
            })
        })?;
        Ok(descriptor.eventfd.as_fd())
    }
}

/// Returns [`Peer::descriptor`], for interfaces that ask for the trait.
///
/// # Panics
///
/// Panics if there is no descriptor yet and none can be made. Call [`Peer::descriptor`] before.
impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
            .expect("the process has no descriptor left for this peer")
    }
}

/// Returns the number of [`Peer::descriptor`].
///
/// # Panics
///
/// Panics where `as_fd` does.
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

#[cfg(test)]
mod tests;
