// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cutting a text into the pieces that are published.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longer lines are cut.
pub const LINE_MAX: usize = 64 << 10;

/// The way that a text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Block {
    /// At line ends, which stay with their lines.
    Lines,
    /// After so many bytes.
    Bytes(u32),
}

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "lines" {
            return Ok(Self::Lines);
        }
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            _ => 0,
        };
        match digits.parse().ok().and_then(|n: u32| n.checked_mul(unit)) {
            Some(size @ 1..=0x4000_0000) => Ok(Self::Bytes(size)),
            _ => Err("it is `lines`, or a size such as 4096, 64k or 1M, up to 1024M".into()),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines => f.write_str("lines"),
            Self::Bytes(size) => write!(f, "blocks of up to {size} bytes"),
        }
    }
}

/// Reads a file from its start, also while others read from the same descriptor.
struct FromStart<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(to, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// The pieces of a file, one after the other, in one buffer.
pub struct Pieces<'a> {
    reader: BufReader<FromStart<'a>>,
    block: Block,
    piece: Vec<u8>,
}

impl<'a> Pieces<'a> {
    pub fn new(file: &'a File, block: Block) -> Self {
        Self {
            reader: BufReader::new(FromStart { file, offset: 0 }),
            block,
            piece: Vec::new(),
        }
    }

    /// Returns the next piece, never empty; nothing at the end.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.piece.clear();
        match self.block {
            Block::Lines => {
                let mut line = (&mut self.reader).take(LINE_MAX as u64);
                line.read_until(b'\n', &mut self.piece)?;
            }
            Block::Bytes(size) => {
                let mut block = (&mut self.reader).take(u64::from(size));
                block.read_to_end(&mut self.piece)?;
            }
        }
        Ok((!self.piece.is_empty()).then_some(&self.piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn cut(text: &[u8], block: Block) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let mut pieces = Pieces::new(&file, block);
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().unwrap() {
            all.push(piece.to_vec());
        }
        all
    }

    #[test]
    fn pieces_make_up_the_text() {
        assert_eq!(cut(b"a\n\nb", Block::Lines), [&b"a\n"[..], b"\n", b"b"]);
        assert_eq!(cut(b"abcde", Block::Bytes(2)), [&b"ab"[..], b"cd", b"e"]);
        assert!(cut(b"", Block::Lines).is_empty());
        let long = vec![b'x'; LINE_MAX + 1];
        assert_eq!(cut(&long, Block::Lines).len(), 2);
    }

    #[test]
    fn sizes_are_understood() {
        assert_eq!("lines".parse(), Ok(Block::Lines));
        assert_eq!("512".parse(), Ok(Block::Bytes(512)));
        assert_eq!("64k".parse(), Ok(Block::Bytes(64 << 10)));
        assert_eq!("1MiB".parse(), Ok(Block::Bytes(1 << 20)));
        for wrong in [
            "",
            "0",
            "k",
            "-1",
            "1.5k",
            "4096M",
            "12x",
            "words",
            "5000000000",
        ] {
            assert!(wrong.parse::<Block>().is_err(), "{wrong}");
        }
    }
}
