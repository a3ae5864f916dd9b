// SPDX-License-Identifier: MIT OR Apache-2.0

//! A memory cgroup of our own, to see the memory that is charged to a process.

use std::fs;
use std::path::PathBuf;

/// Folder of cgroups (version 2).
const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup, at first without limits. Removed when dropped; by then its processes have ended.
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

    /// Sets the most bytes that may be charged to it, none of which are swapped out.
    pub fn limit(&self, bytes: usize) {
        for (file, most) in [("memory.max", bytes), ("memory.swap.max", 0)] {
            // A kernel without swap has no limit for it.
            let set = fs::write(self.path.join(file), most.to_string());
            assert!(set.is_ok() || most == 0, "cannot set {file}");
        }
    }

    /// Number of its processes that were killed because it was at its limit.
    pub fn oom_kills(&self) -> usize {
        let text = fs::read_to_string(self.path.join("memory.events"));
        let text = text.expect("cannot read memory.events");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|n| n.parse().ok())
            .expect("a number of kills in memory.events")
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
