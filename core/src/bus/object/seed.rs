// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Seeds: a message that a peer keeps for its successor.
//!
//! # Invariants
//!
//! - A seed owns its message, charges and slice included, as long as it is the current one or a
//!   call refers to it, however often it is received. Each receipt has a slice and references of
//!   its own.
//!
//! # Locks
//!
//! A seed does not change. The reference to the current one lies in the peer's inbox. The last
//! reference is dropped without locks.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::{Arc, UniqueArc};

use crate::bus::allocation::GFP_KEPT;
use crate::bus::host::{Host, KillCheck};
use crate::bus::object::{Handle, Message, Node, Peer};
use crate::errno::ESHUTDOWN;

/// A message that a peer keeps.
///
/// Its end gives back all that it has.
pub(crate) struct Seed<H: Host> {
    peer: Arc<Peer<H>>,
    pub(crate) message: KBox<Message<H>>,
    /// Own nodes that the seed carries, by address. It holds references to them.
    own: RBTree<usize, ()>,
}

impl<H: Host> Seed<H> {
    /// Makes a seed of `peer` out of the message in `from`, which stays there on error.
    ///
    /// # Errors
    ///
    /// ENOMEM; ESHUTDOWN if there is none; EINTR if the caller was killed.
    pub(crate) fn new(
        peer: &Arc<Peer<H>>,
        from: &mut Option<KBox<Message<H>>>,
    ) -> Result<Arc<Self>> {
        let mut own = RBTree::new();
        let mut kill_check = KillCheck::default();
        let handles = from.iter().flat_map(|message| message.handles.iter());
        for handle in handles.flatten().filter(|handle| handle.is_anchor()) {
            kill_check.step::<H>(1)?;
            own.try_create_and_insert(address(&handle.node), (), GFP_KEPT)?;
        }
        let memory = UniqueArc::new_uninit(GFP_KEPT)?;
        let message = from.take().ok_or(ESHUTDOWN)?;
        let seed = Self {
            peer: peer.clone(),
            message,
            own,
        };
        Ok(memory.write(seed).into())
    }

    /// Returns whether it carries the node of this anchor.
    pub(crate) fn pins(&self, anchor: &Handle<H>) -> bool {
        self.own.get(&address(&anchor.node)).is_some()
    }
}

fn address<H: Host>(node: &Node<H>) -> usize {
    core::ptr::from_ref(node).addr()
}

impl<H: Host> Drop for Seed<H> {
    fn drop(&mut self) {
        self.message.discard(&self.peer);
    }
}
