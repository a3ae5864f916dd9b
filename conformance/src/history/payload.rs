// SPDX-License-Identifier: MIT OR Apache-2.0

//! The payload of a message of a history: sender, number, known transactions, and filler, under a
//! sum.

use super::log::Actor;

/// Bytes before the numbers that were known.
const HEAD: usize = 24;
/// Longest filler.
pub const FILLER: usize = 512;

/// The last message of an actor to a receiver.
pub const FLAG_LAST: u32 = 1;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender.
    pub actor: Actor,
    /// The number of the message at its sender.
    pub serial: u32,
    /// `FLAG_*`
    pub flags: u32,
}

fn sum(bytes: &[u8]) -> u64 {
    // FNV-1a
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Writes a message with so much filler into `bytes`.
pub fn put(bytes: &mut Vec<u8>, header: Header, known: &[u32], filler: usize) {
    bytes.clear();
    bytes.extend([0; 8]);
    bytes.extend(u32::from(header.actor).to_ne_bytes());
    bytes.extend(header.serial.to_ne_bytes());
    bytes.extend(header.flags.to_ne_bytes());
    bytes.extend((known.len() as u32).to_ne_bytes());
    known
        .iter()
        .for_each(|serial| bytes.extend(serial.to_ne_bytes()));
    bytes.extend((0..filler).map(|i| (header.serial as usize + i) as u8));
    let sum = sum(&bytes[8..]);
    bytes[..8].copy_from_slice(&sum.to_ne_bytes());
}

/// Reads a message; none if the payload is corrupt.
pub fn get(bytes: &[u8]) -> Option<Header> {
    let (head, _) = bytes.split_at_checked(HEAD)?;
    let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
    let stored = u64::from_ne_bytes(head[..8].try_into().expect("eight bytes"));
    let header = Header {
        actor: word(8) as Actor,
        serial: word(12),
        flags: word(16),
    };
    (stored == sum(&bytes[8..])).then_some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_is_noticed() {
        let header = Header {
            actor: 3,
            serial: 70_001,
            flags: FLAG_LAST,
        };
        let mut bytes = Vec::new();
        put(&mut bytes, header, &[1, 2, 3], 40);
        assert_eq!(get(&bytes), Some(header));
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            assert_eq!(get(&bytes), None, "byte {at}");
            bytes[at] ^= 0x10;
        }
        assert_eq!(get(&bytes[..bytes.len() - 1]), None);
        assert_eq!(get(&[]), None);
    }
}
