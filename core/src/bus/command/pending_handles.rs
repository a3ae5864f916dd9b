// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Handles that a peer is about to gain without a message: by a transfer, or by the receipt of a
//! seed.
//!
//! # Locks
//!
//! The peer's inbox; then the inbox of each node's owner.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_CALL;
use crate::bus::host::Host;
use crate::bus::object::{Detached, Handles, Peer};
use crate::bus::quota::Claimant;

/// References for a peer, and charges for them, that it is about to gain. The drop gives back all
/// that were not gained.
pub(crate) struct PendingHandles<'p, H: Host> {
    peer: &'p Arc<Peer<H>>,
    claimant: Claimant,
    pub(crate) slots: Handles<H>,
    pub(crate) n_charged: usize,
}

impl<'p, H: Host> PendingHandles<'p, H> {
    /// Charges `n` handles, and has room for as many.
    ///
    /// # Errors
    ///
    /// EDQUOT, ESHUTDOWN, ENOMEM.
    pub(crate) fn new(peer: &'p Arc<Peer<H>>, claimant: Claimant, n: usize) -> Result<Self> {
        // Another handle may be charged later.
        let slots = Handles::with_capacity(n.max(1), GFP_CALL)?;
        let mut new = Self {
            peer,
            claimant,
            slots,
            n_charged: 0,
        };
        new.charge(n)?;
        Ok(new)
    }

    /// Charges `n` more.
    ///
    /// # Errors
    ///
    /// EDQUOT, ESHUTDOWN, ENOMEM.
    pub(crate) fn charge(&mut self, n: usize) -> Result {
        if n != 0 {
            self.peer.charge_handles(self.claimant, n)?;
            self.n_charged += n;
        }
        Ok(())
    }
}

impl<H: Host> Drop for PendingHandles<'_, H> {
    fn drop(&mut self) {
        self.peer
            .discharge_handles(self.claimant.peer, self.n_charged);
        for handle in self.slots.iter().flatten() {
            handle.unlink(Detached::ONE);
        }
    }
}
