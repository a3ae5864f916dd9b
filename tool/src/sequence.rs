// SPDX-License-Identifier: MIT OR Apache-2.0

//! The order in which subscribers received, and its comparison while it comes in.
//!
//! The right order is not known before: the first subscriber to report a position sets it, and
//! all others are held to it. Positions that all have reported are forgotten, so memory is taken
//! only for the difference between the fastest and the slowest.

use std::collections::VecDeque;

use xxhash_rust::xxh3::Xxh3;

/// One publication in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Index of its publisher, below 2^16.
    pub publisher: u64,
    /// Its number among those of its publisher, below 2^48.
    pub sequence: u64,
}

impl Publication {
    /// Returns it as one word, as it is reported.
    pub fn to_entry(self) -> u64 {
        self.publisher << 48 | self.sequence
    }

    /// Takes a word apart. Every word is a publication.
    pub fn from_entry(entry: u64) -> Self {
        Self {
            publisher: entry >> 48,
            sequence: entry & ((1 << 48) - 1),
        }
    }
}

/// A short form of a sequence.
#[derive(Default)]
pub struct Digest(Xxh3);

impl Digest {
    pub fn add(&mut self, entry: u64) {
        self.0.update(&entry.to_ne_bytes());
    }

    pub fn value(&self) -> u64 {
        self.0.digest()
    }
}

/// The place where two subscribers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    pub subscriber: usize,
    pub position: u64,
    /// The publication that another subscriber had there.
    pub expected: Publication,
    /// The publication that this one had.
    pub found: Publication,
}

/// Compares the sequences of all subscribers.
pub struct Comparison {
    /// The length of the sequence that each has reported.
    told: Vec<u64>,
    /// The publications from position `base` on.
    window: VecDeque<u64>,
    base: u64,
    /// The number that is next for each publisher, in the order that was reported.
    next: Vec<u64>,
    /// Positions that do not hold the next publication of their publisher.
    pub misplaced: u64,
    /// The first difference, and how many there are.
    pub first_difference: Option<Difference>,
    pub differences: u64,
    /// Reports that did not follow the one before.
    pub gaps: u64,
    digest: Digest,
}

impl Comparison {
    pub fn new(publishers: usize, subscribers: usize) -> Self {
        Self {
            told: vec![0; subscribers],
            window: VecDeque::new(),
            base: 0,
            next: vec![0; publishers],
            misplaced: 0,
            first_difference: None,
            differences: 0,
            gaps: 0,
            digest: Digest::default(),
        }
    }

    /// Takes what a subscriber received from position `first` on. Entries and positions may be
    /// anything; the subscriber is one of those that there are.
    pub fn add(&mut self, subscriber: usize, first: u64, entries: &[u64]) {
        if first != self.told[subscriber] {
            self.gaps += 1;
            return;
        }
        for (&found, position) in entries.iter().zip(first..) {
            // It is at least `base`, up to which the slowest has reported.
            match self.window.get((position - self.base) as usize) {
                Some(&expected) if expected == found => {}
                Some(&expected) => {
                    self.differences += 1;
                    self.first_difference.get_or_insert(Difference {
                        subscriber,
                        position,
                        expected: Publication::from_entry(expected),
                        found: Publication::from_entry(found),
                    });
                }
                None => self.set(found),
            }
        }
        self.told[subscriber] += entries.len() as u64;
        let slowest = self.told.iter().copied().min().unwrap_or(0);
        self.window.drain(..(slowest - self.base) as usize);
        self.base = slowest;
    }

    fn set(&mut self, entry: u64) {
        self.window.push_back(entry);
        self.digest.add(entry);
        let Publication {
            publisher,
            sequence,
        } = Publication::from_entry(entry);
        match self.next.get_mut(publisher as usize) {
            Some(next) if *next == sequence => *next += 1,
            Some(next) => {
                self.misplaced += 1;
                *next = sequence + 1;
            }
            None => self.misplaced += 1,
        }
    }

