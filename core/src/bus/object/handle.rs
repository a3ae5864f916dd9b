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
use kernel::sync::{Arc, LockedBy};

use crate::abi::HANDLE_INVALID;
use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::Host;
use crate::bus::object::{
    EntryReservation, HolderReservation, Inbox, Node, NoticeState, Peer, Table, TableReservation,
    WaitPlace,
};
use crate::bus::order::Key;

/// State of the node that a command made for the handle.
pub(crate) enum Creation {
    /// It vanishes if none of the calls under way that use it succeeds.
    Pending { calls: u32 },
    /// It stays, or was not made for this handle.
    Done,
}

/// The part of a handle that the holder's table guards.
pub(crate) struct Local<H: Host> {
    /// User references, the owner's pin included.
    pub(crate) refs: u64,
    /// One of them is the owner's pin.
    pub(crate) pinned: bool,
    /// Memory for its entry in the table, while it is not there.
    pub(crate) reservation: Option<TableReservation<H>>,
    /// The ID of the peer that was charged for it, while it is in the table.
    pub(crate) payer: u64,
    pub(crate) creation: Creation,
}

/// The part of a handle that the holder's inbox guards.
pub(crate) struct HolderNotice<H: Host> {
    /// The notice that the node was destroyed, which comes once.
    pub(crate) destroy: NoticeState<H>,
    /// The notice that the node may have room.
    pub(crate) room: NoticeState<H>,
    /// The holder's ID of it, INVALID while it is not in the table. It changes under the table lock
    /// as well.
    pub(crate) id: u64,
}

impl<H: Host> HolderNotice<H> {
    /// Returns whether the peer has user references, so that it wants that notice.
    pub(crate) fn is_wanted(&self) -> bool {
        self.id != HANDLE_INVALID
    }
}

/// A peer's right to one node.
pub(crate) struct Handle<H: Host> {
    pub(crate) node: Arc<Node<H>>,
    pub(crate) holder: Arc<Peer<H>>,
    pub(crate) local: LockedBy<Local<H>, Table<H>>,
    pub(crate) notice: LockedBy<HolderNotice<H>, Inbox<H>>,
    /// References of all kinds: the peer's, and those on their way to it. The inbox of the node's
    /// owner guards them.
    refs: LockedBy<u64, Inbox<H>>,
    /// The place of the holder's wait for room at the node. The inbox of the node's owner guards it.
    pub(crate) wait: LockedBy<Option<WaitPlace>, Inbox<H>>,
}

/// A reference that was just given.
pub(crate) struct Linked<H: Host> {
    pub(crate) handle: Arc<Handle<H>>,
    /// The number of release notices of the node so far, if the reference is to be confirmed by
    /// [`Linked::confirm`].
    pub(crate) unconfirmed: Option<u64>,
}

impl<H: Host> Linked<H> {
    /// Notes that the reference is for good: its owner will be notified of its end.
    pub(crate) fn confirm(&self) {
        let node = &self.handle.node;
        if let Some(n_releases) = self.unconfirmed {
            node.owner
                .notify(|inbox| Node::confirm(node, inbox, n_releases));
        }
    }
}

/// References that were taken from a handle, and are to be given back by [`Handle::unlink`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Detached {
    pub(crate) refs: u64,
    /// One of them is the owner's pin.
    pub(crate) with_pin: bool,
    /// The peer's wait for room ended with them, or its notice went, or others wait for what it gave
    /// back.
    pub(crate) ends_waits: bool,
}

impl Detached {
    /// One reference, not the pin.
    pub(crate) const ONE: Self = Self::refs(1);

    /// Returns `refs` references, the pin not among them.
    pub(crate) const fn refs(refs: u64) -> Self {
        Self {
            refs,
            with_pin: false,
            ends_waits: false,
        }
    }
}

/// A handle that its node does not know yet.
pub(crate) struct NewHandle<H: Host> {
    handle: Arc<Handle<H>>,
    reservation: HolderReservation<H>,
}

