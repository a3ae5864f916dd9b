// SPDX-License-Identifier: MIT OR Apache-2.0

//! Receiving.

use std::time::Duration;

use bus1_uapi::{RECV_FLAG_INSTALL_FDS, RECV_FLAG_SEED};

use crate::deadline::Deadline;
use crate::error::Result;
use crate::event::Event;
use crate::exchange::receive_one;
use crate::message::Message;
use crate::peer::Peer;

/// Receiving.
impl Peer {
    /// Receives the next event, without waiting; `None` if nothing is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`](crate::Error::Disconnected);
    /// [`Error::TooManyDescriptors`](crate::Error::TooManyDescriptors) and
    /// [`Error::BeyondMapping`](crate::Error::BeyondMapping), after which the message is still
    /// there: see [`try_recv_without_fds`](Self::try_recv_without_fds).
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

    /// Receives the next event, without waiting and without its descriptors, which are dropped: the
    /// way on for a process that has no number left for them.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`](crate::Error::Disconnected),
    /// [`Error::BeyondMapping`](crate::Error::BeyondMapping).
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

    /// Receives the next event, and waits for it. Signals do not end the wait. If several threads
    /// wait on one peer, each event goes to one of them.
    ///
    /// # Errors
    ///
    /// The errors of [`try_recv`](Self::try_recv);
    /// [`Error::Disconnected`](crate::Error::Disconnected) also if it happens meanwhile.
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
            // Without a deadline something comes; to make sure of it costs nothing.
            if let Some(event) = self.next(Deadline::NEVER)? {
                return Ok(event);
            }
        }
    }

    /// Receives the next event, and waits for it for at most this time; `None` if nothing came.
    ///
    /// # Errors
    ///
    /// The errors of [`recv`](Self::recv).
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
        self.next(Deadline::after(timeout))
    }

    /// Receives the seed of this peer, as often as asked; `None` if there is none. Handles and
    /// descriptors come with it anew each time. The payload is a copy.
    ///
    /// # Errors
    ///
    /// The errors of [`try_recv`](Self::try_recv); [`Error::Quota`](crate::Error::Quota) if the
    /// peer may not hold as many handles more as the seed carries.
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
        let registry = self.registry();
        let connection = &registry.connection;
        // One receipt at a time: it is copied and given back before the next.
        let _alone = connection.lock_seed();
        let _entered = connection.gate.enter();
        let flags = RECV_FLAG_SEED | RECV_FLAG_INSTALL_FDS;
        Ok(connection.recv(flags)?.map(|receipt| {
            // SAFETY: it was just received.
            let message = unsafe { Message::new(registry, &receipt.msg, receipt.pool) };
            message.detached()
        }))
    }

    /// Receives the next event, without waiting.
    fn receive(&self, flags: u64) -> Result<Option<Event>> {
        let registry = self.registry();
        let _entered = registry.connection.gate.enter();
        match registry.connection.recv(flags)? {
            // SAFETY: it was just received.
            Some(receipt) => unsafe { Event::new(registry, &receipt.msg, receipt.pool) }.map(Some),
            None => Ok(None),
        }
    }

    /// Receives the next event, and waits for it until `deadline`.
    fn next(&self, deadline: Deadline) -> Result<Option<Event>> {
        Ok(receive_one(self.registry(), None, None, deadline)?)
    }
}

// Peers, and all that comes from them, may be used by every thread.
const _: () = {
    const fn anywhere<T: Send + Sync>() {}
    anywhere::<Peer>();
    anywhere::<Event>();
    anywhere::<crate::Node>();
    anywhere::<crate::Handle>();
    anywhere::<Message>();
};
