// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds bus1.ko, and a module that shows what a debug kernel sees.
//!
//! The sources are copied into the root, keeping their places to each other, because the module
//! includes files of its neighbours. Only files whose content changed are written, so that make
//! sees what to do. The result is renamed into place.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use walkdir::WalkDir;

use crate::kernel::Kernel;
use crate::{repo, run};

/// A module and what it is built from, in the repository.
struct Module {
    name: &'static str,
    /// The folder with its Kbuild.
    folder: &'static str,
    sources: &'static [&'static str],
}

const BUS1: Module = Module {
    name: "bus1",
    folder: "kernel",
    sources: &["core/src", "uapi", "kernel"],
};
const SELFTEST: Module = Module {
    name: "bus1_selftest",
    folder: "xtask/selftest",
    sources: &["xtask/selftest"],
};

/// Content by path.
type Sources = BTreeMap<PathBuf, Vec<u8>>;

/// Builds bus1.ko for a kernel and returns its file.
pub fn build(kernel: &Kernel) -> Result<PathBuf> {
    BUS1.build(kernel)
}

/// Builds the module that does what a debug kernel has to report, and returns its file.
pub fn build_selftest(kernel: &Kernel) -> Result<PathBuf> {
    SELFTEST.build(kernel)
}

impl Module {
    fn build(&self, kernel: &Kernel) -> Result<PathBuf> {
        let Module { name, folder, .. } = self;
        let _lock = repo::lock()?;
        ensure!(
            repo::dir().join(folder).join("Kbuild").is_file(),
            "the repository has no {folder}/Kbuild to build {name}.ko from"
        );
        let output = kernel.output_dir()?.join(format!("{name}.ko"));
        let stamp = kernel.output_dir()?.join(format!("{name}.stamp"));
        let sources = self.read(repo::dir())?;
        let want = fingerprint(kernel, &sources);
        if output.exists() && repo::stamp_is(&stamp, &want) {
            return Ok(output);
        }
        let inside = format!("/build/{name}-{}", kernel.release);
        let copy = kernel.root.outside(&inside);
        run::step(&format!("{name}.ko for {}", kernel.release), |step| {
            mirror(&sources, &copy)?;
            self.make(step, kernel, &inside, "")?;
            Ok(())
        })?;
        let built = fs::read(copy.join(folder).join(format!("{name}.ko")))
            .with_context(|| format!("make succeeded, but left no {folder}/{name}.ko"))?;
        repo::write_whole(&output, &built)?;
        repo::write_whole(&stamp, want.as_bytes())?;
        Ok(output)
    }

    /// Runs make for the module in a copy of the sources. Shows all lines that are not about its
    /// progress, and returns how many these were.
    fn make(
        &self,
        step: &mut run::Step,
        kernel: &Kernel,
        inside: &str,
        args: &str,
    ) -> Result<usize> {
        let (make, folder) = (kernel.make(), self.folder);
        let script = format!("{make} {args} -C \"$1\" M=\"$2/{folder}\" modules </dev/null");
        let mut command = kernel.root.shell(&script, &[&kernel.tree(), inside])?;
        let mut shown = 0;
        step.run_lines(&mut command, |step, line| {
            if !is_progress(line) {
                step.show(&line.replace(&format!("{inside}/"), ""));
                shown += 1;
            }
        })?;
        Ok(shown)
    }

    /// The content of every source by its path in the repository.
    fn read(&self, repository: &Path) -> Result<Sources> {
        let mut sources = BTreeMap::new();
        for folder in self.sources {
            for entry in WalkDir::new(repository.join(folder)) {
                let entry = entry.with_context(|| format!("cannot read {folder}/"))?;
                if entry.file_type().is_file() {
                    let path = entry.path().strip_prefix(repository)?.to_owned();
                    let content = fs::read(entry.path())
                        .with_context(|| format!("cannot read {}", path.display()))?;
                    sources.insert(path, content);
                }
            }
        }
        Ok(sources)
    }
}

