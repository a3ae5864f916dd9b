// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Messages and notices: the entries of a peer's queue, with the charges for a message in flight.
//!
//! A [`Message`] owns a slice in the receiver's pool, a reference per handle, its files, and the
//! charges for all of them. [`Message::discard`] gives all of that back; simply dropping it would
//! leave the charges and the counts of nodes standing.
//!
//! The memory of a plain message is used again for the next one to the same peer: as a *blank*
//! message, which owns nothing. It stays addressed as it was, since the next message is mostly for
//! the same node.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::{Files, Host, Pool};
use crate::bus::object::{Detached, Handle, Node, Peer, SentFds};
use crate::bus::order::{self, Key, Links, Queued};
use crate::bus::pool::{Size, Slice, UNIT};
use crate::bus::quota::{Amounts, BYTES};

/// Handles on their way; None where the node was dead already when the message was made, and where
/// none is linked yet. Before they are linked, those that the sender has.
pub(crate) type Handles<H> = KVVec<Option<Arc<Handle<H>>>>;

/// An event that a peer is notified of.
pub(crate) enum Notice<H: Host> {
    /// The node of this handle, which the peer holds, was destroyed.
    Destroyed(Arc<Handle<H>>),
    /// No other peer holds this node of the peer any more.
    Released(Arc<Node<H>>),
    /// The node of this handle refused a message, and may have room for it now.
    Room(Arc<Handle<H>>),
}

/// State of the notice that a node or a handle may cause.
pub(crate) enum NoticeState<H: Host> {
    /// In no queue, with memory for it. A notice of room only has that while the holder waits.
    Idle(EntryReservation<H>),
    /// In the queue: a notice of release or of room at this key; a notice of destruction under this
    /// staged key, or committed since.
    Queued(Key),
    /// Without memory: it was taken out of the queue, and a task may give the memory back if the
    /// notice can come again; or nobody waits for room.
    Removed,
}

