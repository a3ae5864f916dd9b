// SPDX-License-Identifier: MIT OR Apache-2.0

//! A peer's right to send to a node.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::id::HandleId;
use crate::registry::Right;

/// A peer's right to one node: to send to it, and to pass the right on.
///
/// A clone is the same handle, and costs the bus nothing. When the last clone is dropped, the peer
/// gives the handle back; when nobody else has a handle of the node, its owner is told
/// ([`Event::NodeReleased`](crate::Event::NodeReleased)).
///
/// A handle means something to its own peer alone. Others get one by a
/// [message](crate::Outgoing::handle) or a [transfer](crate::Peer::transfer). Receiving the handle
/// of a node again gives the same handle: it is equal, and hashes equally, for which its
/// [ID](Self::id) alone would do as well.
///
/// A handle does not keep the node alive. When the owner destroys it, or goes away, the holder
/// receives [`Event::NodeDestroyed`](crate::Event::NodeDestroyed), and from that point of the order
/// on sending to it fails with [`Error::NodeDestroyed`]. The handle itself remains until it is
/// dropped.
///
/// A handle does keep the peer connected, like everything that came from a
/// [`Peer`](crate::Peer).
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Right>);

impl Handle {
    /// Its ID, a name for it in this peer. It is that of [`Event::NodeDestroyed`] for its node.
    ///
    /// [`Event::NodeDestroyed`]: crate::Event::NodeDestroyed
    #[must_use]
    pub fn id(&self) -> HandleId {
        HandleId::from_raw(self.0.id)
    }

    /// Gives up the ownership of one reference: nothing is released for it when the handle is
    /// dropped, and the ID stays valid in the peer. [`Peer::adopt_handle`] takes it up again,
    /// perhaps in another process that has a descriptor of the peer.
    ///
    /// The handle of an own node (from [`Node::handle`]) has no reference to give: it lives as long
    /// as the node.
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

    /// Its ID, if it belongs to this peer.
    pub(crate) fn id_in(&self, connection: &Arc<Connection>) -> Result<u64> {
        if Arc::ptr_eq(&self.0.connection, connection) {
            Ok(self.0.id)
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
        self.0.id == other.0.id && Arc::ptr_eq(&self.0.connection, &other.0.connection)
    }
}

impl Eq for Handle {}

impl Hash for Handle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
        Arc::as_ptr(&self.0.connection).hash(state);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.id())
    }
}
