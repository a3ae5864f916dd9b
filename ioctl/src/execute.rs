// SPDX-License-Identifier: MIT OR Apache-2.0

//! Executing a command: the system call, or its counterpart on another host.

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::fs::{open, Mode, OFlags};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

/// A peer of any host, as the executor of its commands.
///
/// [`Commands`](crate::Commands) is built on it.
pub trait Execute {
    /// Executes one command, as `ioctl(2)` does on the device. The errno is that of the command.
    ///
    /// # Errors
    ///
    /// Every errno that `docs/abi.md` names for the command.
    ///
    /// # Safety
    ///
    /// `arg` is what `cmd` demands: mostly the address of its structure, which is valid for reads
    /// and writes, and not used by other threads until this returns. The pointers in the structure
    /// are valid for what the command does with them.
    ///
    /// A peer that checks every address itself, as the kernel does, may be given any address; what
    /// the command writes must be the caller's to overwrite all the same.
    unsafe fn ioctl(&self, cmd: u32, arg: usize) -> rustix::io::Result<()>;
}

/// A number and an argument, passed on as they are.
struct Raw {
    cmd: u32,
    arg: usize,
}

// SAFETY: number and argument are passed on as they are, and the result is the number that the
// system call returned.
unsafe impl Ioctl for Raw {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.cmd as Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::with_exposed_provenance_mut(self.arg)
    }

    unsafe fn output_from_ptr(
        output: IoctlOutput,
        _: *mut c_void,
    ) -> rustix::io::Result<IoctlOutput> {
        Ok(output)
    }
}

/// Calls `ioctl(2)` with this number and argument, and returns what it returned: 0 for every
/// command of the bus that succeeded.
///
/// The call is not repeated after a signal.
///
/// # Errors
///
/// The errno of the call.
///
/// # Safety
///
/// As for [`Execute::ioctl`]; if `fd` is not a peer of the bus, what its driver demands of the
/// caller.
pub unsafe fn ioctl(fd: BorrowedFd<'_>, cmd: u32, arg: usize) -> rustix::io::Result<IoctlOutput> {
    // SAFETY: the caller's promise.
    unsafe { rustix::ioctl::ioctl(fd, Raw { cmd, arg }) }
}

/// A descriptor of the device `/dev/bus1`: a peer in the kernel.
///
/// ```no_run
/// use bus1_ioctl::{Commands, Device, SendArgs};
///
/// let peer = Device::open()?;
/// peer.send(&mut SendArgs::new().handles(&[8]))?;
/// # Ok::<(), rustix::io::Errno>(())
/// ```
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Path of the device.
    pub const PATH: &'static str = "/dev/bus1";

    /// Opens the device: a new peer. The descriptor is close-on-exec.
    ///
    /// # Errors
    ///
    /// The errors of `open(2)`: ENOENT where the module is not loaded.
    pub fn open() -> rustix::io::Result<Self> {
        open(Self::PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }
}

/// Takes a descriptor that was opened elsewhere. It is not examined: a command on something other
/// than a peer does what its driver does with the number.
impl From<OwnedFd> for Device {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Execute for Device {
    unsafe fn ioctl(&self, cmd: u32, arg: usize) -> rustix::io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { ioctl(self.as_fd(), cmd, arg) }.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    /// `FIONREAD`: how many bytes a file has ready, as an `int` of the caller.
    const BYTES_READY: u32 = 0x541b;

    #[test]
    fn number_and_argument_arrive_as_they_are() {
        let (receiver, sender) = rustix::pipe::pipe().unwrap();
        assert_eq!(rustix::io::write(&sender, b"three"), Ok(5));
        let mut ready = 0i32;
        let arg = (&raw mut ready).expose_provenance();
        // SAFETY: the command writes one `int`.
        assert_eq!(unsafe { ioctl(receiver.as_fd(), BYTES_READY, arg) }, Ok(0));
        assert_eq!(ready, 5);
    }

    #[test]
    fn a_failure_is_its_errno() {
        let (receiver, _sender) = rustix::pipe::pipe().unwrap();
        // SAFETY: the kernel checks the address, and nothing is mapped there.
        let fault = unsafe { ioctl(receiver.as_fd(), BYTES_READY, 0) };
        assert_eq!(fault, Err(Errno::FAULT));
        let file = Device::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        // SAFETY: no driver except the bus knows the number, and it would take no address.
        let unknown = unsafe { file.ioctl(bus1_uapi::CMD_PEER_DISCONNECT, 0) };
        assert_eq!(unknown, Err(Errno::NOTTY));
    }
}
