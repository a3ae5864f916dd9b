// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! QUOTA: reports the largest message, the limit that would refuse a message, and the amounts used.
//!
//! Changes nothing: idle credit counts as used, and is not recalled.
//!
//! # Locks
//!
//! The caller's table, the receiver's inbox, the list of users, the accounts of users, the inboxes
//! of the user's peers: one at a time, except that the account of a user is taken under the list of
//! users, and under an inbox of its peers.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::*;
use crate::bus::command::dispatch::{check_flags, Command};
use crate::bus::command::pending::Pending;
use crate::bus::command::Caller;
use crate::bus::host::Host;
use crate::bus::object::{charges, ensure, Handle, Peer};
use crate::bus::pool::Size;
use crate::bus::quota::{self, covers, Level, FDS, SLICES};
use crate::errno::{EDQUOT, EHOSTUNREACH};

/// Returns the amounts in the form of the interface.
fn amounts([slices, handles, bytes, fds]: quota::Amounts) -> Amounts {
    Amounts {
        slices,
        handles,
        bytes,
        fds,
    }
}

impl<H: Host> Peer<H> {
    /// Returns the most of each resource that one message to `to` may have if nobody holds
    /// anything except the node and the handle that it goes to.
    fn most_to(&self, to: &Self) -> quota::Amounts {
        let mut most = to.inbox.lock().ledger.most(self.claimant());
        let sent = self.user.account.lock().sent.most(to.uid(), 0, 0);
        most[FDS] = most[FDS].min(sent[FDS]);
        most
    }

    /// Returns the limit that would refuse a message of this size to `to` now, and the resource.
    /// Idle credit counts as used: SEND would recall it.
    fn refusal(&self, to: &Self, size: &Size) -> Option<(Level, usize)> {
        if self.refuses_fds(to, size) {
            return Some((Level::Sender, FDS));
        }
        let ledger = &to.inbox.lock().ledger;
        ledger.refuses(self.claimant(), &charges(size))
    }

    /// Returns the handle of this ID.
    ///
    /// # Errors
    ///
    /// ENXIO; EHOSTUNREACH if its node is destroyed.
    fn known(&self, id: u64) -> Result<Arc<Handle<H>>> {
        let handle = self.table.lock().by_id.get(&id).cloned().ok_or(ENXIO)?;
        ensure(!handle.node.is_dead(), EHOSTUNREACH)?;
        Ok(handle)
    }
}

impl<H: Host> Pending<'_, H> {
    /// Returns the error of a message of this size that was refused with `error`: EMSGSIZE if quota
    /// would refuse it even where nobody holds anything.
    #[cold]
    pub(crate) fn refused(&self, size: &Size, error: Error) -> Error {
        // What was claimed until the refusal is back.
        self.to().look_at_waits_if_due();
        let mut most = self.from.most_to(self.to());
        // A peer that allows no slices accepts no message now, whatever its size.
        most[SLICES] = 1;
        if error == EDQUOT && !covers(&most, &charges(size)) {
            return EMSGSIZE;
        }
        error
    }
}

impl<H: Host, C: Caller<H>> Command<'_, H, C> {
    /// Carries out QUOTA.
    pub(crate) fn quota(&self) -> Result {
        let peer = self.peer;
        let mut cmd = CmdQuota::from_bytes(&self.argument()?);
        if cmd.size != CmdQuota::SIZE as u64 {
            self.check_beyond(cmd.size, CmdQuota::SIZE)?;
        }
        check_flags(cmd.flags, 0)?;
        let handle = match cmd.handle {
            HANDLE_INVALID => None,
            id => Some(peer.known(id)?),
        };
        let to = handle.as_ref().map_or(peer, |handle| &handle.node.owner);
        // Numbers beyond these are too much in any case, and nothing overflows.
        let few = |n: u64| n.min(1 << 40);
        let size = Size {
            n_bytes: few(cmd.n_bytes),
            n_handles: few(cmd.n_handles) as usize,
            n_fds: few(cmd.n_fds) as usize,
        };
        (cmd.level, cmd.resource) = match peer.refusal(to, &size) {
            None => (QUOTA_LEVEL_NONE, 0),
            Some((Level::Peer, resource)) => (QUOTA_LEVEL_PEER, resource as u32),
            Some((Level::User, resource)) => (QUOTA_LEVEL_USER, resource as u32),
            Some((Level::Sender, resource)) => (QUOTA_LEVEL_SENDER, resource as u32),
        };
        cmd.most = amounts(peer.most_to(to));
        cmd.peer_used = amounts(peer.used());
        cmd.user_used = amounts(peer.used_by_user());
        cmd.sent_fds = peer.user.account.lock().sent.used[FDS];
        cmd.user_max = amounts(peer.user.limits);
        self.caller.write(self.arg, &cmd.to_bytes())
    }
}
