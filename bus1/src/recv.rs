// SPDX-License-Identifier: MIT OR Apache-2.0

//! Receiving.

use std::sync::Arc;
use std::time::Duration;

use bus1_uapi::{
    Msg, DEADLINE_NEVER, MSG_DATA, MSG_NODE_DESTROY, MSG_NODE_RELEASE, RECV_FLAG_INSTALL_FDS,
    RECV_FLAG_SEED,
};

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::exchange::deadline;
use crate::id::HandleId;
use crate::message::Message;
use crate::peer::Peer;
use crate::registry::Registry;

/// What a peer receives. All of it comes in one queue, in the global order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message was sent to a node of the peer.
    Message(Message),

    /// Nobody else refers to this own node any more: all handles that were given away are gone, and
    /// none is on its way. It comes once each time that happens, and not at all if the node is
    /// given away again before it was received. A node that was never given away gets none.
    NodeReleased(HandleId),

    /// The owner destroyed a node that the peer has a handle to, or is gone: the ID is that of the
    /// [`Handle`](crate::Handle). It comes once. What was sent to the node before this point of the
    /// order was received by the owner, or dropped by it; nothing is from here on.
    ///
    /// For own nodes it comes after [`Node::destroy`](crate::Node::destroy).
    NodeDestroyed(HandleId),
}

impl Event {
    /// Takes over what a receipt gave. The caller holds the gate, or keeps the connection busy.
    ///
    /// # Safety
    ///
    /// As for [`Message::new`], if it is one.
    pub(crate) unsafe fn new(
        connection: &Arc<Connection>,
        msg: &Msg,
        pool: *const u8,
    ) -> Result<Self> {
        Ok(match msg.kind {
            // SAFETY: the caller's promise.
            MSG_DATA => Event::Message(unsafe { Message::new(connection, msg, pool) }),
            MSG_NODE_RELEASE => Event::NodeReleased(HandleId::from_raw(msg.destination)),
            MSG_NODE_DESTROY => {
                Registry::destroyed(connection, msg.destination);
                Event::NodeDestroyed(HandleId::from_raw(msg.destination))
            }
            _ => {
                return Err(Error::Os {
                    call: "understanding what was received",
                    errno: rustix::io::Errno::PROTO.into(),
                })
            }
        })
    }

    /// The message, if it is one.
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// peer.send(node.handle(), &Outgoing::new().payload(b"note"))?;
    /// let note = peer.recv()?.into_message().expect("no news of nodes is due");
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

/// Receiving.
impl Peer {
    /// Receives what is next, without waiting; `None` if nothing is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`]; [`Error::TooManyDescriptors`] and [`Error::BeyondMapping`], after
    /// which the message is still there: see [`try_recv_without_fds`](Self::try_recv_without_fds).
    ///
    /// ```
    /// use bus1::{Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// assert!(peer.try_recv()?.is_none());
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn try_recv(&self) -> Result<Option<Event>> {
        self.receive(RECV_FLAG_INSTALL_FDS)
    }

    /// The same, but drops the descriptors of the message: the way on for a process that has no
    /// number left for them.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`], [`Error::BeyondMapping`].
    ///
    /// ```
    /// use bus1::{Event, Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// let file = std::fs::File::open("/dev/null").expect("it is on every machine");
    /// peer.send(node.handle(), &Outgoing::new().payload(b"log").fd(&file))?;
    ///
    /// let Some(Event::Message(message)) = peer.try_recv_without_fds()? else {
    ///     panic!("a message was sent")
    /// };
    /// assert_eq!(message.payload(), b"log");
    /// assert!(message.fds().is_empty());
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn try_recv_without_fds(&self) -> Result<Option<Event>> {
        self.receive(0)
    }

    /// Receives what is next, and waits for it. Signals do not end the wait. If several threads
    /// wait on one peer, each thing goes to one of them.
    ///
    /// # Errors
    ///
    /// Those of [`try_recv`](Self::try_recv); [`Error::Disconnected`] also if it happens
    /// meanwhile.
    ///
    /// ```
    /// use bus1::{Event, Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// std::thread::scope(|threads| {
    ///     threads.spawn(|| peer.send(node.handle(), &Outgoing::new().payload(b"wake up")));
    ///     assert!(matches!(peer.recv(), Ok(Event::Message(_))));
    /// });
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn recv(&self) -> Result<Event> {
        loop {
            // It ends with nothing only where there is a deadline; but it costs nothing to make sure.
            if let Some(event) = self.next(DEADLINE_NEVER)? {
                return Ok(event);
            }
        }
    }

    /// Receives what is next, and waits for it for at most this time; `None` if nothing came.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    ///
    /// ```
    /// use bus1::{Host, Peer};
    /// use std::time::Duration;
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// assert!(peer.recv_timeout(Duration::from_millis(1))?.is_none());
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Event>> {
        self.next(deadline(timeout))
    }

    /// Receives the seed of this peer, as often as asked; `None` if there is none. Handles and
    /// descriptors come with it anew each time. The payload is a copy.
    ///
    /// # Errors
    ///
    /// Those of [`try_recv`](Self::try_recv); [`Error::Quota`] if the peer may not hold as many
    /// handles more as the seed carries.
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// assert!(peer.recv_seed()?.is_none());
    ///
    /// peer.set_seed(&Outgoing::new().payload(b"state"))?;
    /// for _ in 0..2 {
    ///     let seed = peer.recv_seed()?.expect("it was set, and it stays");
    ///     assert_eq!(seed.payload(), b"state");
    /// }
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn recv_seed(&self) -> Result<Option<Message>> {
        let connection = self.connection();
        // All receipts of a seed share one slice, and the first to give it back would take it from
        // under the others.
        let _alone = connection.lock_seed();
        let _gate = connection.enter();
        let Some((msg, pool)) = connection.recv(RECV_FLAG_SEED | RECV_FLAG_INSTALL_FDS)? else {
            return Ok(None);
        };
        // SAFETY: it was just received.
        Ok(Some(
            unsafe { Message::new(connection, &msg, pool) }.detached(),
        ))
    }

    fn receive(&self, flags: u64) -> Result<Option<Event>> {
        let connection = self.connection();
        let _gate = connection.enter();
        let Some((msg, pool)) = connection.recv(flags)? else {
            return Ok(None);
        };
        // SAFETY: it was just received.
        unsafe { Event::new(connection, &msg, pool) }.map(Some)
    }
}

// Peers, and all that comes from them, may be used by any thread.
const _: () = {
    const fn anywhere<T: Send + Sync>() {}
    anywhere::<Peer>();
    anywhere::<Event>();
    anywhere::<crate::Node>();
    anywhere::<crate::Handle>();
    anywhere::<Arc<Message>>();
};
