// SPDX-License-Identifier: MIT OR Apache-2.0

//! An object that a peer owns and that messages are sent to.
//!
//! Invariant: while a `Node` lives, so does its node, and its ID stands for no other. Once it
//! is destroyed, the pin goes with the last `Handle` of it in this process, or with the notice. A
//! command that names an unused ID creates a node, so no handle may outlive its ID.

use std::fmt;
use std::sync::Arc;

use bus1_ioctl::SendArgs;

use crate::connection::Pins;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::id::HandleId;
use crate::registry::Registry;

/// A node: an object of a peer, which messages are addressed to.
///
/// It belongs to the peer that [created](crate::Peer::create_node) it for life. Other peers get
/// [handles](Handle) to it. A message says by [`destination`](crate::Message::destination) which
/// node it was sent to; two nodes are two ways to reach one peer, by which it knows its callers and
/// their purposes apart.
///
/// **Dropping it destroys the node**: messages to it that are not received yet vanish, senders get
/// [`Error::NodeDestroyed`](crate::Error::NodeDestroyed), and all holders are notified. (If handles
/// of it still exist in this process, or are on their way to it, messages that were sent before are
/// received all the same, and the owner is notified, too.) [`Node::destroy`] destroys it and lets
/// messages that were sent before be received. [`Node::leak`] lets it live as long as the peer.
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
    /// True if dropping it destroys the node.
    armed: bool,
}

impl Node {
    /// Creates a node with this ID, or takes over one that no `Node` stands for.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`], [`Error::NodeExists`], and those of the command.
    pub(crate) fn create(registry: &Arc<Registry>, id: HandleId) -> Result<Self> {
        if !id.is_own() {
            return Err(Error::InvalidId(id));
        }
        let _entered = registry.connection.gate.enter();
        let right = registry.own(id.raw()).ok_or(Error::NodeExists(id))?;
        // A message without destinations creates the nodes that it names.
        let created = registry
            .connection
            .send(SendArgs::new().handles(&[id.raw()]));
        if let Err(error) = created {
            registry.disown(&right);
            return Err(error);
        }
        Ok(Self {
            handle: Handle::new(right),
            armed: true,
        })
    }

    /// Destroys nodes of one peer at one point of the order, and lets messages that were sent
    /// before be received.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPeer`], and those of the command. All nodes are dropped then, one by one.
    pub(crate) fn destroy_all(registry: &Arc<Registry>, nodes: Vec<Self>) -> Result<()> {
        let ids = nodes
            .iter()
            .map(|node| node.handle.id_in(registry))
            .collect::<Result<Vec<_>>>()?;
        // Before the command: another thread may receive the notices at once.
        registry.close(&ids);
        for node in &nodes {
            registry.end(node.handle.right());
        }
        if let Err(error) = registry.connection.nodes_destroy(&ids, Pins::Keep) {
            registry.keep_open(&ids);
            return Err(error);
        }
        // The notices take care of the pins.
        nodes.into_iter().for_each(|mut node| node.armed = false);
        Ok(())
    }

    /// Returns its ID in its peer, which stays the same for life.
    #[must_use]
    pub fn id(&self) -> HandleId {
        self.handle.id()
    }

    /// Returns the owner's own handle: to give away, or to send to the own peer. It costs nothing,
    /// and does not count when it is decided whether the node is
    /// [released](crate::Event::NodeReleased). A handle of the node that the owner receives back is
    /// this very handle.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Destroys the node, and lets messages that were sent before be received. The last thing that
    /// the peer receives of it is [`Event::NodeDestroyed`](crate::Event::NodeDestroyed) with its
    /// ID; until then the ID is in use.
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
        let registry = self.handle.right().registry().clone();
        Self::destroy_all(&registry, vec![self])
    }

    /// Lets the node live as long as its peer, without an object for it, and returns its ID, which
    /// messages show. [`Peer::create_node_with_id`](crate::Peer::create_node_with_id) takes it up
    /// again, perhaps in another process that has a descriptor of the peer.
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
        let right = self.handle.right();
        right.registry().disown(right);
        self.armed = false;
        self.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let right = self.handle.right();
        let pins = if right.registry().end(right) {
            Pins::Release
        } else {
            Pins::Keep
        };
        let connection = &right.registry().connection;
        // It fails if the peer is disconnected, and then the node is gone.
        let destroyed = connection.nodes_destroy(&[right.id()], pins);
        if destroyed.is_ok() && pins == Pins::Keep {
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
