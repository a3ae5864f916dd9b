// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths in the repository and in its cache.
//!
//! Invariant: xtask writes nothing outside `target/`, except recorded figures on request.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::machine;

/// Returns the folder of the workspace.
pub fn dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository")
}

/// Returns the output folder, which does not depend on cargo's environment variables.
pub fn target() -> PathBuf {
    dir().join("target")
}

/// Returns the folder for build root, kernels, modules and logs.
pub fn cache() -> PathBuf {
    target().join("vm")
}

/// Returns a folder below the cache, and makes it if it is missing.
pub fn cache_dir(name: &str) -> Result<PathBuf> {
    let path = cache().join(name);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// Writes a file atomically: `path` has either its old content or all of `bytes`.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file needs a folder")?;
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        std::io::Write::write_all(&mut file, bytes)?;
        // Only its owner can read a temporary file.
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Tells whether the stamp of a step is `want`. A step writes its stamp at its end, and the stamp
/// names the sources that the step used.
pub fn stamp_is(path: &Path, want: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|have| have == want)
}

/// Locks the cache against other runs of xtask until the returned file is dropped. The kernel
/// releases the lock if the process is killed.
pub fn lock() -> Result<fs::File> {
    let path = cache_dir("")?.join("lock");
    let file = fs::File::create(&path).with_context(|| {
        format!(
            "cannot write to {}, which root may own; run: {}",
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
