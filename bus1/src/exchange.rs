// SPDX-License-Identifier: MIT OR Apache-2.0

//! Several steps in one system call: give messages back, send, wait, and receive one or many.
//!
//! Invariant: a slice goes back once, either by the exchange or when it is dropped; the bus says how
//! far it came.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bus1_uapi::{Msg, DEADLINE_NEVER, DEADLINE_NOW, EXCHANGE_MAX};
use rustix::time::{clock_gettime, ClockId};

use crate::connection::{Connection, Exchanged, Parts};
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::message::{Message, Slice};
use crate::outgoing::Outgoing;
use crate::peer::Peer;
use crate::recv::Event;

/// Why a call or a reply failed, and whether its message was sent.
///
/// It converts into its [`Error`], so `?` works in functions that return that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError {
    error: Error,
    sent: bool,
}

impl CallError {
    /// Why it failed.
    #[must_use]
    pub fn error(&self) -> Error {
        self.error
    }

    /// Whether the message was sent all the same, and only receiving failed: do not send it again,
    /// but go on with [`Peer::recv`] or its like, once the cause is gone.
    #[must_use]
    pub fn sent(&self) -> bool {
        self.sent
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sent {
            f.write_str("the message was sent, but receiving failed: ")?;
        }
        self.error.fmt(f)
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        error.error
    }
}

/// It was not sent.
impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self { error, sent: false }
    }
}

/// The time by which a timeout is over.
pub(crate) fn deadline(timeout: Duration) -> u64 {
    if timeout.is_zero() {
        return DEADLINE_NOW;
    }
    // The clock has been running since the system started, so it is not negative.
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    // A time beyond the end of time is as good as none.
    u64::try_from(now.saturating_add(timeout).as_nanos()).unwrap_or(DEADLINE_NEVER)
}

/// Gives slices back, and receives into `msgs`. What was not given back, the slices give back themselves.
fn exchange(
    connection: &Arc<Connection>,
    slices: Vec<Slice>,
    msgs: &mut [Msg],
    deadline: u64,
) -> Result<Vec<Event>> {
    let _busy = connection.keep_busy();
    let offsets: Vec<u64> = slices.iter().map(Slice::offset).collect();
    // SAFETY: the slices were taken out of their messages, and are ours alone.
    let exchanged = unsafe { connection.exchange(&offsets, None, msgs, deadline) };
    let released = slices.len() - exchanged.kept;
    slices.into_iter().take(released).for_each(Slice::released);
    // All of them, before an error drops them: each owns something.
    let events: Vec<_> = msgs[..exchanged.received?]
        .iter()
        // SAFETY: they were just received.
        .map(|msg| unsafe { Event::new(connection, msg, exchanged.pool) })
        .collect();
    events.into_iter().collect()
}

