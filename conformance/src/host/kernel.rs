// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host `/dev/bus1`.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

use super::{Bus, Door, Errno, Events, Kind, Result, View};
use crate::client::Limits;
use crate::sys::process::become_user;

/// The device.
pub const DEVICE: &str = bus1_ioctl::Device::PATH;
/// Folder of the module's parameters.
const PARAMETERS: &str = "/sys/module/bus1/parameters";

/// The bus of the running kernel.
pub struct Kernel;

impl Kernel {
    /// Fails if the module is not loaded.
    pub fn new() -> std::io::Result<Self> {
        File::options()
            .read(true)
            .write(true)
            .open(DEVICE)
            .map_err(|error| {
                let hint = "is bus1.ko loaded?";
                std::io::Error::new(error.kind(), format!("{DEVICE}: {error}; {hint}"))
            })?;
        Ok(Self)
    }
}

/// Opens the device in the calling thread's name.
pub fn open_device() -> Result<OwnedFd> {
    use rustix::fs::{open, Mode, OFlags};
    open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Unloads the module. The caller needs root, and no peer may be open.
pub fn unload() -> std::io::Result<()> {
    // SAFETY: plain system call with a string.
    let result = unsafe { libc::syscall(libc::SYS_delete_module, c"bus1".as_ptr(), 0) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(std::io::Error::new(
        error.kind(),
        format!("the module cannot be unloaded: {error}"),
    ))
}

/// Returns a parameter of the module, or the highest number if it is higher.
fn parameter(name: &str) -> u32 {
    let path = format!("{PARAMETERS}/{name}");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let number: u64 = text
        .trim()
        .parse()
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    number.try_into().unwrap_or(u32::MAX)
}

impl Bus for Kernel {
    fn kind(&self) -> Kind {
        Kind::Kernel
    }

    fn open(&self, uid: u32) -> Result<Box<dyn Door>> {
        // The real user ID belongs to a thread as far as the kernel is concerned, so a thread
        // of its own can be another user.
        let opened = std::thread::scope(|scope| {
            let open = || {
                become_user(uid, None).unwrap_or_else(|error| {
                    panic!("cannot become user {uid} (run as root): {error}")
                });
                open_device()
            };
            scope.spawn(open).join()
        });
        let fd = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Box::new(KernelDoor { fd }))
    }

    fn open_here(&self) -> Result<Box<dyn Door>> {
        Ok(Box::new(KernelDoor { fd: open_device()? }))
    }

    fn user_limits(&self) -> Limits {
        Limits {
            slices: parameter("user_slices_max"),
            handles: parameter("user_handles_max"),
            bytes: parameter("user_inflight_bytes_max"),
            fds: parameter("user_inflight_fds_max"),
        }
    }

    fn left_over(&self) -> Option<String> {
        let path = "/sys/module/bus1/refcnt";
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        (text.trim() != "0").then(|| format!("{} references", text.trim()))
    }
}

/// Returns the descriptor behind a door of this host.
pub fn descriptor(door: &dyn Door) -> BorrowedFd<'_> {
    // SAFETY: it is the door's own, and open as long as the door is.
    unsafe { BorrowedFd::borrow_raw(door.fd()) }
}

/// A descriptor of the device.
pub struct KernelDoor {
    fd: OwnedFd,
}

impl From<OwnedFd> for KernelDoor {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

/// Calls `ioctl(2)`, and checks that it returns 0 or an error.
pub fn raw_ioctl(fd: RawFd, cmd: u32, arg: u64) -> Result {
    // SAFETY: the descriptor is open in every caller. The device reads and writes the caller's
    // memory only as its interface says; the suite gives it addresses of its own or ones that
    // nothing is mapped at.
    let returned = unsafe { bus1_ioctl::ioctl(BorrowedFd::borrow_raw(fd), cmd, arg as usize)? };
    assert_eq!(
        returned, 0,
        "the command {cmd:#x} returned neither 0 nor an error"
    );
    Ok(())
}

impl Door for KernelDoor {
    fn ioctl(&self, cmd: u32, arg: u64) -> Result {
        raw_ioctl(self.fd.as_raw_fd(), cmd, arg)
    }

