// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sending to a receiver that is behind: waiting for room.

use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::exchange::receive_one;
use crate::handle::Handle;
use crate::outgoing::Outgoing;
use crate::peer::Peer;

/// Waiting for room.
impl Peer {
    /// Sends a message to one node, and waits as long as the node has no room for it. Other events
    /// that come meanwhile go to `other`, in their order.
    ///
    /// Each attempt except the first is made after an [`Event::Room`] of this handle, so a receiver
    /// that is behind costs its sender no more than an attempt or two for each message. Only one
    /// thread may receive from the peer meanwhile: the notice could go to another, which would have
    /// to try in its place.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send), except [`Error::Quota`] and [`Error::PoolFull`] of the
    /// receiver; and those of [`recv`](Self::recv), after which nothing was sent.
    ///
    /// ```
    /// use bus1::{Event, Host, Limits, Outgoing, Peer};
    ///
    /// let receiver = Peer::open_on(Host::Embedded)?;
    /// let sender = Peer::open_on(Host::Embedded)?;
    /// receiver.set_limits(Limits { slices: 2, ..receiver.limits()? })?;
    /// let node = receiver.create_node()?;
    /// let to = receiver.transfer(node.handle(), &sender)?.expect("the node is alive");
    ///
    /// std::thread::scope(|threads| {
    ///     let reader = threads.spawn(|| {
    ///         for n in 0..100u8 {
    ///             let message = receiver.recv()?.into_message().expect("no notice is due");
    ///             assert_eq!(message.payload(), [n]);
    ///         }
    ///         Ok::<(), bus1::Error>(())
    ///     });
    ///     for n in 0..100u8 {
    ///         let message = [n];
    ///         let message = Outgoing::new().payload(&message);
    ///         sender.send_when_room(&to, &message, |event| panic!("{event:?}"))?;
    ///     }
    ///     reader.join().unwrap()
    /// })?;
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn send_when_room(
        &self,
        to: &Handle,
        message: &Outgoing<'_>,
        other: impl FnMut(Event),
    ) -> Result<()> {
        self.send_until(to, message, Deadline::NEVER, other)
    }

    /// Sends a message to one node, and waits for at most this time as long as the node has no room
    /// for it. See [`send_when_room`](Self::send_when_room).
    ///
    /// # Errors
    ///
    /// [`Error::Quota`] or [`Error::PoolFull`] if there was no room in time; an [`Event::Room`]
    /// comes later then. Those of [`send_when_room`](Self::send_when_room).
    ///
    /// ```
    /// use bus1::{Error, Host, Limits, Outgoing, Peer};
    /// use std::time::Duration;
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// peer.set_limits(Limits { slices: 2, ..peer.limits()? })?;
    /// let node = peer.create_node()?;
    /// let (to, message) = (node.handle(), Outgoing::new());
    /// peer.send(to, &message)?;
    /// let mut others = Vec::new();
    /// let wait = Duration::from_millis(1);
    /// let sent = peer.send_when_room_timeout(to, &message, wait, |event| others.push(event));
    /// // It waited for itself; the first message came out meanwhile, and is still held.
    /// assert_eq!(sent, Err(Error::Quota));
    /// assert_eq!(others.len(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn send_when_room_timeout(
        &self,
        to: &Handle,
        message: &Outgoing<'_>,
        timeout: Duration,
        other: impl FnMut(Event),
    ) -> Result<()> {
        self.send_until(to, message, Deadline::after(timeout), other)
    }

    fn send_until(
        &self,
        to: &Handle,
        message: &Outgoing<'_>,
        deadline: Deadline,
        mut other: impl FnMut(Event),
    ) -> Result<()> {
        let message = message.clone().notify_room();
        loop {
            let refused = match self.send(to, &message) {
                Err(error) if error.is_temporary() => error,
                sent => return sent,
            };
            self.wait_for_room(to, refused, deadline, &mut other)?;
        }
    }

    /// Waits for the notice of a handle that refused.
    fn wait_for_room(
        &self,
        to: &Handle,
        refused: Error,
        deadline: Deadline,
        other: &mut impl FnMut(Event),
    ) -> Result<()> {
        loop {
            match receive_one(self.registry(), None, None, deadline)? {
                Some(Event::Room(id)) if id == to.id() => return Ok(()),
                Some(event) => other(event),
                None if deadline == Deadline::NEVER => {}
                None => return Err(refused),
            }
        }
    }
}