    /// Returns the number of publications that all subscribers together have reported.
    pub fn told_by_all(&self) -> u64 {
        self.told.iter().sum()
    }

    /// Returns the length of the order that was reported.
    pub fn len(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    /// Returns the digest of the order that was reported.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Returns whether all subscribers have reported the same order, of this length, with
    /// everything in its publisher's order.
    pub fn is_total(&self, messages: u64) -> bool {
        self.differences == 0
            && self.gaps == 0
            && self.misplaced == 0
            && self.told.iter().all(|&told| told == messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares three subscribers that report these sequences, in turns.
    fn compare(sequences: [&[u64]; 3]) -> Comparison {
        let mut comparison = Comparison::new(2, 3);
        for at in 0..4 {
            for (subscriber, sequence) in sequences.iter().enumerate() {
                let from = (2 * at).min(sequence.len());
                let part = &sequence[from..(from + 2).min(sequence.len())];
                if !part.is_empty() {
                    comparison.add(subscriber, from as u64, part);
                }
            }
        }
        comparison
    }

    const RED: [u64; 3] = [0, 1, 2];

    fn entry(publisher: u64, sequence: u64) -> u64 {
        publication(publisher, sequence).to_entry()
    }

    fn publication(publisher: u64, sequence: u64) -> Publication {
        Publication {
            publisher,
            sequence,
        }
    }

    fn blue(sequence: u64) -> u64 {
        entry(1, sequence)
    }

    #[test]
    fn the_same_order_is_found_good_and_forgotten() {
        let order = [RED[0], blue(0), RED[1], RED[2], blue(1)];
        let comparison = compare([&order; 3]);
        assert!(comparison.is_total(5));
        assert_eq!((comparison.len(), comparison.told_by_all()), (5, 15));
        assert!(comparison.window.is_empty());
        let mut digest = Digest::default();
        order.iter().for_each(|&entry| digest.add(entry));
        assert_eq!(comparison.digest(), digest.value());
    }

    #[test]
    fn another_order_is_noticed() {
        let one = [RED[0], blue(0), RED[1], blue(1)];
        let other = [RED[0], blue(0), blue(1), RED[1]];
        let comparison = compare([&one, &one, &other]);
        assert!(!comparison.is_total(4));
        assert_eq!(comparison.differences, 2);
        assert_eq!(
            comparison.first_difference,
            Some(Difference {
                subscriber: 2,
                position: 2,
                expected: publication(0, 1),
                found: publication(1, 1)
            })
        );
    }

    #[test]
    fn a_number_that_is_missing_or_twice_is_noticed() {
        let whole = [RED[0], RED[1], RED[2]];
        assert!(!compare([&whole, &whole, &whole[..2]]).is_total(3));
        assert!(!compare([&whole; 3]).is_total(4));
        let lost = [RED[0], RED[2]];
        assert_eq!(compare([&lost; 3]).misplaced, 1);
        let twice = [RED[0], RED[0], RED[1]];
        assert!(!compare([&twice; 3]).is_total(3));
        let unknown = [entry(9, 0)];
        assert!(!compare([&unknown; 3]).is_total(1));
    }

    #[test]
    fn a_lost_report_is_noticed() {
        let mut comparison = Comparison::new(1, 1);
        comparison.add(0, 0, &[0, 1]);
        comparison.add(0, 3, &[3]);
        assert!(!comparison.is_total(3));
        assert_eq!(comparison.gaps, 1);
    }

    #[test]
    fn reports_may_say_anything() {
        let mut comparison = Comparison::new(2, 2);
        comparison.add(0, u64::MAX, &[0]);
        comparison.add(0, 0, &[u64::MAX, u64::MAX, 0]);
        comparison.add(1, 0, &[u64::MAX, 0, entry(1, (1 << 48) - 1)]);
        assert!(!comparison.is_total(3));
        assert_eq!((comparison.gaps, comparison.differences), (1, 2));
    }
}