    fn poll(&self, timeout: Duration) -> Events {
        poll_fd(&self.fd, timeout)
    }

    fn map(&self, len: u64) -> Result<Box<dyn View>> {
        Ok(Box::new(Mapping::new(&self.fd, 0, len)?))
    }

    fn pool_size(&self) -> u64 {
        1 << 32
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let name = name.strip_prefix("bus1-").filter(|&name| name != "peer")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(field).collect()
    }

    fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Polls a descriptor for all events that a peer can report.
pub fn poll_fd(fd: impl AsFd, timeout: Duration) -> Events {
    let asked = PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP;
    // OUT is nearly always there, so a caller that wants to wait must not ask for it.
    let asked = if timeout.is_zero() {
        asked
    } else {
        PollFlags::IN
    };
    let fd = fd.as_fd();
    let mut fds = [PollFd::new(&fd, asked)];
    let limit = Timespec::try_from(timeout).expect("the timeout is too long");
    loop {
        match poll(&mut fds, Some(&limit)) {
            Ok(_) => break,
            Err(Errno::INTR) => (),
            Err(error) => panic!("poll: {error}"),
        }
    }
    let events = fds[0].revents();
    let known = PollFlags::HUP | PollFlags::IN | PollFlags::OUT;
    Events {
        hangup: events.contains(PollFlags::HUP),
        readable: events.contains(PollFlags::IN),
        writable: events.contains(PollFlags::OUT),
        other: events.intersects(!known),
    }
}

/// A mapping of the device.
pub struct Mapping {
    base: NonNull<c_void>,
    len: u64,
}

// SAFETY: the mapping is only read, by copies.
unsafe impl Send for Mapping {}
// SAFETY: the mapping is only read, by copies.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes from `offset`, to be read.
    pub fn new(fd: impl AsFd, offset: u64, len: u64) -> Result<Self> {
        Self::with(fd, offset, len, ProtFlags::READ)
    }

    /// Maps with a protection of the caller's choice.
    pub fn with(fd: impl AsFd, offset: u64, len: u64, prot: ProtFlags) -> Result<Self> {
        Self::shared_or_private(fd, offset, len, prot, MapFlags::SHARED)
    }

    /// Maps with a protection of the caller's choice, shared or private.
    pub fn shared_or_private(
        fd: impl AsFd,
        offset: u64,
        len: u64,
        prot: ProtFlags,
        kind: MapFlags,
    ) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe { mmap(std::ptr::null_mut(), len as usize, prot, kind, fd, offset)? };
        let base = NonNull::new(base).expect("mmap returned null");
        Ok(Self { base, len })
    }

    /// Returns the address of its start.
    pub fn addr(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// Writes to the byte at `offset`, which the system should not survive lightly.
    pub fn write_and_die(&self, offset: u64) {
        assert!(offset < self.len);
        // SAFETY: in bounds; the mapping cannot be written, so nothing is changed that Rust knows,
        // and the caller is a process of its own that expects to be killed.
        unsafe {
            self.base
                .as_ptr()
                .cast::<u8>()
                .add(offset as usize)
                .write_volatile(b'!')
        };
    }

    /// Asks for another protection of the first page.
    pub fn protect(&self, flags: rustix::mm::MprotectFlags) -> Result {
        // SAFETY: our own mapping, which is only ever read through `read`.
        unsafe { rustix::mm::mprotect(self.base.as_ptr(), crate::sys::memory::PAGE, flags) }
    }
}

impl View for Mapping {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, to: &mut [u8]) {
        let end = offset
            .checked_add(to.len() as u64)
            .expect("beyond the mapping");
        assert!(end <= self.len, "beyond the mapping");
        // SAFETY: in bounds; a slice does not change once its message was received, and a
        // test that reads elsewhere only compares the bytes.
        unsafe {
            let from = self.base.as_ptr().cast::<u8>().add(offset as usize);
            std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len());
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        let _ = unsafe { munmap(self.base.as_ptr(), self.len as usize) };
    }
}