impl<H: Host> NewHandle<H> {
    /// Makes a handle without user references.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(node: &Arc<Node<H>>, holder: &Arc<Peer<H>>) -> Result<Self> {
        let local = Local {
            refs: 0,
            pinned: false,
            reservation: Some(TableReservation::<H>::new(GFP_KEPT)?),
            payer: 0,
            creation: Creation::Pending { calls: 0 },
        };
        let notice = HolderNotice {
            destroy: NoticeState::Idle(EntryReservation::<H>::new(GFP_KEPT)?),
            room: NoticeState::Removed,
            id: HANDLE_INVALID,
        };
        let handle = Handle {
            node: node.clone(),
            holder: holder.clone(),
            local: LockedBy::new(&holder.table, local),
            notice: LockedBy::new(&holder.inbox, notice),
            refs: LockedBy::new(&node.owner.inbox, 1),
            wait: LockedBy::new(&node.owner.inbox, None),
        };
        Ok(Self {
            handle: Arc::new(handle, GFP_KEPT)?,
            reservation: HolderReservation::<H>::new(GFP_KEPT)?,
        })
    }

    /// Puts it among the node's holders, with one reference. Under the owner's inbox.
    pub(crate) fn link(self, inbox: &mut Inbox<H>) -> Arc<Handle<H>> {
        let node = &self.handle.node;
        let holder = self.handle.holder.id();
        let entry = self.reservation.into_node(holder, self.handle.clone());
        node.shared.access_mut(inbox).holders.insert(entry);
        inbox.note_holder(node);
        self.handle
    }
}

impl<H: Host> Handle<H> {
    /// Returns whether the holder owns the node, so that this is its anchor.
    pub(crate) fn is_anchor(&self) -> bool {
        Arc::ptr_eq(&self.holder, &self.node.owner)
    }

    /// Gives `peer` one more reference on `node`. None if the node is dead.
    ///
    /// It counts at once, but the owner is not notified of its end until [`Linked::confirm`]:
    /// before that [`Handle::unlink`] leaves no trace.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn link(node: &Arc<Node<H>>, peer: &Arc<Peer<H>>) -> Result<Option<Linked<H>>> {
        let mut new = None;
        loop {
            let mut guard = node.owner.inbox.lock();
            let inbox = &mut *guard;
            // A node of a disconnected owner that is not dead is being destroyed by another call.
            let is_dead = node.is_dead();
            #[cfg(test)]
            let is_dead = crate::bus::planted::Fault::LinkedAfterDeath.unless(is_dead);
            if is_dead {
                return Ok(None);
            }
            let id = peer.id();
            let shared = node.shared.access(inbox);
            let found = shared.holders.get(&id).or_else(|| shared.told.get(&id));
            let handle = match (found.cloned(), new.take()) {
                (Some(handle), unused) => {
                    *handle.refs.access_mut(inbox) += 1;
                    new = unused;
                    handle
                }
                (None, Some(new)) => NewHandle::link(new, inbox),
                (None, None) => {
                    drop(guard);
                    new = Some(NewHandle::new(node, peer)?);
                    continue;
                }
            };
            let unconfirmed = node.count_up(inbox);
            drop(guard);
            drop(new);
            let linked = Linked {
                handle,
                unconfirmed,
            };
            return Ok(Some(linked));
        }
    }

    /// Gives references back.
    pub(crate) fn unlink(&self, detached: Detached) {
        let Detached { refs, with_pin, .. } = detached;
        let owner = &self.node.owner;
        let mut guard = owner.inbox.lock();
        let inbox = &mut *guard;
        let left = self.refs.access_mut(inbox);
        debug_assert!(*left >= refs);
        *left -= refs;
        let unused = *left == 0;
        let mut removed = None;
        if unused {
            // Not there if it was notified of the node's end.
            let shared = self.node.shared.access_mut(inbox);
            removed = shared.holders.remove_node(&self.holder.id());
        }
        let wake = Node::count_down(&self.node, inbox, refs - u64::from(with_pin));
        drop(guard);
        drop(removed);
        if wake {
            owner.wake();
        }
        if detached.ends_waits {
            self.leave_waits();
        }
        if unused {
            self.withdraw_notice();
        }
    }

    /// Takes the notice that the node is dead out of the holder's queue, once nothing refers to
    /// the handle any more; nobody would receive it, and nobody is charged for it.
    pub(crate) fn withdraw_notice(&self) {
        // While the node lives it may be linked again; and if the notice is on its way, the call
        // that sends it looks after it. In this order: only the references of a dead node cannot
        // come back.
        let Some(dead_at) = self.node.dead_at() else {
            return;
        };
        self.end_wait();
        if *self.refs.access(&self.node.owner.inbox.lock()) != 0 {
            return;
        }
        let mut guard = self.holder.inbox.lock();
        let inbox = &mut *guard;
        let notice = self.notice.access_mut(inbox);
        let place = match notice.destroy {
            NoticeState::Queued(place) if !notice.is_wanted() => place,
            _ => return,
        };
        notice.destroy = NoticeState::Removed;
        let committed = Key {
            timestamp: dead_at,
            ..place
        };
        #[cfg(test)]
        let committed = crate::bus::planted::Fault::NoticeKeyStale.unless(committed);
        let queue = &mut inbox.queue;
        let withdrawn = queue.unstage(&place).or_else(|| queue.remove(&committed));
        drop(guard);
        drop(withdrawn);
    }
}
