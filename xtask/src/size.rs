// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts lines of code and uses of `unsafe`, and names long files.
//!
//! Lines of code are counted by `lines.rs`, without items that are compiled for tests only. Each
//! token `unsafe` counts, so that those in macros are seen too.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{ensure, Context, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use walkdir::WalkDir;

use crate::lines::{self, Language};
use crate::repo;
use crate::source::{attributes, is_test, OuterModule};

/// The folders of the module's sources.
const COUNTED: &[&str] = &["core/src/bus", "kernel"];
/// The files of these that only serve what goes beyond the interface of 2016. They are counted apart.
const BEYOND: &[&str] = &[
    "core/src/bus/command/exchange.rs",
    "core/src/bus/command/quota.rs",
    "core/src/bus/command/room.rs",
    "core/src/bus/object/info.rs",
    "core/src/bus/object/room.rs",
    "core/src/bus/object/waits.rs",
    "core/src/bus/quota/query.rs",
    "core/src/bus/quota/waits.rs",
    "kernel/fdinfo.rs",
    "kernel/sleep.rs",
];
/// How many lines of code the others may have together.
const LIMIT: usize = 6600;
/// How many lines of code the others should have together.
const AIM: usize = 6000;
/// How many lines of code all may have together.
const LIMIT_OF_ALL: usize = 8500;

/// The folders whose files should be short, and how many lines these should have at most, comments
/// included.
const SHORT: &[&str] = &["core", "kernel"];
const LONG: usize = 500;

/// The folder without any use of `unsafe`.
const SAFE: &str = "core";

/// Prints the counts; the exit status tells whether they keep their limits.
pub fn run() -> Result<ExitCode> {
    let mut ok = true;
    let mut total = 0;
    println!("lines of code, without tests, comments and blank lines");
    for folder in COUNTED {
        let lines = lines_of(&repo::dir().join(folder))?;
        println!(
            "  {folder:<14}{:>6}  (Rust {}, C {})",
            lines.rust + lines.c,
            lines.rust,
            lines.c
        );
        total += lines.rust + lines.c;
    }
    let mut beyond = 0;
    for file in BEYOND {
        beyond += lines_of(&repo::dir().join(file))?.rust;
    }
    let bus = total - beyond;
    let counts = [
        ("the bus", bus, LIMIT),
        ("beyond it", beyond, LIMIT_OF_ALL),
        ("together", total, LIMIT_OF_ALL),
    ];
    for (name, lines, limit) in counts {
        println!("  {name:<14}{lines:>6}  (limit {limit})");
        if lines > limit {
            let excess = lines - limit;
            eprintln!("error: {name}: {lines} lines of code are {excess} more than the limit");
            ok = false;
        }
    }
    println!("  the aim for the bus is {AIM}");
    for folder in SHORT {
        for (file, lines) in long_files(&repo::dir().join(folder))? {
            let file = file.strip_prefix(repo::dir())?.display();
            println!("  {file} has {lines} lines with its comments, more than {LONG}");
        }
    }
    println!("unsafe blocks, and other uses of unsafe (fn, impl, trait, extern)");
    for folder in folders(repo::dir())? {
        let count = unsafe_of(&repo::dir().join(&folder))?;
        println!("  {folder:<14}{:>6}{:>6}", count.blocks, count.others);
        if folder == SAFE && count.blocks + count.others > 0 {
            eprintln!("error: {folder}/ may not use unsafe");
            ok = false;
        }
    }
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the names of the folders with Rust sources.
fn folders(repo: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repo)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let skipped = name == "target" || name.starts_with('.');
        if !skipped
            && entry.file_type()?.is_dir()
            && files(&entry.path())?.iter().any(|file| is_rust(file))
        {
            names.push(name);
        }
    }
    ensure!(
        names.iter().any(|name| name == SAFE),
        "the folder {SAFE}/ is missing"
    );
    names.sort();
    Ok(names)
}

fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

/// Returns the Rust files below a folder that are too long, with their lines that are not empty.
fn long_files(folder: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let mut long = Vec::new();
    for file in files(folder)?.into_iter().filter(|file| is_rust(file)) {
        let text = read(&file)?;
        let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
        if lines > LONG {
            long.push((file, lines));
        }
    }
    Ok(long)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[derive(Default)]
struct Lines {
    rust: usize,
    c: usize,
}

/// Tells whether a file is one of tests by its name, as the modules of test modules are.
fn is_named_as_test(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == "tests.rs" || name.ends_with("_tests.rs"))
}

