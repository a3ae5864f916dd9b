// SPDX-License-Identifier: MIT OR Apache-2.0

//! A participant: opening, limits, nodes, handing over, the end.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::connection::Connection;
use crate::embedded::Embedded;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::host::Host;
use crate::id::HandleId;
use crate::kernel::Kernel;
use crate::limits::Limits;
use crate::node::Node;
use crate::registry::Registry;
use crate::transport::Transport;

/// The first ID that is tried for a node of a new peer.
const FIRST_NODE: u64 = 4;

/// A participant on the bus: a queue of events to receive, the nodes that it owns, the handles
/// that it has.
///
/// A clone is the same peer, and cheap; all threads may use it at once. The peer is disconnected
/// when the last clone is dropped and no [`Node`], [`Handle`] or [`Message`](crate::Message) of it
/// is left, or by [`disconnect`](Self::disconnect). On the kernel's host it lives as long as any
/// process has a descriptor of it.
///
/// # Async runtimes and event loops
///
/// It has a descriptor ([`AsFd`], [`descriptor`](Self::descriptor)) that is readable when
/// [`try_recv`](Self::try_recv) may find something. It works with edge-triggered runtimes such as
/// tokio's `AsyncFd`: on readiness receive until `None`, then clear it. It is always writable:
/// a receiver that has room again is an event to receive, see
/// [`Outgoing::notify_room`](crate::Outgoing::notify_room).
///
/// ```
/// use bus1::{Host, Outgoing, Peer};
///
/// let peer = Peer::open_on(Host::Embedded)?;
/// let node = peer.create_node()?;
/// std::thread::scope(|threads| {
///     let same = peer.clone();
///     threads.spawn(move || same.recv()?.into_message().ok_or(bus1::Error::NodeDestroyed));
///     peer.send(node.handle(), &Outgoing::new())
/// })?;
/// # Ok::<(), bus1::Error>(())
/// ```
#[derive(Clone)]
pub struct Peer(Arc<Registry>);

impl Peer {
    /// Opens a peer on the [preferred host](Host::preferred): the kernel's if `/dev/bus1` exists,
    /// otherwise the one in this process. `BUS1_HOST` in the environment (`kernel`, `embedded`,
    /// `auto`) overrides that.
    ///
    /// **On the embedded host only threads of this process can be reached.** A program for which
    /// that is no use asks for [`Host::Kernel`] by [`open_on`](Self::open_on).
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if `/dev/bus1` exists and cannot be opened (there is no falling back then);
    /// [`Error::UnknownHost`]; [`Error::NoMemory`], on the kernel's host also if not even 1 MiB of
    /// the pool can be mapped. [`Error::Quota`] is reserved for a limit on peers.
    ///
    /// ```
    /// use bus1::{Host, Peer};
    ///
    /// let peer = Peer::open()?;
    /// assert_eq!(peer.host(), Host::preferred()?);
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn open() -> Result<Self> {
        Self::open_on(Host::preferred()?)
    }

    /// Opens a peer on this host, whatever the environment says.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if `/dev/bus1` cannot be opened; [`Error::NoMemory`]. [`Error::Quota`] is
    /// reserved for a limit on peers.
    ///
    /// ```
    /// use bus1::{Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// assert_eq!(peer.host(), Host::Embedded);
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn open_on(host: Host) -> Result<Self> {
        let transport: Box<dyn Transport> = match host {
            Host::Kernel => Box::new(Kernel::open()?),
            Host::Embedded => Box::new(Embedded::open()?),
        };
        Ok(Self::new(transport, FIRST_NODE))
    }

    /// Makes a peer of an open transport; IDs of nodes are tried from `first_node` on.
    pub(crate) fn new(transport: Box<dyn Transport>, first_node: u64) -> Self {
        Self(Registry::new(Connection::new(transport, first_node)))
    }

