// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts the lines of a source file that hold code.
//!
//! A line counts if it has anything but white space outside of comments. So a line with code and a
//! comment counts, and so do the lines of a text over several lines, except the empty ones.

/// What the file is written in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    C,
}

/// In what a line begins.
#[derive(Clone, Copy)]
enum Within {
    Code,
    /// A block comment, and how deep they are nested.
    Comment(usize),
    /// A string.
    Text,
    /// A raw string, which ends at a quote with so many hashes.
    Raw(usize),
}

/// Lines of code in `text`.
pub fn count(text: &str, language: Language) -> usize {
    let mut within = Within::Code;
    text.lines()
        .filter(|line| is_code(line.as_bytes(), language, &mut within))
        .count()
}

/// Whether there is code in this line. Leaves behind in what the next one begins.
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

/// What begins with a quote after `before`.
fn text(before: &[u8], language: Language) -> Within {
    let n = hashes(before.iter().rev());
    match before.iter().rev().nth(n) {
        Some(b'r') if language == Language::Rust => Within::Raw(n),
        _ => Within::Text,
    }
}

/// How long the character is that `rest` begins with; 1 if it is the quote of a lifetime.
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

    /// Texts, each with its lines of code.
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
