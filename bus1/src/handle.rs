// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer's right to send to a node.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::id::HandleId;
use crate::registry::{Registry, Right};

/// A peer's right to one node: to send to it, and to pass the right on.
///
/// A clone is the same handle, and costs the bus nothing. When the last clone is dropped, the peer
/// gives the handle back; when no other peer has a handle of the node, its owner is notified
/// ([`Event::NodeReleased`](crate::Event::NodeReleased)).
///
/// A handle has a meaning only for its own peer. Other peers get one by a
/// [message](crate::Outgoing::handle) or a [transfer](crate::Peer::transfer). A peer that receives
/// the handle of a node again gets the same handle: it is equal, and hashes equally. Its
/// [ID](Self::id) would do as well for that.
///
/// A handle does not keep the node alive. When the owner destroys it, or goes away, the holder
/// receives [`Event::NodeDestroyed`](crate::Event::NodeDestroyed), and from that point of the order
/// on sending to it fails with [`Error::NodeDestroyed`]. The handle itself remains until it is
/// dropped.
///
/// A handle does keep the peer connected, like everything that came from a
/// [`Peer`](crate::Peer).
///
/// ```
/// use bus1::{Host, Outgoing, Peer};
///
/// let (owner, user) = (Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?);
/// let node = owner.create_node()?;
/// let handle = owner.transfer(node.handle(), &user)?.expect("the node is alive");
/// assert_eq!(handle.clone(), handle);
///
/// // The same node has another handle, and mostly another ID, at every peer.
/// assert_ne!(&handle, node.handle());
/// user.send(&handle, &Outgoing::new())?;
/// # Ok::<(), bus1::Error>(())
/// ```
#[derive(Clone)]
pub struct Handle(Arc<Right>);

impl Handle {
    /// Makes a handle of a right.
    pub(crate) fn new(right: Arc<Right>) -> Self {
        Self(right)
    }

    /// Returns the right behind it.
    pub(crate) fn right(&self) -> &Arc<Right> {
        &self.0
    }

    /// Returns its ID, a name for it in this peer. It is that of [`Event::NodeDestroyed`] for its
    /// node.
    ///
    /// [`Event::NodeDestroyed`]: crate::Event::NodeDestroyed
    #[must_use]
    pub fn id(&self) -> HandleId {
        HandleId::from_raw(self.0.id())
    }

    /// Gives up the ownership of one reference, and returns the ID: nothing is released for it when
    /// the handle is dropped, and the ID stays valid in the peer. [`Peer::adopt_handle`] takes it
    /// up again, perhaps in another process that has a descriptor of the peer.
    ///
    /// The handle of an own node (from [`Node::handle`]) has no reference to give up: it lives as
    /// long as the node.
    ///
    /// [`Peer::adopt_handle`]: crate::Peer::adopt_handle
    /// [`Node::handle`]: crate::Node::handle
    ///
    /// ```
    /// use bus1::{Host, Peer};
    ///
    /// let (owner, user) = (Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?);
    /// let node = owner.create_node()?;
    /// let handle = owner.transfer(node.handle(), &user)?.expect("the node is alive");
    ///
    /// let id = handle.leak();
    /// assert!(owner.try_recv()?.is_none()); // it was not released
    /// drop(user.adopt_handle(id));
    /// assert!(owner.try_recv()?.is_some()); // now it was
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn leak(self) -> HandleId {
        self.0.give_away();
        self.id()
    }

    /// Returns whether both belong to one peer.
    pub(crate) fn is_of_peer_of(&self, other: &Handle) -> bool {
        Arc::ptr_eq(self.0.registry(), other.0.registry())
    }

    /// Returns its ID in this peer.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPeer`] if it belongs to another one.
    pub(crate) fn id_in(&self, registry: &Arc<Registry>) -> Result<u64> {
        if Arc::ptr_eq(self.0.registry(), registry) {
            Ok(self.0.id())
        } else {
            Err(Error::WrongPeer)
        }
    }
}

impl AsRef<Handle> for Handle {
    fn as_ref(&self) -> &Handle {
        self
    }
}

impl PartialEq for Handle {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id() && self.is_of_peer_of(other)
    }
}

impl Eq for Handle {}

impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
        Arc::as_ptr(self.0.registry()).hash(state);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.id())
    }
}
