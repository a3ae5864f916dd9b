// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! SEND with a wait for room: what the refused destinations of one call have to wait for.
//!
//! Memory is set aside as soon as a destination refuses, so that its error can still say that there
//! is none; the waits begin once the call has succeeded, or failed for just that reason. A call that
//! fails for another one leaves no wait.
//!
//! # Locks
//!
//! None of its own; see `object/room.rs`.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::bus::allocation::GFP_CALL;
use crate::bus::host::Host;
use crate::bus::object::{Handle, WaitReservation};
use crate::bus::pool::Size;
use crate::errno::{EDQUOT, EXFULL};

/// Returns whether a destination that refused with this error may have room later.
fn passes(error: Error) -> bool {
    [EDQUOT, EXFULL].contains(&error)
}

/// A wait that is to begin.
struct NewWait<H: Host> {
    handle: Arc<Handle<H>>,
    memory: WaitReservation<H>,
}

/// The waits that one call begins.
pub(crate) struct NewWaits<H: Host> {
    size: Size,
    all: KVVec<NewWait<H>>,
}

impl<H: Host> NewWaits<H> {
    /// Makes an empty list, for a message of this size.
    pub(crate) fn new(size: Size) -> Self {
        Self {
            size,
            all: KVVec::new(),
        }
    }

    /// Prepares a wait for a destination that refused with this error, if the caller `waits` and
    /// the error may pass. Returns the error of the destination: ENOMEM if there is no memory to
    /// wait.
    #[cold]
    pub(crate) fn prepare(
        waits: &mut Option<Self>,
        handle: Option<&Arc<Handle<H>>>,
        error: Error,
    ) -> Error {
        match (waits, handle) {
            (Some(waits), Some(handle)) if passes(error) => {
                let prepared = waits.try_prepare(handle.clone());
                prepared.err().unwrap_or(error)
            }
            _ => error,
        }
    }

    fn try_prepare(&mut self, handle: Arc<Handle<H>>) -> Result {
        let memory = WaitReservation::new()?;
        self.all.push(NewWait { handle, memory }, GFP_CALL)?;
        Ok(())
    }

    /// Begins the waits, unless the call failed for another reason than a refusal.
    #[cold]
    pub(crate) fn begin(self, sent: Result) {
        if sent.err().is_some_and(|error| !passes(error)) {
            return;
        }
        for NewWait { handle, memory } in self.all {
            // The notices would be of no use.
            if H::is_killed() {
                return;
            }
            Handle::wait_for_room(&handle, &self.size, memory);
        }
    }
}
