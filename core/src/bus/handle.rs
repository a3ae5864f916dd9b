// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Handles: a peer's right to one node.
//!
//! There is at most one per pair of node and peer. It exists while the peer has user references, or
//! while something on its way to the peer carries it.
//!
//! # Locks
//!
//! The three parts of a handle belong to three locks; see each.

use kernel::prelude::*;
use kernel::rbtree::RBTreeNodeReservation;
use kernel::sync::{Arc, LockedBy};

use super::host::Host;
use super::inbox::Inbox;
use super::node::{HolderKey, Node};
use super::peer::Peer;
use super::queue::{Key, Seat};
use super::table::{Slot, Table};
use super::GFP_KEPT;
use crate::abi::HANDLE_INVALID;

/// What the holder's table guards.
pub(super) struct Local<H: Host> {
    /// INVALID while it is not in the table.
    pub(super) id: u64,
    /// User references, the owner's pin included.
    pub(super) refs: u64,
    /// Memory for its entry in the table, while it is not there.
    pub(super) slot: Option<Slot<H>>,
    /// The peer that was charged for it.
    pub(super) charge: Option<u64>,
    /// Calls that are under way with a node that none of them has finished yet.
    pub(super) unfinished: u32,
    /// Some call that made or used the node succeeded.
    pub(super) finished: bool,
}

/// What the holder's inbox guards.
pub(super) struct Notice<H: Host> {
    /// Memory for the notice that the node was destroyed, until it is staged.
    pub(super) seat: Option<Seat<H>>,
    /// The peer has user references, so it wants that notice.
    pub(super) held: bool,
    /// Where it was staged.
    pub(super) at: Option<Key>,
    /// The notice left the queue.
    pub(super) spent: bool,
}

/// What the node's owner's inbox guards.
pub(super) struct Share {
    /// References of all kinds: the peer's, and those on their way to it.
    pub(super) refs: u64,
    /// It stands among the node's holders, not told of its end yet.
    pub(super) linked: bool,
}

/// A peer's right to one node.
pub(super) struct Handle<H: Host> {
    pub(super) node: Arc<Node<H>>,
    pub(super) holder: Arc<Peer<H>>,
    pub(super) local: LockedBy<Local<H>, Table<H>>,
    pub(super) notice: LockedBy<Notice<H>, Inbox<H>>,
    pub(super) share: LockedBy<Share, Inbox<H>>,
}

/// A reference that was just given, and what [`Handle::rise`] needs to make it good, if anything.
pub(super) type Linked<H> = (Arc<Handle<H>>, Option<u64>);

/// Memory for a place among a node's holders.
pub(super) type Place<H> = RBTreeNodeReservation<HolderKey, Arc<Handle<H>>>;

/// A handle that is not linked to its node yet, and the memory for that.
pub(super) struct Fresh<H: Host>(Arc<Handle<H>>, Place<H>);

impl<H: Host> Fresh<H> {
    pub(super) fn new(node: &Arc<Node<H>>, holder: &Arc<Peer<H>>) -> Result<Self> {
        let local = Local {
            id: HANDLE_INVALID,
            refs: 0,
            slot: Some(Slot::<H>::new(GFP_KEPT)?),
            charge: None,
            unfinished: 0,
            finished: false,
        };
        let notice = Notice {
            seat: Some(Seat::<H>::new(GFP_KEPT)?),
            held: false,
            at: None,
            spent: false,
        };
        let share = Share {
            refs: 1,
            linked: true,
        };
        let handle = Handle {
            node: node.clone(),
            holder: holder.clone(),
            local: LockedBy::new(&holder.table, local),
            notice: LockedBy::new(&holder.inbox, notice),
            share: LockedBy::new(&node.owner().inbox, share),
        };
        Ok(Self(
            Arc::new(handle, GFP_KEPT)?,
            Place::<H>::new(GFP_KEPT)?,
        ))
    }