/// Counts the lines of code below a folder.
fn lines_of(folder: &Path) -> Result<Lines> {
    let files = files(folder)?;
    let mut texts = Vec::new();
    let mut test_files = BTreeSet::new();
    for file in files {
        let text = read(&file)?;
        if is_rust(&file) {
            let tests =
                find_tests(&text).with_context(|| format!("{} is not Rust", file.display()))?;
            test_files.extend(tests.modules.iter().flat_map(|module| module.files(&file)));
            texts.push((file, without(&text, &tests.lines)));
        } else {
            texts.push((file, text));
        }
    }
    let mut lines = Lines::default();
    for (file, text) in texts {
        let is_test = test_files.contains(&file) || is_named_as_test(&file);
        match file.extension().and_then(|extension| extension.to_str()) {
            _ if is_test => (),
            Some("rs") => lines.rust += lines::count(&text, Language::Rust),
            Some("c" | "h") => lines.c += lines::count(&text, Language::C),
            _ => (),
        }
    }
    Ok(lines)
}

/// The parts of a file that are compiled for tests only.
#[derive(Default)]
struct Tests {
    lines: Vec<RangeInclusive<usize>>,
    modules: Vec<OuterModule>,
}

fn find_tests(text: &str) -> Result<Tests> {
    let file = syn::parse_file(text)?;
    let mut tests = Tests::default();
    tests.visit_file(&file);
    Ok(tests)
}

impl Tests {
    fn skip(&mut self, item: &impl Spanned) {
        let span = item.span();
        self.lines.push(span.start().line..=span.end().line);
    }
}

impl<'ast> Visit<'ast> for Tests {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test(attributes(item)) {
            return visit::visit_item(self, item);
        }
        if let syn::Item::Mod(module) = item {
            self.modules.extend(OuterModule::declared_by(module));
        }
        self.skip(item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_test(&item.attrs) {
            self.skip(item);
        }
    }
}

/// Returns a text without the given lines, which count from 1.
fn without(text: &str, ranges: &[RangeInclusive<usize>]) -> String {
    let keep = |number: usize| !ranges.iter().any(|range| range.contains(&number));
    let lines = text
        .lines()
        .enumerate()
        .filter(|(index, _)| keep(index + 1));
    lines.map(|(_, line)| format!("{line}\n")).collect()
}

#[derive(Default, Debug, PartialEq)]
struct Unsafe {
    blocks: usize,
    others: usize,
}

fn unsafe_of(folder: &Path) -> Result<Unsafe> {
    let mut count = Unsafe::default();
    for file in files(folder)?.into_iter().filter(|file| is_rust(file)) {
        let tokens: TokenStream = read(&file)?
            .parse()
            .map_err(|error| anyhow::anyhow!("{} is not Rust: {error}", file.display()))?;
        count_unsafe(tokens, &mut count);
    }
    Ok(count)
}

fn count_unsafe(tokens: TokenStream, count: &mut Unsafe) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => count_unsafe(group.stream(), count),
            TokenTree::Ident(word) if word == "unsafe" => match tokens.peek() {
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    count.blocks += 1;
                }
                Some(_) => count.others += 1,
                None => (),
            },
            _ => (),
        }
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_comments_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "one.rs",
            "//! Doc.\n\n/// More.\nfn a() {\n    // Why.\n    b();\n}\n\
             #[cfg(test)]\nmod tests {\n    fn t() {}\n}\n\
             #[cfg(all(test, not(other)))]\n#[path = \"far.rs\"]\nmod far;\n\
             #[cfg(not(test))]\nfn c() {}\n",
        );
        write("far.rs", "fn long() {}\nfn longer() {}\n");
        write("two.c", "/* x */\nint a;\n\nint b;\n");
        let lines = lines_of(dir.path()).unwrap();
        assert_eq!((lines.rust, lines.c), (5, 2));
    }

    #[test]
    fn comments_count_where_files_are_long() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
        write("long.rs", "// Why.\n\n".repeat(LONG + 1));
        write("short.rs", "// Why.\n\n".repeat(LONG));
        write("long.c", "/* Why. */\n".repeat(LONG + 1));
        let long = long_files(dir.path()).unwrap();
        assert_eq!(long, [(dir.path().join("long.rs"), LONG + 1)]);
    }

    #[test]
    fn folders_with_rust_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["core/src/lib.rs", "bench/a.rs", "docs/a.md", "target/a.rs"] {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        assert_eq!(folders(dir.path()).unwrap(), ["bench", "core"]);
        fs::remove_dir_all(dir.path().join("core")).unwrap();
        assert!(folders(dir.path()).is_err());
    }

    #[test]
    fn unsafe_is_seen_in_macros_but_not_in_comments() {
        let text =
            "// unsafe {}\nfn a() { m!(unsafe { b() }); unsafe { c() } }\nunsafe fn d() {}\n";
        let mut count = Unsafe::default();
        count_unsafe(text.parse().unwrap(), &mut count);
        assert_eq!(
            count,
            Unsafe {
                blocks: 2,
                others: 1
            }
        );
    }
}