impl<H: Host> NoticeState<H> {
    /// Takes the memory for the notice, which is removed then. None, with nothing changed, unless
    /// it is idle.
    pub(crate) fn take(&mut self) -> Option<EntryReservation<H>> {
        match core::mem::replace(self, Self::Removed) {
            Self::Idle(reservation) => Some(reservation),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// An entry of a peer's queue.
pub(crate) type EntryRef<'q, H> = order::EntryRef<'q, Message<H>>;
/// An entry that was taken out of a peer's queue.
pub(crate) type Removed<H> = order::Removed<Message<H>>;
/// Memory for an entry of the trees of a peer's queue.
pub(crate) type EntryReservation<H> = order::EntryReservation<Message<H>>;

/// Returns the charges for a message of this size while it is in flight.
#[inline]
pub(crate) fn charges(size: &Size) -> Amounts {
    let (n_handles, n_fds) = (size.n_handles as u64, size.n_fds as u64);
    [1, n_handles, size.n_charged(), n_fds]
}

/// Returns the charges that stay until the user gives the slice back.
#[inline]
pub(crate) fn slice_charges(slice: &Slice) -> Amounts {
    [1, 0, u64::from(slice.n_bytes), 0]
}

/// A message, on its way to the owner of its node or queued there.
pub(crate) struct Message<H: Host> {
    /// None in a seed, which is for no node.
    pub(crate) node: Option<Arc<Node<H>>>,
    /// The receiver's.
    pub(crate) pool: H::Pool,
    /// The memory behind its slice is pinned.
    pub(crate) pinned: bool,
    pub(crate) links: Links<Self>,
    pub(crate) slice: Slice,
    /// Bytes of payload.
    pub(crate) n_bytes: u64,
    /// Number of handles that are charged, also if there was no memory for their slots in `handles`.
    n_handles: u32,
    pub(crate) handles: Handles<H>,
    pub(crate) files: Option<H::Files>,
    /// The charge on the sender's user, which ends when it is dropped.
    pub(crate) sent_fds: Option<SentFds<H>>,
}

impl<H: Host> Queued for Message<H> {
    type Notice = Notice<H>;

    #[inline]
    fn links(&self) -> &Links<Self> {
        &self.links
    }

    #[inline]
    fn links_mut(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

impl<H: Host> Message<H> {
    /// Makes a blank message for the peer with this pool.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn blank(pool: H::Pool) -> Result<KBox<Self>> {
        let blank = Self {
            node: None,
            pool,
            pinned: false,
            links: Links::NONE,
            slice: Slice::default(),
            n_bytes: 0,
            n_handles: 0,
            handles: KVVec::new(),
            files: None,
            sent_fds: None,
        };
        Ok(KBox::new(blank, GFP_KEPT)?)
    }

    /// Returns the size of the message.
    pub(crate) fn size(&self) -> Size {
        Size {
            n_bytes: self.n_bytes,
            n_handles: self.n_handles as usize,
            n_fds: self.files.as_ref().map_or(0, Files::count),
        }
    }

    /// Makes empty slots for `n` handles, which are charged. After the booking, so that a
    /// destination that refuses the message costs nothing in proportion to the handles.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    #[cold]
    pub(crate) fn reserve_slots(&mut self, n: usize) -> Result {
        // No limit allows as many as 2^32.
        self.n_handles = n as u32;
        self.handles = Handles::from_elem(None, n, GFP_KEPT)?;
        Ok(())
    }

    /// Returns the offset of the handle IDs, which follow the payload.
    pub(crate) fn handles_offset(&self) -> u64 {
        self.slice.offset + self.n_bytes.next_multiple_of(UNIT)
    }

    /// Returns whether it carries nothing except bytes.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.handles.is_empty() && self.files.is_none()
    }

    /// Sets the node that the message is for.
    #[inline(always)]
    pub(crate) fn address(&mut self, node: Option<&Arc<Node<H>>>) {
        match (&self.node, node) {
            (Some(last), Some(node)) if Arc::ptr_eq(last, node) => (),
            _ => self.address_anew(node),
        }
    }

    fn address_anew(&mut self, node: Option<&Arc<Node<H>>>) {
        self.node = node.cloned();
    }

    /// Gets memory behind the slice and clears the padding of the payload.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    #[inline]
    pub(crate) fn pin(&mut self) -> Result {
        let Slice { offset, size, .. } = self.slice;
        if !self.pinned {
            self.pool.pin(offset, size)?;
            self.pinned = true;
        }
        // An empty slice is all padding; otherwise it ends where the handles start, or earlier.
        let n_bytes = self.n_bytes;
        let padded = n_bytes.next_multiple_of(UNIT).max(UNIT).min(size);
        clear(&self.pool, offset + n_bytes, offset + padded);
        Ok(())
    }

    /// Copies the payload of another message of the same length.
    pub(crate) fn copy_payload(&self, from: &Self) {
        let (from_offset, to_offset) = (from.slice.offset, self.slice.offset);
        from.pool
            .copy(from_offset, from.n_bytes, &self.pool, to_offset);
    }

    /// Gives the memory behind the slice back, of a message that failed: none of it is kept for the
    /// next message, since the task that sent this one would go on paying for it.
    pub(crate) fn abandon_memory(&mut self) {
        let Slice { offset, size, .. } = self.slice;
        if core::mem::take(&mut self.pinned) {
            self.pool.abandon(offset, size);
        }
    }

    /// Gives everything back that it owns of `peer`, to which it was sent, and of other peers; to
    /// be dropped next.
    pub(crate) fn discard(&self, peer: &Peer<H>) {
        let slice = &self.slice;
        let mut charges = charges(&self.size());
        // The copy of a seed has room for more than it carries.
        charges[BYTES] = u64::from(slice.n_bytes);
        let mut unpin = self.pinned;
        let mut inbox = peer.inbox.lock();
        // A disconnected peer has given all of its charges back at once.
        if inbox.open {
            unpin = inbox.free(slice, self.pinned, &charges);
        }
        peer.unlock(inbox);
        if unpin {
            self.pool.unpin(slice.offset, slice.size);
        }
        self.unlink_handles();
    }

    /// Gives back the references that it carries.
    pub(crate) fn unlink_handles(&self) {
        for handle in self.handles.iter().flatten() {
            handle.unlink(Detached::ONE);
        }
    }
}

/// Stores zeros from `from` up to `to`, less than 16 bytes.
pub(crate) fn clear<P: Pool>(pool: &P, from: u64, to: u64) {
    if from < to {
        pool.write(from, &[0; 16][..(to - from) as usize]);
    }
}