    /// Puts it among the node's holders, with one reference. Under the owner's inbox.
    pub(super) fn link(self, inbox: &mut Inbox<H>) -> Arc<Handle<H>> {
        let Self(handle, place) = self;
        let node = &handle.node;
        let key = node.holder_key(&handle.holder);
        let shared = node.shared.access_mut(inbox);
        shared.holders.insert(place.into_node(key, handle.clone()));
        handle
    }
}

impl<H: Host> Handle<H> {
    /// Whether the holder owns the node, so that this is its anchor.
    pub(super) fn is_anchor(&self) -> bool {
        Arc::ptr_eq(&self.holder, self.node.owner())
    }

    /// Gives `peer` one more reference on `node`. None if the node is dead.
    ///
    /// It counts at once, but the owner is not told of its end until [`Handle::rise`] makes it good:
    /// before that [`Handle::unlink`] leaves no trace.
    pub(super) fn link(node: &Arc<Node<H>>, peer: &Arc<Peer<H>>) -> Result<Option<Linked<H>>> {
        let mut fresh = None;
        loop {
            let mut guard = node.owner().inbox.lock();
            let inbox = &mut *guard;
            // Where the owner is gone, what does not say so is being destroyed by another call.
            if node.dead() != 0 {
                return Ok(None);
            }
            let (key, shared) = (node.holder_key(peer), node.shared.access(inbox));
            let found = shared
                .holders
                .get(&key)
                .or_else(|| shared.told.get(&key))
                .cloned();
            let handle = match (found, fresh.take()) {
                (Some(handle), unused) => {
                    handle.share.access_mut(inbox).refs += 1;
                    fresh = unused;
                    handle
                }
                (None, Some(new)) => Fresh::link(new, inbox),
                (None, None) => {
                    drop(guard);
                    fresh = Some(Fresh::new(node, peer)?);
                    continue;
                }
            };
            let owed = node.count_up(inbox);
            drop(guard);
            drop(fresh);
            return Ok(Some((handle, owed)));
        }
    }

    /// Makes a reference good that [`Handle::link`] gave.
    pub(super) fn rise(&self, owed: Option<u64>) {
        let Some(owed) = owed else { return };
        let owner = self.node.owner();
        let wake = Node::rise(&self.node, &mut owner.inbox.lock(), owed);
        if wake {
            owner.wake();
        }
    }

    /// Gives back `n` references, of which one is the owner's `pin` perhaps.
    pub(super) fn unlink(&self, n: u64, pin: bool) {
        let owner = self.node.owner();
        let mut guard = owner.inbox.lock();
        let inbox = &mut *guard;
        let share = self.share.access_mut(inbox);
        debug_assert!(share.refs >= n);
        share.refs -= n;
        let unused = share.refs == 0;
        let mut out = None;
        if unused && core::mem::take(&mut share.linked) {
            let key = self.node.holder_key(&self.holder);
            out = self.node.shared.access_mut(inbox).holders.remove_node(&key);
        }
        let wake = Node::count_down(&self.node, inbox, n - u64::from(pin));
        drop(guard);
        drop(out);
        if wake {
            owner.wake();
        }
        if unused {
            self.forget();
        }
    }

    /// Takes the notice that the node is dead out of the holder's queue, once nothing refers to
    /// the handle any more; nobody would receive it, and nobody is charged for it.
    pub(super) fn forget(&self) {
        let dead = self.node.dead();
        let is_unused = || self.share.access(&self.node.owner().inbox.lock()).refs == 0;
        // While the node lives it may be linked again; and if the notice is on its way, who sends
        // it looks after it. In this order: only the references of a dead node cannot come back.
        if dead == 0 || !is_unused() {
            return;
        }
        let mut guard = self.holder.inbox.lock();
        let inbox = &mut *guard;
        let notice = self.notice.access_mut(inbox);
        if notice.held || notice.spent {
            return;
        }
        let Some(at) = notice.at.take() else { return };
        notice.spent = true;
        let committed = Key(dead, at.1, at.2);
        let queue = &mut inbox.queue;
        let out = queue.unstage(&at).or_else(|| queue.remove(&committed));
        drop(guard);
        drop(out);
        // It may have kept others back.
        self.holder.wake();
    }
}
