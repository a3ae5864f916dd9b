// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Keys: places in the global order.
//!
//! Every queue has a clock that is even and never goes back. Messages commit at multiples of 4,
//! destructions at 2 more than a multiple of 4, so that the two never tie; the place of a staged
//! group is odd. Timestamps of different transactions may be equal; then their numbers decide. A
//! number consists of the maker's ID and the maker's own count, so there is no counter that all
//! share.
//!
//! A *staged key* ([`Transaction::staged_key`](super::transaction::Transaction::staged_key)) is no
//! place in the order. It finds a part among the staged ones, and its timestamp is the maker's
//! user.

/// Number that distinguishes transactions of the same timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number {
    /// The ID of the peer that made the transaction.
    pub(crate) maker: u64,
    /// That peer's own count of its transactions.
    pub(crate) count: u64,
}

impl Number {
    /// Number of every entry that has no other parts. No peer has the ID 0.
    pub(crate) const ALONE: Self = Self { maker: 0, count: 0 };
}

/// The place of a committed entry in the order, or the staged key of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) timestamp: u64,
    pub(crate) number: Number,
    /// Number of the part of its transaction that the entry is.
    pub(crate) part: u32,
}

impl Key {
    /// Lowest key.
    pub(crate) const FIRST: Self = Self::alone(0);

    /// Returns the key of an entry that has no other parts.
    pub(crate) const fn alone(timestamp: u64) -> Self {
        Self {
            timestamp,
            number: Number::ALONE,
            part: 0,
        }
    }

    /// Returns the key of a part in the tree of its group.
    pub(crate) const fn of_part(part: u32) -> Self {
        Self {
            part,
            ..Self::FIRST
        }
    }

    /// Returns the key of the entry's group.
    pub(crate) const fn of_group(&self) -> Self {
        Self { part: 0, ..*self }
    }

    /// Returns the first key behind this one.
    pub(crate) fn successor(&self) -> Self {
        Self {
            part: self.part + 1,
            ..*self
        }
    }

    /// Returns whether the entry may be one of several parts.
    #[inline]
    pub(crate) fn is_part(&self) -> bool {
        self.number != Number::ALONE
    }
}

/// Returns the timestamp of a message that is ordered after `after`.
pub(crate) fn message_after(after: u64) -> u64 {
    (after & !3) + 4
}

/// Returns the timestamp of a destruction that is ordered after `after`.
pub(crate) fn destruction_after(after: u64) -> u64 {
    ((after + 2) & !3) + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_rise_and_never_tie() {
        for after in 0..64 {
            let (message, destruction) = (message_after(after), destruction_after(after));
            assert!(message > after && message <= after + 4 && message % 4 == 0);
            assert!(destruction > after && destruction <= after + 4 && destruction % 4 == 2);
        }
    }

    #[test]
    fn keys_are_ordered_by_timestamp_then_number_then_part() {
        let number = |maker, count| Number { maker, count };
        let key = |timestamp, number, part| Key {
            timestamp,
            number,
            part,
        };
        let ordered = [
            Key::FIRST,
            Key::alone(4),
            key(4, number(1, 9), 0),
            key(4, number(1, 9), 1),
            key(4, number(2, 1), 0),
            key(4, number(2, 2), 0),
            Key::alone(8),
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b));
        for pair in ordered.windows(2) {
            assert!(pair[0] < pair[0].successor() && pair[0].successor() <= pair[1]);
        }
        let siblings = ordered.windows(2);
        let siblings = siblings.map(|pair| pair[0].of_group() == pair[1].of_group());
        assert!(siblings.eq([false, false, true, false, false, false]));
    }
}
