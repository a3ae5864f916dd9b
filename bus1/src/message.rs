// SPDX-License-Identifier: MIT OR Apache-2.0

//! A received message.

use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use bus1_uapi::{Msg, HANDLE_INVALID, MSG_FLAG_CONTINUE, OFFSET_INVALID};

use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::id::HandleId;
use crate::registry::Registry;
use crate::transport::PoolView;

/// A received message, which owns what came with it: its slice of the pool, handles, descriptors.
///
/// The payload lies in the peer's pool, where the sender put it; nothing is copied to read it.
/// Dropping the message gives the slice back, releases the handles that were not taken, and closes
/// the descriptors that were not taken. As long as it is held it takes room in the pool and counts
/// on the peer's limits, so that senders may meet [`Error::Quota`](crate::Error::Quota): keep a
/// copy if it has to be kept for long.
///
/// It does not say who sent it, only which node it was sent to.
///
/// A message keeps its peer connected, and survives [`Peer::disconnect`](crate::Peer::disconnect).
///
/// ```
/// use bus1::{Host, Outgoing, Peer};
///
/// let peer = Peer::open_on(Host::Embedded)?;
/// let node = peer.create_node()?;
/// peer.send(node.handle(), &Outgoing::new().payload(b"note"))?;
///
/// let note = peer.recv()?.into_message().expect("a message was sent");
/// assert_eq!(note.payload(), b"note");
/// assert_eq!(note.destination(), node.id());
/// assert!(note.handles().is_empty() && note.fds().is_empty() && !note.more());
/// # Ok::<(), bus1::Error>(())
/// ```
pub struct Message {
    payload: Payload,
    destination: HandleId,
    more: bool,
    handles: Vec<Option<Handle>>,
    fds: Vec<OwnedFd>,
}

/// The place of the payload.
enum Payload {
    /// In the pool.
    Pool(Slice),
    /// In memory of its own.
    Copy(Box<[u8]>),
}

/// A slice that was received, and its payload. Given back when dropped.
pub(crate) struct Slice {
    registry: Arc<Registry>,
    /// `OFFSET_INVALID` once the bus has it back.
    offset: u64,
    payload: *const u8,
    len: usize,
}

// SAFETY: it is memory that belongs to no thread, and the rest is `Send`.
unsafe impl Send for Slice {}
// SAFETY: it is only read through a shared reference.
unsafe impl Sync for Slice {}

impl Slice {
    fn payload(&self) -> &[u8] {
        // SAFETY: the range lies in the pool, which the connection keeps mapped, a disconnect
        // included. The bus wrote it before the message was received, and no code writes there
        // before the slice is released: the mapping of this process is read-only, and other users
        // of the peer have promised not to release a slice that is not theirs. It is released in
        // `drop`, which is after the life of the reference.
        unsafe { std::slice::from_raw_parts(self.payload, self.len) }
    }

    /// Returns the offset of its start. Nothing refers to it any more: it was taken out of its
    /// message.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Ends it after another command gave it back.
    pub(crate) fn released(mut self) {
        self.offset = OFFSET_INVALID;
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let connection = &self.registry.connection;
        if self.offset != OFFSET_INVALID {
            // SAFETY: only this slice gives out references, and they are gone.
            let released = unsafe { connection.slice_release(self.offset) };
            // It fails if the peer is disconnected, and then there is nothing to release.
            let _ = released;
        }
        connection.gate.object_gone();
    }
}