/// The same with room for one, and a message to send before, without an allocation. Gives also whether
/// that was sent.
fn exchange_one(
    connection: &Arc<Connection>,
    slice: Option<Slice>,
    send: Option<(u64, &Parts<'_>)>,
    deadline: u64,
) -> (Result<Option<Event>>, bool) {
    let _busy = connection.keep_busy();
    let offset = slice.as_ref().map(Slice::offset);
    let mut msg = [Msg::default()];
    // SAFETY: the slice was taken out of its message, and is ours alone.
    let exchanged = unsafe { connection.exchange(offset.as_slice(), send, &mut msg, deadline) };
    let Exchanged {
        received,
        sent,
        kept,
        pool,
    } = exchanged;
    slice.into_iter().take(1 - kept).for_each(Slice::released);
    let event = received.and_then(|n| match n {
        0 => Ok(None),
        // SAFETY: it was just received.
        _ => unsafe { Event::new(connection, &msg[0], pool) }.map(Some),
    });
    (event, sent)
}

/// Round trips and batches: several steps in one system call. All of them may be mixed with
/// [`recv`](Peer::recv) and its like, and several threads may wait on one peer: each thing
/// goes to one of them. Signals do not end a wait, nor do they make anything happen twice.
impl Peer {
    /// Sends a message to one node and waits for what is received next, in one system call: the
    /// client's side of a round trip.
    ///
    /// What is received next is the answer only if nothing else can come before it. A peer that
    /// several threads use, or that owns or holds nodes of which there may be news, has to look at
    /// what it got: [`Message::destination`] tells answers from the rest. It is best to have a
    /// peer for calls alone, one for each thread.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and those of [`recv`](Self::recv); after the latter
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
        self.sent_and_received(None, to, message, DEADLINE_NEVER)
            .and_then(|event| self.or_wait(event))
    }

    /// The same, but waits for at most this time; `None` if nothing came. The message was sent
    /// then, and an answer may still come: [`recv`](Self::recv) gets it, or the next call.
    ///
    /// # Errors
    ///
    /// Those of [`call`](Self::call).
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
        self.sent_and_received(None, to, message, deadline(timeout))
    }

    /// Gives a message back that was dealt with, sends the answer to it, and waits for what is
    /// received next, in one system call: the server's side of a round trip.
    ///
    /// The message is dropped first, with the handles and descriptors that were not taken, whatever
    /// happens then. So neither `to` nor the answer can borrow from it: take or clone the handle,
    /// copy the bytes.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and those of [`recv`](Self::recv); after the latter
    /// [`CallError::sent`] is true. Either way a server goes on with [`recv`](Self::recv), if it can
    /// do without the client. [`Error::WrongPeer`] also if the message is of another peer.
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
    ///         // The server gives its handle back before it waits: news of the node may come first.
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
        let slice = message.into_slice(self.connection())?;
        self.sent_and_received(slice, to, answer, DEADLINE_NEVER)
            .and_then(|event| self.or_wait(event))
    }

    /// The same, but waits for at most this time; `None` if nothing came. The answer was sent then.
    ///
    /// # Errors
    ///
    /// Those of [`reply_and_wait`](Self::reply_and_wait).
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
        let slice = message.into_slice(self.connection())?;
        self.sent_and_received(slice, to, answer, deadline(timeout))
    }

    /// Gives messages back that were dealt with, and receives up to `most` of what is next, in one
    /// system call. It waits for the first and takes what else is there: at least one, unless
    /// `most` is 0, and at most 1024. What the messages held is released as if they were dropped.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv), for the first; what stops it later comes up again at the next
    /// call. [`Error::WrongPeer`] if one of the messages is of another peer; all are dropped then.
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
        self.received(done, most, DEADLINE_NEVER)
    }

    /// The same, but waits for at most this time; nothing if nothing came.
    ///
    /// # Errors
    ///
    /// Those of [`recv_many`](Self::recv_many).
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
        self.received(done, most, deadline(timeout))
    }

    /// The same, without waiting; nothing if nothing is ready.
    ///
    /// # Errors
    ///
    /// Those of [`recv_many`](Self::recv_many).
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
        self.received(done, most, DEADLINE_NOW)
    }

    /// Receives what is next, and waits for it until `deadline`.
    pub(crate) fn next(&self, deadline: u64) -> Result<Option<Event>> {
        exchange_one(self.connection(), None, None, deadline).0
    }

    fn sent_and_received(
        &self,
        slice: Option<Slice>,
        to: &Handle,
        message: &Outgoing<'_>,
        deadline: u64,
    ) -> Result<Option<Event>, CallError> {
        let connection = self.connection();
        let to = to.id_in(connection)?;
        let parts = message.parts(connection)?;
        let (event, sent) = exchange_one(connection, slice, Some((to, &parts)), deadline);
        event.map_err(|error| CallError { error, sent })
    }

    /// What came, or else what comes.
    fn or_wait(&self, event: Option<Event>) -> Result<Event, CallError> {
        match event {
            Some(event) => Ok(event),
            None => self.recv().map_err(|error| CallError { error, sent: true }),
        }
    }

    fn received(
        &self,
        done: impl IntoIterator<Item = Message>,
        most: usize,
        deadline: u64,
    ) -> Result<Vec<Event>> {
        const MAX: usize = EXCHANGE_MAX as usize;
        let connection = self.connection();
        let mut slices = Vec::new();
        for message in done {
            slices.extend(message.into_slice(connection)?);
        }
        while slices.len() > MAX {
            let some = slices.split_off(slices.len() - MAX);
            exchange(connection, some, &mut [], DEADLINE_NOW)?;
        }
        let mut msgs = vec![Msg::default(); most.min(MAX)];
        exchange(connection, slices, &mut msgs, deadline)
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
