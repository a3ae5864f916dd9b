// SPDX-License-Identifier: MIT OR Apache-2.0

//! Receiving by EXCHANGE, after its other steps: giving slices back, and sending.
//!
//! Invariant: a slice goes back once, either by the exchange or when it is dropped; the bus says
//! how far it came.

use std::fmt;
use std::sync::Arc;

use bus1_ioctl::SendArgs;
use bus1_uapi::Msg;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::message::Slice;
use crate::registry::Registry;

/// The reason why a call or a reply failed, and whether its message was sent.
///
/// It converts into its [`Error`], so `?` works in functions that return that.
///
/// ```
/// use bus1::{Error, Host, Outgoing, Peer};
///
/// let peer = Peer::open_on(Host::Embedded)?;
/// let node = peer.create_node()?;
/// let handle = node.handle().clone();
/// drop(node);
///
/// let error = peer.call(&handle, &Outgoing::new()).unwrap_err();
/// assert_eq!(error.error(), Error::NodeDestroyed);
/// assert!(!error.sent());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallError {
    error: Error,
    sent: bool,
}

impl CallError {
    /// Returns the failure of a receipt, after the message was sent or not.
    pub(crate) fn new(error: Error, sent: bool) -> Self {
        Self { error, sent }
    }

    /// Returns the reason of the failure.
    #[must_use]
    pub fn error(&self) -> Error {
        self.error
    }

    /// Returns whether the message was sent all the same, and only receiving failed. It must not be
    /// sent again then; [`Peer::recv`](crate::Peer::recv) or its like goes on, once the cause is
    /// gone.
    #[must_use]
    pub fn sent(&self) -> bool {
        self.sent
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sent {
            f.write_str("the message was sent, and receiving failed: ")?;
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

/// Of a message that was not sent.
impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self { error, sent: false }
    }
}

/// Gives slices back, and receives up to `most` events, of which it waits for the first until
/// `deadline`. At most `EXCHANGE_MAX` of each. A slice that was not given back is dropped.
pub(crate) fn receive_many(
    registry: &Arc<Registry>,
    slices: Vec<Slice>,
    most: usize,
    deadline: Deadline,
) -> Result<Vec<Event>> {
    let connection = &registry.connection;
    let _busy = connection.gate.keep_busy();
    let offsets: Vec<u64> = slices.iter().map(Slice::offset).collect();
    let mut room = vec![Msg::default(); most];
    // SAFETY: the slices were taken out of their messages, and nothing refers to them.
    let exchanged = unsafe { connection.exchange(&offsets, None, &mut room, deadline) };
    let released = slices.len() - exchanged.kept;
    slices.into_iter().take(released).for_each(Slice::released);
    let received = exchanged.received?;
    // All of them, before an error drops them: each owns something.
    let events: Vec<_> = room[..received.n]
        .iter()
        // SAFETY: they were just received.
        .map(|msg| unsafe { Event::new(registry, msg, received.pool) })
        .collect();
    events.into_iter().collect()
}

/// Gives a slice back, sends a message, and receives one event until `deadline`; without an
/// allocation. All that there is to do is one command.
///
/// # Errors
///
/// The errors of each step; the error says whether the message was sent.
pub(crate) fn receive_one(
    registry: &Arc<Registry>,
    slice: Option<Slice>,
    message: Option<SendArgs<'_>>,
    deadline: Deadline,
) -> Result<Option<Event>, CallError> {
    let connection = &registry.connection;
    let _busy = connection.gate.keep_busy();
    let offset = slice.as_ref().map(Slice::offset);
    let mut room = [Msg::default()];
    // SAFETY: the slice was taken out of its message, and is only ours.
    let exchanged = unsafe { connection.exchange(offset.as_slice(), message, &mut room, deadline) };
    if exchanged.kept == 0 {
        slice.into_iter().for_each(Slice::released);
    }
    let event = exchanged.received.and_then(|received| match received.n {
        0 => Ok(None),
        // SAFETY: it was just received.
        _ => unsafe { Event::new(registry, &room[0], received.pool) }.map(Some),
    });
    event.map_err(|error| CallError::new(error, exchanged.sent))
}