impl Message {
    /// Takes over the results of a receipt. The caller has entered the gate, or keeps the
    /// connection busy.
    ///
    /// # Safety
    ///
    /// `msg` and `pool` are values that a command of the registry's connection has just returned
    /// for a message of data, and it is taken over once.
    pub(crate) unsafe fn new(registry: &Arc<Registry>, msg: &Msg, pool: PoolView) -> Self {
        registry.connection.gate.object_made();
        let payload = pool.start.wrapping_add(msg.offset as usize);
        let slice = Slice {
            registry: registry.clone(),
            offset: msg.offset,
            payload,
            len: msg.n_bytes as usize,
        };
        let n_handles = msg.n_handles as usize;
        let ids = payload
            .wrapping_add(slice.len.next_multiple_of(8))
            .cast::<u64>();
        let handles = (0..n_handles)
            // SAFETY: the slice has as many IDs there, aligned as the slice is.
            .map(|index| unsafe { ids.add(index).read() })
            .map(|id| (id != HANDLE_INVALID).then(|| Handle::new(registry.add(id))))
            .collect();
        let numbers = ids.wrapping_add(n_handles).cast::<i32>();
        let fds = (0..msg.n_fds as usize)
            // SAFETY: the slice has as many numbers there. Each was installed for this message,
            // and no other code knows of it.
            .map(|index| unsafe { OwnedFd::from_raw_fd(numbers.add(index).read()) })
            .collect();
        Self {
            payload: Payload::Pool(slice),
            destination: HandleId::from_raw(msg.destination),
            more: msg.flags & MSG_FLAG_CONTINUE != 0,
            handles,
            fds,
        }
    }

    /// Copies the payload, and gives the slice back.
    pub(crate) fn detached(mut self) -> Self {
        if let Payload::Pool(slice) = &self.payload {
            self.payload = Payload::Copy(slice.payload().into());
        }
        self
    }

    /// Ends it, and returns its slice, which is still to be given back. A copy has none.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPeer`] if it is of another peer; all of it is dropped then.
    pub(crate) fn into_slice(self, registry: &Arc<Registry>) -> Result<Option<Slice>> {
        match self.payload {
            Payload::Copy(_) => Ok(None),
            Payload::Pool(slice) if Arc::ptr_eq(&slice.registry, registry) => Ok(Some(slice)),
            Payload::Pool(_) => Err(Error::WrongPeer),
        }
    }

    /// Returns the payload, in place. It does not change as long as the message is held.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match &self.payload {
            Payload::Pool(slice) => slice.payload(),
            Payload::Copy(bytes) => bytes,
        }
    }

    /// Returns the ID of the own [`Node`](crate::Node) that it was sent to;
    /// [`HandleId::INVALID`] for a seed.
    #[must_use]
    pub fn destination(&self) -> HandleId {
        self.destination
    }

    /// Returns whether the next message that the peer receives is part of the same transaction: the
    /// sender named several nodes of this peer. That message does come, without another event
    /// before it.
    #[must_use]
    pub fn more(&self) -> bool {
        self.more
    }

    /// Returns the handles that came with it, in the order in which the sender named them. `None`
    /// stands in the place of a handle whose node was destroyed before the message was received.
    ///
    /// They are released with the message. A clone of one stays, and so do all that were
    /// [taken](Self::take_handles).
    #[must_use]
    pub fn handles(&self) -> &[Option<Handle>] {
        &self.handles
    }

    /// Takes the handles out; afterwards the message has none.
    ///
    /// ```
    /// use bus1::{Event, Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// peer.send(node.handle(), &Outgoing::new().handle(node.handle()))?;
    ///
    /// let Event::Message(mut message) = peer.recv()? else { panic!("a message was sent") };
    /// let handles = message.take_handles();
    /// drop(message);
    /// assert_eq!(handles[0].as_ref(), Some(node.handle()));
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn take_handles(&mut self) -> Vec<Option<Handle>> {
        std::mem::take(&mut self.handles)
    }

    /// Returns the descriptors that came with it, in the order in which the sender named them. They
    /// are close-on-exec, and closed with the message.
    #[must_use]
    pub fn fds(&self) -> &[OwnedFd] {
        &self.fds
    }

    /// Takes the descriptors out; afterwards the message has none.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.payload()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("destination", &self.destination)
            .field("payload_len", &self.payload().len())
            .field("handles", &self.handles)
            .field("fds", &self.fds)
            .field("more", &self.more)
            .finish()
    }
}
