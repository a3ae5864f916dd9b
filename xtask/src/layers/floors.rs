// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list of floors in a root file, which readers of the code and `cargo xtask layers` share.
//!
//! ```text
//! // Floors, bottom to top; `cargo xtask layers` checks that no file imports a higher one:
//! //   id, limits
//! //   error: what can go wrong
//! //   node, peer (together)
//! ```

use anyhow::{ensure, Result};

/// The words that the heading of a list begins with.
const HEADING: &str = "Floors, bottom to top";
/// The mark of a floor whose modules import each other.
const TOGETHER: &str = "(together)";

/// One line of the list: modules that do not import each other.
#[derive(Debug, PartialEq)]
pub struct Floor {
    pub names: Vec<String>,
    /// Whether the modules of this floor import each other, circles included.
    pub together: bool,
}

/// Returns the floors that the comments of a source list, bottom first, or `None` if there is no
/// list.
///
/// # Errors
///
/// Fails if there are two lists, if a list is empty, or if a line of it has anything except names
/// of modules.
pub fn parse(text: &str) -> Result<Option<Vec<Floor>>> {
    let mut lists = Vec::new();
    let mut lines = text.lines().map(comment);
    while let Some(line) = lines.next() {
        if !line.is_some_and(|line| line.starts_with(HEADING)) {
            continue;
        }
        ensure!(
            line.is_some_and(|line| line.ends_with(':')),
            "the heading of the floors must end with a colon"
        );
        let mut floors = Vec::new();
        let mut first = true;
        for line in lines.by_ref() {
            match line {
                Some("") if first => (),
                Some("") | None => break,
                Some(line) => floors.push(floor(line)?),
            }
            first = false;
        }
        ensure!(!floors.is_empty(), "the list of floors is empty");
        lists.push(floors);
    }
    ensure!(lists.len() <= 1, "there are two lists of floors");
    Ok(lists.pop())
}

/// Returns the text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.strip_prefix('!').unwrap_or(text).trim())
}

/// Reads one line of a list.
fn floor(line: &str) -> Result<Floor> {
    let names = match line.split_once([' ', '.']) {
        Some((mark, rest)) if mark == "-" || mark.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line,
    };
    let names = names.split_once(':').map_or(names, |(names, _)| names);
    let names = names.trim();
    let bare = names.strip_suffix(TOGETHER);
    let names: Vec<String> = bare
        .unwrap_or(names)
        .split(',')
        .map(|name| name.trim().trim_matches('`').to_owned())
        .collect();
    let is_name = |name: &String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    ensure!(
        names.iter().all(is_name),
        "`{line}` is no floor: write names of modules, separated by commas, and close the list \
         with an empty line"
    );
    Ok(Floor {
        names,
        together: bare.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Vec<String>> {
        let floors = parse(text).unwrap().unwrap();
        floors.into_iter().map(|floor| floor.names).collect()
    }

    #[test]
    fn a_list_may_be_a_comment_or_documentation() {
        let plain = "//! Doc.\n\n// Floors, bottom to top; checked:\n//   a, b\n//   c\nmod a;\n";
        assert_eq!(names(plain), [vec!["a", "b"], vec!["c"]]);
        let doc = "//! Floors, bottom to top:\n//!\n//! 1. `a`, `b`: small, and pure\n//! - `c`\n\
                   //!\n//! More: text.\n";
        assert_eq!(names(doc), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(parse("// No list.\nmod a;\n").unwrap(), None);
    }

    #[test]
    fn a_floor_may_be_marked() {
        let floors = parse("// Floors, bottom to top:\n// a, b (together): a pair\n// c\n");
        let floors = floors.unwrap().unwrap();
        assert!(floors[0].together && !floors[1].together);
        assert_eq!(floors[0].names, ["a", "b"]);
    }

    #[test]
    fn a_list_that_cannot_be_read_fails() {
        for text in [
            "// Floors, bottom to top\n// a\n",
            "// Floors, bottom to top:\nmod a;\n",
            "// Floors, bottom to top:\n// a < b\n",
            "// Floors, bottom to top:\n// a,\n",
            "// Floors, bottom to top:\n// a\n\n// Floors, bottom to top:\n// b\n",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
