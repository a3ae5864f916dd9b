// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are in the repository and in its cache.
//!
//! Invariant: nothing is written outside `target/`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::machine;

/// The folder that holds the workspace.
pub fn dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository")
}

/// Cargo's own output folder, where the environment does not move it.
pub fn target() -> PathBuf {
    dir().join("target")
}

/// Root, kernels, modules, logs.
pub fn cache() -> PathBuf {
    target().join("vm")
}

/// A folder below the cache, made if it is missing.
pub fn cache_dir(name: &str) -> Result<PathBuf> {
    let path = cache().join(name);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// Writes a file so that it is there in full or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file needs a folder")?;
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        std::io::Write::write_all(&mut file, bytes)?;
        // A temporary file is its owner's alone.
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// What a finished step left behind: present only if the step ran to its end, and equal to `want`
/// only if it was made from the same things.
pub fn stamp_is(path: &Path, want: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|have| have == want)
}

/// Holds the cache against other runs of xtask until it is dropped; the kernel lets go of it even
/// if the process is killed.
pub fn lock() -> Result<fs::File> {
    let path = cache_dir("")?.join("lock");
    let file = fs::File::create(&path).with_context(|| {
        format!(
            "cannot write to {}, which may be root's; run: {}",
            cache().display(),
            machine::as_root()
        )
    })?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another cargo xtask to finish with target/vm");
        file.lock().context("cannot lock target/vm")?;
    }
    Ok(file)
}