/// Builds the module as the kernel tree checks its own code: with clippy, with the warnings of W=1,
/// and with sparse. Returns how many lines of complaint were shown.
pub fn lint(kernel: &Kernel) -> Result<usize> {
    // The sparse of Debian 13 does not know an operator of all headers, nor that the length of a
    // text is constant, as every description of a module parameter has it.
    const SPARSE: &str = "sparse -D__typeof_unqual__=__typeof__ \
                          -D'__builtin_strlen(text)=(sizeof(text)-1)'";
    let args = format!("CLIPPY=1 W=1 C=2 CHECK=\"{SPARSE}\"");
    let _lock = repo::lock()?;
    let inside = format!("/build/lint-{}", kernel.release);
    let copy = kernel.root.outside(&inside);
    run::step("clippy, sparse and W=1 on the module", |step| {
        // Files that were built already are not looked at again.
        crate::root::remove(&copy)?;
        mirror(&BUS1.read(repo::dir())?, &copy)?;
        BUS1.make(step, kernel, &inside, &args)
    })
}

/// Lines of make that say only that it works.
fn is_progress(line: &str) -> bool {
    const QUIET: &[&str] = &[
        "AR", "BTF", "CC", "CHECK", "CLEAN", "CLIPPY", "LD", "MODPOST", "RSCPP", "RUSTC", "make",
    ];
    let line = line.trim_start_matches(char::is_whitespace);
    line.is_empty()
        || QUIET.iter().any(|word| {
            line.strip_prefix(word)
                .is_some_and(|rest| rest.starts_with([' ', '[', ':']) || rest.is_empty())
        })
        || line.starts_with("Skipping BTF generation")
}

/// Differs whenever the module could come out differently.
fn fingerprint(kernel: &Kernel, sources: &Sources) -> String {
    let mut hasher = DefaultHasher::new();
    sources.hash(&mut hasher);
    format!("{} {:016x}\n", kernel.identity(), hasher.finish())
}

/// Makes the sources in `to` equal to `sources`; what make left there stays.
fn mirror(sources: &Sources, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let list = to.join("sources");
    let before = fs::read_to_string(&list).unwrap_or_default();
    let names: Vec<_> = sources.keys().map(|path| path.to_string_lossy()).collect();
    // The list names all that may be there before anything is written or removed.
    repo::write_whole(&list, format!("{before}\n{}", names.join("\n")).as_bytes())?;
    for gone in before
        .lines()
        .filter(|name| !sources.contains_key(Path::new(name)))
    {
        if !gone.is_empty() {
            let _ = fs::remove_file(to.join(gone));
        }
    }
    for (path, content) in sources {
        let copy = to.join(path);
        if fs::read(&copy).is_ok_and(|have| have == *content) {
            continue;
        }
        if let Some(parent) = copy.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&copy, content).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    repo::write_whole(&list, names.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Sources {
        files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn a_copy_follows_its_sources_and_keeps_what_make_left() {
        let dir = tempfile::tempdir().unwrap();
        mirror(&sources(&[("a/one.rs", "1"), ("two.rs", "2")]), dir.path()).unwrap();
        fs::write(dir.path().join("a/one.o"), "object").unwrap();
        let untouched = fs::metadata(dir.path().join("two.rs"))
            .unwrap()
            .modified()
            .unwrap();
        mirror(&sources(&[("two.rs", "2"), ("three.rs", "3")]), dir.path()).unwrap();
        assert!(!dir.path().join("a/one.rs").exists());
        assert!(dir.path().join("a/one.o").exists());
        assert_eq!(fs::read(dir.path().join("three.rs")).unwrap(), b"3");
        let now = fs::metadata(dir.path().join("two.rs"))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(untouched, now);
    }

    #[test]
    fn only_news_of_make_is_shown() {
        for line in [
            "  RUSTC [M] bus1.o",
            "  LD [M]  bus1.ko",
            "  CLIPPY [M] main.o",
            "  CHECK   glue.c",
            "make: Entering directory",
            "",
        ] {
            assert!(is_progress(line), "{line}");
        }
        for line in [
            "error[E0308]: mismatched types",
            "LDx",
            "warning: unsafe block missing a safety comment",
            "glue.c:38:6: warning: symbol 'x' was not declared. Should it be static?",
            "  --> kernel/bus1.rs:3:4",
        ] {
            assert!(!is_progress(line), "{line}");
        }
    }
}
