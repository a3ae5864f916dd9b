// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VM's first and only file system: busybox, an init, the modules and what was copied.
//!
//! It is a newc archive and not compressed, because under emulation the kernel unpacks it slower
//! than the host reads it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use cpio::newc::{self, ModeFileType};
use walkdir::WalkDir;

use crate::kernel::Kernel;
use crate::run;
use crate::vm::Job;

/// The directory in which the command runs.
const HOME: &str = "root";
/// Real texts that programs may expect on a Debian machine.
const TEXTS: &str = "usr/share/common-licenses";

/// An archive that is being written.
struct Archive<W: Write> {
    out: W,
    inode: u32,
    folders: BTreeSet<PathBuf>,
}

/// Writes the file system for one job.
pub fn write(path: &Path, kernel: &Kernel, job: &Job, settings: &Settings) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive {
        out: BufWriter::new(file),
        inode: 0,
        folders: BTreeSet::new(),
    };
    let busybox = kernel.root.outside("/bin/busybox");
    archive.file("bin/busybox".as_ref(), &busybox)?;
    archive.bytes("init".as_ref(), include_bytes!("init.sh"), 0o755)?;
    archive.bytes("etc/passwd".as_ref(), b"root:x:0:0::/root:/bin/sh\n", 0o644)?;
    archive.bytes("etc/group".as_ref(), b"root:x:0:\n", 0o644)?;
    archive.tree(TEXTS.as_ref(), &kernel.root.outside(TEXTS))?;

    let mut names = Vec::new();
    for module in &job.modprobe {
        for file in kernel.modules(module)? {
            let name = file.file_name().context("a module has a name")?.to_owned();
            let name = Path::new(&name).with_extension("");
            if names.contains(&name) {
                continue;
            }
            let content = unpack(&file)?;
            archive.bytes(&Path::new("xtask").join(&name), &content, 0o644)?;
            names.push(name);
        }
    }
    if let Some(module) = &job.module {
        archive.file("xtask/bus1.ko".as_ref(), module)?;
    }
    let command = shlex::try_join(job.command.iter().map(String::as_str))
        .context("the command holds a NUL byte")?;
    let command = format!("exec {command}\n");
    archive.bytes("xtask/command".as_ref(), command.as_bytes(), 0o644)?;
    let settings = settings.script(&names, job)?;
    archive.bytes("xtask/settings".as_ref(), settings.as_bytes(), 0o644)?;

    let mut libraries = BTreeSet::new();
    for copy in &job.copies {
        let copy = copy
            .canonicalize()
            .with_context(|| format!("no file {}", copy.display()))?;
        let name = copy
            .file_name()
            .context("the root folder cannot be copied")?
            .to_owned();
        archive.tree(&Path::new(HOME).join(name), &copy)?;
        if copy.is_file() {
            libraries.extend(libraries_of(&copy)?);
        }
    }
    for library in libraries {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        archive.file(inside, &library)?;
    }
    let mut out = newc::trailer(archive.out)?;
    out.flush()
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What the init needs to know beside the command.
pub struct Settings {
    /// Columns and lines, if the command's output goes to a terminal.
    pub terminal: Option<(u16, u16)>,
    /// Ask the kernel's checkers at the end.
    pub checkers: bool,
}

impl Settings {
    fn script(&self, modules: &[PathBuf], job: &Job) -> Result<String> {
        let modules: Vec<_> = modules.iter().map(|name| name.to_string_lossy()).collect();
        let mut script = format!("MODULES='{}'\n", modules.join(" "));
        script += if job.module.is_some() {
            "BUS1=yes\n"
        } else {
            "BUS1=\n"
        };
        script += if self.checkers {
            "CHECKERS=yes\n"
        } else {
            "CHECKERS=\n"
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "_=,.-".contains(c);
        for param in &job.params {
            ensure!(
                param.contains('=') && param.chars().all(plain),
                "`{param}` is not a module parameter: it takes NAME=VALUE"
            );
        }
        script += &format!("PARAMS='{}'\n", job.params.join(" "));
        match self.terminal {
            Some((columns, lines)) => {
                let term = std::env::var("TERM").unwrap_or_else(|_| "vt100".into());
                let term: String = term.chars().filter(|c| plain(*c)).collect();
                script += &format!("TTY=yes\nTERM='{term}'\nCOLUMNS={columns}\nLINES={lines}\n");
            }
            None => script += "TTY=\n",
        }
        Ok(script)
    }
}

impl<W: Write> Archive<W> {
    /// A builder for the next entry, whose folders are there already.
    fn entry(&mut self, path: &Path) -> Result<newc::Builder> {
        let mut parents: Vec<_> = path
            .ancestors()
            .skip(1)
            .filter(|parent| parent.components().next().is_some())
            .map(Path::to_owned)
            .collect();
        parents.reverse();
        for parent in parents {
            self.folder(&parent)?;
        }
        ensure!(
            path.components()
                .all(|part| matches!(part, Component::Normal(_))),
            "{} cannot be a path in the VM",
            path.display()
        );
        let name = path
            .to_str()
            .with_context(|| format!("{} is not UTF-8", path.display()))?;
        self.inode += 1;
        Ok(newc::Builder::new(name).ino(self.inode).nlink(1))
    }

