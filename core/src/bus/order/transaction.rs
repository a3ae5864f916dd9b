// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The fate of one operation with parts in several queues.
//!
//! All its parts point to one [`Transaction`], whose single word says whether they are still
//! staged, were committed (and at which timestamp), or were killed. Since it is one word, the parts
//! become receivable everywhere at the same instant.
//!
//! # Memory order
//!
//! The word is stored with Release after every destination's clock was raised to the timestamp, and
//! loaded with Acquire by any task that looks at a staged part ([`Transaction::committed_at`]). So
//! a receiver that sees the commit, and every task that it is passed on to by the receiver, finds
//! all those clocks raised.

use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Release};
use kernel::sync::Arc;

use crate::bus::host::GFP_KEPT;
use crate::bus::order::key::Number;

// Values of the word; any higher one is the timestamp of the commit.
const STAGED: u64 = 0;
const KILLED: u64 = 1;

/// One operation with parts in several queues.
pub(crate) struct Transaction {
    /// Breaks ties between equal timestamps.
    pub(crate) number: Number,
    word: Atomic<u64>,
}

impl Transaction {
    /// Makes a staged transaction.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(number: Number) -> Result<Arc<Self>> {
        let new = Self {
            number,
            word: Atomic::new(STAGED),
        };
        Ok(Arc::new(new, GFP_KEPT)?)
    }

    /// Returns the timestamp that it was committed at, if it was.
    pub(crate) fn committed_at(&self) -> Option<u64> {
        // Acquire pairs with the Release in `commit`.
        let word = self.word.load(Acquire);
        (word > KILLED).then_some(word)
    }

    /// Commits the transaction at `timestamp`. False if it was killed before.
    #[must_use]
    pub(crate) fn commit(&self, timestamp: u64) -> bool {
        // Release pairs with the Acquire in `committed_at`; the exchange decides against `kill`.
        self.word.cmpxchg(STAGED, timestamp, Release).is_ok()
    }

    /// Kills the transaction, unless it is committed.
    pub(crate) fn kill(&self) {
        // Full, since the killer goes on to act as if no part were ever there.
        let _ = self.word.cmpxchg(STAGED, KILLED, Full);
    }
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
