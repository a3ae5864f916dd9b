// SPDX-License-Identifier: MIT OR Apache-2.0

//! An object that a peer owns and others send to.
//!
//! Invariant: while a `Node` lives, so does its node, and its ID stands for nothing else. Once it
//! is destroyed, the pin goes with the last `Handle` of it in this process, or with the notice: an
//! ID that is not in use would create a node where it is named, so no handle may outlive it.

use std::fmt;

use crate::error::Result;
use crate::handle::Handle;
use crate::id::HandleId;
use crate::peer::Peer;

/// A node: an object of a peer, which messages are addressed to.
///
/// It belongs to the peer that [created](Peer::create_node) it for life. Others get
/// [handles](Handle) to it. A message says by [`destination`](crate::Message::destination) which
/// node it was sent to; two nodes are two ways to reach one peer, and tell it who is calling and
/// for what.
///
/// **Dropping it destroys the node**: messages to it that are not received yet vanish, senders get
/// [`Error::NodeDestroyed`](crate::Error::NodeDestroyed), and all holders are told. (If handles of
/// it are still around in this process, or on their way to it, what was sent before is received
/// all the same, and the owner is told, too.) [`Node::destroy`] destroys it and lets what was sent
/// before be received. [`Node::leak`] lets it live as long as the peer.
///
/// ```
/// use bus1::{Event, Host, Outgoing, Peer};
///
/// let peer = Peer::open_on(Host::Embedded)?;
/// let node = peer.create_node()?;
///
/// // A peer may send to itself.
/// peer.send(node.handle(), &Outgoing::new().payload(b"note"))?;
/// let Event::Message(message) = peer.recv()? else { panic!("a message was sent") };
/// assert_eq!(message.destination(), node.id());
/// # Ok::<(), bus1::Error>(())
/// ```
pub struct Node {
    handle: Handle,
    /// Whether dropping it destroys the node.
    armed: bool,
}

impl Node {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            handle,
            armed: true,
        }
    }

    /// Its ID in its peer, which stays the same for life.
    #[must_use]
    pub fn id(&self) -> HandleId {
        self.handle.id()
    }

    /// The owner's own handle: to give away, or to send to the own peer. It costs nothing, and
    /// does not count when it is decided whether the node is
    /// [released](crate::Event::NodeReleased). A handle of the node that the owner receives back is
    /// this very handle.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Destroys the node, and lets messages that were sent before be received. The last thing that
    /// the peer receives of it is [`Event::NodeDestroyed`](crate::Event::NodeDestroyed) with its ID;
    /// until then the ID is in use.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`](crate::Error::Disconnected),
    /// [`Error::NoMemory`](crate::Error::NoMemory). The node is dropped all the same.
    ///
    /// ```
    /// use bus1::{Event, Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// let id = node.id();
    /// peer.send(node.handle(), &Outgoing::new().payload(b"last words"))?;
    /// node.destroy()?;
    ///
    /// assert!(matches!(peer.recv()?, Event::Message(last) if last.payload() == b"last words"));
    /// assert!(matches!(peer.recv()?, Event::NodeDestroyed(gone) if gone == id));
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn destroy(self) -> Result<()> {
        let peer = Peer::of(&self.handle);
        peer.destroy_nodes([self])
    }

    /// Lets the node live as long as its peer, without an object for it. Messages show its ID.
    /// [`Peer::create_node_with_id`] takes it up again, perhaps in another process that has a
    /// descriptor of the peer.
    ///
    /// ```
    /// use bus1::{Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let id = peer.create_node()?.leak();
    /// let node = peer.create_node_with_id(id)?;
    /// assert_eq!(node.id(), id);
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn leak(mut self) -> HandleId {
        self.handle.0.connection.handles.disown(&self.handle);
        self.armed = false;
        self.id()
    }

    /// Somebody else has destroyed it, and takes care of the pin.
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let right = &self.handle.0;
        let last = right.connection.handles.end(&self.handle);
        // It fails if the peer is disconnected, and then the node is gone.
        if right.connection.nodes_destroy(&[right.id], last).is_ok() && !last {
            // The pin goes with the last handle.
            right.count();
        }
    }
}

impl AsRef<Handle> for Node {
    fn as_ref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.id())
    }
}
