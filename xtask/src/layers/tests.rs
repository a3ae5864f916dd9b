// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small trees of sources, and what is found wrong in them.

use std::fs;
use std::path::Path;

use super::check;
use super::tree::Tree;

/// Returns the faults of a tree with these files, whose root is `src/lib.rs`.
fn faults_at(at: Option<&'static str>, files: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = dir.path().join("src").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let tree = Tree::read(dir.path(), Path::new("src/lib.rs"), at).unwrap();
    check(&tree, &tree.edges())
}

fn faults(files: &[(&str, &str)]) -> Vec<String> {
    faults_at(None, files)
}

/// A root with two floors.
const ROOT: &str = "// Floors, bottom to top:\n//   low\n//   high\nmod high;\nmod low;\n";

/// Returns the faults of a lower file with this text.
fn low(text: &str) -> Vec<String> {
    faults(&[
        ("lib.rs", ROOT),
        ("high.rs", "pub struct High;\n"),
        ("low.rs", text),
    ])
}

#[track_caller]
fn assert_one(faults: &[String], part: &str) {
    assert!(
        matches!(faults, [fault] if fault.contains(part)),
        "{faults:#?} is not one fault with {part}"
    );
}

#[test]
fn an_import_that_goes_down_is_allowed() {
    let files = [
        ("lib.rs", ROOT),
        (
            "high.rs",
            "use super::low::Low;\nuse std::fmt;\npub struct High(Low);\n",
        ),
        ("low.rs", "pub struct Low;\n"),
    ];
    assert_eq!(faults(&files), [""; 0]);
}

#[test]
fn an_import_that_goes_up_fails_however_it_is_written() {
    for text in [
        "use super::high::High;\n",
        "use super::high;\n",
        "use crate::high::{High as Other};\n",
        "use crate::{high::*};\n",
        "use super::{self as root}; fn f(_: root::high::High) {}\n",
        "use super::*; fn f(_: high::High) {}\n",
        "fn f(_: super::high::High) {}\n",
        "fn f() { let _ = crate::high::High; }\n",
        "impl crate::high::Trait for () {}\n",
        "fn f() { vec![1, super::high::High::one()]; }\n",
        "fn f() { assert!(a.b == crate::high::High); }\n",
        "macro_rules! m { () => { $crate::high::High } }\n",
        "mod inner { fn f(_: super::super::high::High) {} }\n",
        "mod inner { use super::super::high::High; }\n",
        "fn f() { use super::high::High; }\n",
        "pub use super::high::High;\n",
    ] {
        assert_one(&low(text), "src/low.rs:1 imports src/high.rs");
    }
}

#[test]
fn what_only_looks_like_an_import_is_none() {
    for text in [
        "//! See [`super::high`].\n",
        "/// [`High`](super::high::High)\nfn f() {}\n",
        "#[cfg(test)]\nuse super::high::High;\n",
        "#[cfg(test)]\nmod tests { use super::super::high::High; }\n",
        "impl X { #[cfg(test)] fn f() -> super::high::High { todo!() } }\n",
        "use ::high::High;\n",
        "use high::High;\n",
        "fn f(high: u8) { g(high); h!(high); h!(a.high::<u8>()); }\n",
        "mod high { pub struct High; }\nuse self::high::High;\n",
        "mod high {}\nmod inner { use super::high::High; }\n",
    ] {
        assert_eq!(low(text), [""; 0], "{text}");
    }
}

#[test]
fn a_test_module_in_a_file_of_its_own_is_not_read() {
    let tests = ("low/tests.rs", "use super::super::high::High;\n");
    let low = ("low.rs", "#[cfg(test)]\nmod tests;\n");
    assert_eq!(
        faults(&[("lib.rs", ROOT), ("high.rs", ""), low, tests]),
        [""; 0]
    );
}

#[test]
fn a_reexport_is_followed_and_is_no_import_of_the_root() {
    let root = format!("{ROOT}pub use high::High;\npub use low::Low;\n");
    let high = ("high.rs", "use super::Low;\npub struct High(Low);\n");
    let files = [("lib.rs", &*root), high, ("low.rs", "pub struct Low;\n")];
    assert_eq!(faults(&files), [""; 0]);
    for text in [
        "use super::High;\n",
        "use crate::High as X;\n",
        "fn f(_: crate::High) {}\n",
    ] {
        assert_one(
            &faults(&[("lib.rs", &root), high, ("low.rs", text)]),
            "src/low.rs:1 imports src/high.rs, which is on a higher floor",
        );
    }
}

#[test]
fn what_a_root_defines_is_for_all_unless_the_root_uses_them() {
    let defines = format!("{ROOT}const ONE: u8 = 1;\n");
    let low = ("low.rs", "use super::ONE;\npub fn f() {}\n");
    assert_eq!(
        faults(&[("lib.rs", &defines), ("high.rs", ""), low]),
        [""; 0]
    );
    let uses = format!("{defines}fn f() {{ low::f() }}\n");
    assert_one(
        &faults(&[("lib.rs", &uses), ("high.rs", ""), low]),
        "lib.rs -> low -> lib.rs",
    );
}

