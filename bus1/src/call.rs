// SPDX-License-Identifier: MIT OR Apache-2.0

//! Round trips and batches: methods that do several steps in one system call.

use std::time::Duration;

use bus1_uapi::EXCHANGE_MAX;

use crate::deadline::Deadline;
use crate::error::Result;
use crate::event::Event;
use crate::exchange::{receive_many, receive_one, CallError};
use crate::handle::Handle;
use crate::message::{Message, Slice};
use crate::outgoing::Outgoing;
use crate::peer::Peer;

/// Round trips and batches: several steps in one system call. All of them may be mixed with
/// [`recv`](Peer::recv) and its like, and several threads may wait on one peer: each event
/// goes to one of them. Signals do not end a wait, nor do they make anything happen twice.
impl Peer {
    /// Sends a message to one node and waits for the next event, in one system call: the client's
    /// side of a round trip.
    ///
    /// The next event is the answer only if no other can come before it. A peer that several
    /// threads use, or that owns or holds nodes of which there may be notices, has to look at the
    /// event: [`Message::destination`] distinguishes answers from the rest. It is best to have a
    /// peer that only makes calls, one for each thread.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send), and those of [`recv`](Self::recv); after the latter
    /// [`CallError::sent`] is true.
    ///
    /// ```
    /// use bus1::{Event, Host, Outgoing, Peer};
    ///
    /// let (server, client) = (Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?);
    /// let (service, answers) = (server.create_node()?, client.create_node()?);
    /// let handle = server.transfer(service.handle(), &client)?.expect("the node is alive");
    ///
    /// std::thread::scope(|threads| {
    ///     threads.spawn(|| {
    ///         let mut question = server.recv()?.into_message().expect("a question");
    ///         let client = question.take_handles().remove(0).expect("the client is alive");
    ///         server.send(&client, &Outgoing::new().payload(b"42"))
    ///     });
    ///     let question = Outgoing::new().payload(b"6 * 7").handle(answers.handle());
    ///     let Event::Message(answer) = client.call(&handle, &question)? else {
    ///         panic!("the server answers")
    ///     };
    ///     assert_eq!(answer.payload(), b"42");
    ///     Ok::<_, bus1::Error>(())
    /// })?;
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn call(&self, to: &Handle, message: &Outgoing<'_>) -> Result<Event, CallError> {
        self.sent_and_received(None, to, message, Deadline::NEVER)
            .and_then(|event| self.or_wait(event))
    }

    /// Sends a message to one node and waits for the next event for at most this time; `None` if
    /// nothing came. The message was sent then, and an answer may still come: [`recv`](Self::recv)
    /// gets it, or the next call.
    ///
    /// # Errors
    ///
    /// The errors of [`call`](Self::call).
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    /// use std::time::Duration;
    ///
    /// let (server, client) = (Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?);
    /// let service = server.create_node()?;
    /// let handle = server.transfer(service.handle(), &client)?.expect("the node is alive");
    ///
    /// let question = Outgoing::new().payload(b"is anybody there?");
    /// assert!(client.call_timeout(&handle, &question, Duration::from_millis(1))?.is_none());
    /// assert!(server.try_recv()?.is_some(), "it was asked all the same");
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn call_timeout(
        &self,
        to: &Handle,
        message: &Outgoing<'_>,
        timeout: Duration,
    ) -> Result<Option<Event>, CallError> {
        self.sent_and_received(None, to, message, Deadline::after(timeout))
    }

