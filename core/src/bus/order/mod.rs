// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Order: the place of each entry in each queue.
//!
//! A [`queue`] is generic in its entries, and knows neither peers nor messages. A [`transaction`]
//! decides the fate of all parts of one operation. `docs/ordering.md` has the algorithm and its
//! proof.

mod cursor;
mod group;
mod key;
mod queue;
mod ring;
#[cfg(test)]
mod test_queue;
mod transaction;

pub(crate) use cursor::Cursor;
pub(crate) use group::{EntryRef, EntryReservation, Links, Queued, Removed};
pub(crate) use key::{destruction_after, message_after, Key, Number};
pub(crate) use queue::Queue;
pub(crate) use ring::Ring;
pub(crate) use transaction::Transaction;