    /// Takes over a descriptor of a peer on the kernel's host: one that was inherited, say, from
    /// the program that started this one and gave the peer its first handles. It becomes
    /// close-on-exec.
    ///
    /// # Safety
    ///
    /// As long as this process holds messages of the peer, no other user of a descriptor of the
    /// same peer, in this process or another, releases their slices or flushes the peer: messages
    /// borrow that memory. It is best to let one process at a time use a peer: a process that hands
    /// a descriptor over drops its own [`Peer`] and what came from it.
    ///
    /// # Errors
    ///
    /// [`Error::NotAPeer`], also for descriptors of embedded peers; [`Error::Disconnected`].
    ///
    /// ```no_run
    /// use bus1::{HandleId, Peer};
    /// use std::os::fd::{FromRawFd, OwnedFd};
    ///
    /// // SAFETY: the program that started this one put the descriptor there, only for it.
    /// let fd = unsafe { OwnedFd::from_raw_fd(3) };
    /// // SAFETY: it handed the peer over, and does not use it any more.
    /// let peer = unsafe { Peer::from_fd(fd) }?;
    /// let service = peer.adopt_handle(HandleId::from_raw(3));
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub unsafe fn from_fd(fd: OwnedFd) -> Result<Self> {
        let transport = Kernel::from_fd(fd)?;
        // The user before may have left nodes there: begin far from them.
        let first_node = RandomState::new().hash_one(std::process::id()) >> 1;
        Ok(Self::new(Box::new(transport), first_node))
    }

    /// Returns the state that all objects of the peer share.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.0
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Returns the host that it is on.
    #[must_use]
    pub fn host(&self) -> Host {
        self.connection().transport().host()
    }

    /// Creates a node with an ID that is not in use.
    ///
    /// # Errors
    ///
    /// [`Error::Quota`] if the peer may not have more handles, [`Error::NoMemory`],
    /// [`Error::Disconnected`].
    ///
    /// ```
    /// use bus1::{Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let (a, b) = (peer.create_node()?, peer.create_node()?);
    /// assert_ne!(a.id(), b.id());
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn create_node(&self) -> Result<Node> {
        loop {
            match self.create_node_with_id(HandleId::from_raw(self.connection().next_node())) {
                Err(Error::NodeExists(_)) => {}
                result => return result,
            }
        }
    }