    /// Gives a message back that was dealt with, sends the answer to it, and waits for the next
    /// event, in one system call: the server's side of a round trip.
    ///
    /// The message is dropped first, with the handles and descriptors that were not taken, whatever
    /// happens then. So neither `to` nor the answer can borrow from it: take or clone the handle,
    /// copy the bytes.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send), and those of [`recv`](Self::recv); after the latter
    /// [`CallError::sent`] is true. Either way a server goes on with [`recv`](Self::recv), if it
    /// can do without the client. [`Error::WrongPeer`](crate::Error::WrongPeer) also if the message
    /// is of another peer.
    ///
    /// ```
    /// use bus1::{Error, Event, Host, Outgoing, Peer};
    ///
    /// /// Doubles numbers, until somebody says 0.
    /// fn serve(server: &Peer) -> Result<(), Error> {
    ///     let mut event = server.recv()?;
    ///     loop {
    ///         let Event::Message(mut question) = event else {
    ///             event = server.recv()?;
    ///             continue;
    ///         };
    ///         let number = question.payload()[0];
    ///         let Some(Some(client)) = question.take_handles().pop() else { return Ok(()) };
    ///         let answer = [number * 2];
    ///         let answer = Outgoing::new().payload(&answer);
    ///         event = match server.reply_and_wait(question, &client, &answer) {
    ///             Ok(event) => event,
    ///             Err(error) if error.error() == Error::Disconnected => return Err(error.into()),
    ///             // This client is gone, or does not receive; there may be others.
    ///             Err(_) => server.recv()?,
    ///         };
    ///     }
    /// }
    ///
    /// let (server, client) = (Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?);
    /// let (service, answers) = (server.create_node()?, client.create_node()?);
    /// let handle = server.transfer(service.handle(), &client)?.expect("the node is alive");
    /// std::thread::scope(|threads| {
    ///     threads.spawn(|| serve(&server));
    ///     for number in 1..10 {
    ///         let payload = [number];
    ///         let question = Outgoing::new().payload(&payload).handle(answers.handle());
    ///         // The server gives its handle back first: a notice of that may come.
    ///         let mut event = client.call(&handle, &question)?;
    ///         while !matches!(event, Event::Message(_)) {
    ///             event = client.recv()?;
    ///         }
    ///         assert_eq!(event.into_message().unwrap().payload(), [number * 2]);
    ///     }
    ///     client.send(&handle, &Outgoing::new().payload(&[0]))
    /// })?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn reply_and_wait(
        &self,
        message: Message,
        to: &Handle,
        answer: &Outgoing<'_>,
    ) -> Result<Event, CallError> {
        let slice = message.into_slice(self.registry())?;
        self.sent_and_received(slice, to, answer, Deadline::NEVER)
            .and_then(|event| self.or_wait(event))
    }

    /// Gives a message back, sends the answer to it, and waits for the next event for at most this
    /// time; `None` if nothing came. The answer was sent then.
    ///
    /// # Errors
    ///
    /// The errors of [`reply_and_wait`](Self::reply_and_wait).
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    /// use std::time::Duration;
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let (node, second) = (peer.create_node()?, peer.create_node()?);
    /// peer.send(node.handle(), &Outgoing::new().payload(b"question"))?;
    ///
    /// let question = peer.recv()?.into_message().expect("a question");
    /// let answer = Outgoing::new().payload(b"answer");
    /// let timeout = Duration::from_millis(1);
    /// let next = peer.reply_and_wait_timeout(question, second.handle(), &answer, timeout)?;
    /// assert!(next.is_some(), "the peer answers itself here");
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn reply_and_wait_timeout(
        &self,
        message: Message,
        to: &Handle,
        answer: &Outgoing<'_>,
        timeout: Duration,
    ) -> Result<Option<Event>, CallError> {
        let slice = message.into_slice(self.registry())?;
        self.sent_and_received(slice, to, answer, Deadline::after(timeout))
    }

    /// Gives messages back that were dealt with, and receives up to `most` events, in one system
    /// call. It waits for the first and takes what more is there: at least one, unless `most` is 0,
    /// and at most 1024. Everything that the messages held is released as if they were dropped.
    ///
    /// # Errors
    ///
    /// The errors of [`recv`](Self::recv), for the first; an error that stops it later comes up
    /// again at the next call. [`Error::WrongPeer`](crate::Error::WrongPeer) if one of the messages
    /// is of another peer; all are dropped then.
    ///
    /// ```
    /// use bus1::{Event, Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// for number in 0..10u8 {
    ///     peer.send(node.handle(), &Outgoing::new().payload(&[number]))?;
    /// }
    ///
    /// let (mut seen, mut done) = (Vec::new(), Vec::new());
    /// while seen.len() < 10 {
    ///     let events = peer.recv_many(done, 4)?;
    ///     done = events.into_iter().filter_map(Event::into_message).collect();
    ///     seen.extend(done.iter().map(|message| message.payload()[0]));
    /// }
    /// assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn recv_many(
        &self,
        done: impl IntoIterator<Item = Message>,
        most: usize,
    ) -> Result<Vec<Event>> {
        self.received(done, most, Deadline::NEVER)
    }

    /// Gives messages back, and receives up to `most` events, for the first of which it waits for
    /// at most this time; nothing if nothing came.
    ///
    /// # Errors
    ///
    /// The errors of [`recv_many`](Self::recv_many).
    ///
    /// ```
    /// use bus1::{Host, Peer};
    /// use std::time::Duration;
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// assert!(peer.recv_many_timeout([], 16, Duration::from_millis(1))?.is_empty());
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn recv_many_timeout(
        &self,
        done: impl IntoIterator<Item = Message>,
        most: usize,
        timeout: Duration,
    ) -> Result<Vec<Event>> {
        self.received(done, most, Deadline::after(timeout))
    }

    /// Gives messages back, and receives up to `most` events that are ready, without waiting.
    ///
    /// # Errors
    ///
    /// The errors of [`recv_many`](Self::recv_many).
    ///
    /// ```
    /// use bus1::{Event, Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// peer.send(node.handle(), &Outgoing::new())?;
    /// peer.send(node.handle(), &Outgoing::new())?;
    ///
    /// let events = peer.try_recv_many([], 16)?;
    /// assert_eq!(events.len(), 2);
    /// // No message is wanted now, but these are given back by one call.
    /// let done = events.into_iter().filter_map(Event::into_message);
    /// assert!(peer.try_recv_many(done, 0)?.is_empty());
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn try_recv_many(
        &self,
        done: impl IntoIterator<Item = Message>,
        most: usize,
    ) -> Result<Vec<Event>> {
        self.received(done, most, Deadline::NOW)
    }

    /// Gives a slice back, sends a message, and receives the next event until `deadline`.
    fn sent_and_received(
        &self,
        slice: Option<Slice>,
        to: &Handle,
        message: &Outgoing<'_>,
        deadline: Deadline,
    ) -> Result<Option<Event>, CallError> {
        let registry = self.registry();
        let to = [to.id_in(registry)?];
        let message = message.args(registry)?.destinations(&to);
        receive_one(registry, slice, Some(message), deadline)
    }

    /// Returns the event that came; if none did, waits for one.
    fn or_wait(&self, event: Option<Event>) -> Result<Event, CallError> {
        match event {
            Some(event) => Ok(event),
            None => self.recv().map_err(|error| CallError::new(error, true)),
        }
    }

    /// Gives messages back, and receives up to `most` events until `deadline`.
    fn received(
        &self,
        done: impl IntoIterator<Item = Message>,
        most: usize,
        deadline: Deadline,
    ) -> Result<Vec<Event>> {
        const MAX: usize = EXCHANGE_MAX as usize;
        let registry = self.registry();
        let mut slices = Vec::new();
        for message in done {
            slices.extend(message.into_slice(registry)?);
        }
        while slices.len() > MAX {
            let some = slices.split_off(slices.len() - MAX);
            receive_many(registry, some, 0, Deadline::NOW)?;
        }
        receive_many(registry, slices, most.min(MAX), deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Embedded;
    use crate::host::Host;
    use crate::node::Node;
    use crate::transport::{PoolView, Transport};
    use bus1_ioctl::Execute;
    use bus1_uapi::{CmdExchange, CMD_EXCHANGE, CMD_RECV, CMD_SEND, EXCHANGE_FLAG_SEND};
    use std::fs::File;
    use std::os::fd::BorrowedFd;
    use std::sync::{Arc, Mutex};

    /// A command that sends or receives.
    #[derive(Debug, PartialEq)]
    enum Asked {
        Exchange(CmdExchange),
        /// SEND or RECV.
        Other(u32),
    }

    /// A peer of the embedded host that notes the requests.
    struct Noting {
        peer: Embedded,
        asked: Arc<Mutex<Vec<Asked>>>,
    }

    impl Execute for Noting {
        unsafe fn ioctl(&self, cmd: u32, arg: usize) -> rustix::io::Result<()> {
            let asked = match cmd {
                CMD_EXCHANGE => {
                    let arg = std::ptr::with_exposed_provenance::<CmdExchange>(arg);
                    // SAFETY: the argument is the structure that the command takes.
                    Some(Asked::Exchange(unsafe { arg.read() }))
                }
                CMD_SEND | CMD_RECV => Some(Asked::Other(cmd)),
                _ => None,
            };
            self.asked.lock().unwrap().extend(asked);
            // SAFETY: the caller's promise.
            unsafe { self.peer.ioctl(cmd, arg) }
        }
    }

    // SAFETY: all is done by a peer that keeps the promises.
    unsafe impl Transport for Noting {
        fn host(&self) -> Host {
            self.peer.host()
        }

        fn pool(&self) -> Result<PoolView> {
            self.peer.pool()
        }

        fn fd(&self) -> Result<BorrowedFd<'_>> {
            self.peer.fd()
        }
    }

    /// Sends a message in a call and in a reply, which have to be one EXCHANGE each. The peer
    /// answers itself.
    fn round_trip(message: impl for<'a> Fn(&'a Node, &'a File) -> Outgoing<'a>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noting = Noting {
            peer: Embedded::open().unwrap(),
            asked: asked.clone(),
        };
        let peer = Peer::new(Box::new(noting), 4);
        let (node, answers) = (peer.create_node().unwrap(), peer.create_node().unwrap());
        let file = File::open("/dev/null").unwrap();
        let message = message(&answers, &file);
        asked.lock().unwrap().clear();
        let event = peer.call(node.handle(), &message).unwrap();
        let question = event.into_message().unwrap();
        drop(peer.reply_and_wait(question, node.handle(), &message));

        let seen = std::mem::take(&mut *asked.lock().unwrap());
        let [Asked::Exchange(call), Asked::Exchange(reply)] = seen[..] else {
            panic!("other commands were given: {seen:?}")
        };
        for exchange in [call, reply] {
            assert_eq!(exchange.flags & EXCHANGE_FLAG_SEND, EXCHANGE_FLAG_SEND);
            assert_eq!(exchange.send.n_destinations, 1);
            assert_eq!(exchange.n_msgs, 1);
        }
        assert_eq!((call.n_slices, reply.n_slices), (0, 1));
    }

    #[test]
    fn a_round_trip_is_one_exchange_whatever_it_carries() {
        round_trip(|_, _| Outgoing::new().payload(b"question"));
        round_trip(|answers, _| Outgoing::new().handle(answers.handle()));
        round_trip(|_, file| Outgoing::new().fd(file));
    }
}
