// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The fate of one operation with parts in several queues.
//!
//! All its parts point to one [`Transaction`], whose single word says whether they are still
//! staged, were committed (and at which timestamp), or were killed. Since it is one word, the parts
//! become receivable everywhere at the same instant.
//!
//! # Timestamps
//!
//! Every queue has a clock that is even and never goes back. Messages commit at multiples of 4,
//! destructions at 2 more than a multiple of 4, so that the two never tie; a staged part stands at
//! the odd number after its queue's clock. Timestamps of different transactions may be equal; then
//! their numbers decide, which are made of the sender's ID and a count of its own, so there is no
//! counter that all share.
//!
//! # Memory order
//!
//! The word is stored with Release after every destination's clock was raised to the timestamp, and
//! loaded with Acquire by whoever looks at a staged part ([`Transaction::committed_at`]). So a receiver that
//! sees the commit, and anybody it tells, finds all those clocks raised.

use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Release};
use kernel::sync::Arc;

use super::GFP_KEPT;

// What is above is a timestamp.
const STAGED: u64 = 0;
const KILLED: u64 = 1;

/// Tells transactions of the same timestamp apart: the maker's ID, and its own count.
pub(super) type Number = (u64, u64);

/// The number of all that has no other parts. No peer has the ID 0.
pub(super) const ALONE: Number = (0, 0);

/// See the module.
pub(super) struct Transaction {
    /// Breaks ties between equal timestamps.
    pub(super) number: Number,
    word: Atomic<u64>,
}

impl Transaction {
    /// A new one of peer `peer`, the `count`-th of that peer.
    pub(super) fn new(peer: u64, count: u64) -> Result<Arc<Self>> {
        let new = Self {
            number: (peer, count),
            word: Atomic::new(STAGED),
        };
        Ok(Arc::new(new, GFP_KEPT)?)
    }

    /// The timestamp that it was committed at, if it was.
    pub(super) fn committed_at(&self) -> Option<u64> {
        // Acquire pairs with the Release in `commit`.
        let word = self.word.load(Acquire);
        (word > KILLED).then_some(word)
    }

    /// Makes it happen at `timestamp`, unless somebody killed it: then false.
    pub(super) fn commit(&self, timestamp: u64) -> bool {
        // Release pairs with the Acquire in `committed_at`; the exchange decides against `kill`.
        self.word.cmpxchg(STAGED, timestamp, Release).is_ok()
    }

    /// Keeps it from happening, unless it has already.
    pub(super) fn kill(&self) {
        // Full, since the killer goes on to act as if no part were ever there.
        let _ = self.word.cmpxchg(STAGED, KILLED, Full);
    }
}

/// The timestamp of a message that is ordered after `after`.
pub(super) fn message_after(after: u64) -> u64 {
    (after & !3) + 4
}

/// The timestamp of a destruction that is ordered after `after`.
pub(super) fn destruction_after(after: u64) -> u64 {
    ((after + 2) & !3) + 2
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
