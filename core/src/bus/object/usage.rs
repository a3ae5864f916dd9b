// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The amounts that a user's peers use together.
//!
//! # Locks
//!
//! The inboxes of the user's peers, one after the other.

use crate::bus::host::Host;
use crate::bus::object::Peer;
use crate::bus::pool::Size;
use crate::bus::quota::{only, Amounts, FDS};

impl<H: Host> Peer<H> {
    /// Returns whether its user may not have as many descriptors more in flight to `to` now.
    pub(crate) fn refuses_fds(&self, to: &Self, size: &Size) -> bool {
        if size.n_fds == 0 {
            return false;
        }
        let books = self.user.account.lock();
        let held = only(FDS, books.sent_to(to.id()));
        let refused = books
            .sent
            .refuses(to.uid(), &held, &only(FDS, size.n_fds as u64));
        refused.is_some()
    }

    /// Sums up what the peers of its user use. Exact while nothing else happens; takes time in
    /// proportion to the peers where a claimant has credit.
    pub(crate) fn used_by_user(&self) -> Amounts {
        let books = self.user.account.lock();
        // What mapped pools of peers that are gone keep is missing from the limits.
        let (limits, used) = (&books.account.limits, &books.account.used);
        let mut used = core::array::from_fn(|r| used[r] + self.user.limits[r] - limits[r]);
        drop(books);
        let mut from = 0;
        while let Some(peer) = self.bus.peer_with_credit(&self.user, from) {
            used = peer.less_idle(used);
            from = peer.id() + 1;
        }
        used
    }

    /// Returns what is used at this peer, of what is charged there. Exact as
    /// [`Peer::used_by_user`].
    pub(crate) fn used(&self) -> Amounts {
        let charged = self.inbox.lock().ledger.account.used;
        self.less_idle(charged)
    }

    /// Returns `charged` less the credit that lies idle at this peer, a few claimants at a time.
    fn less_idle(&self, mut charged: Amounts) -> Amounts {
        let mut next = Some(0);
        while next.is_some() {
            let idle = self.inbox.lock().ledger.idle_from(&mut next);
            charged = core::array::from_fn(|r| charged[r].saturating_sub(idle[r]));
        }
        charged
    }
}
