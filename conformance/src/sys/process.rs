// SPDX-License-Identifier: MIT OR Apache-2.0

//! Processes: children that run a closure, other user IDs, limits.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// A child process. Killed and waited for when dropped.
pub struct Child {
    pid: libc::pid_t,
    done: bool,
}

/// The way that a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It returned this.
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
}

/// Forks; the child runs `body` and exits with its result, or with 101 after a panic.
///
/// In a process with several threads `body` may only make system calls. It must not need a lock of
/// the allocator or of the standard streams, because another thread could hold it.
pub fn fork(body: impl FnOnce() -> i32) -> Child {
    // SAFETY: the child only runs `body`, which is limited as said above, and leaves by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed: {}", std::io::Error::last_os_error());
    if pid == 0 {
        // The child dies with its parent, so that a broken run leaves nothing behind.
        // SAFETY: plain system call.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
        // SAFETY: leaves without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    Child { pid, done: false }
}

impl Child {
    /// Sends SIGKILL.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: plain system call; the child was not waited for, so the ID is still its own.
        unsafe { libc::kill(self.pid, signal) };
    }

    /// Process ID.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the end.
    pub fn wait(mut self) -> End {
        self.reap(0).expect("wait without WNOHANG returned nothing")
    }

    /// Returns the end, if it has come.
    pub fn try_wait(&mut self) -> Option<End> {
        self.reap(libc::WNOHANG)
    }

    fn reap(&mut self, options: i32) -> Option<End> {
        let mut status = 0;
        loop {
            // SAFETY: `status` outlives the call.
            let pid = unsafe { libc::waitpid(self.pid, &mut status, options) };
            if pid == self.pid {
                break;
            }
            if pid == 0 {
                return None;
            }
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EINTR), "waitpid: {error}");
        }
        self.done = true;
        Some(if libc::WIFEXITED(status) {
            End::Exit(libc::WEXITSTATUS(status))
        } else {
            End::Signal(libc::WTERMSIG(status))
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.done {
            self.kill();
            self.reap(0);
        }
    }
}

/// Makes `real` the real user, and `effective` the effective one, of the calling *thread*; needs
/// root, and does not change the effective user if there is none given.
pub fn become_user(real: u32, effective: Option<u32>) -> std::io::Result<()> {
    // glibc's wrapper would change all threads of the process, the system call changes one.
    // SAFETY: plain system call with integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_setresuid,
            real,
            effective.unwrap_or(u32::MAX),
            u32::MAX,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Lowers the limit of open descriptors of this process until dropped.
pub struct DescriptorLimit {
    before: Rlimit,
    limit: RawFd,
}

impl DescriptorLimit {
    /// From now on no descriptor with a number of `limit` or above can be made.
    pub fn new(limit: RawFd) -> Self {
        let before = getrlimit(Resource::Nofile);
        let lowered = Rlimit {
            current: Some(limit as u64),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, lowered).expect("setrlimit failed");
        Self { before, limit }
    }

    /// Returns the limit.
    pub fn limit(&self) -> RawFd {
        self.limit
    }
}

impl Drop for DescriptorLimit {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.before).expect("setrlimit failed");
    }
}

/// Raises the limit of open descriptors as far as it goes.
pub fn allow_many_descriptors() {
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.unwrap_or(1 << 20).max(1 << 16);
    for maximum in [Some(wanted), now.maximum] {
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return;
        }
    }
}

/// Numbers of all open descriptors of this process.
pub fn open_descriptors() -> Vec<RawFd> {
    let dir = std::fs::read_dir("/proc/self/fd").expect("cannot read /proc/self/fd");
    let mut fds: Vec<RawFd> = dir
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    fds.sort_unstable();
    // One belonged to the reading itself, and is closed by now.
    fds.retain(|&fd| is_open(fd));
    fds
}

/// Numbers below `end` that are open, found without opening any.
pub fn open_below(end: RawFd) -> Vec<RawFd> {
    (0..end).filter(|&fd| is_open(fd)).collect()
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD looks at a number, and does nothing.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Returns an io_uring instance.
pub fn io_uring() -> OwnedFd {
    /// Bytes of `struct io_uring_params`.
    const PARAMS: usize = 120;
    let mut params = [0_u8; PARAMS];
    // SAFETY: `params` is large enough, and the descriptor is known only here.
    unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr());
        assert!(
            fd >= 0,
            "io_uring_setup: {}",
            std::io::Error::last_os_error()
        );
        OwnedFd::from_raw_fd(fd as RawFd)
    }
}
