// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Walks over the committed entries of a queue, between the steps of which the lock may be free.
//!
//! A walk passes each entry once: first the messages of the ring, then the tree. Entries may be
//! taken out and put in meanwhile. The walk misses an entry that is put in before the place that it
//! has come to.
//!
//! # Locks
//!
//! None of its own; the queue lies in the peer's inbox.

use crate::bus::order::group::{Queued, Removed};
use crate::bus::order::key::Key;
use crate::bus::order::queue::{Head, Queue};

/// A place in a queue that is kept while the lock is free.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cursor {
    /// A position in the ring.
    Ring(u32),
    /// A key in the tree of committed entries.
    Tree(Key),
    End,
}

impl<M: Queued> Queue<M> {
    /// Returns the start of all that is committed.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor::Ring(self.ring.head)
    }

    /// Moves `cursor` behind the next committed entry. Returns its place, from which it may have
    /// been taken out already; None at the end.
    pub(crate) fn advance(&self, cursor: &mut Cursor) -> Option<Cursor> {
        if let Cursor::Ring(from) = *cursor {
            if let Some(at) = self.ring.seek(from) {
                *cursor = Cursor::Ring(at.wrapping_add(1));
                return Some(Cursor::Ring(at));
            }
            *cursor = Cursor::Tree(Key::FIRST);
        }
        let Cursor::Tree(from) = *cursor else {
            return None;
        };
        let next = self.next(&from);
        *cursor = next.map_or(Cursor::End, |key| Cursor::Tree(key.successor()));
        next.map(Cursor::Tree)
    }

    /// Returns the committed entry at this place.
    pub(crate) fn entry_at(&self, at: &Cursor) -> Option<Head<'_, M>> {
        match at {
            Cursor::Ring(at) => self.ring.get(*at).map(Head::of_message),
            Cursor::Tree(key) => self.get(*key),
            Cursor::End => None,
        }
    }

    /// Takes the committed entry at this place out.
    pub(crate) fn remove_at(&mut self, at: &Cursor) -> Option<Removed<M>> {
        match at {
            Cursor::Ring(at) => self.ring.remove(*at).map(Removed::Message),
            Cursor::Tree(key) => self.remove(key),
            Cursor::End => None,
        }
    }

    /// Returns the first entry of the tree at or after `from`.
    fn next(&self, from: &Key) -> Option<Key> {
        let group = self.committed.get(&from.of_group());
        if let Some(part) = group.and_then(|group| group.as_ref()?.seek(from.part)) {
            return Some(Key { part, ..*from });
        }
        // No group has this key, so it finds the first behind this group.
        let behind = Key { part: 1, ..*from };
        let found = self.committed.cursor_lower_bound(&behind)?;
        let (key, group) = found.current();
        let part = group.as_ref()?.part;
        Some(Key { part, ..*key })
    }
}

#[cfg(test)]
#[path = "cursor_tests.rs"]
mod tests;