#[test]
fn a_module_within_a_file_is_the_file() {
    let low = (
        "low.rs",
        "mod inner { use super::below::X; }\nmod below;\npub fn f() {}\n",
    );
    let below = ("low/below.rs", "use super::f;\n");
    assert_one(
        &faults(&[("lib.rs", ROOT), ("high.rs", ""), low, below]),
        "low.rs -> below -> low.rs",
    );
}

#[test]
fn a_circle_is_named() {
    let root = "mod a;\nmod b;\nmod c;\n";
    let files = [
        ("lib.rs", root),
        ("a.rs", "use super::b::B;\n"),
        ("b.rs", "\nuse super::c::C;\n"),
        ("c.rs", "use super::a::A;\n"),
    ];
    let found = faults(&files);
    assert_one(&found, "a circle in src/lib.rs: a -> b -> c -> a");
    assert_one(&found, "src/b.rs:2 imports src/c.rs");
}

#[test]
fn folders_are_floors_and_their_files_make_no_circle() {
    let root =
        "//! Floors, bottom to top:\n//!\n//! 1. `low`\n//! 2. `high`\nmod high;\nmod low;\n";
    let base = [
        ("lib.rs", root),
        ("high.rs", "use super::low::x::X;\n"),
        ("low/mod.rs", "mod x;\nmod y;\npub use x::X;\n"),
    ];
    let with = |x, y| faults(&[&base[..], &[("low/x.rs", x), ("low/y.rs", y)]].concat());
    assert_eq!(with("", "use super::X;\n"), [""; 0]);
    assert_one(
        &with("use super::super::high::High;\n", ""),
        "src/low/x.rs:1 imports src/high.rs",
    );
    assert_one(
        &with("use super::y::Y;\n", "use super::X;\n"),
        "a circle in src/low/mod.rs: x -> y -> x",
    );
}

#[test]
fn a_list_names_each_module_once() {
    let list = |names: &str| {
        let root = format!("// Floors, bottom to top:\n// {names}\nmod a;\nmod b;\n");
        faults(&[("lib.rs", &root), ("a.rs", ""), ("b.rs", "")])
    };
    assert_eq!(list("a, b"), [""; 0]);
    assert_one(&list("a"), "declares b, which is in no line");
    assert_one(&list("a, b, c"), "lists the floor of c");
    assert_one(&list("a, b, a"), "lists a twice");
}

#[test]
fn modules_of_one_floor_are_apart_unless_they_are_said_to_be_together() {
    let list = |mark: &str, a: &str, b: &str| {
        let root = format!("// Floors, bottom to top:\n// a, b{mark}\nmod a;\nmod b;\n");
        faults(&[("lib.rs", &root), ("a.rs", a), ("b.rs", b)])
    };
    let (a, b) = ("use super::b::B;\n", "use super::a::A;\n");
    assert_one(&list("", a, ""), "which is on the same floor");
    assert_eq!(list(" (together)", a, b), [""; 0]);
    let apart = list(" (together)", a, "");
    assert!(matches!(&apart[..], [a, b] if a.contains("a is in no") && b.contains("b is in no")));
}

#[test]
fn a_tree_within_a_crate_is_found_by_its_name() {
    let with = |low| {
        let high = ("high.rs", "use crate::abi::Cmd;\nuse super::super::abi;\n");
        faults_at(Some("bus"), &[("lib.rs", ROOT), high, ("low.rs", low)])
    };
    assert_eq!(with("use crate::high::High;\n"), [""; 0]);
    for text in [
        "use crate::bus::high::High;\n",
        "use super::super::bus::high::High;\n",
    ] {
        assert_one(&with(text), "src/low.rs:1 imports src/high.rs");
    }
}

#[test]
fn a_module_of_another_folder_is_named_and_not_read() {
    let root =
        "// Floors, bottom to top:\n// bus\n// a\n#[path = \"../core.rs\"]\nmod bus;\nmod a;\n";
    let bus = ("../core.rs", "use super::a::A;\n");
    assert_eq!(
        faults(&[("lib.rs", root), ("a.rs", "use crate::bus::x::X;\n"), bus]),
        [""; 0]
    );
    let upside_down = root.replace("// bus\n// a\n", "// a\n// bus\n");
    assert_one(
        &faults(&[
            ("lib.rs", &upside_down),
            ("a.rs", "use crate::bus::x::X;\n"),
            bus,
        ]),
        "which is on a higher floor",
    );
}

#[test]
fn a_macro_is_found_where_it_is_defined() {
    let high = (
        "high.rs",
        "#[macro_export]\nmacro_rules! tall { () => {} }\n",
    );
    for text in ["tall!();\n", "crate::tall!();\n", "use crate::tall;\n"] {
        assert_one(
            &faults(&[("lib.rs", ROOT), high, ("low.rs", text)]),
            "src/low.rs:1 imports src/high.rs",
        );
    }
}
