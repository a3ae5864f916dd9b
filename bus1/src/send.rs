// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sending: to one node, to many, to each of many, and the seed.

use std::fmt;

use bus1_uapi::{SEND_FLAG_CONTINUE, SEND_FLAG_SEED};

use rustix::io::Errno as Raw;

use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::outgoing::Outgoing;
use crate::peer::Peer;

/// The reason why a multicast was not sent, with the destinations that were in the way.
///
/// It converts into its [`Error`], so `?` works in functions that return that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    error: Error,
    refusals: Vec<Refusal>,
}

/// A destination that refused a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its place among the destinations of the call.
    pub index: usize,
    /// The reason of the refusal.
    pub error: Error,
}

impl SendError {
    /// Returns the reason why it was not sent.
    #[must_use]
    pub fn error(&self) -> Error {
        self.error
    }

    /// Returns the destinations that refused it, in the order of the call. The bus may stop at the
    /// first, so others that would have refused may be missing. It is empty if the failure was no
    /// destination's.
    #[must_use]
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.refusals.first() {
            Some(Refusal { index, .. }) => write!(f, "destination {index}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self {
            error,
            refusals: Vec::new(),
        }
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        error.error
    }
}

/// Destinations, and room for the result of each.
struct Destinations {
    ids: Vec<u64>,
    results: Vec<i32>,
}

impl Destinations {
    /// Collects handles of a peer.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPeer`] if one is of another peer.
    fn new<H: AsRef<Handle>>(peer: &Peer, to: impl IntoIterator<Item = H>) -> Result<Self> {
        let ids = to
            .into_iter()
            .map(|handle| handle.as_ref().id_in(peer.registry()))
            .collect::<Result<Vec<_>>>()?;
        let results = vec![0; ids.len()];
        Ok(Self { ids, results })
    }

    /// Returns the result of each destination.
    fn outcomes(&self) -> impl Iterator<Item = Result<()>> + '_ {
        self.results.iter().map(|&errno| match errno {
            0 => Ok(()),
            errno => Err(Error::from_command("SEND", Raw::from_raw_os_error(errno))),
        })
    }

    /// Returns the destinations that refused.
    fn refusals(&self) -> Vec<Refusal> {
        self.outcomes()
            .enumerate()
            .filter_map(|(index, outcome)| {
                let error = outcome.err()?;
                Some(Refusal { index, error })
            })
            .collect()
    }
}

/// Sending.
impl Peer {
    /// Sends a message to one node. When it returns, the message is in the receiver's queue, and
    /// what the message borrowed may change. It never waits for the receiver.
    ///
    /// # Errors
    ///
    /// [`Error::NodeDestroyed`]; [`Error::Quota`] and [`Error::PoolFull`], which pass;
    /// [`Error::TooLarge`]; [`Error::DescriptorRefused`]; [`Error::WrongPeer`] for handles of
    /// another peer; [`Error::Disconnected`].
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// peer.send(node.handle(), &Outgoing::new().payload(b"hello"))?;
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn send(&self, to: &Handle, message: &Outgoing<'_>) -> Result<()> {
        let registry = self.registry();
        let to = [to.id_in(registry)?];
        let message = message.args(registry)?.destinations(&to);
        registry.connection.send(message)
    }

    /// Sends a message to any number of nodes, as one atomic transaction: either all get it, at
    /// one point of the global order, or none. All receivers get the same bytes. Two receivers of
    /// two such messages get them in the same order.
    ///
    /// Nodes of one peer each get their copy, one after the other, in the order given here;
    /// all except the last are marked by [`Message::more`](crate::Message::more). No node may be
    /// named twice. No destination at all is fine, and does nothing.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send), and [`Error::Duplicate`]. [`SendError::refusals`] names
    /// destinations that were in the way.
    ///
    /// ```
    /// use bus1::{Error, Host, Outgoing, Peer, Refusal};
    ///
    /// let publisher = Peer::open_on(Host::Embedded)?;
    /// let subscribers = [Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?];
    /// let mut inboxes = Vec::new();
    /// let mut handles = Vec::new();
    /// for subscriber in &subscribers {
    ///     let node = subscriber.create_node()?;
    ///     handles.extend(subscriber.transfer(node.handle(), &publisher)?);
    ///     inboxes.push(node);
    /// }
    ///
    /// publisher.send_to(&handles, &Outgoing::new().payload(b"to all"))?;
    ///
    /// drop(inboxes.pop());
    /// let error = publisher.send_to(&handles, &Outgoing::new()).unwrap_err();
    /// let refusal = Refusal { index: 1, error: Error::NodeDestroyed };
    /// assert_eq!(error.refusals(), [refusal]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn send_to<H: AsRef<Handle>>(
        &self,
        to: impl IntoIterator<Item = H>,
        message: &Outgoing<'_>,
    ) -> Result<(), SendError> {
        let mut to = Destinations::new(self, to)?;
        self.send_with(0, &mut to, message)
            .map_err(|error| SendError {
                error,
                refusals: to.refusals(),
            })
    }

    /// Sends a message to each of these nodes that can take it: a destination that refuses does not
    /// stop the others. All receivers get it at one point of the order, as with
    /// [`send_to`](Self::send_to). Returns the result of each destination, in the order given here.
    ///
    /// # Errors
    ///
    /// Failures that are not a destination's: [`Error::WrongPeer`],
    /// [`Error::DescriptorRefused`], [`Error::TooLarge`] for more than any message may carry,
    /// [`Error::Disconnected`]. No destination gets the message then.
    ///
    /// ```
    /// use bus1::{Error, Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let (alive, dead) = (peer.create_node()?, peer.create_node()?);
    /// let handles = [alive.handle().clone(), dead.handle().clone()];
    /// drop(dead);
    ///
    /// let results = peer.send_to_each(&handles, &Outgoing::new().payload(b"who is there?"))?;
    /// assert_eq!(results, [Ok(()), Err(Error::NodeDestroyed)]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn send_to_each<H: AsRef<Handle>>(
        &self,
        to: impl IntoIterator<Item = H>,
        message: &Outgoing<'_>,
    ) -> Result<Vec<Result<()>>> {
        let mut to = Destinations::new(self, to)?;
        self.send_with(SEND_FLAG_CONTINUE, &mut to, message)?;
        Ok(to.outcomes().collect())
    }

    /// Keeps a message as the seed of this peer, in place of the one before: the state from which a
    /// service starts again on a descriptor that was kept. It has no destination;
    /// [`recv_seed`](Self::recv_seed) gives it back any number of times, and
    /// [`flush`](Self::flush) spares the nodes that it carries.
    ///
    /// # Errors
    ///
    /// [`Error::Quota`] (it counts on this peer), [`Error::PoolFull`], and those of
    /// [`send`](Self::send). The seed before remains then.
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// peer.set_seed(&Outgoing::new().payload(b"state").handle(node.handle()))?;
    ///
    /// let seed = peer.recv_seed()?.expect("it was set");
    /// assert_eq!(seed.payload(), b"state");
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn set_seed(&self, message: &Outgoing<'_>) -> Result<()> {
        let registry = self.registry();
        let message = message.args(registry)?.flags(SEND_FLAG_SEED);
        registry.connection.send(message)
    }

    /// Sends a message to destinations whose results are wanted.
    fn send_with(&self, flags: u64, to: &mut Destinations, message: &Outgoing<'_>) -> Result<()> {
        let registry = self.registry();
        let message = message
            .args(registry)?
            .flags(flags | message.flags())
            .destinations(&to.ids)
            .results(&mut to.results);
        registry.connection.send(message)
    }
}
