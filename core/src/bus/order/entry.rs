// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Entries of a queue, and the memory that they stand in.
//!
//! An entry moves from tree to tree without an allocation: it takes the memory of its tree node
//! along.

use kernel::prelude::*;
use kernel::rbtree::{RBTree, RBTreeNodeReservation};
use kernel::sync::Arc;

use crate::bus::order::key::Key;
use crate::bus::order::transaction::Transaction;

/// A message, as far as a queue has to do with it.
pub(crate) trait Queued: Sized {
    /// Any other entry that can stand in the queue.
    type Notice;

    /// Returns the part of the message that is the queue's.
    fn links(&self) -> &Links<Self>;

    /// Returns the part of the message that is the queue's.
    fn links_mut(&mut self) -> &mut Links<Self>;
}

/// The part of a message that belongs to the queue.
pub(crate) struct Links<M: Queued> {
    /// Place of the message in the order.
    pub(crate) key: Key,
    /// Memory for its entry in a tree. A message that is one of several parts has it, except while
    /// it is in a tree.
    pub(crate) reservation: Option<EntryReservation<M>>,
}

impl<M: Queued> Links<M> {
    /// Makes the links of a message that is in no queue, and was never one of several parts.
    pub(crate) const NONE: Self = Self {
        key: Key::FIRST,
        reservation: None,
    };
}

/// The kinds of entries.
pub(crate) enum Entry<M: Queued> {
    Message(KBox<M>),
    Notice(M::Notice),
}

/// An entry that stays in the queue.
pub(crate) enum EntryRef<'q, M: Queued> {
    Message(&'q M),
    Notice(&'q M::Notice),
}

impl<M: Queued> Clone for EntryRef<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Queued> Copy for EntryRef<'_, M> {}

impl<M: Queued> Entry<M> {
    /// Returns the kind of the entry, without taking it.
    pub(crate) fn as_ref(&self) -> EntryRef<'_, M> {
        match self {
            Entry::Message(message) => EntryRef::Message(message),
            Entry::Notice(notice) => EntryRef::Notice(notice),
        }
    }
}

/// An entry that was taken out, with the memory that it stood in; a message keeps that itself.
pub(crate) enum Removed<M: Queued> {
    Message(KBox<M>),
    Notice(M::Notice, EntryReservation<M>),
}

/// An entry of a tree.
pub(crate) struct TreeEntry<M: Queued> {
    /// The transaction that a staged entry is a part of.
    pub(crate) transaction: Option<Arc<Transaction>>,
    pub(crate) entry: Entry<M>,
}

/// Entries by key.
///
/// An option, since an entry is taken out of its tree node before the node gets another key.
pub(crate) type Tree<M> = RBTree<Key, Option<TreeEntry<M>>>;
/// Memory for one entry of a tree.
pub(crate) type EntryReservation<M> = RBTreeNodeReservation<Key, Option<TreeEntry<M>>>;

/// Takes the entry of `key` out.
pub(crate) fn take<M: Queued>(tree: &mut Tree<M>, key: &Key) -> Option<Removed<M>> {
    let mut found = tree.find_mut(key)?;
    let entry = found.get_mut().take()?.entry;
    let reservation = found.remove_node().into_reservation();
    Some(match entry {
        Entry::Message(mut message) => {
            message.links_mut().reservation = Some(reservation);
            Removed::Message(message)
        }
        Entry::Notice(notice) => Removed::Notice(notice, reservation),
    })
}

/// Puts an entry in, in the memory that it brings along.
pub(crate) fn put<M: Queued>(
    tree: &mut Tree<M>,
    key: Key,
    transaction: Option<Arc<Transaction>>,
    removed: Removed<M>,
) {
    let (entry, reservation) = match removed {
        Removed::Message(mut message) => {
            let links = message.links_mut();
            links.key = key;
            let reservation = links.reservation.take();
            (Entry::Message(message), reservation)
        }
        Removed::Notice(notice, reservation) => (Entry::Notice(notice), Some(reservation)),
    };
    debug_assert!(reservation.is_some(), "a part without memory for a tree");
    if let Some(reservation) = reservation {
        let value = Some(TreeEntry { transaction, entry });
        tree.insert(reservation.into_node(key, value));
    }
}

/// Returns the timestamp that the transaction of a staged entry was committed at, if it was.
pub(crate) fn committed_at<M: Queued>(entry: &Option<TreeEntry<M>>) -> Option<u64> {
    entry.as_ref()?.transaction.as_ref()?.committed_at()
}
