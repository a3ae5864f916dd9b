// SPDX-License-Identifier: MIT OR Apache-2.0

//! The state of a peer's eventfd, readable or not: level and edge.
//!
//! A sender that makes the peer ready *raises* the eventfd afterwards, perhaps much later (at the
//! end of its command). If the eventfd is raised already the sender does nothing, so that a
//! thousand messages for a peer that nobody attends to cost one system call.
//!
//! # Level
//!
//! Once all senders have returned, the eventfd is raised if the peer is ready. It may be raised
//! although the peer is not ready, because a sender raised it when its message had been received
//! already. [`Event::settle`] and [`Event::rearm`] end that.
//!
//! # Edge
//!
//! An edge-triggered waiter receives until a call answers that nothing is left (EAGAIN), and then
//! waits for an edge: a change from lowered to raised that comes after that answer. A message that
//! arrives behind that answer must therefore find the eventfd lowered, or lowered again later. So
//! each call that answers that the peer is not ready ends with [`Event::rearm`]: it
//! lowers the eventfd *whether or not the peer is ready by then*, looks at the peer, and raises
//! the eventfd if the peer is ready.
//!
//! To look first and to leave a raised eventfd as it is where the peer is ready would be wrong: the
//! eventfd may be raised since before the answer, by a sender that came late, and the message that
//! made the peer ready between the answer and the look found it raised. Then no edge follows the
//! answer, and the message waits for ever.
//!
//! # Memory order
//!
//! `line` and the eventfd change together under the lock of `line`. Consider one message, which its
//! sender publishes and then raises for, and one `rearm`, which lowers and then looks:
//!
//! - The sender's section under the lock comes first. Then the unlock of the one and the lock of
//!   the other order the publication before the look, which sees the message, unless it was
//!   received. If it sees the message it raises: an edge behind the lowering.
//! - The section of `rearm` comes first. Then the sender finds the eventfd lowered, and raises it
//!   itself; or another thread raised it in between. Either is an edge behind the lowering.
//!
//! The lowering is behind the answer in the program order of the thread that got it. So in either
//! case an edge follows the answer, and no fence is needed: the lock orders all of it. (A lowered
//! eventfd needs no lowering: then `rearm` finds `Lowered` under the lock, with the same two
//! cases.) `tests/event_model.rs` explores all interleavings of this file with loom.
//!
//! Lock: `line` only, held across the system call that it describes. Nothing else is locked under
//! it.

use std::sync::{Arc, OnceLock, Weak};

use crate::eventfd::{Eventfd, Mutex};

/// The state of the eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Not readable: the next raise is an edge.
    Lowered,
    /// Readable.
    Raised,
}

/// The eventfd of one peer, once there is one.
pub(crate) struct Event {
    line: Mutex<Line>,
    /// Weak, because others may refer to a peer long after it was closed.
    eventfd: OnceLock<Weak<Eventfd>>,
}

impl Event {
    /// Makes a state for a peer without an eventfd.
    pub(crate) fn new() -> Self {
        Self {
            line: Mutex::new(Line::Lowered),
            eventfd: OnceLock::new(),
        }
    }

    /// Gives the peer its eventfd, which is not readable. Later calls have no effect.
    ///
    /// The caller then announces it to the senders, looks at the peer, and raises the eventfd if
    /// the peer is ready already.
    pub(crate) fn attach(&self, eventfd: &Arc<Eventfd>) {
        let _ = self.eventfd.set(Arc::downgrade(eventfd));
    }

    /// Returns whether there is an eventfd, or was one.
    pub(crate) fn is_attached(&self) -> bool {
        self.eventfd.get().is_some()
    }

    /// Makes the eventfd readable, if it is not.
    pub(crate) fn raise(&self) {
        let mut line = self.line.lock();
        if let (Line::Lowered, Some(eventfd)) = (*line, self.eventfd()) {
            eventfd.set();
            *line = Line::Raised;
        }
    }

    /// Makes the eventfd unreadable. Returns whether it was readable.
    fn lower(&self) -> bool {
        let mut line = self.line.lock();
        match (*line, self.eventfd()) {
            (Line::Raised, Some(eventfd)) => {
                eventfd.clear();
                *line = Line::Lowered;
                true
            }
            _ => false,
        }
    }

    /// Prepares the next edge, at the end of a call that answers that the peer is not ready.
    /// `is_ready` looks at the peer.
    pub(crate) fn rearm(&self, is_ready: impl Fn() -> bool) {
        if self.is_attached() && self.lower() && is_ready() {
            self.raise();
        }
    }

    /// Lowers an eventfd that is readable without reason, for the sake of level-triggered waiters.
    /// `is_ready` looks at the peer.
    ///
    /// That is for calls that say nothing about whether the peer is ready. It costs no system
    /// call while the peer is.
    pub(crate) fn settle(&self, is_ready: impl Fn() -> bool) {
        if self.is_attached() && *self.line.lock() == Line::Raised && !is_ready() {
            self.rearm(is_ready);
        }
    }

    fn eventfd(&self) -> Option<Arc<Eventfd>> {
        self.eventfd.get().and_then(Weak::upgrade)
    }
}
