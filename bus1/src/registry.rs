// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer's connection together with its rights in this process, by ID: one ID is one right,
//! however often it is received.
//!
//! The bus counts user references per ID. The [`Right`] behind all clones of a handle counts them
//! along, and releases as many when the last clone is dropped.
//!
//! Invariants:
//! - The table holds no strong reference.
//! - The references that the rights of an ID count add up to those that the bus counts, less the
//!   pin of a node, less what [`Handle::leak`](crate::Handle::leak) gave away. An ID may have two
//!   rights for a moment, an old one that is being released and a new one: each gives back what
//!   it counted, so their order does not matter. The table has the new one, and its stage.
//! - As long as a right to an own node exists, the ID is in use, by the pin or by a reference:
//!   a command that named an unused one would create a node.
//!
//! Lock: `rights`. No command is given and no right is dropped under it.
//!
//! Memory order: references are counted Relaxed. A change is made with a strong reference held, and
//! the last one to be dropped sees all that others did.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::connection::Connection;
use crate::error::Result;

/// One peer in this process, which all objects of it share.
pub(crate) struct Registry {
    pub(crate) connection: Connection,
    rights: Mutex<Rights>,
}

#[derive(Default)]
struct Rights {
    by_id: HashMap<u64, Known>,
    /// Own nodes that are destroyed, and whose pin goes when the notice of it is received.
    closing: HashSet<u64>,
}

/// A right that the table knows.
struct Known {
    right: Weak<Right>,
    stage: Stage,
}

/// The state of a right: whether a [`Node`](crate::Node) stands for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No `Node` stands for it.
    Free,
    /// A `Node` stands for it, and the pin keeps its ID.
    Owned,
    /// Its `Node` has destroyed it, or is about to.
    Ended,
}

/// The right that the clones of a handle share. Dropping it releases.
pub(crate) struct Right {
    registry: Arc<Registry>,
    id: u64,
    /// User references to release.
    references: AtomicU64,
}

impl Registry {
    /// Returns an empty table for a connection.
    pub(crate) fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self {
            connection,
            rights: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Rights> {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the right of an ID for which the peer has got another user reference. The caller has
    /// entered the gate, or keeps the connection busy.
    ///
    /// If a `Node` stands for it, the reference is given back at once: an owner's own handle does
    /// not count as given away.
    pub(crate) fn add(self: &Arc<Self>, id: u64) -> Arc<Right> {
        let mut rights = self.lock();
        let right = rights.find_or_insert(self, id);
        let stage = rights.stage(id);
        drop(rights);
        if stage == Stage::Owned {
            // If it is destroyed meanwhile, the pin stays as long as this right does.
            right.release(1);
        } else {
            right.count();
        }
        right
    }

    /// Returns the right to an own node that is about to be made, or to be taken over; `None` if a
    /// `Node` stands for it already, or its ID is still in use. The caller has entered the gate.
    pub(crate) fn own(self: &Arc<Self>, id: u64) -> Option<Arc<Right>> {
        let mut rights = self.lock();
        let is_dying = rights
            .by_id
            .get(&id)
            .is_some_and(|known| known.right.strong_count() == 0);
        if is_dying || rights.closing.contains(&id) {
            return None;
        }
        let right = rights.find_or_insert(self, id);
        let is_free = rights.stage(id) == Stage::Free;
        if is_free {
            rights.set_stage(id, Stage::Owned);
        }
        drop(rights);
        if !is_free {
            return None;
        }
        // From now on the pin keeps it.
        let references = right.references.swap(0, Ordering::Relaxed);
        right.release(references);
        Some(right)
    }

    /// Notes that no `Node` stands for the right any more: its node lives on, or was never made.
    pub(crate) fn disown(&self, right: &Right) {
        self.lock().set_stage(right.id, Stage::Free);
    }

    /// Notes that the node is about to be destroyed. Returns whether the caller has the only
    /// reference to the right; one that is made from now on brings a user reference of its own.
    pub(crate) fn end(&self, right: &Arc<Right>) -> bool {
        let mut rights = self.lock();
        rights.set_stage(right.id, Stage::Ended);
        Arc::strong_count(right) == 1
    }

    /// Notes that the pins of these nodes, which are about to be destroyed, go with the notice.
    pub(crate) fn close(&self, ids: &[u64]) {
        self.lock().closing.extend(ids);
    }

    /// Takes [`close`](Self::close) back.
    pub(crate) fn keep_open(&self, ids: &[u64]) {
        let mut rights = self.lock();
        for id in ids {
            rights.closing.remove(id);
        }
    }

    /// Takes the notice of a destruction: gives up the pin if this process has closed the node. The
    /// caller has entered the gate, or keeps the connection busy.
    pub(crate) fn destroyed(self: &Arc<Self>, id: u64) {
        let mut rights = self.lock();
        if rights.closing.remove(&id) {
            let right = rights.find_or_insert(self, id);
            rights.set_stage(id, Stage::Ended);
            drop(rights);
            right.count();
        }
    }

    /// Flushes the peer.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`](crate::Error::InUse) if there are objects of it; those of the command.
    pub(crate) fn flush(&self) -> Result<()> {
        let closed = self.connection.gate.close()?;
        self.connection.flush(&closed)?;
        *self.lock() = Rights::default();
        Ok(())
    }
}

impl Rights {
    /// Returns the right of an ID; a new one counts nothing yet.
    fn find_or_insert(&mut self, registry: &Arc<Registry>, id: u64) -> Arc<Right> {
        let known = self.by_id.get(&id);
        if let Some(right) = known.and_then(|known| known.right.upgrade()) {
            return right;
        }
        registry.connection.gate.object_made();
        let right = Arc::new(Right {
            registry: registry.clone(),
            id,
            references: AtomicU64::new(0),
        });
        let known = Known {
            right: Arc::downgrade(&right),
            stage: Stage::Free,
        };
        self.by_id.insert(id, known);
        right
    }

    /// Returns the stage of the right of an ID.
    fn stage(&self, id: u64) -> Stage {
        self.by_id.get(&id).map_or(Stage::Free, |known| known.stage)
    }

    /// Sets the stage of the right of an ID. The caller has a reference to that right.
    fn set_stage(&mut self, id: u64, stage: Stage) {
        if let Some(known) = self.by_id.get_mut(&id) {
            known.stage = stage;
        }
    }
}

impl Right {
    /// Returns the ID.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the registry that it is in.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Counts another user reference, which goes with the last handle.
    pub(crate) fn count(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one user reference away, to be released by others, if there is one.
    pub(crate) fn give_away(&self) {
        // An error says that there is none.
        let _ = self
            .references
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    /// Gives user references back.
    fn release(&self, references: u64) {
        for _ in 0..references {
            // It fails if the peer is disconnected, and then they are gone.
            if self.registry.connection.handle_release(self.id).is_err() {
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
            let mut rights = self.registry.lock();
            // The entry may be that of another right, which took its place.
            if let Entry::Occupied(entry) = rights.by_id.entry(self.id) {
                if std::ptr::eq(entry.get().right.as_ptr(), self) {
                    entry.remove();
                }
            }
        }
        self.registry.connection.gate.object_gone();
    }
}
