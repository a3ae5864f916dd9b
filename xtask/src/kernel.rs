// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel to build for and to boot. Of a stock kernel there are its packages, and its source tree
//! prepared so that the Rust metadata that Debian does not ship is there. The debug kernel is built
//! from the same source.
//!
//! Invariants: a kernel is used only if its stamp is there, which is written last; without one
//! everything of that kernel is made anew. The rebuilt Rust symbols are compared with those that
//! the stock kernel exports, so a module that could not be loaded is never built.

mod debug;

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{bail, ensure, Context, Result};

use crate::archive::{self, Offer, Wanted};
use crate::root::{self, Root};
use crate::{repo, run};

/// Make with the compilers that Debian builds its kernels with, by the names that the stock
/// configuration carries.
const MAKE: &str = "make CC=x86_64-linux-gnu-gcc-14 HOSTCC=gcc-14";

/// A kernel that is ready.
pub struct Kernel {
    pub root: Root,
    pub release: String,
    pub build: Build,
}

/// The origin of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Build {
    /// Built by Debian; the image and its modules are in packages.
    Stock,
    /// Built here, with checkers and without modules.
    Debug,
}

impl Kernel {
    /// The prepared source tree, as seen in the root.
    pub fn tree(&self) -> String {
        format!("/build/linux-{}", self.release)
    }

    /// The command that builds in the tree, and for the kernel.
    pub fn make(&self) -> &'static str {
        match self.build {
            Build::Stock => MAKE,
            Build::Debug => debug::MAKE,
        }
    }

    fn packages(&self) -> String {
        format!("/build/packages-{}", self.release)
    }

    fn stamp(&self) -> PathBuf {
        self.root.outside(&format!("/build/stamp-{}", self.release))
    }

    /// Tells this kernel from any other, also from one of the same release.
    pub fn identity(&self) -> String {
        let version = fs::read_to_string(self.stamp()).unwrap_or_default();
        format!("{} {version}", self.release)
    }

    /// `lib/modules/RELEASE` of the packages.
    fn release_dir(&self) -> PathBuf {
        self.root.outside(&format!(
            "{}/usr/lib/modules/{}",
            self.packages(),
            self.release
        ))
    }

    /// The kernel image to boot.
    pub fn image(&self) -> PathBuf {
        match self.build {
            Build::Stock => self.release_dir().join("vmlinuz.unsigned"),
            Build::Debug => {
                let tree = self.root.outside(&self.tree());
                tree.join("arch/x86/boot/bzImage")
            }
        }
    }

    /// What this kernel's own files go to.
    pub fn output_dir(&self) -> Result<PathBuf> {
        repo::cache_dir(&self.release)
    }

    /// Files of modules of the kernel package, in the order in which they are to be loaded.
    pub fn modules(&self, name: &str) -> Result<Vec<PathBuf>> {
        let dir = self.release_dir();
        find_modules(&self.dependencies()?, name)
            .map(|files| files.into_iter().map(|file| dir.join(file)).collect())
            .with_context(|| format!("kernel {} has no module `{name}`", self.release))
    }

    /// Whether the kernel package has a module of this name.
    pub fn has_module(&self, name: &str) -> Result<bool> {
        Ok(find_modules(&self.dependencies()?, name).is_some())
    }

    fn dependencies(&self) -> Result<String> {
        if self.build == Build::Debug {
            return Ok(String::new());
        }
        fs::read_to_string(self.release_dir().join("modules.dep"))
            .context("the kernel package has no modules.dep; remove target/vm and try again")
    }
}

/// The line of a modules.dep for `name`, dependencies first.
fn find_modules<'a>(dependencies: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let plain = |text: &str| text.replace('-', "_");
    dependencies.lines().find_map(|line| {
        let (file, needs) = line.split_once(':')?;
        let stem = file.rsplit('/').next()?.split(".ko").next()?;
        if plain(stem) != plain(name) {
            return None;
        }
        // depmod lists what is needed directly before what that needs in turn.
        Some(needs.split_whitespace().rev().chain([file]).collect())
    })
}

/// Finds the kernel in the cache, or gets and prepares it.
pub fn prepare(wanted: &Wanted, refresh: bool) -> Result<Kernel> {
    match wanted {
        Wanted::Debug => debug::prepare(stock(&Wanted::Newest, refresh)?),
        _ => stock(wanted, refresh),
    }
}

