// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The handles that one call names.
//!
//! # Locks
//!
//! The caller's table, and its inbox under it.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_CALL;
use crate::bus::host::Host;
use crate::bus::object::{check, creates, ensure, Creation, Handle, NewHandle, Node, Peer};
use crate::errno::ENOTUNIQ;

/// Finds the handles that one call names.
///
/// Nodes that are named for the first time are made on the way, but their creation is pending: if
/// no call that used them succeeds, they vanish again when the last of these ends.
pub(crate) struct Resolver<'p, H: Host> {
    peer: &'p Arc<Peer<H>>,
    /// Handles whose creation is pending.
    pending: Option<KVVec<Arc<Handle<H>>>>,
    success: bool,
}

impl<'p, H: Host> Resolver<'p, H> {
    /// Makes a resolver for a call of `peer`.
    pub(crate) fn new(peer: &'p Arc<Peer<H>>) -> Self {
        Self {
            peer,
            pending: None,
            success: false,
        }
    }

    /// Finds the handle of this ID.
    ///
    /// # Errors
    ///
    /// ENXIO if it is not known and cannot be made; EDQUOT, ENOMEM, ESHUTDOWN.
    #[inline]
    pub(crate) fn find(&mut self, id: u64) -> Result<Arc<Handle<H>>> {
        let table = self.peer.table.lock();
        check(table.open)?;
        if let Some(handle) = table.by_id.get(&id) {
            if matches!(handle.local.access(&table).creation, Creation::Done) {
                return Ok(handle.clone());
            }
        }
        drop(table);
        self.find_pending(id)
    }

    /// Finds the handle of a node whose creation is pending, or makes the node.
    #[cold]
    fn find_pending(&mut self, id: u64) -> Result<Arc<Handle<H>>> {
        // Room to note that it is pending.
        let pending = self.pending.get_or_insert(KVVec::new());
        pending.reserve(1, GFP_CALL)?;
        loop {
            let mut guard = self.peer.table.lock();
            let table = &mut *guard;
            check(table.open)?;
            if let Some(handle) = table.by_id.get(&id).cloned() {
                if let Creation::Pending { calls } = &mut handle.local.access_mut(table).creation {
                    *calls += 1;
                    let pushed = pending.push_within_capacity(handle.clone());
                    debug_assert!(pushed.is_ok());
                }
                return Ok(handle);
            }
            drop(guard);
            ensure(creates(id), ENXIO)?;
            Peer::make_node(self.peer, id)?;
        }
    }

    /// Ends a call that succeeded: the nodes that it made stay.
    #[inline(always)]
    pub(crate) fn finish(mut self) {
        self.success = true;
    }

    /// Ends a call that used nodes whose creation was pending.
    #[cold]
    fn end(&self, pending: &[Arc<Handle<H>>]) {
        for handle in pending {
            let mut guard = self.peer.table.lock();
            let table = &mut *guard;
            let local = handle.local.access_mut(table);
            let Creation::Pending { calls } = &mut local.creation else {
                continue;
            };
            *calls -= 1;
            let is_last = *calls == 0;
            if self.success {
                local.creation = Creation::Done;
                continue;
            }
            // A disconnect or a flush may have emptied the table meanwhile.
            if !is_last || local.refs == 0 {
                continue;
            }
            let detached = table.detach(&mut self.peer.inbox.lock(), handle);
            drop(guard);
            handle.unlink(detached);
        }
    }
}

impl<H: Host> Peer<H> {
    /// Makes the node of this ID, whose creation is pending, unless another thread makes it first.
    fn make_node(this: &Arc<Self>, id: u64) -> Result {
        let node = Node::new(id, this)?;
        let new = NewHandle::new(&node, this)?;
        this.charge_handle(this.claimant())?;
        let mut guard = this.table.lock();
        let table = &mut *guard;
        check(table.open)?;
        if table.by_id.get(&id).is_some() {
            drop(guard);
            this.discharge_handles(this.id(), 1);
            return Ok(());
        }
        let mut inbox = this.inbox.lock();
        let handle = new.link(&mut inbox);
        table.insert(&mut inbox, &handle, this.id(), id);
        handle.local.access_mut(table).pinned = true;
        Ok(())
    }
}

impl<H: Host> Drop for Resolver<'_, H> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.end(&pending);
        }
    }
}

/// A list of IDs in which each may be named once. In a list that is in order none comes again.
pub(crate) struct Distinct(Option<RBTree<u64, ()>>);

impl Distinct {
    /// Looks whether the list is in order.
    pub(crate) fn new(ids: &[u64]) -> Self {
        Self((!ids.is_sorted_by(|a, b| a < b)).then(RBTree::new))
    }

    /// Finds the handle of the next ID of the list, as [`Resolver::find`].
    ///
    /// # Errors
    ///
    /// ENOTUNIQ if it was found before.
    #[inline]
    pub(crate) fn find<H: Host>(
        &mut self,
        resolver: &mut Resolver<'_, H>,
        id: u64,
    ) -> Result<Arc<Handle<H>>> {
        let handle = resolver.find(id)?;
        if let Some(seen) = &mut self.0 {
            let again = seen.try_create_and_insert(id, (), GFP_CALL)?;
            ensure(again.is_none(), ENOTUNIQ)?;
        }
        Ok(handle)
    }
}
