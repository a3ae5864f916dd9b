// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fetches Debian's dbus-broker with its libraries, into one folder that can be copied into the VM.

use std::path::PathBuf;

use anyhow::{ensure, Result};

use crate::kernel::Kernel;
use crate::{repo, run};

/// The folder's parent, inside the build root.
const FOLDER: &str = "/build/dbus-broker";

/// Returns the folder with the program, its libraries and their loader, and fetches these if they
/// are missing.
pub fn broker(kernel: &Kernel) -> Result<PathBuf> {
    let folder = kernel.root.outside(FOLDER).join("dbus-broker");
    if folder.is_dir() {
        return Ok(folder);
    }
    run::step("dbus-broker of trixie", |step| {
        let _lock = repo::lock()?;
        // The last command makes the folder appear whole.
        let script = "
            rm -rf \"$1\"
            mkdir -p \"$1/debs\" \"$1/all\" \"$1/files\"
            cd \"$1/debs\"
            fetch() {
                apt-get -q -o Acquire::Retries=3 -o APT::Sandbox::User=root download dbus-broker \
                    libapparmor1 libaudit1 libcap-ng0 libcap2 libexpat1 libpcre2-8-0 \
                    libselinux1 libsystemd0
            }
            fetch || { apt-get -q update && fetch; }
            for deb in *.deb; do dpkg-deb -x \"$deb\" ../all; done
            cd ..
            program=all/usr/bin/dbus-broker
            LD_LIBRARY_PATH=$1/all/usr/lib/x86_64-linux-gnu ldd $program >list
            ! grep 'not found' list
            for library in $(sed -n 's/.*=> \\(\\/[^ ]*\\).*/\\1/p' list); do
                cp -L \"$library\" files/
            done
            cp -L /lib64/ld-linux-x86-64.so.2 $program files/
            mv files dbus-broker";
        step.run(&mut kernel.root.shell(script, &[FOLDER])?)
    })?;
    ensure!(
        folder.join("dbus-broker").is_file(),
        "there is no dbus-broker in {}",
        folder.display()
    );
    Ok(folder)
}
