// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Runs the system's C compiler for the tests of this folder. A compiler that
//! is missing is a failure with a sentence that says so, never a skip.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Returns the C compiler: `$CC`, or `cc`.
fn compiler() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".into())
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!(
            "cannot run the C compiler ({command:?}): {error}. \
             Install gcc and libc6-dev, or name another compiler in CC."
        )
    })
}

/// Writes `source` into the tests' scratch directory under `name`.
fn scratch(name: &str, source: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, source)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    path
}

/// Returns a call of the compiler that finds our header before the system's.
fn call(flags: &[&str]) -> Command {
    let mut command = Command::new(compiler());
    command
        .args(flags)
        .args(["-Wall", "-Werror", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"));
    command
}

/// Checks `source` without code generation. The compiler's complaint is the
/// error.
pub fn check(name: &str, source: &str, flags: &[&str]) -> Result<(), String> {
    let path = scratch(name, source);
    let output = run(call(flags).arg("-fsyntax-only").arg(path));
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Compiles and links `source`, and returns the program.
pub fn build(name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let path = scratch(name, source);
    let program = path.with_extension("bin");
    let output = run(call(flags).arg("-o").arg(&program).arg(&path));
    assert!(
        output.status.success(),
        "{} does not compile:\n{}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

/// Returns the flags for 32-bit code without a library, if the compiler can make it.
/// The kernel's own headers (asm/types.h) are taken from where the 64-bit
/// compiler finds them; they serve both widths.
pub fn flags_32bit() -> Option<Vec<String>> {
    let mut flags: Vec<String> = ["-m32", "-ffreestanding", "-nostdlib"]
        .map(String::from)
        .into();
    let multiarch = run(Command::new(compiler()).arg("-print-multiarch"));
    let multiarch = String::from_utf8_lossy(&multiarch.stdout).trim().to_owned();
    if !multiarch.is_empty() {
        flags.push("-idirafter".into());
        flags.push(format!("/usr/include/{multiarch}"));
    }
    let borrowed: Vec<&str> = flags.iter().map(String::as_str).collect();
    let probe = "_Static_assert(sizeof(void *) == 4, \"not 32-bit\");\n";
    check("probe32.c", probe, &borrowed).ok().map(|()| flags)
}