    fn folder(&mut self, path: &Path) -> Result<()> {
        if self.folders.insert(path.to_owned()) {
            let entry = self
                .entry(path)?
                .mode(0o755)
                .set_mode_file_type(ModeFileType::Directory);
            entry.write(&mut self.out, 0).finish()?;
        }
        Ok(())
    }

    fn bytes(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let size = u32::try_from(content.len())
            .ok()
            .with_context(|| format!("{} is too large for the VM", path.display()))?;
        let entry = self
            .entry(path)?
            .mode(mode)
            .set_mode_file_type(ModeFileType::Regular);
        let mut writer = entry.write(&mut self.out, size);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }

    fn file(&mut self, path: &Path, from: &Path) -> Result<()> {
        let read = || -> std::io::Result<(Vec<u8>, u32)> {
            Ok((
                fs::read(from)?,
                fs::metadata(from)?.permissions().mode() & 0o777,
            ))
        };
        let (content, mode) = read().with_context(|| format!("cannot read {}", from.display()))?;
        self.bytes(path, &content, mode)
    }

    /// A file, or a folder with all that is in it; links are followed.
    fn tree(&mut self, path: &Path, from: &Path) -> Result<()> {
        for entry in WalkDir::new(from).follow_links(true).sort_by_file_name() {
            let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
            let rest = entry.path().strip_prefix(from)?;
            let inside = if rest.as_os_str().is_empty() {
                path.to_owned()
            } else {
                path.join(rest)
            };
            if entry.file_type().is_dir() {
                // An empty folder is made too.
                self.entry(&inside.join("x"))?;
            } else if entry.file_type().is_file() {
                self.file(&inside, entry.path())?;
            }
        }
        Ok(())
    }
}

/// A module of the kernel package as the kernel takes it.
fn unpack(file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let output = Command::new(program)
        .args(["-dc"])
        .arg(file)
        .output()
        .with_context(|| {
            format!(
                "cannot run {program}; install it to unpack {}",
                file.display()
            )
        })?;
    ensure!(
        output.status.success(),
        "{program} cannot unpack {}",
        file.display()
    );
    Ok(output.stdout)
}

/// The libraries that a program needs, with its loader; none for static ones and for scripts.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let mut magic = [0; 4];
    let read = File::open(program).and_then(|mut f| std::io::Read::read(&mut f, &mut magic))?;
    if read < 4 || magic != *b"\x7fELF" {
        return Ok(Vec::new());
    }
    // ldd fails for static programs, which need nothing.
    let Ok(list) = run::output(Command::new("ldd").arg(program)) else {
        return Ok(Vec::new());
    };
    parse_ldd(&list).with_context(|| format!("the libraries of {}", program.display()))
}

fn parse_ldd(list: &str) -> Result<Vec<PathBuf>> {
    ensure!(
        !list.contains("not found"),
        "one is not on this machine:\n{}",
        list.trim_end()
    );
    let path = |line: &str| {
        let path = line
            .rsplit("=>")
            .next()?
            .trim()
            .split(" (")
            .next()?
            .to_owned();
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    Ok(list.lines().filter_map(path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_with_the_loader() {
        let list = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let paths = parse_ldd(list).unwrap();
        assert_eq!(
            paths,
            [
                Path::new("/lib/x/libc.so.6"),
                "/lib64/ld-linux-x86-64.so.2".as_ref()
            ]
        );
        assert!(parse_ldd("\tliba.so => not found\n").is_err());
        assert!(parse_ldd("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn folders_come_once_and_before_their_files() {
        let mut archive = Archive {
            out: Vec::new(),
            inode: 0,
            folders: BTreeSet::new(),
        };
        archive.bytes("a/b/one".as_ref(), b"1", 0o644).unwrap();
        archive.bytes("a/b/two".as_ref(), b"22", 0o755).unwrap();
        let bytes = newc::trailer(archive.out).unwrap();
        let mut names = Vec::new();
        let mut rest: &[u8] = &bytes;
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push(reader.entry().name().to_owned());
            rest = reader.finish().unwrap();
        }
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two"]);
    }
}
