// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! What is in flight.
//!
//! A [`Cargo`] owns a slice in the receiver's pool, a reference per handle, its files, and the
//! charges for all of them. [`Message::discard`] gives all of that back; simply dropping it
//! would leave the charges and the counts of nodes standing.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::Amounts;
use super::handle::Handle;
use super::host::{Host, Pool};
use super::inbox::Inbox;
use super::node::Node;
use super::peer::Peer;
use super::queue::{Key, Seat};
use super::user::SentFds;
use super::GFP_KEPT;

/// The descriptors of a message, in the order in which they will be numbered.
pub type Files<H> = KVec<<H as Host>::File>;

/// A reserved part of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Its number in `Slices`.
    pub(super) number: u32,
    pub(super) offset: u64,
    pub(super) size: u64,
    /// The ID of the peer that is charged for it.
    pub(super) payer: u64,
}

impl Slice {
    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// Handles on their way; None where the node was dead already when the message was made, and where
/// none is linked yet.
pub(super) type Handles<H> = KVVec<Option<Arc<Handle<H>>>>;

/// What a message or a seed carries.
pub(super) struct Cargo<H: Host> {
    pub(super) slice: Slice,
    /// Bytes of payload.
    pub(super) n_bytes: u64,
    pub(super) handles: Handles<H>,
    pub(super) files: Option<Arc<Files<H>>>,
    /// The charge on the sender's user, which ends when it is dropped.
    pub(super) _sent_fds: Option<SentFds>,
}

/// A message, on its way to the owner of its node or queued there, or memory for one.
pub(super) struct Message<H: Host> {
    /// In memory for one, what the last one was for: the next is mostly for the same.
    pub(super) node: Option<Arc<Node<H>>>,
    /// The receiver's, from when it is in its stock.
    pub(super) pool: Option<H::Pool>,
    /// Its slice is.
    pub(super) pinned: bool,
    /// Memory for its entry in a tree, if it ever was one of several parts. Such a part has it, but while it
    /// is in a tree.
    pub(super) seat: Option<Seat<H>>,
    /// Where it stands in the queue.
    pub(super) key: Key,
    pub(super) cargo: Cargo<H>,
}

impl<H: Host> Message<H> {
    /// Memory for a message. ENOMEM.
    pub(super) fn blank() -> Result<KBox<Self>> {
        let slice = Slice {
            number: 0,
            offset: 0,
            size: 0,
            payer: 0,
        };
        let cargo = Cargo {
            slice,
            n_bytes: 0,
            handles: KVVec::new(),
            files: None,
            _sent_fds: None,
        };
        let key = Key::FIRST;
        let blank = Self {
            node: None,
            pool: None,
            pinned: false,
            seat: None,
            key,
            cargo,
        };
        Ok(KBox::new(blank, GFP_KEPT)?)
    }

    /// Says what it is for.
    #[inline]
    pub(super) fn address(&mut self, node: Option<&Arc<Node<H>>>) {
        match (&self.node, node) {
            (Some(last), Some(node)) if Arc::ptr_eq(last, node) => (),
            _ => self.node = node.cloned(),
        }
    }

    /// Whether the user of the node's owner dropped it, so that nobody wants this any more.
    #[inline]
    pub(super) fn is_stale(&self, inbox: &Inbox<H>) -> bool {
        let node = self.node.as_ref();
        node.is_some_and(|node| node.shared.access(inbox).gone)
    }

    /// Gets memory behind the slice and clears the padding of the payload. ENOMEM.
    #[inline]
    pub(super) fn pin(&mut self) -> Result {
        let Some(pool) = &self.pool else {
            return Ok(());
        };
        let Slice { offset, size, .. } = self.cargo.slice;
        if !self.pinned {
            pool.pin(offset, size)?;
            self.pinned = true;
        }
        // An empty slice is all padding; else it ends where the handles start, or earlier.
        let n_bytes = self.cargo.n_bytes;
        let padded = n_bytes.next_multiple_of(8).max(8).min(size);
        clear(pool, offset + n_bytes, offset + padded);
        Ok(())
    }

    /// Gives everything back that it owns of `peer`, to which it was sent, and of other peers; to be
    /// dropped next.
    pub(super) fn discard(&self, peer: &Peer<H>) {
        let cargo = &self.cargo;
        let slice = &cargo.slice;
        let charges = cargo.charges();
        let mut unpin = self.pinned;
        let mut inbox = peer.inbox.lock();
        // A disconnected peer has given all of its charges back at once.
        if inbox.open {
            unpin = inbox.free(slice, self.pinned);
            inbox.ledger.release(slice.payer, &charges);
        }
        drop(inbox);
        if let Some(pool) = self.pool.as_ref().filter(|_| unpin) {
            pool.unpin(slice.offset, slice.size);
        }
        for handle in cargo.handles.iter().flatten() {
            handle.unlink(1, false);
        }
    }
}

/// Where the parts of a slice are, relative to its start.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Handle IDs, then descriptors; what is before and not payload is padding.
    pub(super) handles: u64,
    /// Size of the whole, never 0.
    pub(super) size: u64,
}

impl Layout {
    /// For at most 2^31 bytes and at most as many handles as a limit allows, so nothing overflows.
    #[inline]
    pub(super) fn new(n_bytes: u64, n_handles: usize, n_fds: usize) -> Self {
        let handles = n_bytes.next_multiple_of(8);
        let end = handles + 8 * n_handles as u64 + 4 * n_fds as u64;
        Self {
            handles,
            size: end.next_multiple_of(8).max(8),
        }
    }
}

impl<H: Host> Cargo<H> {
    pub(super) fn n_fds(&self) -> usize {
        self.files.as_ref().map_or(0, |files| files.len())
    }

    pub(super) fn layout(&self) -> Layout {
        Layout::new(self.n_bytes, self.handles.len(), self.n_fds())
    }

    /// What is charged for it while it is in flight.
    pub(super) fn charges(&self) -> Amounts {
        charges(self.n_bytes, self.handles.len(), self.n_fds())
    }

    /// Whether it is nothing but bytes.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.handles.is_empty() && self.files.is_none()
    }
}

/// What is charged for a message of this size while it is in flight.
pub(super) fn charges(n_bytes: u64, n_handles: usize, n_fds: usize) -> Amounts {
    // In the order of the indices of `Amounts`.
    [1, n_handles as u64, n_bytes, n_fds as u64]
}

/// Stores zeros from `from` up to `to`, less than 16 bytes.
pub(super) fn clear<P: Pool>(pool: &P, from: u64, to: u64) {
    if from < to {
        pool.write(from, &[0; 16][..(to - from) as usize]);
    }
}
