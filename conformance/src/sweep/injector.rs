// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fault injection of the kernel: failslab, fail_page_alloc and fail_usercopy.
//!
//! A point is an allocation or a copy that a function of the module asks for, itself or through
//! functions of the kernel: the kind that is armed looks for the module on the stack. So the
//! injector's own system calls have no points, and neither has the rest of the kernel. The other two
//! kinds look for nothing, and so have no points.
//!
//! Each kind also has a function of the kernel that must not be on the stack:
//!
//! - the one in which kmemleak allocates, with every other allocation from a slab: kmemleak would
//!   switch itself off when they fail often;
//! - the one that makes pages into a slab: whether a slab has objects left does not depend on the
//!   call, and a lack of pages there is a failed allocation from a slab, which is a point.
//!
//! `fail-nth` of the thread counts the points down and fails the one at which it becomes 0. From
//! then on `make-it-fail` decides: set, it lets all later points fail too.
//!
//! Each kind has `times`, which the kernel counts down by one for each fault. What is missing from
//! it after a call is the number of faults of this kind: it is the kernel that counts them.
//! Invariant: `times` is above 0 whenever faults are armed, since 0 would switch the kind off.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Error, Result};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Counts, Faults, Kind, Mode};

/// Folder of the kernel's fault injection, which needs debugfs.
const DEBUGFS: &str = "/sys/kernel/debug";
/// kmalloc and kmem_cache_alloc.
const SLABS: Attribute = Attribute {
    name: "failslab",
    settings: &[("ignore-gfp-wait", "N"), ("cache-filter", "N")],
};
/// Pages, in blocks of any size.
const PAGES: Attribute = Attribute {
    name: "fail_page_alloc",
    settings: &[
        ("ignore-gfp-wait", "N"),
        ("ignore-gfp-highmem", "N"),
        ("min-order", "0"),
    ],
};
/// Copies from and to user space.
const COPIES: Attribute = Attribute {
    name: "fail_usercopy",
    settings: &[],
};
/// Settings of every kind: quiet, only for threads that ask for it.
const COMMON: &[(&str, &str)] = &[
    ("verbose", "0"),
    ("interval", "1"),
    ("space", "0"),
    ("task-filter", "Y"),
    ("probability", "100"),
];

/// The folder of one kind of faults, and what it does not ignore.
struct Attribute {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
}

/// Faults that a kind still has after it is set up: more than any sweep injects.
const PLENTY: u64 = 1_000_000_000;
/// The addresses of no function.
const NOWHERE: Range<u64> = 0..0;

/// One kind of faults that is set up.
struct Prepared {
    attribute: Attribute,
    /// The number of faults that it had still to inject when they were last counted.
    last: Cell<u64>,
}

/// The kernel's fault injection for the thread that made it.
pub struct Injector {
    nth: File,
    always: File,
    module: Range<u64>,
    slabs: Prepared,
    pages: Prepared,
    copies: Prepared,
    /// The kind that has points.
    chosen: Cell<Option<Kind>>,
}

/// Adds the file to an error.
fn named(path: impl AsRef<Path>) -> impl FnOnce(Error) -> Error {
    move |error| {
        let path = path.as_ref().display();
        Error::new(error.kind(), format!("{path}: {error}"))
    }
}

impl Attribute {
    fn path(&self, file: &str) -> PathBuf {
        Path::new(DEBUGFS).join(self.name).join(file)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path(file);
        fs::write(&path, value).map_err(named(path))
    }

    /// Sets two files to the ends of a range of addresses.
    fn set_range(&self, what: &str, addresses: &Range<u64>) -> Result<()> {
        self.set(&format!("{what}-start"), &format!("{:#x}", addresses.start))?;
        self.set(&format!("{what}-end"), &format!("{:#x}", addresses.end))
    }

    /// Sets the kind up, so far for no function; never for `rejected`.
    fn prepare(self, rejected: &Range<u64>) -> Result<Prepared> {
        self.set_range("require", &NOWHERE)?;
        self.set_range("reject", rejected)?;
        for (file, value) in self.settings.iter().chain(COMMON) {
            self.set(file, value)?;
        }
        self.set("times", &PLENTY.to_string())?;
        Ok(Prepared {
            attribute: self,
            last: Cell::new(PLENTY),
        })
    }
}

impl Prepared {
    /// Returns the number of faults since the last call.
    fn injected(&self) -> Result<u64> {
        // The file is not seekable.
        let path = self.attribute.path("times");
        let text = fs::read_to_string(&path).map_err(named(&path))?;
        let left = text.trim().parse().ok().filter(|&left: &u64| left > 0);
        let left = left.ok_or_else(|| {
            let file = path.display();
            Error::other(format!("{file} has no count of faults: {text}"))
        })?;
        Ok(self.last.replace(left) - left)
    }
}

