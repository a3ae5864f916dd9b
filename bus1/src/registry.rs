// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer's handles in this process, by ID: so that one ID is one [`Handle`], however often it
//! is received.
//!
//! The bus counts user references per ID. The [`Right`] behind all clones of a handle counts them
//! along, and releases as many when the last clone goes.
//!
//! Invariants:
//! - The table holds no strong reference.
//! - The references that the rights of an ID count add up to those that the bus counts, less the
//!   pin of a node, less what [`Handle::leak`](crate::Handle::leak) gave away. An ID may have two
//!   rights for a moment, an old one that is being released and a new one: each gives back what
//!   it counted, so their order does not matter.
//! - As long as a right to an own node exists, the ID is in use, by the pin or by a reference:
//!   naming one that is not would create a node.
//!
//! Lock: `inner`; it also guards [`Right::stage`]. No command is given and no right is dropped
//! under it.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::connection::Connection;
use crate::handle::Handle;

/// The table of one peer.
#[derive(Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    rights: HashMap<u64, Weak<Right>>,
    /// Own nodes that are destroyed, and whose pin goes when the notice of it is received.
    closing: HashSet<u64>,
}

/// What the clones of a handle share. Dropping it releases.
pub(crate) struct Right {
    pub(crate) connection: Arc<Connection>,
    pub(crate) id: u64,
    /// User references to release. Relaxed: whoever changes it holds a strong reference, and
    /// the last one to go sees all that others did.
    references: AtomicU64,
    /// One of those below.
    stage: AtomicU8,
}

/// No `Node` stands for it.
const FREE: u8 = 0;
/// A `Node` stands for it, and the pin keeps its ID.
const OWNED: u8 = 1;
/// The `Node` has destroyed it, or is about to.
const ENDED: u8 = 2;

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of an ID for which the peer has got another user reference. The caller holds the
    /// gate, or keeps the connection busy.
    ///
    /// If a `Node` stands for it the reference is given back at once: an owner's own handle does
    /// not count as given away.
    pub(crate) fn add(connection: &Arc<Connection>, id: u64) -> Handle {
        let mut inner = connection.handles.lock();
        let right = inner.find_or_insert(connection, id);
        let owned = right.stage() == OWNED;
        drop(inner);
        if owned {
            // If it is destroyed meanwhile, the pin stays as long as this right does.
            right.release(1);
        } else {
            right.count();
        }
        Handle(right)
    }

    /// The handle of an own node that is about to be made, or to be taken over; nothing if a `Node`
    /// stands for it already. The caller holds the gate.
    pub(crate) fn own(connection: &Arc<Connection>, id: u64) -> Option<Handle> {
        let mut inner = connection.handles.lock();
        let dying = inner
            .rights
            .get(&id)
            .is_some_and(|right| right.strong_count() == 0);
        if dying || inner.closing.contains(&id) {
            return None;
        }
        let right = inner.find_or_insert(connection, id);
        let free = right.stage() == FREE;
        if free {
            right.set_stage(OWNED);
        }
        drop(inner);
        if !free {
            return None;
        }
        // From now on it is the pin that keeps it.
        let references = right.references.swap(0, Ordering::Relaxed);
        right.release(references);
        Some(Handle(right))
    }

    /// No `Node` stands for it any more, but it lives on, or was never made.
    pub(crate) fn disown(&self, handle: &Handle) {
        let _inner = self.lock();
        handle.0.set_stage(FREE);
    }

    /// The node is about to be destroyed. Returns whether nobody has this handle but the caller;
    /// who gets it from now on brings a reference of its own.
    pub(crate) fn end(&self, handle: &Handle) -> bool {
        let _inner = self.lock();
        handle.0.set_stage(ENDED);
        Arc::strong_count(&handle.0) == 1
    }

    /// Notes that the pins of these nodes, which are about to be destroyed, go with the notice.
    pub(crate) fn close(&self, ids: &[u64]) {
        self.lock().closing.extend(ids);
    }

    /// Takes that back.
    pub(crate) fn keep_open(&self, ids: &[u64]) {
        let mut inner = self.lock();
        for id in ids {
            inner.closing.remove(id);
        }
    }

    /// Takes the notice of a destruction: gives up the pin if this process has closed the node. The
    /// caller holds the gate, or keeps the connection busy.
    pub(crate) fn destroyed(connection: &Arc<Connection>, id: u64) {
        let mut inner = connection.handles.lock();
        if inner.closing.remove(&id) {
            let right = inner.find_or_insert(connection, id);
            right.set_stage(ENDED);
            drop(inner);
            right.count();
        }
    }

    /// Nothing of the peer is in use, and the bus has dropped all that was.
    pub(crate) fn flushed(&self) {
        *self.lock() = Inner::default();
    }
}

impl Inner {
    /// The right of an ID; a new one counts nothing yet.
    fn find_or_insert(&mut self, connection: &Arc<Connection>, id: u64) -> Arc<Right> {
        if let Some(right) = self.rights.get(&id).and_then(Weak::upgrade) {
            return right;
        }
        connection.object_made();
        let right = Arc::new(Right {
            connection: connection.clone(),
            id,
            references: AtomicU64::new(0),
            stage: AtomicU8::new(FREE),
        });
        self.rights.insert(id, Arc::downgrade(&right));
        right
    }
}

impl Right {
    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Relaxed)
    }

    fn set_stage(&self, stage: u8) {
        self.stage.store(stage, Ordering::Relaxed);
    }

    /// Counts another reference, which goes with the last handle.
    pub(crate) fn count(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one reference away, to be released by somebody else, if there is one.
    pub(crate) fn give_away(&self) {
        // An error says that there is none.
        let _ = self
            .references
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    /// Gives references back.
    fn release(&self, references: u64) {
        for _ in 0..references {
            // It fails if the peer is disconnected, and then they are gone.
            if self.connection.handle_release(self.id).is_err() {
                break;
            }
        }
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        let references = *self.references.get_mut();
        self.release(references);
        {
            let mut inner = self.connection.handles.lock();
            // Another right may have come in its place.
            if let Entry::Occupied(entry) = inner.rights.entry(self.id) {
                if std::ptr::eq(entry.get().as_ptr(), self) {
                    entry.remove();
                }
            }
        }
        self.connection.object_gone();
    }
}
