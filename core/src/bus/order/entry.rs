// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Entries of a queue: messages, and notices of any other kind.

use kernel::prelude::*;

use crate::bus::order::group::EntryReservation;
use crate::bus::order::key::Key;

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
    /// Place of the message in the order, while it is in the ring.
    pub(crate) key: Key,
    /// Memory for its entry in a tree. A message that is one of several parts has it, except while
    /// it is in a group.
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

    /// Joins the entry with the memory that it stood in.
    pub(crate) fn with(self, reservation: EntryReservation<M>) -> Removed<M> {
        match self {
            Entry::Message(mut message) => {
                message.links_mut().reservation = Some(reservation);
                Removed::Message(message)
            }
            Entry::Notice(notice) => Removed::Notice(notice, reservation),
        }
    }
}

/// An entry that is in no tree, with the memory to stand in one; a message keeps that itself.
pub(crate) enum Removed<M: Queued> {
    Message(KBox<M>),
    Notice(M::Notice, EntryReservation<M>),
}

impl<M: Queued> Removed<M> {
    /// Separates the entry from its memory. None, and the entry is dropped, for a message that was
    /// not made to be one of several parts.
    pub(crate) fn split(self) -> Option<(Entry<M>, EntryReservation<M>)> {
        match self {
            Removed::Message(mut message) => {
                let reservation = message.links_mut().reservation.take();
                debug_assert!(reservation.is_some(), "a part without memory for a tree");
                Some((Entry::Message(message), reservation?))
            }
            Removed::Notice(notice, reservation) => Some((Entry::Notice(notice), reservation)),
        }
    }
}
