// SPDX-License-Identifier: MIT OR Apache-2.0

//! The amounts that a peer and its user hold, and the limit that a message would meet.

use bus1_uapi as abi;

use crate::handle::Handle;
use crate::peer::Peer;
use crate::Result;

/// An amount of each resource that is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Messages that wait or are held, in number.
    pub slices: u64,
    /// Handles, own nodes and those in waiting messages included, in number.
    pub handles: u64,
    /// Bytes of waiting and held messages: payload, 8 for each handle, 4 for each descriptor.
    pub bytes: u64,
    /// Descriptors in waiting messages, in number.
    pub fds: u64,
}

impl From<abi::Amounts> for Amounts {
    fn from(amounts: abi::Amounts) -> Self {
        Self {
            slices: amounts.slices,
            handles: amounts.handles,
            bytes: amounts.bytes,
            fds: amounts.fds,
        }
    }
}

/// The amounts that a peer and its user hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Amounts charged at the peer; [`Peer::limits`] are its limits.
    pub peer: Amounts,
    /// Amounts charged at all peers of the user together.
    pub user: Amounts,
    /// Limits of the user, which the administrator sets.
    pub user_limits: Amounts,
    /// Descriptors that the user has sent and nobody has received yet.
    pub sent_fds: u64,
}

/// A resource that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// Messages that wait or are held.
    Slices,
    /// Handles.
    Handles,
    /// Bytes of messages that wait or are held.
    Bytes,
    /// Descriptors in waiting messages.
    Descriptors,
}

/// The owner of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// The receiving peer.
    Peer,
    /// The user of the receiving peer.
    User,
    /// The user of the sending peer, for its descriptors in flight.
    Sender,
}

/// The limit that a message meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The owner of the limit.
    pub level: Level,
    /// The resource that there would be too much of.
    pub resource: Resource,
}

impl Obstacle {
    fn new(told: &abi::CmdQuota) -> Option<Self> {
        let level = match told.level {
            abi::QUOTA_LEVEL_NONE => return None,
            abi::QUOTA_LEVEL_PEER => Level::Peer,
            abi::QUOTA_LEVEL_USER => Level::User,
            _ => Level::Sender,
        };
        let resource = match told.resource {
            abi::QUOTA_SLICES => Resource::Slices,
            abi::QUOTA_HANDLES => Resource::Handles,
            abi::QUOTA_BYTES => Resource::Bytes,
            _ => Resource::Descriptors,
        };
        Some(Self { level, resource })
    }
}

/// Quota.
impl Peer {
    /// Returns the amounts that the peer and its user hold.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`](crate::Error::Disconnected).
    ///
    /// ```
    /// use bus1::{Host, Outgoing, Peer};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// peer.send(node.handle(), &Outgoing::new().payload(&[0; 1000]))?;
    /// let usage = peer.usage()?;
    /// assert_eq!((usage.peer.slices, usage.peer.bytes), (1, 1000));
    /// assert!(usage.user.bytes >= 1000 && usage.user_limits.bytes > 0);
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn usage(&self) -> Result<Usage> {
        let told = self.connection().quota(abi::CmdQuota {
            handle: abi::HANDLE_INVALID,
            ..Default::default()
        })?;
        Ok(Usage {
            peer: told.peer_used.into(),
            user: told.user_used.into(),
            user_limits: told.user_max.into(),
            sent_fds: told.sent_fds,
        })
    }

    /// Returns the most bytes of payload that one message to this handle may have, by the limits as
    /// they are now. A longer one is [`Error::TooLarge`](crate::Error::TooLarge), and one that is
    /// not longer may still be [`Error::Quota`](crate::Error::Quota) until the receiver releases
    /// something. Each handle that the message carries takes 8 of these bytes, and each descriptor
    /// 4.
    ///
    /// # Errors
    ///
    /// [`Error::NodeDestroyed`](crate::Error::NodeDestroyed);
    /// [`Error::WrongPeer`](crate::Error::WrongPeer) for a handle of another peer;
    /// [`Error::Disconnected`](crate::Error::Disconnected).
    ///
    /// ```
    /// use bus1::{Error, Host, Outgoing, Peer};
    ///
    /// let [server, client] = [Peer::open_on(Host::Embedded)?, Peer::open_on(Host::Embedded)?];
    /// let service = server.create_node()?;
    /// let handle = server.transfer(service.handle(), &client)?.expect("the node is alive");
    ///
    /// let most = client.max_payload(&handle)?;
    /// let bytes = vec![0; most as usize + 1];
    /// let error = client.send(&handle, &Outgoing::new().payload(&bytes)).unwrap_err();
    /// assert_eq!(error, Error::TooLarge);
    /// client.send(&handle, &Outgoing::new().payload(&bytes[1..]))?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn max_payload(&self, handle: &Handle) -> Result<u64> {
        let told = self.ask_quota(handle, [0; 3])?;
        Ok(told.most.bytes.min(0x7fff_f000))
    }

    /// Returns the limit that would refuse a message of this size to this handle now, and `None` if
    /// none would. Idle credit counts as used here, although sending takes it back first: so ask
    /// after [`Error::Quota`](crate::Error::Quota), to learn which quota that was.
    ///
    /// # Errors
    ///
    /// Those of [`Peer::max_payload`].
    ///
    /// ```
    /// use bus1::{Host, Level, Limits, Peer, Resource};
    ///
    /// let peer = Peer::open_on(Host::Embedded)?;
    /// let node = peer.create_node()?;
    /// assert_eq!(peer.obstacle(node.handle(), 100, 0, 0)?, None);
    /// peer.set_limits(Limits { inflight_bytes: 100, ..peer.limits()? })?;
    /// let obstacle = peer.obstacle(node.handle(), 100, 0, 0)?.expect("half of it is too little");
    /// assert_eq!((obstacle.level, obstacle.resource), (Level::Peer, Resource::Bytes));
    /// # Ok::<(), bus1::Error>(())
    /// ```
    pub fn obstacle(
        &self,
        handle: &Handle,
        n_bytes: usize,
        n_handles: usize,
        n_fds: usize,
    ) -> Result<Option<Obstacle>> {
        let told = self.ask_quota(handle, [n_bytes, n_handles, n_fds])?;
        Ok(Obstacle::new(&told))
    }

    fn ask_quota(
        &self,
        handle: &Handle,
        [n_bytes, n_handles, n_fds]: [usize; 3],
    ) -> Result<abi::CmdQuota> {
        self.connection().quota(abi::CmdQuota {
            handle: handle.id_in(self.registry())?,
            n_bytes: n_bytes as u64,
            n_handles: n_handles as u64,
            n_fds: n_fds as u64,
            ..Default::default()
        })
    }
}
