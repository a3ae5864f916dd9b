// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What is in flight.
//!
//! A [`Cargo`] owns a slice in the receiver's pool, a reference per handle, its files, and the
//! charges for all of them. [`discard`] gives all of that back; simply dropping it
//! would leave the charges and the counts of nodes standing.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::{Amounts, Claimant};
use super::handle::Handle;
use super::host::{Host, Pool};
use super::node::Node;
use super::peer::Peer;
use super::user::SentFds;

/// The descriptors of a message.
pub struct Files<H: Host>(KVec<H::File>);

impl<H: Host> Files<H> {
    /// Takes the files in the order in which they will be numbered.
    pub fn new(files: KVec<H::File>) -> Self {
        Self(files)
    }

    /// The files, in their order.
    pub fn as_slice(&self) -> &[H::File] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A reserved part of a pool, and who is charged for it.
#[derive(Clone, Copy)]
pub(super) struct Slice {
    /// Its number in `Slices`.
    pub(super) number: u32,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) claimant: Claimant,
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
    pub(super) sent_fds: Option<SentFds>,
}

/// A message, queued at the owner of its node.
pub(super) struct Message<H: Host> {
    pub(super) node: Arc<Node<H>>,
    pub(super) cargo: Cargo<H>,
}

/// Where the parts of a slice are, relative to its start.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Handle IDs; what is before and not payload is padding.
    pub(super) handles: u64,
    /// Descriptor numbers.
    pub(super) fds: u64,
    /// End of the descriptors; what follows is padding.
    pub(super) end: u64,
    /// Size of the whole, never 0.
    pub(super) size: u64,
}

impl Layout {
    /// For at most 2^31 bytes and at most as many handles as a limit allows, so nothing overflows.
    pub(super) fn new(n_bytes: u64, n_handles: usize, n_fds: usize) -> Self {
        let handles = n_bytes.next_multiple_of(8);
        let fds = handles + 8 * n_handles as u64;
        let end = fds + 4 * n_fds as u64;
        Self {
            handles,
            fds,
            end,
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

    /// Gives everything back that it owns of `peer`, to which it was sent, and everywhere else.
    /// Unpins its slice of `pool`, if it is given.
    pub(super) fn discard(self, peer: &Peer<H>, pool: Option<&H::Pool>) {
        let charges = self.charges();
        let Slice {
            number,
            offset,
            size,
            claimant,
        } = self.slice;
        let mut inbox = peer.inbox.lock();
        // A disconnected peer has given all of its charges back at once.
        if inbox.open {
            inbox.slices.free(number);
            inbox.ledger.release(claimant, &charges);
        }
        drop(inbox);
        if let Some(pool) = pool {
            pool.unpin(offset, size);
        }
        for handle in self.handles.iter().flatten() {
            handle.unlink(1, false);
        }
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
