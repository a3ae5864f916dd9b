// SPDX-License-Identifier: MIT OR Apache-2.0

//! Errors, by the caller's ways to deal with them.
//!
//! Every errno that docs/abi.md names for a command has a variant, except EAGAIN, EINTR and
//! ETIMEDOUT, which the methods of this crate turn into `None` or deal with. [`Error::Os`] is
//! anything else.

use rustix::io::Errno as Raw;

use crate::errno::Errno;
use crate::id::HandleId;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why an operation failed.
///
/// An operation that failed had no effect, unless its documentation says otherwise.
///
/// ```
/// use bus1::{Error, Host, Outgoing, Peer};
///
/// let peer = Peer::open_on(Host::Embedded)?;
/// let node = peer.create_node()?;
/// let handle = node.handle().clone();
/// drop(node);
///
/// let error = peer.send(&handle, &Outgoing::new().payload(b"too late")).unwrap_err();
/// assert_eq!(error, Error::NodeDestroyed);
/// assert_eq!(error.errno().unwrap().raw(), 113); // EHOSTUNREACH
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// EDQUOT. The receiver, its user, or the sender's own user would hold too much that is charged
    /// to this sender: slices, handles, bytes or descriptors. It passes when receivers receive and
    /// release. [`Peer::obstacle`](crate::Peer::obstacle) tells which limit that is.
    #[error(
        "over quota: too much from this sender waits at the receiver, or too many handles are \
         held; let the receiver receive and release, then try again"
    )]
    Quota,

    /// EXFULL. The receiver's pool has no room for the message now. It passes when the receiver
    /// releases messages.
    #[error("the receiver's pool has no room now; let the receiver drop messages, then try again")]
    PoolFull,

    /// EHOSTUNREACH. The node is destroyed, or its owner is gone. It will not come back: drop the
    /// handle and get a new one.
    #[error("the node is destroyed, or its owner is gone; drop the handle")]
    NodeDestroyed,

    /// ESHUTDOWN. The peer is disconnected, and so is everything that came from it.
    #[error("the peer is disconnected; open a new one")]
    Disconnected,

    /// EMSGSIZE. More than 1024 pieces of payload, 2 GiB in all, 256 descriptors, or more than the
    /// receiver's limits and its pool allow in one message, even if it holds nothing.
    /// [`Peer::max_payload`](crate::Peer::max_payload) tells how much that is.
    #[error(
        "the message is too large: at most 1024 pieces of payload, 0x7ffff000 bytes in all, \
         256 descriptors, and what the receiver's limits allow one sender; split it"
    )]
    TooLarge,

    /// ERANGE. The message lies beyond what this process could map of its pool. It stays where
    /// it is.
    #[error(
        "the message lies beyond the part of the pool that is mapped; drop messages that are \
         held, or raise the limit on address space and open the peer again"
    )]
    BeyondMapping,

    /// ENXIO. The peer has no such handle or slice.
    #[error("the peer has no such handle; it was released already or never received")]
    UnknownHandle,

    /// ENOTUNIQ. A destination, or a node to destroy, is named twice in one call.
    #[error("the same handle or node is named twice in one call; name each once")]
    Duplicate,

    /// EREMOTE. Only the owner can destroy a node.
    #[error("the node belongs to another peer; only its owner can destroy it")]
    NotOwner,

    /// ESTALE. The node was destroyed before.
    #[error("the node was destroyed before")]
    AlreadyDestroyed,

    /// EOPNOTSUPP. Peers of bus1, AF_UNIX sockets, io_uring and other descriptors that could form
    /// cycles cannot travel; and only a peer of the same host can be given a handle.
    #[error(
        "a descriptor of this kind cannot be used here: bus1 peers, AF_UNIX sockets and io_uring \
         cannot be sent, and handles go only to peers of the same host"
    )]
    DescriptorRefused,

    /// EBADF. A number that is no open descriptor.
    #[error("a descriptor that was named is not open")]
    BadDescriptor,

    /// EMFILE or ENFILE. There is no number left for a descriptor. A message that carries
    /// descriptors stays in the queue.
    #[error(
        "too many descriptors are open; close some or raise the limit (ulimit -n), then try \
         again; a message can be received without its descriptors"
    )]
    TooManyDescriptors,

    /// ENOMEM. The system is out of memory, or the process may not have more: its limit on address
    /// space, or, after `mlockall(2)`, that on locked memory.
    #[error(
        "out of memory; free some, or raise the limits on address space and locked memory \
         (ulimit -v, ulimit -l), and try again"
    )]
    NoMemory,

    /// EINVAL. A number is out of range: a limit above `i32::MAX`, or more handles than the user
    /// may have.
    #[error("a number is out of range: a limit above 2147483647, or too many handles in one call")]
    OutOfRange,

    /// The handle, node or message belongs to another [`Peer`](crate::Peer) than the one that was
    /// asked. A handle has a meaning only for its own peer; send it, or
    /// [transfer](crate::Peer::transfer) it.
    #[error("the handle belongs to another peer; send or transfer it to this one first")]
    WrongPeer,

    /// A node of this ID exists in this peer, or handles of it still do.
    #[error("this peer has a node of the ID {0} already, or still uses the ID; choose another")]
    NodeExists(HandleId),

    /// The ID cannot be that of an own node: those are multiples of 4.
    #[error("{0} cannot be the ID of an own node; take a multiple of 4")]
    InvalidId(HandleId),

    /// Nodes, handles or messages of the peer still exist, so it cannot be flushed.
    #[error("nodes, handles or messages of this peer are still in use; drop them, then flush")]
    InUse,

    /// The descriptor is no peer of bus1.
    #[error("the descriptor is not a bus1 peer; it has to come from /dev/bus1")]
    NotAPeer,

    /// Peers of the [embedded](crate::Host::Embedded) host have no descriptor that another process
    /// could use.
    #[error("peers of the embedded host live in one process and cannot be handed to another")]
    NotOnThisHost,

    /// The environment or an argument names no host.
    #[error("no such host; BUS1_HOST is kernel, embedded or auto")]
    UnknownHost,

    /// `/dev/bus1` cannot be opened.
    #[error(
        "cannot open /dev/bus1; load the module (insmod bus1.ko, see the README), or use the \
         embedded host"
    )]
    Open(#[source] Errno),

    /// Any other error of the system.
    #[error("{call} failed")]
    Os {
        /// The command or system call.
        call: &'static str,
        /// The errno.
        #[source]
        errno: Errno,
    },
}

