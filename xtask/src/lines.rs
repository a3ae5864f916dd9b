// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the lines of a source file that hold code.
//!
//! A line counts if it has anything except white space outside of comments. A line with code and a
//! comment counts, and so do the lines of a string literal over several lines, except empty ones.

/// A language of source files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    C,
}

/// The context in which a line begins.
#[derive(Clone, Copy)]
enum Within {
    Code,
    /// A block comment, with the depth of its nesting.
    Comment(usize),
    /// A string literal.
    Text,
    /// A raw string literal, which ends at a quote with this many hashes.
    Raw(usize),
}

/// Counts the lines of code in `text`.
pub fn count(text: &str, language: Language) -> usize {
    let mut within = Within::Code;
    text.lines()
        .filter(|line| is_code(line.as_bytes(), language, &mut within))
        .count()
}

/// Tells whether a line has code, and sets `within` to the context of the next line.
fn is_code(line: &[u8], language: Language, within: &mut Within) -> bool {
    let mut found = false;
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        let rest = &line[at..];
        let (next, step) = match *within {
            Within::Code if rest.starts_with(b"//") => break,
            Within::Code if rest.starts_with(b"/*") => (Within::Comment(1), 2),
            Within::Code if byte == b'"' => (text(&line[..at], language), 1),
            Within::Code if byte == b'\'' => (Within::Code, character(rest, language)),
            Within::Comment(1) if rest.starts_with(b"*/") => (Within::Code, 2),
            Within::Comment(depth) if rest.starts_with(b"*/") => (Within::Comment(depth - 1), 2),
            Within::Comment(depth) if language == Language::Rust && rest.starts_with(b"/*") => {
                (Within::Comment(depth + 1), 2)
            }
            Within::Text if byte == b'\\' => (Within::Text, 2),
            Within::Text if byte == b'"' => (Within::Code, 1),
            Within::Raw(n) if byte == b'"' && hashes(rest[1..].iter()) >= n => (Within::Code, 1),
            same => (same, 1),
        };
        let comment = matches!(*within, Within::Comment(_)) || matches!(next, Within::Comment(_));
        found |= !comment && !byte.is_ascii_whitespace();
        *within = next;
        at += step;
    }
    found
}

fn hashes<'a>(bytes: impl Iterator<Item = &'a u8>) -> usize {
    bytes.take_while(|&&byte| byte == b'#').count()
}

/// Returns the context that a quote after `before` opens.
fn text(before: &[u8], language: Language) -> Within {
    let n = hashes(before.iter().rev());
    match before.iter().rev().nth(n) {
        Some(b'r') if language == Language::Rust => Within::Raw(n),
        _ => Within::Text,
    }
}

/// Returns the length of the character literal at the start of `rest`, or 1 for the quote of a
/// lifetime.
fn character(rest: &[u8], language: Language) -> usize {
    let escaped = rest.get(1) == Some(&b'\\');
    let from = if escaped { 3 } else { 1 };
    let Some(n) = rest.iter().skip(from).position(|&byte| byte == b'\'') else {
        return 1;
    };
    let one = || String::from_utf8_lossy(&rest[1..from + n]).chars().count() == 1;
    match escaped || language == Language::C || one() {
        true => from + n + 1,
        false => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Language::*, *};

    /// Sources, each with the number of its lines of code.
    const TEXTS: [(Language, usize, &str); 13] = [
        (Rust, 1, "//! a\n\n/// b\nc(); // d\n  \t\n/* e\n f */\n"),
        (Rust, 3, "/* a */ b();\nc(); /* d\ne */ f();\n/* g */\n"),
        (C, 2, "/* a\n * b\n */\nint c;\n#if 0\n\n// d\n"),
        // Only Rust nests comments.
        (Rust, 0, "/* a /* b */\nc();\n*/\n"),
        (C, 2, "/* a /* b */\nc();\n*/\n"),
        // Comments in texts are none.
        (Rust, 2, "a(\"/*\");\n// b\nc(\"\\\"/*\");\n// d\n"),
        (Rust, 3, "a(\"b\n\n// c\n\");\n// d\n"),
        (Rust, 2, "a(r\"\\\");\n// b\nc(r#\"\"/*\"#);\n// d\n"),
        (Rust, 3, "a(br##\"\"#\n// b\n\"##);\n// c\n"),
        (C, 2, "a(\"/*\");\n/* b */\nc('\"', '\\'');\n/* d */\n"),
        (Rust, 2, "a('\"');\n// b\nc('\\'', '\\u{22}', '/');\n// d\n"),
        (Rust, 2, "e('ä', '\"');\n// f\ng('\\\\', '\"');\n// h\n"),
        (Rust, 2, "a<'b>(c: &'b str)\n// d\ne<'f, 'g>()\n/* h */\n"),
    ];

    #[test]
    fn only_lines_with_code_count() {
        for (language, lines, text) in TEXTS {
            assert_eq!(count(text, language), lines, "{text}");
        }
    }
}
