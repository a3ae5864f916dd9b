// SPDX-License-Identifier: MIT OR Apache-2.0

//! The text that is published.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{memfd_create, MemfdFlags};

use crate::pieces::{Block, Pieces};

/// Texts that may be on the machine, best first.
const USUAL: [&str; 6] = [
    "/usr/share/common-licenses/GPL-3",
    "/usr/share/common-licenses/GPL-2",
    "/usr/share/dict/words",
    "/usr/share/licenses/common/GPL-3.0-or-later/license.txt",
    "/usr/share/doc/bash/README",
    "/usr/share/doc/coreutils/NEWS",
];

/// Place where more of them may be, a folder for each package.
const DOCUMENTATION: &str = "/usr/share/doc";

/// A text is worth publishing if it has as many bytes.
const MIN_TEXT: u64 = 8 << 10;

/// The text of last resort: the project's own.
const BUILT_IN: &str = include_str!("../../docs/design.md");

/// A text, and what is known about it.
pub struct Input {
    /// A descriptor that everybody may read at any offset.
    pub file: File,
    /// Its name, for the user.
    pub name: String,
    pub bytes: u64,
    /// The number of its pieces.
    pub pieces: u64,
    /// Length of the longest in bytes.
    pub longest: usize,
}

impl Input {
    /// Opens the text at `path` (`-` is stdin), or one that is found on this machine.
    pub fn open(path: Option<&Path>, block: Block) -> Result<Self> {
        match path {
            Some(path) if path == Path::new("-") => {
                let file = in_memory(&mut io::stdin().lock()).context("cannot read stdin")?;
                Self::measure(file, "stdin".into(), block)
            }
            Some(path) => Self::from_path(path, block),
            None => Self::find(block),
        }
    }

    fn from_path(path: &Path, block: Block) -> Result<Self> {
        let name = path.display().to_string();
        let mut file = File::open(path).with_context(|| format!("cannot open the input {name}"))?;
        let meta = file
            .metadata()
            .with_context(|| format!("cannot examine the input {name}"))?;
        if meta.is_dir() {
            bail!("the input {name} is a folder; name a file");
        }
        if !meta.is_file() {
            // A pipe, say, which only one could read.
            file = in_memory(&mut file).with_context(|| format!("cannot read the input {name}"))?;
        }
        Self::measure(file, name, block)
    }

    fn find(block: Block) -> Result<Self> {
        let usual = USUAL.iter().map(PathBuf::from);
        for path in usual.chain(documentation()) {
            let worthwhile =
                fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() >= MIN_TEXT);
            if worthwhile {
                if let Ok(input) = Self::from_path(&path, block) {
                    return Ok(input);
                }
            }
        }
        let file = in_memory(&mut BUILT_IN.as_bytes())?;
        Self::measure(
            file,
            "the design page built into this program".into(),
            block,
        )
    }

    fn measure(file: File, name: String, block: Block) -> Result<Self> {
        let mut input = Self {
            file,
            name,
            bytes: 0,
            pieces: 0,
            longest: 0,
        };
        let mut pieces = Pieces::new(&input.file, block);
        while let Some(piece) = pieces
            .next()
            .with_context(|| format!("cannot read the input {}", input.name))?
        {
            input.bytes += piece.len() as u64;
            input.pieces += 1;
            input.longest = input.longest.max(piece.len());
        }
        ensure!(
            input.pieces > 0,
            "the input {} is empty: there is nothing to publish",
            input.name
        );
        Ok(input)
    }
}

/// Returns plain texts among the documentation of packages.
fn documentation() -> impl Iterator<Item = PathBuf> {
    let mut packages: Vec<PathBuf> = entries(Path::new(DOCUMENTATION)).collect();
    packages.sort();
    packages
        .into_iter()
        .flat_map(|package| entries(&package).collect::<Vec<_>>())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| {
                name.starts_with("README") || name == "copyright" || name == "NEWS"
            }) && path.extension().is_none_or(|extension| extension != "gz")
        })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// Makes a file without a name that holds everything that `from` gives.
fn in_memory(from: &mut impl io::Read) -> io::Result<File> {
    let mut file = File::from(memfd_create("bus1-demo-input", MemfdFlags::CLOEXEC)?);
    io::copy(from, &mut file)?;
    file.flush()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_a_text() {
        let input = Input::open(None, Block::Lines).unwrap();
        assert!(input.bytes >= MIN_TEXT / 2);
        assert!(input.pieces > 10);
        assert!(!BUILT_IN.is_empty());
    }

    #[test]
    fn bad_inputs_are_named() {
        let error = |path: &Path| {
            let error = Input::open(Some(path), Block::Lines).err().unwrap();
            format!("{error:#}")
        };
        let folder = tempfile::tempdir().unwrap();
        assert!(error(folder.path()).contains("is a folder"));
        let missing = error(&folder.path().join("missing"));
        assert!(missing.contains("cannot open") && missing.contains("No such file"));
        let empty = folder.path().join("empty");
        File::create(&empty).unwrap();
        assert!(error(&empty).contains("nothing to publish"));
    }
}