impl Injector {
    /// Sets the kernel's fault injection up, for the module `bus1` and the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel has no fault injection, debugfs is not mounted, the caller is not root, or the
    /// module is not loaded.
    pub fn new() -> Result<Self> {
        for attribute in [SLABS, PAGES, COPIES] {
            let folder = attribute.path("");
            if !folder.is_dir() {
                return Err(Error::other(format!(
                    "no {}: this kernel has no fault injection; \
                     `cargo xtask test --debug-kernel sweep` runs the sweep in one that has",
                    folder.display()
                )));
            }
        }
        let module = module_text(&read("/proc/modules")?)?;
        let symbols = read("/proc/kallsyms")?;
        let symbols = Symbols::parse(&symbols);
        let open = |path: &str| {
            let file = File::options().read(true).write(true).open(path);
            file.map_err(named(path))
        };
        Ok(Self {
            nth: open("/proc/thread-self/fail-nth")?,
            always: open("/proc/thread-self/make-it-fail")?,
            module,
            slabs: SLABS.prepare(&symbols.kmemleak()?)?,
            pages: PAGES.prepare(&symbols.new_slab()?)?,
            copies: COPIES.prepare(&NOWHERE)?,
            chosen: Cell::new(None),
        })
    }

    fn prepared(&self, kind: Kind) -> &Prepared {
        match kind {
            Kind::Slabs => &self.slabs,
            Kind::Pages => &self.pages,
            Kind::Copies => &self.copies,
        }
    }

    /// Lets this kind have points, and no other.
    fn choose(&self, kind: Kind) -> Result<()> {
        if self.chosen.get() == Some(kind) {
            return Ok(());
        }
        for other in Kind::ALL {
            let addresses = if other == kind {
                &self.module
            } else {
                &NOWHERE
            };
            let attribute = &self.prepared(other).attribute;
            attribute.set_range("require", addresses)?;
        }
        self.chosen.set(Some(kind));
        Ok(())
    }

    // Neither file is seekable; both ignore the offset of a write.

    fn set_nth(&self, nth: u32) -> Result<()> {
        let text = nth.to_string();
        let written = self.nth.write_all_at(text.as_bytes(), 0);
        written.map_err(named("fail-nth"))
    }

    fn set_always(&self, always: bool) -> Result<()> {
        let text: &[u8] = if always { b"1" } else { b"0" };
        let written = self.always.write_all_at(text, 0);
        written.map_err(named("make-it-fail"))
    }
}

impl Faults for Injector {
    fn arm(&self, kind: Kind, mode: Mode, nth: u32) -> Result<()> {
        self.choose(kind)?;
        self.set_nth(nth)?;
        self.set_always(mode == Mode::Onwards)
    }

    fn disarm(&self) -> Result<Counts> {
        self.set_always(false)?;
        let mut text = [0; 16];
        let len = self.nth.read_at(&mut text, 0).map_err(named("fail-nth"))?;
        self.set_nth(0)?;
        let left = String::from_utf8_lossy(text[..len].trim_ascii());
        let injected = Counts {
            slabs: self.slabs.injected()?,
            pages: self.pages.injected()?,
            copies: self.copies.injected()?,
        };
        if injected.any() != (left == "0") {
            return Err(Error::other(format!(
                "the kernel counted {injected} that failed, and {left} points left to pass"
            )));
        }
        Ok(injected)
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(named(path))
}

/// Returns the addresses of the module from the text of `/proc/modules`.
fn module_text(modules: &str) -> Result<Range<u64>> {
    let line = modules.lines().find(|line| line.starts_with("bus1 "));
    let missing = || Error::other("bus1.ko is not loaded");
    let words: Vec<&str> = line.ok_or_else(missing)?.split_whitespace().collect();
    let size = words.get(1).and_then(|size| size.parse::<u64>().ok());
    let start = words.get(5).and_then(|address| hexadecimal(address));
    match (start, size) {
        (Some(start @ 1..), Some(size)) => Ok(start..start + size),
        _ => Err(Error::other(
            "/proc/modules shows no address of bus1; run the sweep as root",
        )),
    }
}

/// The functions of the kernel, without those of modules.
struct Symbols<'a> {
    /// Their addresses and names.
    functions: Vec<(u64, &'a str)>,
}

impl<'a> Symbols<'a> {
    /// Reads the text of `/proc/kallsyms`.
    fn parse(text: &'a str) -> Self {
        let mut functions = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(address), Some("t" | "T"), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            // The name of a module follows those of its own symbols.
            if words.next().is_none() {
                functions.push((hexadecimal(address).unwrap_or(0), name));
            }
        }
        Self { functions }
    }