    /// Creates a node with an ID of one's choice: a multiple of 4. If the peer has a node of this
    /// ID that no [`Node`] stands for (after [`Node::leak`], after a seed, or from another process
    /// that had the peer), it takes that over.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`]; [`Error::NodeExists`], also as long as a destroyed one's ID is in use;
    /// and those of [`create_node`](Self::create_node).
    ///
    /// ```
    /// use bus1::{Error, HandleId, Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let id = HandleId::from_raw(0x1000);
    /// let node = peer.create_node_with_id(id)?;
    /// assert_eq!(node.id(), id);
    /// assert_eq!(peer.create_node_with_id(id).unwrap_err(), Error::NodeExists(id));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn create_node_with_id(&self, id: HandleId) -> Result<Node> {
        Node::create(&self.0, id)
    }

    /// Destroys nodes at one point of the global order, and lets messages that were sent before be
    /// received. It is [`Node::destroy`] for all of them at once.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPeer`], [`Error::OutOfRange`] for more nodes than a user may have,
    /// [`Error::NoMemory`], [`Error::Disconnected`]. All nodes are dropped then, one by one.
    ///
    /// ```
    /// use bus1::{Event, Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// peer.destroy_nodes([peer.create_node()?, peer.create_node()?])?;
    /// assert!(matches!(peer.recv()?, Event::NodeDestroyed(_)));
    /// assert!(matches!(peer.recv()?, Event::NodeDestroyed(_)));
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn destroy_nodes(&self, nodes: impl IntoIterator<Item = Node>) -> Result<()> {
        Node::destroy_all(&self.0, nodes.into_iter().collect())
    }

    /// Gives a handle to another peer of this process at once, without a message. Two peers first
    /// come to know each other this way. Returns the handle of the other peer, or `None` if the
    /// node is destroyed already.
    ///
    /// # Errors
    ///
    /// [`Error::Quota`] if the receiving peer may not have more handles;
    /// [`Error::DescriptorRefused`] if it is on another host; [`Error::WrongPeer`] if the handle is
    /// not this peer's; [`Error::Disconnected`] if either peer is. On the embedded host each
    /// receiving peer needs a descriptor, and procfs: [`Error::TooManyDescriptors`],
    /// [`Error::DescriptorRefused`].
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let (server, client) = (Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?);
    /// let node = server.create_node()?;
    /// let handle = server.transfer(node.handle(), &client)?.expect("the node is alive");
    /// client.send(&handle, &Outgoing::new().payload(b"request"))?;
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn transfer(&self, handle: &Handle, to: &Peer) -> Result<Option<Handle>> {
        let _entered = to.connection().gate.enter();
        let id = self.transfer_to_fd(handle, to.descriptor()?)?;
        Ok(id.map(|id| Handle::new(to.0.add(id.raw()))))
    }

    /// Gives a handle to the peer behind a descriptor, which need not be used by this process.
    /// Returns the ID there, or `None` if the node is destroyed already. The user of the peer has
    /// to learn the ID, and takes the handle up by [`adopt_handle`](Self::adopt_handle).
    ///
    /// # Errors
    ///
    /// The errors of [`transfer`](Self::transfer); [`Error::DescriptorRefused`] for a descriptor
    /// that is no peer of the same host.
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let (server, client) = (Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?);
    /// let node = server.create_node()?;
    /// let id = server.transfer_to_fd(node.handle(), &client)?.expect("the node is alive");
    /// // The client learns the ID, by an argument of its program, say.
    /// let handle = client.adopt_handle(id);
    /// client.send(&handle, &Outgoing::new().payload(b"request"))?;
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn transfer_to_fd(&self, handle: &Handle, to: impl AsFd) -> Result<Option<HandleId>> {
        let id = handle.id_in(&self.0)?;
        let id = self.connection().handle_transfer(id, to.as_fd())?;
        Ok(id.map(HandleId::from_raw))
    }

    /// Takes up a reference to a handle that nothing in this process owns: one that was
    /// [leaked](Handle::leak), or was [given](Self::transfer_to_fd) to this peer from outside.
    ///
    /// The bus is not asked. If the peer has no such handle, using it fails with
    /// [`Error::UnknownHandle`]; if the reference was not given up, dropping the handle releases
    /// one that others count on.
    ///
    /// ```
    /// use bus1::{Error, HandleId, Host, Outgoing, Peer};
    ///
    /// let (server, client) = (Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?);
    /// let node = server.create_node()?;
    /// let handle = server.transfer(node.handle(), &client)?.expect("the node is alive");
    ///
    /// let id = handle.leak();
    /// let handle = client.adopt_handle(id);
    /// client.send(&handle, &Outgoing::new())?;
    ///
    /// let unknown = client.adopt_handle(HandleId::from_raw(0x7f3));
    /// assert_eq!(client.send(&unknown, &Outgoing::new()), Err(Error::UnknownHandle));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn adopt_handle(&self, id: HandleId) -> Handle {
        let _entered = self.connection().gate.enter();
        Handle::new(self.0.add(id.raw()))
    }

    /// Returns the limits of the peer.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`].
    ///
    /// ```
    /// use bus1::{Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// assert!(peer.limits()?.slices > 0);
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn limits(&self) -> Result<Limits> {
        self.connection().query()
    }

    /// Sets the limits of the peer. Everything that is there already stays, also above a limit.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if one is above [`Limits::MAX`]; [`Error::Disconnected`].
    ///
    /// ```
    /// use bus1::{Error, Host, Limits, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let limits = peer.limits()?;
    /// peer.set_limits(Limits { handles: 100, ..limits })?;
    /// let beyond = Limits { handles: Limits::MAX + 1, ..limits };
    /// assert_eq!(peer.set_limits(beyond), Err(Error::OutOfRange));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        self.connection().set_limits(limits)
    }

    /// Drops all that the peer has, for a fresh start on a descriptor that was kept: nodes, except
    /// those that the [seed](Self::set_seed) carries, handles, and everything that waits to be
    /// received. Holders of the nodes are notified. The peer stays connected, and keeps its limits.
    ///
    /// Handles and nodes that were leaked are dropped, too.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] as long as there are nodes, handles or messages of the peer in this
    /// process, since it would take them from under their users; and while a thread waits in
    /// [`recv`](Self::recv) or its like. [`Error::Disconnected`].
    ///
    /// ```
    /// use bus1::{Error, Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// assert_eq!(peer.flush(), Err(Error::InUse));
    ///
    /// peer.set_seed(&bus1::Outgoing::new().payload(b"state").handle(node.handle()))?;
    /// let id = node.leak();
    /// peer.flush()?;
    /// assert_eq!(peer.recv_seed()?.unwrap().handles()[0].as_ref().unwrap().id(), id);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    /// Drops the [seed](Self::set_seed), if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`].
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// peer.set_seed(&Outgoing::new().payload(b"state"))?;
    /// peer.drop_seed()?;
    /// assert!(peer.recv_seed()?.is_none());
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn drop_seed(&self) -> Result<()> {
        self.connection().drop_seed()
    }

    /// Ends the peer at one point of the global order: all of its nodes are destroyed, its handles
    /// released, and messages that wait to be received are dropped. Threads that wait for it wake
    /// up with [`Error::Disconnected`], with which everything fails from here on.
    /// [Messages](crate::Message) that are held stay readable.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`] if it was before.
    ///
    /// ```
    /// use bus1::{Error, Host, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// peer.disconnect()?;
    /// assert_eq!(peer.recv().unwrap_err(), Error::Disconnected);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn disconnect(&self) -> Result<()> {
        self.connection().disconnect()
    }

    /// Returns a descriptor that shows readiness: readable when there may be something to receive,
    /// or the peer is disconnected. It is only for `poll(2)` and the like.
    ///
    /// # Errors
    ///
    /// On the embedded host, where the first call makes it: [`Error::TooManyDescriptors`],
    /// [`Error::NoMemory`].
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    /// use rustix::event::{poll, PollFd, PollFlags, Timespec};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// let readable = || {
    ///     let mut fds = [PollFd::from_borrowed_fd(peer.descriptor()?, PollFlags::IN)];
    ///     let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    ///     let n = poll(&mut fds, Some(&at_once)).expect("the descriptor is open");
    ///     Ok::<_, bus1::Error>(n == 1)
    /// };
    /// assert!(!readable()?);
    /// peer.send(node.handle(), &Outgoing::new())?;
    /// assert!(readable()?);
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        self.connection().transport().fd()
    }

    /// Makes another descriptor of the same peer, close-on-exec, to hand to another process.
    /// [`from_fd`](Self::from_fd) says what that may do with it.
    ///
    /// # Errors
    ///
    /// [`Error::NotOnThisHost`] on the embedded host; [`Error::TooManyDescriptors`].
    ///
    /// ```
    /// use bus1::{Error, Host, Peer};
    /// use std::process::{Command, Stdio};
    ///
    /// let peer = Peer::open()?;
    /// match peer.duplicate_fd() {
    ///     // A program that takes the peer over from its standard input.
    ///     Ok(fd) => drop(Command::new("service").stdin(Stdio::from(fd))),
    ///     Err(error) => assert_eq!((peer.host(), error), (Host::Embedded, Error::NotOnThisHost)),
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn duplicate_fd(&self) -> Result<OwnedFd> {
        if self.host() == Host::Embedded {
            return Err(Error::NotOnThisHost);
        }
        rustix::io::fcntl_dupfd_cloexec(self.descriptor()?, 0)
            .map_err(|errno| Error::from_host("duplicating the descriptor", errno))
    }
}

/// Returns the [`descriptor`](Peer::descriptor).
///
/// # Panics
///
/// On the embedded host, if there is no descriptor yet and none can be made. Call
/// [`Peer::descriptor`] before.
impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.descriptor() {
            Ok(fd) => fd,
            Err(error) => panic!("no descriptor for this peer: {error}"),
        }
    }
}

/// Returns the number of the [`descriptor`](Peer::descriptor).
///
/// # Panics
///
/// Like [`AsFd`] of a peer.
impl AsRawFd for Peer {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}
