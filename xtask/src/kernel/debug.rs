// SPDX-License-Identifier: MIT OR Apache-2.0
//! The debug kernel: KASAN, lockdep, kmemleak, fault injection, and Rust with its assertions.
//!
//! It is built from the source of the newest stock kernel, with a small configuration, so that it
//! takes about 10 minutes and not hours. KASAN in Rust needs the compiler and the linker of LLVM.
//!
//! Invariant: every setting of `debug.config` is in the kernel that was built.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{ensure, Context, Result};

use super::{check_release, remove_built, unpack, Build, Kernel};
use crate::archive::Offer;
use crate::{repo, run};

/// Make with LLVM; modules get line tables, by which an address in a report becomes a line.
pub(super) const MAKE: &str = "make LLVM=1 KCFLAGS=-g1 KRUSTFLAGS=-Cdebuginfo=1";
/// Make with LLVM for the kernel itself, which is built without line tables.
const MAKE_KERNEL: &str = "make LLVM=1";
/// The settings; all others are off.
const CONFIG: &str = include_str!("debug.config");
/// The name of the file with the settings, in the tree.
const CONFIG_FILE: &str = "bus1.config";
/// The end of the release, as the settings have it.
const LOCAL_VERSION: &str = "-bus1-debug";

/// Finds the debug kernel in the cache, or builds it from the source of a stock kernel.
pub(super) fn prepare(stock: Kernel) -> Result<Kernel> {
    let _lock = repo::lock()?;
    let version = fs::read_to_string(stock.stamp()).context("the stock kernel has no stamp")?;
    let offer = Offer::new(&stock.release, &version)
        .with_context(|| format!("{} is not a release of the archive", stock.release))?;
    let kernel = Kernel {
        release: format!("{}{LOCAL_VERSION}", offer.upstream()),
        root: stock.root,
        build: Build::Debug,
    };
    let stamp = stamp(&version);
    if !repo::stamp_is(&kernel.stamp(), &stamp) {
        remove_built(&kernel)?;
        unpack(&kernel, &offer)?;
        build(&kernel)?;
        repo::write_whole(&kernel.stamp(), stamp.as_bytes())?;
    }
    Ok(kernel)
}

/// Differs whenever the kernel could come out differently.
fn stamp(version: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (CONFIG, MAKE_KERNEL).hash(&mut hasher);
    format!("{version} {:016x}", hasher.finish())
}

fn build(kernel: &Kernel) -> Result<()> {
    let tree = kernel.root.outside(&kernel.tree());
    fs::write(tree.join(CONFIG_FILE), CONFIG)?;
    run::step("configure the debug kernel", |step| {
        let script = format!(
            "cd \"$1\"
            export RUST_LIB_SRC=\"$2\"
            {MAKE_KERNEL} KCONFIG_ALLCONFIG={CONFIG_FILE} allnoconfig </dev/null"
        );
        let library = kernel.root.rust_library()?;
        step.run(&mut kernel.root.shell(&script, &[&kernel.tree(), &library])?)
    })?;
    let config = fs::read_to_string(tree.join(".config"))?;
    let lost = lost(CONFIG, &config);
    ensure!(
        lost.is_empty(),
        "the source of {} does not take these settings of xtask/src/kernel/debug.config: {}; \
         rename or remove them there, or add what they depend on",
        kernel.release,
        lost.join(", ")
    );
    let what = format!("build the kernel {}, for about 10 minutes", kernel.release);
    run::step(&what, |step| {
        let script = format!(
            "cd \"$1\"
            export RUST_LIB_SRC=\"$2\"
            {MAKE_KERNEL} -j\"$(nproc)\" bzImage modules </dev/null"
        );
        let library = kernel.root.rust_library()?;
        step.run(&mut kernel.root.shell(&script, &[&kernel.tree(), &library])?)
    })?;
    check_release(kernel)
}

/// Returns the settings of `wanted` that a configuration does not have.
fn lost<'a>(wanted: &'a str, config: &str) -> Vec<&'a str> {
    let have: HashSet<&str> = config.lines().collect();
    wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") || line.ends_with(" is not set"))
        // A setting that is off need not be there.
        .filter(|line| !have.contains(line) && !is_absent(line, config))
        .collect()
}

/// Whether a line like `# CONFIG_X is not set` is true of a configuration without `CONFIG_X`.
fn is_absent(line: &str, config: &str) -> bool {
    let name = line
        .strip_prefix("# ")
        .and_then(|line| line.strip_suffix(" is not set"));
    name.is_some_and(|name| {
        let set = format!("{name}=");
        !config.lines().any(|line| line.starts_with(&set))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_survive_are_found() {
        let wanted = "# A comment.\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=17\n";
        let config = "CONFIG_A=y\nCONFIG_C=17\n";
        assert!(lost(wanted, config).is_empty());
        let config = "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=18\n";
        let all = ["CONFIG_A=y", "# CONFIG_B is not set", "CONFIG_C=17"];
        assert_eq!(lost(wanted, config), all);
    }

    #[test]
    fn the_release_ends_as_the_settings_say() {
        assert!(CONFIG.contains(&format!("CONFIG_LOCALVERSION=\"{LOCAL_VERSION}\"\n")));
    }

    #[test]
    fn the_stamp_follows_the_version() {
        assert_ne!(stamp("1"), stamp("2"));
    }
}