/// Finds a stock kernel in the cache, or gets and prepares it.
fn stock(wanted: &Wanted, refresh: bool) -> Result<Kernel> {
    let _lock = repo::lock()?;
    let root = Root::prepare()?;
    let choice = repo::cache_dir("chosen")?.join(wanted.name());
    let chosen = match wanted {
        Wanted::Release(release) => Some(release.clone()),
        _ => fs::read_to_string(&choice)
            .ok()
            .map(|text| text.trim().to_owned()),
    };
    let mut kernel = Kernel {
        root,
        release: chosen.unwrap_or_default(),
        build: Build::Stock,
    };
    let cached = !kernel.release.is_empty() && kernel.stamp().exists();
    if !cached || refresh {
        let offer = archive::choose(&kernel.root, wanted)?;
        kernel.release = offer.release.clone();
        if !repo::stamp_is(&kernel.stamp(), &offer.version) {
            make(&kernel, &offer)?;
        }
    }
    repo::write_whole(&choice, kernel.release.as_bytes())?;
    Ok(kernel)
}

fn make(kernel: &Kernel, offer: &Offer) -> Result<()> {
    remove_built(kernel)?;
    root::remove(&kernel.root.outside(&kernel.packages()))?;
    run::step(&format!("download kernel {}", kernel.release), |step| {
        step.run(&mut download(kernel, offer)?)
    })?;
    unpack(kernel, offer)?;
    let config = configure(kernel, offer)?;
    run::step(
        &format!("rebuild the Rust metadata of {}", kernel.release),
        |step| {
            let script = format!(
                "cd \"$1\"
            export RUST_LIB_SRC=\"$2\"
            {MAKE} olddefconfig
            {MAKE} -j\"$(nproc)\" modules_prepare"
            );
            let library = kernel.root.rust_library()?;
            step.run(&mut kernel.root.shell(&script, &[&kernel.tree(), &library])?)
        },
    )?;
    check(kernel, &config)?;
    repo::write_whole(&kernel.stamp(), offer.version.as_bytes())
}

/// Removes the stamp of a kernel, its tree, and the modules that were built in the tree.
fn remove_built(kernel: &Kernel) -> Result<()> {
    match fs::remove_file(kernel.stamp()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("cannot remove the stamp of an older kernel");
        }
        _ => (),
    }
    root::remove(&kernel.root.outside(&kernel.tree()))?;
    for module in ["bus1", "bus1_selftest"] {
        let copy = format!("/build/{module}-{}", kernel.release);
        root::remove(&kernel.root.outside(&copy))?;
    }
    Ok(())
}

fn download(kernel: &Kernel, offer: &Offer) -> Result<std::process::Command> {
    let script = "
        mkdir -p \"$1/debs\"
        cd \"$1/debs\"
        dir=$1 release=$2
        shift 2
        apt-get -q -o Acquire::Retries=3 -o APT::Sandbox::User=root download \"$@\"
        for deb in *.deb; do
            dpkg-deb -x \"$deb\" \"$dir\"
        done
        rm -r \"$dir/debs\"
        depmod -b \"$dir/usr\" \"$release\"";
    let packages = offer
        .built_packages()
        .map(|name| format!("{name}={}", offer.version));
    let dir = kernel.packages();
    let mut args = vec![dir.as_str(), kernel.release.as_str()];
    args.extend(packages.iter().map(String::as_str));
    kernel.root.shell(script, &args)
}

/// Makes the kernel's tree of its source, which is kept as it was unpacked for the other flavours
/// of the same version. A build replaces files and writes none of them in place, so the tree
/// consists of links to those that are kept.
fn unpack(kernel: &Kernel, offer: &Offer) -> Result<()> {
    let source = format!("/build/source-{}", offer.version);
    if !kernel.root.outside(&source).exists() {
        run::step(&format!("get the source {}", offer.version), |step| {
            let script = "
                rm -rf \"$1.partial\"
                mkdir \"$1.partial\"
                cd \"$1.partial\"
                apt-get -q -o Acquire::Retries=3 -o APT::Sandbox::User=root download \"$2\"
                dpkg-deb --fsys-tarfile linux-source-*.deb |
                    tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
                    tar -xJ --strip-components=1
                rm linux-source-*.deb
                mv \"$1.partial\" \"$1\"";
            let package = format!("{}={}", offer.source_package(), offer.version);
            step.run(&mut kernel.root.shell(script, &[&source, &package])?)
        })?;
    }
    run::step(&format!("tree of {}", kernel.release), |step| {
        let script = "cp -al \"$1\" \"$2\"";
        step.run(&mut kernel.root.shell(script, &[&source, &kernel.tree()])?)
    })
}

