// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The fate of one operation with parts in several queues.
//!
//! All its parts point to one [`Transaction`], whose single word says whether they are undecided,
//! were committed (and at which timestamp), or were killed. Since it is one word, the parts become
//! receivable everywhere at the same instant.
//!
//! # The word
//!
//! While the transaction is undecided, its word holds a floor. A receiver whose next entry stands
//! behind an undecided part raises the floor above that entry, and moves the part behind it. So no
//! receiver waits for a maker. The maker commits by one addition, which takes the floor as it is at
//! that instant, and the timestamp is above it: no receiver makes a maker try again.
//!
//! A destruction kills a transaction by a compare-and-exchange, which fails once the maker has
//! committed. A commit that comes second finds the transaction killed, and has no effect.
//!
//! # Memory order
//!
//! The word is committed with Full, and loaded with Acquire by any task that looks at a part
//! ([`Transaction::fate`]). So a task that sees the commit, and every task that it informs, finds
//! `at`, and all that the maker did before. And a task that knows that the maker's call returned,
//! whichever way it came to know, sees the commit: it passes a full barrier before it looks (in the
//! queue's pull), as the maker does before it returns. No lock that both take would order the two.
//! A floor carries nothing: the word alone decides, and all accesses to one word are in one order.

use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};
use kernel::sync::Arc;

use crate::bus::allocation::GFP_KEPT;
use crate::bus::order::key::{Key, Number};

// The low bits of the word; the others are the floor, a multiple of 4.
/// Added by the maker, once.
const COMMITTED: u64 = 1;
/// Set by a destruction, unless the maker was first. An addition of the maker that follows is void.
const KILLED: u64 = 2;
/// The bits of the word that are no floor.
const STATE: u64 = COMMITTED | KILLED;

/// Distance from an entry to the floor that is raised above it. The receiver need not raise the
/// floor anew for each of the next 256 entries. The distance is constant: if it grew with the
/// number of moves, a chain of transactions could run the clocks out.
pub(crate) const SLACK: u64 = 4 * 256;

/// State of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It will be committed above the floor, or killed.
    Undecided { floor: u64 },
    /// It was committed at this timestamp.
    Committed(u64),
    /// It never happens.
    Killed,
}

/// One operation with parts in several queues.
pub(crate) struct Transaction {
    /// Number that breaks ties between equal timestamps.
    pub(crate) number: Number,
    /// The user of its maker.
    pub(crate) uid: u32,
    word: Atomic<u64>,
    /// The timestamp to commit at, if the floor is below it.
    at: Atomic<u64>,
}

impl Transaction {
    /// Makes an undecided transaction.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(number: Number, uid: u32) -> Result<Arc<Self>> {
        let new = Self {
            number,
            uid,
            word: Atomic::new(0),
            at: Atomic::new(0),
        };
        Ok(Arc::new(new, GFP_KEPT)?)
    }

    /// Returns the staged key of one of its parts: finds the part while it is staged in a queue,
    /// wherever its group moves. Staged keys are in the order of users.
    pub(crate) fn staged_key(&self, part: u32) -> Key {
        Key {
            timestamp: u64::from(self.uid),
            number: self.number,
            part,
        }
    }

    /// Returns the state of the transaction.
    #[inline]
    pub(crate) fn fate(&self) -> Fate {
        // Acquire pairs with the Full in `commit`.
        let word = self.word.load(Acquire);
        let floor = word & !STATE;
        match word & STATE {
            0 => Fate::Undecided { floor },
            COMMITTED => Fate::Committed(above(floor, self.at.load(Relaxed))),
            _ => Fate::Killed,
        }
    }

    /// Returns the timestamp that the transaction was committed at; None if it is not committed.
    #[inline]
    pub(crate) fn committed_at(&self) -> Option<u64> {
        match self.fate() {
            Fate::Committed(timestamp) => Some(timestamp),
            _ => None,
        }
    }

    /// Commits the transaction by one addition: at `at`, or at the first timestamp of its kind
    /// above the floor if that is higher. Returns the timestamp; None if the transaction was killed
    /// before. Only the maker calls this, once.
    #[must_use]
    pub(crate) fn commit(&self, at: u64) -> Option<u64> {
        self.at.store(at, Relaxed);
        // Pairs with the Acquire in `fate`, and with the barrier of a pull.
        let before = self.word.fetch_add(COMMITTED, Full);
        (before & KILLED == 0).then(|| above(before & !STATE, at))
    }

    /// Raises the floor above `timestamp`, if the transaction is undecided. Returns the state of
    /// the transaction. Raises no clock: [`Queue::raise`](super::Queue::raise) does.
    ///
    /// A receiver calls this. It tries again only if the transaction was decided, or another
    /// receiver raised the floor, in between; the slack makes the latter rare.
    pub(crate) fn raise(&self, timestamp: u64) -> Fate {
        loop {
            let floor = match self.fate() {
                Fate::Undecided { floor } if floor <= timestamp => floor,
                fate => return fate,
            };
            let raised = (timestamp + SLACK) & !STATE;
            #[cfg(test)]
            if crate::bus::planted::Fault::FloorNotRaised.is_planted() {
                return Fate::Undecided { floor: raised };
            }
            if self.word.cmpxchg(floor, raised, Relaxed).is_ok() {
                return Fate::Undecided { floor: raised };
            }
        }
    }

    /// Kills the transaction, unless it is decided. A destruction calls this.
    pub(crate) fn kill(&self) {
        while let Fate::Undecided { floor } = self.fate() {
            // Full, since the destruction goes on as if no part had ever been there.
            if self.word.cmpxchg(floor, floor | KILLED, Full).is_ok() {
                break;
            }
        }
    }
}

/// Returns `at`, or the first timestamp of its kind behind the place `floor + 1` if that is higher.
fn above(floor: u64, at: u64) -> u64 {
    #[cfg(test)]
    let floor = crate::bus::planted::Fault::FloorIgnored.unless(floor);
    if floor < at {
        at
    } else {
        floor + 4 + at % 4
    }
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
