// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Numbers about a peer and its user, for fdinfo and QUOTA, and about a bus.
//!
//! # Locks
//!
//! The peer's table and the inboxes of the user's peers, one after the other, for a few entries at
//! a time; the account of the user. [`Bus::usage`] holds the list of users for its whole walk, and
//! each account in turn under it.

use crate::bus::host::Host;
use crate::bus::object::{Bus, Peer};
use crate::bus::order::Cursor;
use crate::bus::pool::Size;
use crate::bus::quota::{add, only, Amounts, Limits, FDS, NOTHING};

/// Most handles or entries that are counted in one go.
const COUNT_CHUNK: usize = 64;

/// Numbers about a peer, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The peer's ID, unique on its bus.
    pub id: u64,
    /// The user that it belongs to.
    pub uid: u32,
    /// Handles in its table, own nodes included.
    pub handles: u64,
    /// Own nodes.
    pub nodes: u64,
    /// Queue entries that were committed.
    pub queued: u64,
    /// Queue entries that are staged.
    pub staged: u64,
    /// Slices in its pool, in flight or received.
    pub slices: u64,
    /// Slices, handles, bytes and descriptors charged at this peer.
    pub charged: Amounts,
    /// Amounts charged at the peers of its user together.
    pub user_charged: Amounts,
    /// Limits of its user.
    pub user_limits: Limits,
    /// Descriptors that its user has in flight.
    pub sent_fds: u64,
}

/// Amounts in use on a bus, over all users. All zero when no peer is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Users with a peer, or with something in flight.
    pub users: u64,
    /// Connected peers.
    pub peers: u64,
    /// Charged slices, handles, bytes and descriptors, as drawn from the users' accounts.
    pub charged: Amounts,
    /// Descriptors in flight, by the accounts of their senders.
    pub sent_fds: u64,
}

impl<H: Host> Bus<H> {
    /// Sums up the amounts in use.
    pub fn usage(&self) -> Usage {
        let users = self.users.lock();
        let mut usage = Usage::default();
        for known in users.by_id.values() {
            let books = known.waits.user.account.lock();
            let peers = known.peers.iter().count() as u64;
            let charged = &books.account.used;
            let sent_fds = books.sent.used[FDS];
            if peers == 0 && sent_fds == 0 && *charged == NOTHING {
                continue;
            }
            usage.users += 1;
            usage.peers += peers;
            usage.sent_fds += sent_fds;
            add(&mut usage.charged, charged);
        }
        usage
    }
}

impl<H: Host> Peer<H> {
    /// Counts the handles, entries and slices of the peer; takes time in proportion, and keeps no
    /// other task waiting. Numbers that change meanwhile may be those of any moment of the call.
    /// If the caller is killed, the counts stop short: nobody sees them.
    pub fn info(&self) -> Info {
        let (mut handles, mut nodes) = (0, 0);
        let mut next = Some(0);
        while next.is_some() && !H::is_killed() {
            let table = self.table.lock();
            for _ in 0..COUNT_CHUNK {
                let here = next.and_then(|from| table.by_id.cursor_lower_bound(&from));
                let Some(here) = here else {
                    next = None;
                    break;
                };
                let (id, handle) = here.current();
                next = id.checked_add(1);
                handles += 1;
                nodes += u64::from(handle.is_anchor());
            }
        }
        let mut inbox = self.inbox.lock();
        inbox.queue.pull();
        let mut cursor = inbox.queue.cursor();
        drop(inbox);
        let mut queued = 0;
        while !matches!(cursor, Cursor::End) && !H::is_killed() {
            let inbox = self.inbox.lock();
            for _ in 0..COUNT_CHUNK {
                let at = inbox.queue.advance(&mut cursor);
                let entry = at.and_then(|at| inbox.queue.entry_at(&at));
                queued += u64::from(entry.is_some());
            }
        }
        let (charged, user_charged) = (self.used(), self.used_by_user());
        let sent_fds = self.user.account.lock().sent.used[FDS];
        let inbox = self.inbox.lock();
        Info {
            id: self.id(),
            uid: self.uid(),
            handles,
            nodes,
            queued,
            staged: inbox.queue.n_staged() as u64,
            slices: u64::from(inbox.slices.n_used),
            charged,
            user_charged,
            user_limits: self.user.limits,
            sent_fds,
        }
    }

    /// Returns whether its user may not have as many descriptors more in flight to `to` now.
    pub(crate) fn refuses_fds(&self, to: &Self, size: &Size) -> bool {
        if size.n_fds == 0 {
            return false;
        }
        let books = self.user.account.lock();
        let held = only(FDS, books.sent_to(to.id()));
        let wanted = only(FDS, size.n_fds as u64);
        books.sent.refuses(to.uid(), &held, &wanted).is_some()
    }

    /// Sums up what the peers of its user use. Exact while nothing else happens; takes time in
    /// proportion to the peers where a claimant has credit. Stops short if the caller is killed.
    pub(crate) fn used_by_user(&self) -> Amounts {
        let books = self.user.account.lock();
        // Charges that mapped pools of gone peers keep are missing from the limits.
        let limits = &books.account.limits;
        let used = &books.account.used;
        let mut used = core::array::from_fn(|r| used[r] + self.user.limits[r] - limits[r]);
        drop(books);
        let mut from = 0;
        while let Some(peer) = self.bus.peer_with_credit(&self.user, from) {
            if H::is_killed() {
                break;
            }
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
        while next.is_some() && !H::is_killed() {
            let idle = self.inbox.lock().ledger.idle_from(&mut next);
            charged = core::array::from_fn(|r| charged[r].saturating_sub(idle[r]));
        }
        charged
    }
}