    /// Returns the addresses of the function in which kmemleak allocates. Without kmemleak the
    /// range is empty.
    fn kmemleak(&self) -> Result<Range<u64>> {
        if !self
            .functions
            .iter()
            .any(|&(_, name)| name == "kmemleak_alloc")
        {
            return Ok(NOWHERE);
        }
        self.first_of(&["mem_pool_alloc", "__alloc_object", "__create_object"])
    }

    /// Returns the addresses of the function that makes pages into a slab.
    fn new_slab(&self) -> Result<Range<u64>> {
        self.first_of(&["alloc_slab_page", "allocate_slab", "new_slab"])
    }

    /// Returns the addresses of the first of these functions that the kernel has, up to the next
    /// symbol: the compiler may have inlined one into the next.
    ///
    /// The range has no other function. Functions of one source file are not all in one place, so a
    /// range from one to another can have most of the kernel in it, and rejects every point.
    fn first_of(&self, names: &[&str]) -> Result<Range<u64>> {
        let addresses_of = |wanted: &str| -> Vec<u64> {
            let named = self.functions.iter().filter(|(_, name)| *name == wanted);
            named.map(|&(address, _)| address).collect()
        };
        let found = names.iter().map(|name| addresses_of(name));
        let names = names.join(", ");
        let start = match found.into_iter().find(|found| !found.is_empty()).as_deref() {
            Some(&[0]) => {
                return Err(Error::other(
                    "/proc/kallsyms shows no addresses; run the sweep as root",
                ));
            }
            Some(&[start]) => start,
            _ => {
                return Err(Error::other(format!(
                    "/proc/kallsyms has none, or several, of {names}; \
                     sweep/injector.rs has to learn what this kernel calls it"
                )));
            }
        };
        let after = self.functions.iter().map(|&(address, _)| address);
        let end = after.filter(|&address| address > start).min();
        end.map(|end| start..end)
            .ok_or_else(|| Error::other(format!("/proc/kallsyms ends with one of {names}")))
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_by_its_address() {
        let modules = "other 4096 0 - Live 0xffffffffc0000000\n\
                       bus1 450560 1 - Live 0xffffffffc0100000 (O)\n";
        let found = module_text(modules).unwrap();
        assert_eq!(found, 0xffffffffc0100000..0xffffffffc0100000 + 450560);
        assert!(module_text("bus1x 4096 0 - Live 0xffffffffc0000000\n").is_err());
        assert!(module_text("bus1 4096 0 - Live 0x0000000000000000\n").is_err());
    }

    /// As in a kernel: one part of kmemleak far from the others.
    const SYMBOLS: &str = "ffffffff81000000 T startup_64\n\
                           ffffffff815b14e0 t allocate_slab\n\
                           ffffffff815b1b10 t add_partial\n\
                           ffffffff815edd50 t __create_object\n\
                           ffffffff815ede50 t __alloc_object\n\
                           ffffffff815ee0f0 t __link_object\n\
                           ffffffff81700000 T vfs_ioctl\n\
                           ffffffff81e65730 T kmemleak_alloc\n\
                           ffffffff8448aa08 b __alloc_object.__key\n\
                           ffffffffc0000000 t mem_pool_alloc\t[other]\n";

    fn kmemleak(symbols: &str) -> Result<Range<u64>> {
        Symbols::parse(symbols).kmemleak()
    }

    #[test]
    fn a_function_is_found_by_its_symbol_and_the_next() {
        assert_eq!(kmemleak("").unwrap(), NOWHERE);
        let found = kmemleak(SYMBOLS).unwrap();
        assert_eq!(found, 0xffffffff815ede50..0xffffffff815ee0f0);
        let inlined = SYMBOLS.replace("__alloc_object\n", "another\n");
        let found = kmemleak(&inlined).unwrap();
        assert_eq!(found, 0xffffffff815edd50..0xffffffff815ede50);
        let found = Symbols::parse(SYMBOLS).new_slab().unwrap();
        assert_eq!(found, 0xffffffff815b14e0..0xffffffff815b1b10);
    }

    #[test]
    fn a_function_that_is_not_found_is_an_error() {
        let hidden = "0000000000000000 T kmemleak_alloc\n0000000000000000 t mem_pool_alloc\n";
        assert!(kmemleak(hidden).is_err());
        assert!(kmemleak("ffffffff81e65730 T kmemleak_alloc\n").is_err());
        let two = format!("{SYMBOLS}ffffffff81800000 t __alloc_object\n");
        assert!(kmemleak(&two).is_err());
        assert!(Symbols::parse("").new_slab().is_err());
    }
}
