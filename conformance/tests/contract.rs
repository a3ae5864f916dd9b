// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cases and the documents agree.
//!
//! - Every function with `#[case]` is registered.
//! - Every requirement that a case cites has an anchor in the documents.
//! - Every anchor is cited by a case, or stands in the document's table "Requirements without a
//!   case".
//! - The cases that cite a row of a table of errors name every errno of that row in their code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bus1_conformance::cases::{self, Case};

/// The documents whose anchors are requirements.
const DOCUMENTS: [&str; 2] = ["abi.md", "ordering.md"];

/// Heading of the table of requirements that no case cites.
const UNCHECKED: &str = "## Requirements without a case";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One of the documents, split before its table of unchecked requirements.
struct Document {
    name: &'static str,
    requirements: String,
    unchecked: String,
}

impl Document {
    fn all() -> Vec<Self> {
        let documents = DOCUMENTS.into_iter().map(|name| {
            let text = read(folder().join("../docs").join(name));
            let parts = text.split_once(UNCHECKED);
            let (requirements, unchecked) =
                parts.unwrap_or_else(|| panic!("docs/{name} has no heading {UNCHECKED:?}"));
            Self {
                name,
                requirements: requirements.to_owned(),
                unchecked: unchecked.to_owned(),
            }
        });
        documents.collect()
    }

    /// Returns the name by which cases cite an anchor.
    fn requirement(&self, anchor: &str) -> String {
        format!("{}#{anchor}", self.name)
    }

    /// Returns the requirements that no case can check.
    fn unchecked(&self) -> BTreeSet<String> {
        let anchors = between(&self.unchecked, "](#", ")");
        anchors.map(|anchor| self.requirement(anchor)).collect()
    }

    /// Returns the rows of all tables with a column `errno`.
    fn errno_rows(&self) -> Vec<ErrnoRow> {
        let mut rows = Vec::new();
        let mut column = None;
        for line in self.requirements.lines() {
            let Some(row) = line.strip_prefix('|') else {
                column = None;
                continue;
            };
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            match column {
                None => {
                    let errno = cells.iter().position(|&cell| cell == "errno");
                    // A table without that column is passed over.
                    column = Some(errno.unwrap_or(usize::MAX));
                }
                Some(column) => {
                    let cell = cells.get(column).copied().unwrap_or_default();
                    let errnos: Vec<_> = between(cell, "`", "`").map(str::to_owned).collect();
                    if !errnos.is_empty() {
                        let anchor = anchors(cell).next().map(|it| self.requirement(it));
                        let line = line.to_owned();
                        rows.push(ErrnoRow {
                            line,
                            anchor,
                            errnos,
                        });
                    }
                }
            }
        }
        rows
    }
}

/// A row of a table of errors.
struct ErrnoRow {
    line: String,
    anchor: Option<String>,
    errnos: Vec<String>,
}

/// Returns the texts between `open` and the next `close`.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, behind) = rest.split_once(open)?;
        let (found, behind) = behind.split_once(close)?;
        rest = behind;
        Some(found)
    })
}

fn anchors(text: &str) -> impl Iterator<Item = &str> {
    between(text, "<a id=\"", "\"></a>")
}

/// Returns the cases that cite each requirement.
fn citations() -> BTreeMap<String, Vec<&'static Case>> {
    let mut citations = BTreeMap::<_, Vec<_>>::new();
    for case in cases::all() {
        for &requirement in case.requirements {
            let of = citations.entry(requirement.to_owned()).or_default();
            of.push(case);
        }
    }
    citations
}

/// Returns whether the code of a case names an errno, as `E::NOENT` or `libc::ENOENT`.
fn names(case: &Case, errno: &str) -> bool {
    // Two have other names in Rust.
    let short = match errno {
        "E2BIG" => "TOOBIG",
        "EACCES" => "ACCESS",
        _ => errno.strip_prefix('E').unwrap_or(errno),
    };
    let wanted = [
        format!("E::{short}"),
        format!("Errno::{short}"),
        format!("libc::{errno}"),
    ];
    let source = case.source.replace(" :: ", "::");
    let part_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    source
        .split(|c| !part_of_path(c))
        .any(|path| wanted.iter().any(|wanted| wanted == path))
}

