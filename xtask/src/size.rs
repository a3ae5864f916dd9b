// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts lines of code and unsafe blocks.
//!
//! Lines are counted by `lines.rs`, after everything that is compiled for tests alone has been taken
//! away. `unsafe` is counted as a token, so that it is seen inside macros too.

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

/// What the module is made of, and how many lines of code that may be together.
const COUNTED: &[&str] = &["core/src/bus", "kernel"];
const LIMIT: usize = 6000;

/// Folders whose unsafe blocks are counted; the first may have none.
const FOLDERS: &[&str] = &[
    "core",
    "kernel",
    "uapi",
    "kernel-shim",
    "embedded",
    "ioctl",
    "bus1",
    "tool",
    "conformance",
    "xtask",
];

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
    println!("  {:<14}{total:>6}  of at most {LIMIT}", "together");
    if total > LIMIT {
        eprintln!(
            "error: {total} lines are {} more than {LIMIT}",
            total - LIMIT
        );
        ok = false;
    }
    println!("unsafe blocks, and other uses of unsafe (fn, impl, trait, extern)");
    for (number, folder) in FOLDERS.iter().enumerate() {
        let path = repo::dir().join(folder);
        ensure!(path.is_dir(), "the folder {folder}/ is missing");
        let count = unsafe_of(&path)?;
        println!("  {folder:<14}{:>6}{:>6}", count.blocks, count.others);
        if number == 0 && count.blocks + count.others > 0 {
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

#[derive(Default)]
struct Lines {
    rust: usize,
    c: usize,
}

/// Lines of code below a folder.
fn lines_of(folder: &Path) -> Result<Lines> {
    let files = files(folder)?;
    let mut texts = Vec::new();
    let mut test_files = BTreeSet::new();
    for file in files {
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if file.extension().is_some_and(|extension| extension == "rs") {
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
        let is_test = test_files.contains(&file) || file.ends_with("tests.rs");
        match file.extension().and_then(|extension| extension.to_str()) {
            _ if is_test => (),
            Some("rs") => lines.rust += lines::count(&text, Language::Rust),
            Some("c" | "h") => lines.c += lines::count(&text, Language::C),
            _ => (),
        }
    }
    Ok(lines)
}

/// What of a file is compiled for tests alone.
#[derive(Default)]
struct Tests {
    lines: Vec<RangeInclusive<usize>>,
    modules: Vec<TestModule>,
}

/// A module that lives in a file of its own.
struct TestModule {
    name: String,
    path: Option<String>,
}

impl TestModule {
    /// Where it may be, given the file that declares it.
    fn files(&self, parent: &Path) -> Vec<PathBuf> {
        let dir = parent.parent().unwrap_or(Path::new(""));
        if let Some(path) = &self.path {
            return vec![dir.join(path)];
        }
        let stem = parent.file_stem().unwrap_or_default();
        let below = dir.join(stem);
        let dir = if ["mod", "lib", "main"].iter().any(|name| stem == *name) {
            dir
        } else {
            &below
        };
        vec![
            dir.join(format!("{}.rs", self.name)),
            dir.join(&self.name).join("mod.rs"),
        ]
    }
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
            if module.content.is_none() {
                let path = module.attrs.iter().find_map(path_attribute);
                self.modules.push(TestModule {
                    name: module.ident.to_string(),
                    path,
                });
            }
        }
        self.skip(item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_test(&item.attrs) {
            self.skip(item);
        }
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether one of the attributes is `#[cfg(test)]` or a `cfg(all(...))` with `test` in it.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .any(|attribute| {
            let mut test = false;
            // A predicate of another form is not one for tests.
            let _ = attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("test") {
                    test = true;
                    Ok(())
                } else if meta.path.is_ident("all") {
                    meta.parse_nested_meta(|meta| {
                        test |= meta.path.is_ident("test");
                        skip_rest(meta.input)
                    })
                } else {
                    skip_rest(meta.input)
                }
            });
            test
        })
}

/// Leaves the rest of one predicate unread.
fn skip_rest(input: syn::parse::ParseStream) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(syn::Token![,]) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    let syn::Expr::Lit(literal) = &pair.value else {
        return None;
    };
    let syn::Lit::Str(text) = &literal.lit else {
        return None;
    };
    pair.path.is_ident("path").then(|| text.value())
}

/// A text without the given lines, which count from 1.
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
    for file in files(folder)? {
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let tokens: TokenStream = text
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
