// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events that a peer receives: messages, and notices about nodes.

use std::sync::Arc;

use bus1_uapi::{Msg, MSG_DATA, MSG_NODE_DESTROY, MSG_NODE_RELEASE, MSG_ROOM};
use rustix::io::Errno as Raw;

use crate::error::{Error, Result};
use crate::id::HandleId;
use crate::message::Message;
use crate::registry::Registry;
use crate::transport::PoolView;

/// A message or notice that a peer receives. All events come in one queue, in the global order.
///
/// ```
/// use bus1::{Event, Host, Outgoing, Peer};
///
/// let peer = Peer::open_on(Host::Embedded)?;
/// let node = peer.create_node()?;
/// let id = node.id();
/// peer.send(node.handle(), &Outgoing::new().payload(b"note"))?;
/// node.destroy()?;
/// loop {
///     match peer.recv()? {
///         Event::Message(message) => assert_eq!(message.payload(), b"note"),
///         Event::NodeReleased(_) => unreachable!("it was never given away"),
///         Event::NodeDestroyed(gone) => break assert_eq!(gone, id),
///         // Later versions may have more.
///         _ => {}
///     }
/// }
/// # Ok::<(), bus1::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message was sent to a node of the peer.
    Message(Message),

    /// No other peer refers to this own node any more: all handles that were given away are gone,
    /// and none is on its way. It comes once each time that happens, and not at all if the node is
    /// given away again before it was received. A node that was never given away gets none.
    NodeReleased(HandleId),

    /// The owner destroyed a node that the peer has a handle to, or is gone: the ID is that of the
    /// [`Handle`](crate::Handle). It comes once. A message that was sent to the node before this
    /// point of the order was received by the owner, or dropped by it; from here on none is.
    ///
    /// For own nodes it comes after [`Node::destroy`](crate::Node::destroy).
    NodeDestroyed(HandleId),

    /// The node of this [`Handle`](crate::Handle) refused a message that was sent with
    /// [`Outgoing::notify_room`](crate::Outgoing::notify_room), and may have room for it now, or is
    /// destroyed: the message can be sent again. Others may take the room first; then sending
    /// fails as before, and the notice comes again.
    Room(HandleId),
}

impl Event {
    /// Takes over the results of a receipt. The caller has entered the gate, or keeps the
    /// connection busy.
    ///
    /// # Safety
    ///
    /// As for [`Message::new`], if it is a message.
    pub(crate) unsafe fn new(registry: &Arc<Registry>, msg: &Msg, pool: PoolView) -> Result<Self> {
        Ok(match msg.kind {
            // SAFETY: the caller's promise.
            MSG_DATA => Event::Message(unsafe { Message::new(registry, msg, pool) }),
            MSG_NODE_RELEASE => Event::NodeReleased(HandleId::from_raw(msg.destination)),
            MSG_ROOM => Event::Room(HandleId::from_raw(msg.destination)),
            MSG_NODE_DESTROY => {
                registry.destroyed(msg.destination);
                Event::NodeDestroyed(HandleId::from_raw(msg.destination))
            }
            _ => {
                let errno = Raw::PROTO.into();
                let call = "understanding what was received";
                return Err(Error::Os { call, errno });
            }
        })
    }

    /// Returns the message, if it is one; a notice is dropped.
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// peer.send(node.handle(), &Outgoing::new().payload(b"note"))?;
    /// let note = peer.recv()?.into_message().expect("no notice is due");
    /// assert_eq!(note.payload(), b"note");
    /// # Ok::<(), bus1::Error>(())
    /// ```
    #[must_use]
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }
}