/// Fails with the list, unless it is empty.
#[track_caller]
fn expect_none(wrong: &[String], rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

#[test]
fn every_case_is_registered() {
    let folder = folder().join("src/cases");
    let mut written = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let subject = path.file_stem().unwrap().to_str().unwrap().to_owned();
        for (number, line) in read(path).lines().enumerate() {
            if line.starts_with("#[case(") {
                written.insert((subject.clone(), number as u32 + 1));
            }
        }
    }
    let registered = cases::all().into_iter();
    let registered = registered.map(|case| (case.subject().to_owned(), case.line));
    assert_eq!(registered.collect::<BTreeSet<_>>(), written);
}

#[test]
fn anchors_are_unique() {
    for document in Document::all() {
        let mut seen = BTreeSet::new();
        let twice = anchors(&document.requirements).filter(|anchor| !seen.insert(*anchor));
        let twice: Vec<_> = twice.map(|anchor| document.requirement(anchor)).collect();
        expect_none(&twice, "each anchor stands once");
    }
}

#[test]
fn cited_requirements_exist() {
    let documents = Document::all();
    let existing: BTreeSet<_> = documents
        .iter()
        .flat_map(|document| {
            anchors(&document.requirements).map(|anchor| document.requirement(anchor))
        })
        .collect();
    let mut wrong = Vec::new();
    for (requirement, cases) in citations() {
        if !existing.contains(&requirement) {
            wrong.push(format!("{requirement}, cited by {}", cases[0].full_name()));
        }
    }
    let unchecked = documents.iter().flat_map(Document::unchecked);
    wrong.extend(unchecked.filter(|requirement| !existing.contains(requirement)));
    expect_none(&wrong, "a cited requirement has an anchor in docs/");
}

#[test]
fn every_requirement_has_a_case() {
    let citations = citations();
    let mut wrong = Vec::new();
    for document in Document::all() {
        let unchecked = document.unchecked();
        for anchor in anchors(&document.requirements) {
            let requirement = document.requirement(anchor);
            match (
                citations.contains_key(&requirement),
                unchecked.contains(&requirement),
            ) {
                (true, false) | (false, true) => (),
                (false, false) => wrong.push(format!("{requirement} is cited by no case")),
                (true, true) => wrong.push(format!("{requirement} is cited, and listed as not")),
            }
        }
    }
    expect_none(
        &wrong,
        "each requirement has a case, or a reason to have none",
    );
}

#[test]
fn every_errno_has_a_case() {
    let citations = citations();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for document in Document::all() {
        let unchecked = document.unchecked();
        for row in document.errno_rows() {
            rows += 1;
            let Some(anchor) = row.anchor else {
                wrong.push(format!("no anchor in the row {}", row.line));
                continue;
            };
            if unchecked.contains(&anchor) {
                continue;
            }
            let cases = citations.get(&anchor).map_or(&[][..], Vec::as_slice);
            for errno in row.errnos {
                if !cases.iter().any(|case| names(case, &errno)) {
                    wrong.push(format!("no case that cites {anchor} names {errno}"));
                }
            }
        }
    }
    assert!(
        rows >= 60,
        "only {rows} rows of tables of errors were found"
    );
    expect_none(&wrong, "each errno of a table has a case that expects it");
}

#[test]
fn an_errno_is_a_whole_path() {
    let case = |source| Case {
        source,
        ..*cases::all()[0]
    };
    assert!(names(
        &case("assert_eq! (sent, Err(E::MSGSIZE));"),
        "EMSGSIZE"
    ));
    assert!(names(&case("errors [0] == libc :: ENXIO"), "ENXIO"));
    assert!(names(&case("Err(E::TOOBIG)"), "E2BIG"));
    assert!(!names(&case("Err(E::INVAL)"), "EMSGSIZE"));
    assert!(!names(&case("Err(E::MSGSIZES)"), "EMSGSIZE"));
    assert!(!names(&case("Err(E::MSG)"), "EMSGSIZE"));
}
