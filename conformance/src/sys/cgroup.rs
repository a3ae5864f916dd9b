// SPDX-License-Identifier: MIT OR Apache-2.0

//! A memory cgroup of our own, to see the memory that is charged to a process.

use std::fs;
use std::path::PathBuf;

/// Folder of cgroups (version 2).
const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup without limits. Removed when dropped; by then its processes have ended.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one; needs root, and cgroup 2 with its memory controller.
    pub fn new(name: &str) -> Self {
        fs::write(format!("{ROOT}/cgroup.subtree_control"), "+memory").unwrap_or_else(|error| {
            panic!("no memory controller at {ROOT} (mount cgroup2, and run as root): {error}")
        });
        let path = PathBuf::from(format!("{ROOT}/{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("cannot make a cgroup");
        Self { path }
    }

    /// Moves the calling process there.
    pub fn enter(&self) {
        fs::write(self.path.join("cgroup.procs"), "0").expect("cannot enter the cgroup");
    }

    /// Bytes charged to it.
    pub fn charged(&self) -> usize {
        let text = fs::read_to_string(self.path.join("memory.current"));
        let text = text.expect("cannot read memory.current");
        text.trim().parse().expect("a number in memory.current")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
