// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Nodes: the objects that messages are sent to.
//!
//! # Invariants
//!
//! - A node belongs to one peer and keeps its ID for life.
//! - `holders` has the handle of every peer that holds a reference of any kind, until the node's
//!   destruction moves it to `told`; both are empty once the node is dead and all are told.
//! - `strong` counts all references of all handles but the owner's pin.
//! - A release notice is queued only while `strong` is 0 on a live node. `risen` says that one is
//!   owed when that comes to pass: the count really rose since the last notice was received.
//!
//! # Locks and memory order
//!
//! `shared` is guarded by the owner's inbox. `dead` is written under that lock as well, but read
//! without: it goes from 0 to the timestamp of the destruction once. Who reads 0 may be told of the
//! destruction later, through its own queue; Release and Acquire order it against the commit
//! in the queues, where the reader's own order comes from.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::{Arc, LockedBy};

use super::handle::Handle;
use super::host::Host;
use super::inbox::Inbox;
use super::peer::Peer;
use super::queue::{Key, Seat};
use super::GFP_KEPT;

/// Finds a handle among the holders: its peer's ID, and the node's own serial number, so that
/// handles of several nodes can stand in one tree.
pub(super) type HolderKey = (u64, u64);

/// The handles of a node.
pub(super) type Holders<H> = RBTree<HolderKey, Arc<Handle<H>>>;

/// What the owner's inbox guards of a node.
pub(super) struct Shared<H: Host> {
    pub(super) holders: Holders<H>,
    /// Holders that the destruction under way has told already. They stay known, so that a peer that
    /// is given the node again meanwhile gets the handle that it has.
    pub(super) told: Holders<H>,
    pub(super) strong: u64,
    pub(super) risen: bool,
    /// How many release notices there were.
    notices: u64,
    /// Memory for the release notice, while it is not queued.
    pub(super) seat: Option<Seat<H>>,
    /// Where the release notice is queued.
    pub(super) queued: Option<Key>,
    /// A destruction is under way; its part number of this node.
    pub(super) dying: Option<u32>,
    /// The owner dropped its last reference after the destruction: what is queued for it vanishes.
    pub(super) gone: bool,
}

/// An object that belongs to one peer.
pub struct Node<H: Host> {
    id: u64,
    /// Tells it apart from all other nodes that its owner ever had.
    pub(super) serial: u64,
    owner: Arc<Peer<H>>,
    dead: Atomic<u64>,
    pub(super) shared: LockedBy<Shared<H>, Inbox<H>>,
}

impl<H: Host> Node<H> {
    pub(super) fn new(id: u64, serial: u64, owner: &Arc<Peer<H>>) -> Result<Arc<Self>> {
        let shared = Shared {
            holders: RBTree::new(),
            told: RBTree::new(),
            strong: 0,
            risen: false,
            notices: 0,
            seat: Some(Seat::<H>::new(GFP_KEPT)?),
            queued: None,
            dying: None,
            gone: false,
        };
        let new = Self {
            id,
            serial,
            owner: owner.clone(),
            dead: Atomic::new(0),
            shared: LockedBy::new(&owner.inbox, shared),
        };
        Ok(Arc::new(new, GFP_KEPT)?)
    }

    /// The owner's ID of it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The peer that it belongs to.
    pub fn owner(&self) -> &Arc<Peer<H>> {
        &self.owner
    }

    /// The timestamp of its destruction, 0 if it lives.
    pub(super) fn dead(&self) -> u64 {
        self.dead.load(Acquire)
    }

    /// Marks it destroyed; only under the owner's inbox.
    pub(super) fn die(&self, timestamp: u64) {
        self.dead.store(timestamp, Release);
    }

    /// Whether it was destroyed before what has this timestamp.
    pub(super) fn dead_before(&self, timestamp: u64) -> bool {
        let dead = self.dead();
        dead != 0 && dead < timestamp
    }

    /// Whether a destruction may begin; under the owner's inbox.
    pub(super) fn can_die(&self, inbox: &Inbox<H>) -> bool {
        self.dead() == 0 && self.shared.access(inbox).dying.is_none()
    }

    pub(super) fn holder_key(&self, peer: &Peer<H>) -> HolderKey {
        (peer.id(), self.serial)
    }
}

/// Changes of a node's counts. All take the owner's inbox, locked.
impl<H: Host> Node<H> {
    /// Counts one more reference, not known yet to be for good. Returns what [`Node::rise`] needs to
    /// make it so; None if there is no need, since a notice is owed anyhow when the count falls.
    pub(super) fn count_up(&self, inbox: &mut Inbox<H>) -> Option<u64> {
        let shared = self.shared.access_mut(inbox);
        shared.strong += 1;
        if let Some(key) = shared.queued.take() {
            // Not received yet, so it is withdrawn, and owed again.
            shared.risen = true;
            let withdrawn = inbox.queue.remove(&key);
            self.shared.access_mut(inbox).seat = withdrawn.and_then(|(_, seat)| seat);
        }
        let shared = self.shared.access_mut(inbox);
        (!shared.risen).then_some(shared.notices)
    }

    /// Counts `n` fewer. True if the owner has to be woken.
    pub(super) fn count_down(this: &Arc<Self>, inbox: &mut Inbox<H>, n: u64) -> bool {
        let shared = this.shared.access_mut(inbox);
        debug_assert!(shared.strong >= n);
        shared.strong -= n;
        Self::notify(this, inbox)
    }

    /// A reference is for good; `notices` is what was returned when it was counted. True if the owner
    /// has to be woken.
    pub(super) fn rise(this: &Arc<Self>, inbox: &mut Inbox<H>, notices: u64) -> bool {
        let shared = this.shared.access_mut(inbox);
        if shared.notices != notices {
            // The rise of another reference was noted before, and its fall told since: of this one's
            // as well, or of a later one's.
            return false;
        }
        shared.risen = true;
        // The receiver may have dropped it already.
        Self::notify(this, inbox)
    }

    /// Gives the memory of a release notice back that was taken out of the queue. True if the owner
    /// has to be woken, for one that came due without it.
    pub(super) fn reseat(this: &Arc<Self>, inbox: &mut Inbox<H>, seat: Seat<H>) -> bool {
        this.shared.access_mut(inbox).seat = Some(seat);
        Self::notify(this, inbox)
    }

    /// Queues the release notice if one is owed now.
    fn notify(this: &Arc<Self>, inbox: &mut Inbox<H>) -> bool {
        let shared = this.shared.access_mut(inbox);
        if shared.strong != 0 || !shared.risen || this.dead() != 0 || !inbox.open {
            return false;
        }
        let shared = this.shared.access_mut(inbox);
        let Some(seat) = shared.seat.take() else {
            return false;
        };
        shared.risen = false;
        shared.notices += 1;
        let key = inbox.queue.push_notice(this, seat);
        this.shared.access_mut(inbox).queued = Some(key);
        true
    }
}
