// SPDX-License-Identifier: MIT OR Apache-2.0

//! A message before it is sent.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bus1_ioctl::SendArgs;
use bus1_uapi::SEND_FLAG_ROOM;

use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::registry::Registry;

/// A message to send: payload, handles, descriptors. Each may be missing.
///
/// It borrows all of them: nothing is copied before it is sent, and then once, straight into the
/// pool of each receiver. It can be sent any number of times, by the peer whose handles it carries.
/// The sender keeps its handles and descriptors; receivers get their own.
///
/// Limits: 1024 pieces of payload, 0x7ffff000 bytes in all, 256 descriptors, and as many handles as
/// the user may have. They are checked when it is sent.
///
/// ```
/// use bus1::{Event, Host, Outgoing, Peer};
/// use std::io::IoSlice;
///
/// let peer = Peer::open_on(Host::Embedded)?;
/// let node = peer.create_node()?;
/// let log = std::fs::File::open("/dev/null").unwrap();
///
/// let message = Outgoing::new()
///     .payload(b"header")
///     .iovecs(&[IoSlice::new(b" and"), IoSlice::new(b" body")])
///     .handle(node.handle())
///     .fd(&log);
/// peer.send(node.handle(), &message)?;
///
/// let Event::Message(mut message) = peer.recv()? else { panic!("a message was sent") };
/// assert_eq!(message.payload(), b"header and body");
/// assert_eq!(message.handles()[0].as_ref(), Some(node.handle()));
/// assert_eq!(message.take_fds().len(), 1);
/// # Ok::<(), bus1::Error>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "a message does nothing until it is sent"]
pub struct Outgoing<'a> {
    vecs: Vec<IoSlice<'a>>,
    ids: Vec<u64>,
    fds: Vec<BorrowedFd<'a>>,
    owner: HandlesOf<'a>,
    flags: u64,
}

/// The owner of the handles that a message carries.
#[derive(Clone, Copy, Default)]
enum HandlesOf<'a> {
    /// There are no handles.
    #[default]
    Nobody,
    /// All are of the peer of this one.
    PeerOf(&'a Handle),
    /// They are of several peers, so no peer can send it.
    Several,
}

impl<'a> Outgoing<'a> {
    /// Makes an empty message, which is fine to send.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to the payload.
    pub fn payload(mut self, bytes: &'a [u8]) -> Self {
        self.vecs.push(IoSlice::new(bytes));
        self
    }

    /// Appends pieces to the payload, one after the other.
    pub fn iovecs(mut self, pieces: &[IoSlice<'a>]) -> Self {
        self.vecs.extend_from_slice(pieces);
        self
    }

    /// Appends a handle. The receiver gets it in the same place of
    /// [`Message::handles`](crate::Message::handles). A handle may be named more than once.
    pub fn handle(mut self, handle: &'a Handle) -> Self {
        self.owner = match self.owner {
            HandlesOf::Nobody => HandlesOf::PeerOf(handle),
            HandlesOf::PeerOf(first) if handle.is_of_peer_of(first) => HandlesOf::PeerOf(first),
            HandlesOf::PeerOf(_) | HandlesOf::Several => HandlesOf::Several,
        };
        self.ids.push(handle.right().id());
        self
    }

    /// Appends handles, in their order.
    pub fn handles(self, handles: impl IntoIterator<Item = &'a Handle>) -> Self {
        handles.into_iter().fold(self, Self::handle)
    }

    /// Appends a descriptor: the receiver gets another number for the same open file. Peers of
    /// bus1, AF_UNIX sockets and io_uring are refused when it is sent
    /// ([`Error::DescriptorRefused`]); descriptors opened with O_PATH are always fine.
    pub fn fd(mut self, fd: &'a impl AsFd) -> Self {
        self.fds.push(fd.as_fd());
        self
    }

    /// Asks for an [`Event::Room`](crate::Event::Room) of each destination that refuses the message
    /// for now ([`Error::Quota`], [`Error::PoolFull`]): it comes once, when the message might be
    /// granted, or the node is destroyed. At most one is outstanding for each handle. Sending does
    /// not wait; [`Peer::send_when_room`](crate::Peer::send_when_room) does. A seed has no
    /// destination, so it has no notice.
    ///
    /// ```
    /// use bus1::{Error, Event, Host, Limits, Outgoing, Peer};
    ///
    /// let receiver = Peer::open_on(Host::Embedded)?;
    /// let sender = Peer::open_on(Host::Embedded)?;
    /// receiver.set_limits(Limits { slices: 2, ..receiver.limits()? })?;
    /// let node = receiver.create_node()?;
    /// let to = receiver.transfer(node.handle(), &sender)?.expect("the node is alive");
    ///
    /// let message = Outgoing::new().payload(b"news").notify_room();
    /// sender.send(&to, &message)?;
    /// assert_eq!(sender.send(&to, &message), Err(Error::Quota));
    /// assert!(sender.try_recv()?.is_none());
    ///
    /// drop(receiver.recv()?);
    /// assert!(matches!(sender.recv()?, Event::Room(id) if id == to.id()));
    /// sender.send(&to, &message)?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn notify_room(mut self) -> Self {
        self.flags = SEND_FLAG_ROOM;
        self
    }

    /// Returns the flags of SEND that it asks for.
    pub(crate) fn flags(&self) -> u64 {
        self.flags
    }

    /// Returns the length of the payload in bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.vecs.iter().map(|vec| vec.len()).sum()
    }

    /// Returns the argument of SEND for a peer, without destinations.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPeer`] if it carries a handle of another peer.
    pub(crate) fn args(&self, registry: &Arc<Registry>) -> Result<SendArgs<'_>> {
        match self.owner {
            HandlesOf::Nobody => {}
            HandlesOf::PeerOf(handle) => drop(handle.id_in(registry)?),
            HandlesOf::Several => return Err(Error::WrongPeer),
        }
        Ok(SendArgs::new()
            .flags(self.flags)
            .payload(&self.vecs)
            .handles(&self.ids)
            .fds(&self.fds))
    }
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("payload_len", &self.payload_len())
            .field("handles", &self.ids.len())
            .field("fds", &self.fds.len())
            .finish()
    }
}
