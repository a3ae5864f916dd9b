// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What is in flight.
//!
//! A [`Cargo`] owns a slice in the receiver's pool, a reference per handle, its files, and the
//! charges for all of them. [`Cargo::discard`] gives all of that back; simply dropping it
//! would leave the charges and the counts of nodes standing.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::{Amounts, Claimant};
use super::few::Few;
use super::handle::Handle;
use super::host::{Host, Pool};
use super::node::Node;
use super::peer::Peer;
use super::user::SentFds;

/// The descriptors of a message, in the order in which they will be numbered.
pub type Files<H> = KVec<<H as Host>::File>;

/// A reserved part of a pool, and who is charged for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Its number in `Slices`.
    pub(super) number: u32,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) claimant: Claimant,
}

impl Slice {
    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// Handles on their way; None where the node was dead already when the message was made, and where
/// none is linked yet.
pub(super) type Handles<H> = Few<Option<Arc<Handle<H>>>>;

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

/// A message, queued at the owner of its node.
pub(super) struct Message<H: Host> {
    pub(super) node: Arc<Node<H>>,
    pub(super) cargo: Cargo<H>,
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