impl Error {
    /// Returns the error number behind it; `None` if this crate noticed by itself.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        let raw = match self {
            Self::Quota => Raw::DQUOT,
            Self::PoolFull => Raw::XFULL,
            Self::NodeDestroyed => Raw::HOSTUNREACH,
            Self::Disconnected => Raw::SHUTDOWN,
            Self::TooLarge => Raw::MSGSIZE,
            Self::BeyondMapping => Raw::RANGE,
            Self::UnknownHandle => Raw::NXIO,
            Self::Duplicate => Raw::NOTUNIQ,
            Self::NotOwner => Raw::REMOTE,
            Self::AlreadyDestroyed => Raw::STALE,
            Self::DescriptorRefused => Raw::OPNOTSUPP,
            Self::BadDescriptor => Raw::BADF,
            Self::TooManyDescriptors => Raw::MFILE,
            Self::NoMemory => Raw::NOMEM,
            Self::OutOfRange => Raw::INVAL,
            Self::Open(errno) | Self::Os { errno, .. } => return Some(*errno),
            Self::WrongPeer
            | Self::NodeExists(_)
            | Self::InvalidId(_)
            | Self::InUse
            | Self::NotAPeer
            | Self::NotOnThisHost
            | Self::UnknownHost => return None,
        };
        Some(raw.into())
    }

    /// Returns whether the same call can succeed later without a change to it, once the receiver
    /// has caught up: [`Quota`](Self::Quota), [`PoolFull`](Self::PoolFull).
    ///
    /// [`Peer::send_when_room`](crate::Peer::send_when_room) waits for that moment, and
    /// [`Outgoing::notify_room`](crate::Outgoing::notify_room) asks for a notice of it.
    ///
    /// ```
    /// use bus1::Error;
    ///
    /// assert!(Error::PoolFull.is_temporary());
    /// assert!(!Error::TooLarge.is_temporary());
    /// ```
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Quota | Self::PoolFull)
    }

    /// Returns the error that a command of the bus reported.
    pub(crate) fn from_command(call: &'static str, errno: Raw) -> Self {
        match errno {
            Raw::DQUOT => Self::Quota,
            Raw::XFULL => Self::PoolFull,
            Raw::HOSTUNREACH => Self::NodeDestroyed,
            Raw::SHUTDOWN => Self::Disconnected,
            Raw::MSGSIZE => Self::TooLarge,
            Raw::RANGE => Self::BeyondMapping,
            Raw::NXIO => Self::UnknownHandle,
            Raw::NOTUNIQ => Self::Duplicate,
            Raw::REMOTE => Self::NotOwner,
            Raw::STALE => Self::AlreadyDestroyed,
            Raw::OPNOTSUPP => Self::DescriptorRefused,
            Raw::BADF => Self::BadDescriptor,
            Raw::MFILE | Raw::NFILE => Self::TooManyDescriptors,
            Raw::NOMEM => Self::NoMemory,
            Raw::INVAL => Self::OutOfRange,
            errno => Self::Os {
                call,
                errno: errno.into(),
            },
        }
    }

    /// Returns the error that a host reported of something other than a command: opening a peer,
    /// mapping its pool, making its descriptor.
    pub(crate) fn from_host(call: &'static str, errno: Raw) -> Self {
        match errno {
            // Reserved for a limit on peers.
            Raw::DQUOT => Self::Quota,
            Raw::SHUTDOWN => Self::Disconnected,
            Raw::MFILE | Raw::NFILE => Self::TooManyDescriptors,
            // After mlockall(2) a mapping beyond RLIMIT_MEMLOCK is EAGAIN. It does not pass.
            Raw::NOMEM | Raw::AGAIN => Self::NoMemory,
            errno => Self::Os {
                call,
                errno: errno.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn every_documented_errno_has_a_meaning_and_is_not_lost() {
        for raw in [
            Raw::DQUOT,
            Raw::XFULL,
            Raw::HOSTUNREACH,
            Raw::SHUTDOWN,
            Raw::MSGSIZE,
            Raw::RANGE,
            Raw::NXIO,
            Raw::NOTUNIQ,
            Raw::REMOTE,
            Raw::STALE,
            Raw::OPNOTSUPP,
            Raw::BADF,
            Raw::MFILE,
            Raw::NOMEM,
            Raw::INVAL,
        ] {
            let error = Error::from_command("SEND", raw);
            assert!(!matches!(error, Error::Os { .. }), "{raw:?}");
            assert_eq!(error.errno(), Some(raw.into()));
        }
    }

    #[test]
    fn other_errors_name_the_command_and_keep_the_reason() {
        let error = Error::from_command("SEND", Raw::FAULT);
        assert_eq!(error.to_string(), "SEND failed");
        assert_eq!(error.errno(), Some(Raw::FAULT.into()));
        assert!(error.source().unwrap().to_string().contains("Bad address"));
    }

    #[test]
    fn a_failure_of_memory_is_never_temporary() {
        for raw in [Raw::NOMEM, Raw::AGAIN] {
            let error = Error::from_host("mapping the pool", raw);
            assert_eq!(error, Error::NoMemory);
            assert!(!error.is_temporary());
        }
        // No command says that nothing came, except those that receive and deal with it.
        let error = Error::from_command("SEND", Raw::AGAIN);
        assert!(matches!(error, Error::Os { .. }) && !error.is_temporary());
    }
}