/// Gives the tree the stock configuration, which it returns, and the stock release and symbols.
fn configure(kernel: &Kernel, offer: &Offer) -> Result<String> {
    let tree = kernel.root.outside(&kernel.tree());
    let headers = kernel.root.outside(&format!(
        "{}/usr/src/linux-headers-{}",
        kernel.packages(),
        kernel.release
    ));
    let config = fs::read_to_string(headers.join(".config"))
        .with_context(|| format!("no configuration in the headers of {}", kernel.release))?;
    ensure!(
        config.lines().any(|line| line == "CONFIG_RUST=y"),
        "kernel {} was built without Rust; choose another by --kernel",
        kernel.release
    );
    fs::write(tree.join(".config"), &config)?;
    fs::copy(headers.join("Module.symvers"), tree.join("Module.symvers"))
        .with_context(|| format!("no Module.symvers in the headers of {}", kernel.release))?;
    fs::write(tree.join("localversion"), offer.local_version())?;
    Ok(config)
}

/// Makes sure that the kernel in the tree has the release that it is known by.
fn check_release(kernel: &Kernel) -> Result<()> {
    let tree = kernel.root.outside(&kernel.tree());
    let release = fs::read_to_string(tree.join("include/config/kernel.release"))?;
    ensure!(
        release.trim() == kernel.release,
        "the source calls itself {}, not {}",
        release.trim(),
        kernel.release
    );
    Ok(())
}

/// Makes sure that what was rebuilt is what the stock kernel was built from.
fn check(kernel: &Kernel, config: &str) -> Result<()> {
    check_release(kernel)?;
    let tree = kernel.root.outside(&kernel.tree());
    let settings = |text: &str| -> HashSet<String> {
        text.lines()
            .filter(|line| line.starts_with("CONFIG_"))
            .map(str::to_owned)
            .collect()
    };
    let prepared = settings(&fs::read_to_string(tree.join(".config"))?);
    let stock = settings(config);
    let mut changed: Vec<&String> = stock.symmetric_difference(&prepared).collect();
    changed.sort();
    ensure!(
        changed.is_empty(),
        "the configuration of {} does not survive in the root, whose compilers may be too new or \
         too old; it differs in: {changed:?}",
        kernel.release
    );
    let symvers = fs::read_to_string(tree.join("Module.symvers"))?;
    let stock: HashSet<&str> = symvers
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .collect();
    let mut count = 0;
    for file in ["core", "helpers", "bindings", "kernel"] {
        let path = tree.join(format!("rust/exports_{file}_generated.h"));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} was not made", path.display()))?;
        for symbol in exports(&text) {
            if !stock.contains(symbol) {
                bail!(
                    "the rebuilt Rust symbol {symbol} is not one of the stock kernel {}: the \
                     root's rustc is not the one that built it",
                    kernel.release
                );
            }
            count += 1;
        }
    }
    ensure!(
        count > 0,
        "the prepared tree of {} exports no Rust symbol",
        kernel.release
    );
    run::say(&format!(
        "all {count} Rust symbols are those of the stock {}",
        kernel.release
    ));
    Ok(())
}

/// The names in lines like `EXPORT_SYMBOL_RUST_GPL(name);`.
fn exports(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        line.strip_prefix("EXPORT_SYMBOL_RUST_GPL(")?
            .strip_suffix(");")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let dep =
            "kernel/a-b.ko.xz: kernel/c.ko.xz kernel/d.ko.xz\nkernel/c.ko.xz: kernel/d.ko.xz\n";
        assert_eq!(
            find_modules(dep, "a_b"),
            Some(vec!["kernel/d.ko.xz", "kernel/c.ko.xz", "kernel/a-b.ko.xz"])
        );
        assert_eq!(find_modules(dep, "b"), None);
    }

    #[test]
    fn exported_names_are_read() {
        let text = "EXPORT_SYMBOL_RUST_GPL(_RNvX);\nEXPORT_SYMBOL_RUST_GPL(_RY);\n";
        assert_eq!(exports(text).collect::<Vec<_>>(), ["_RNvX", "_RY"]);
    }
}
