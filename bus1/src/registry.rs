// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer's handles in this process, by ID: so that one ID is one [`Handle`], however often it
//! is received.
//!
//! The bus counts user references per ID. The [`Right`] behind all clones of a handle counts them
//! along, and releases as many when the last clone goes.
//!
//! Invariants: the table holds no strong reference. At any time the references that the rights of
//! an ID count add up to those that the bus counts, less the pin of a node, less what
//! [`Handle::leak`](crate::Handle::leak) gave away. An ID may have two rights for a moment, an old
//! one that is being released and a new one: each gives back what it counted, so their order does
//! not matter.
//!
//! Lock: `inner`; no command is given and no right is dropped under it.

use std::collections::{hash_map::Entry, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Whether there is, or was until it was destroyed, a `Node` for it. Written under the lock.
    owned: AtomicBool,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of an ID, which from now on counts `references` more. The caller holds the gate, or
    /// knows that there is another object of the peer.
    pub(crate) fn add(connection: &Arc<Connection>, id: u64, references: u64) -> Handle {
        let mut inner = connection.handles.lock();
        if let Some(right) = inner.rights.get(&id).and_then(Weak::upgrade) {
            right.references.fetch_add(references, Ordering::Relaxed);
            return Handle(right);
        }
        let right = Right::new(connection, id, references);
        inner.rights.insert(id, Arc::downgrade(&right));
        Handle(right)
    }

    /// The handle of an own node that is about to be made, or to be taken over; nothing if there is
    /// an owner already. The handle counts no reference: the pin is the node's. The caller holds
    /// the gate.
    pub(crate) fn own(connection: &Arc<Connection>, id: u64) -> Option<Handle> {
        let mut inner = connection.handles.lock();
        if inner.closing.contains(&id) {
            return None;
        }
        if let Some(right) = inner.rights.get(&id) {
            // One that is being dropped still uses the ID.
            let right = right.upgrade()?;
            return (!right.owned.swap(true, Ordering::Relaxed)).then_some(Handle(right));
        }
        let right = Right::new(connection, id, 0);
        right.owned.store(true, Ordering::Relaxed);
        inner.rights.insert(id, Arc::downgrade(&right));
        Some(Handle(right))
    }

    /// Whether nobody has this handle but the caller. Nobody can get it by a clone then, and who
    /// gets it from the bus brings a reference of its own.
    pub(crate) fn is_last(&self, handle: &Handle) -> bool {
        let _inner = self.lock();
        Arc::strong_count(&handle.0) == 1
    }

    /// Notes that the pins of these nodes go with the notice of their destruction.
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

    /// Takes the notice of a destruction: gives up the pin if this process has closed the node.
    pub(crate) fn destroyed(connection: &Arc<Connection>, id: u64) {
        let closed = connection.handles.lock().closing.remove(&id);
        if closed {
            // The pin goes with the last handle, so that no one names an ID that is not in use.
            drop(Self::add(connection, id, 1));
        }
    }

    /// Nothing of the peer is in use, and the bus has dropped all that was.
    pub(crate) fn flushed(&self) {
        *self.lock() = Inner::default();
    }
}

impl Right {
    fn new(connection: &Arc<Connection>, id: u64, references: u64) -> Arc<Self> {
        connection.object_made();
        Arc::new(Self {
            connection: connection.clone(),
            id,
            references: AtomicU64::new(references),
            owned: AtomicBool::new(false),
        })
    }

    /// The node remains, but without an owner in this process.
    pub(crate) fn disown(&self) {
        let _inner = self.connection.handles.lock();
        self.owned.store(false, Ordering::Relaxed);
    }

    /// Makes the pin a reference like any other: it goes with the last handle.
    pub(crate) fn take_pin(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one reference away, to be released by somebody else; false if there is none.
    pub(crate) fn give_reference(&self) -> bool {
        self.references
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        for _ in 0..*self.references.get_mut() {
            // It fails if the peer is disconnected, and then they are gone.
            if self.connection.handle_release(self.id).is_err() {
                break;
            }
        }
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
