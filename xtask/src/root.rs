// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Debian root in which kernel and module are built.
//!
//! A stock kernel's Rust symbols carry names that depend on the compiler's own build, so the
//! module must be compiled by the very rustc package that compiled the kernel. The root holds it.
//!
//! Invariants: the root is made under another name and renamed when it is complete. What runs in
//! it runs in mount and process namespaces of its own, which end with it, so no mount and no
//! process outlives a command, not even a killed one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::{machine, repo, run};

/// The suite whose compilers built the kernels, and the one that offers them.
const SUITE: &str = "trixie";
const KERNEL_SUITE: &str = "trixie-backports";

const PACKAGES: &[&str] = &[
    "bc",
    "bindgen",
    "bison",
    "busybox-static",
    "ca-certificates",
    "clang",
    "cpio",
    "flex",
    "gcc-14",
    "kmod",
    "libdw-dev",
    "libelf-dev",
    "libssl-dev",
    "lld",
    "llvm",
    "make",
    "pahole",
    "python3-minimal",
    "qemu-system-x86",
    "rust-clippy",
    "rust-src",
    "rustc",
    "rustfmt",
    "sparse",
    "xz-utils",
    "zstd",
];

/// A root that is complete.
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Finds the root, or makes it.
    pub fn prepare() -> Result<Root> {
        let path = repo::cache_dir("")?.join("root");
        let root = Root { path };
        let want = format!("{SUITE} {}\n", PACKAGES.join(" "));
        let stamp = root.path.join("build/.root-stamp");
        if repo::stamp_is(&stamp, &want) {
            return Ok(root);
        }
        machine::need_root("making the build root")?;
        machine::need(machine::BUILD)?;
        let mirror = mirror()?;
        let partial = repo::cache().join("root.partial");
        remove(&partial)?;
        run::step(&format!("Debian {SUITE} root with its rustc"), |step| {
            step.run(
                namespaces()
                    .arg("mmdebstrap")
                    .arg("--variant=minbase")
                    .arg("--aptopt=Acquire::Retries \"3\"")
                    .arg(format!("--include={}", PACKAGES.join(",")))
                    .arg(SUITE)
                    .arg(&partial)
                    .arg(format!("deb {mirror} {SUITE} main"))
                    .arg(format!("deb {mirror} {KERNEL_SUITE} main")),
            )?;
            fs::create_dir_all(partial.join("build"))?;
            fs::write(partial.join("build/.root-stamp"), &want)?;
            remove(&root.path)?;
            fs::rename(&partial, &root.path).context("cannot rename the finished root")
        })?;
        Ok(root)
    }

    /// A path in the root as this machine sees it; `inside` is absolute in the root.
    pub fn outside(&self, inside: &str) -> PathBuf {
        self.path.join(inside.trim_start_matches('/'))
    }

    /// A shell script to be run in the root; `$1` and so on are `args`.
    pub fn shell(&self, script: &str, args: &[&str]) -> Result<Command> {
        machine::need_root("building in the root")?;
        // Names are looked up as on this machine, which may have moved since the root was made.
        let _ = fs::copy("/etc/resolv.conf", self.path.join("etc/resolv.conf"));
        let enter = "mount --rbind /dev \"$0/dev\" && mount -t proc proc \"$0/proc\" && \
                     exec chroot \"$0\" /bin/sh -ec \"$@\"";
        let mut command = namespaces();
        command
            .args(["sh", "-ec", enter])
            .arg(&self.path)
            .arg(script)
            .arg("sh")
            .args(args)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", "/root")
            .env("TMPDIR", "/tmp")
            .env("DEBIAN_FRONTEND", "noninteractive");
        // Cargo's settings for its own children must not reach the kernel's build.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO", "RUST", "MAKE", "MFLAGS", "CC", "CFLAGS", "LD_"]
                .iter()
                .any(|p| name.starts_with(p))
            {
                command.env_remove(name.as_ref());
            }
        }
        Ok(command)
    }

    /// One of the root's programs, to be run on this machine with the root's own libraries: no
    /// rights are needed, and all paths are this machine's.
    pub fn program(&self, inside: &str) -> Command {
        let libraries = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu"]
            .map(|path| self.outside(path).to_string_lossy().into_owned());
        // The program dies with xtask, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(self.outside("/lib64/ld-linux-x86-64.so.2"))
            .args(["--library-path", &libraries.join(":")])
            .arg(self.outside(inside));
        command
    }

    /// Where the root's Rust library sources are, as seen inside.
    pub fn rust_library(&self) -> Result<String> {
        let dirs = fs::read_dir(self.outside("/usr/src")).context("the root has no /usr/src")?;
        let mut found: Vec<String> = dirs
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("rustc-"))
            .map(|name| format!("/usr/src/{name}/library"))
            .filter(|inside| self.outside(inside).is_dir())
            .collect();
        found.sort();
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => bail!(
                "rust-src left no /usr/src/rustc-*/library in the root; remove target/vm/root and \
                 try again"
            ),
            many => bail!(
                "the root has more than one Rust library: {}",
                many.join(", ")
            ),
        }
    }
}

/// Runs a program in mount and process namespaces of its own. It dies with xtask, with all that it
/// started and mounted.
fn namespaces() -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation"])
        .args([
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ]);
    command
}

/// Removes a folder that may not be there.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The Debian mirror that this machine itself is kept from.
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var("BUS1_MIRROR") {
        return Ok(mirror);
    }
    if let Some(mirror) = mirror_of_apt()? {
        return Ok(mirror);
    }
    // A machine that never updated knows its sources but not yet what they are.
    run::step("update this machine's package lists", |step| {
        step.run(machine::apt_get().arg("update"))
    })?;
    match mirror_of_apt()? {
        Some(mirror) => Ok(mirror),
        None => bail!(
            "no Debian archive among this machine's apt sources; \
             name a mirror by BUS1_MIRROR=URL"
        ),
    }
}

fn mirror_of_apt() -> Result<Option<String>> {
    if which::which("apt-get").is_err() {
        bail!("this machine has no apt-get to take a mirror from; name one by BUS1_MIRROR=URL");
    }
    let format = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)";
    let targets = run::output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    Ok(targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian|Debian|main|"))
        .map(str::to_owned))
}
