// SPDX-License-Identifier: MIT OR Apache-2.0

//! Partners in processes of their own, CPUs, users, limits.

use anyhow::{bail, ensure, Context, Result};
use rustix::process::{
    getrlimit, kill_process, set_parent_process_death_signal, setrlimit, waitpid, Pid, Resource,
    Rlimit, Signal, WaitOptions,
};
use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};

/// A process that runs one closure for ever. Ended when dropped.
pub struct Partner(Pid);

impl Partner {
    /// Forks one on the CPU `cpu`. The calling process must have one thread only.
    pub fn start(cpu: usize, body: impl FnOnce() -> Result<()>) -> Result<Self> {
        // SAFETY: there is no other thread that could hold a lock; the child leaves by _exit.
        let pid = unsafe { libc::fork() };
        ensure!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if let Some(pid) = Pid::from_raw(pid) {
            return Ok(Self(pid));
        }
        let outcome = set_parent_process_death_signal(Some(Signal::KILL))
            .context("prctl")
            .and_then(|()| pin(cpu))
            .and_then(|()| body());
        if let Err(error) = &outcome {
            eprintln!("error: in a partner: {error:#}");
        }
        // SAFETY: leaves without running anything of the parent's.
        unsafe { libc::_exit(outcome.is_err().into()) }
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        // If it has ended already there is nothing to end.
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// Returns the number of CPUs that the calling thread may use.
pub fn cpus() -> Result<usize> {
    Ok(sched_getaffinity(None)
        .context("sched_getaffinity")?
        .count() as usize)
}

/// Raises the limit of open descriptors so that there may be `more`, which takes root.
pub fn allow_descriptors(more: usize) -> Result<()> {
    /// Descriptors that the process has anyway.
    const OTHERS: u64 = 1000;
    let wanted = more as u64 + OTHERS;
    if getrlimit(Resource::Nofile)
        .current
        .is_none_or(|now| now >= wanted)
    {
        return Ok(());
    }
    let limit = Rlimit {
        current: Some(wanted),
        maximum: Some(wanted),
    };
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open descriptors")
}

/// Runs `body` while the real user of this thread is `uid`; takes root.
pub fn as_user<T>(uid: u32, body: impl FnOnce() -> Result<T>) -> Result<T> {
    real_user(uid)?;
    let result = body();
    real_user(0)?;
    result
}

fn real_user(uid: u32) -> Result<()> {
    // SAFETY: plain system call with integers; all-ones leaves an ID as it is.
    if unsafe { libc::syscall(libc::SYS_setresuid, uid, u32::MAX, u32::MAX) } != 0 {
        let error = std::io::Error::last_os_error();
        bail!("cannot become user {uid}: {error}; run as root");
    }
    Ok(())
}
