// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! HANDLE_TRANSFER: a right given without a message.
//!
//! The ID is written to the caller before the reference is given, so it is settled first and checked
//! at the end; where another thread changed it meanwhile, all of it is done again.
//!
//! # Locks
//!
//! The caller's table, the node's owner's inbox, the destination's table and inbox: one peer's at a
//! time.

use kernel::prelude::*;
use kernel::sync::Arc;

use super::handle::Handle;
use super::host::Host;
use super::peer::{check, Peer};
use super::table::{Gains, Import};
use crate::abi::HANDLE_INVALID;

impl<H: Host> Peer<H> {
    /// Gives `to` a user reference on the node of handle `id`. `write` is told the ID that `to` knows
    /// it by, INVALID if the node is dead; it may be called again if that changes, and its error
    /// undoes all. ENXIO, ESHUTDOWN, EDQUOT, ENOMEM.
    pub fn transfer_handle(
        this: &Arc<Self>,
        id: u64,
        to: &Arc<Peer<H>>,
        write: &mut dyn FnMut(u64) -> Result,
    ) -> Result {
        let mut import = Import::new(this);
        let source = import.get(id)?;
        loop {
            let mut loan = Gains::new(to, this.claimant(), 0)?;
            let Some((handle, owed)) = Handle::link(&source.node, to)? else {
                write(HANDLE_INVALID)?;
                break;
            };
            loan.slots.push(Some(handle.clone()), GFP_KERNEL)?;
            // What the ID will be: the one it has, or a new one, which is used up in any case.
            let mut table = to.table.lock();
            check(table.open)?;
            let before = handle.local.access(&table).id;
            let known = before != HANDLE_INVALID;
            let promised = if known { before } else { table.id_for(&handle) };
            drop(table);
            if !known {
                to.charge_handles(loan.claimant, 1)?;
                loan.charged = 1;
            }
            write(promised)?;

            let mut table = to.table.lock();
            check(table.open)?;
            if handle.local.access(&table).id != before {
                continue;
            }
            let mut inbox = to.inbox.lock();
            let mut given = HANDLE_INVALID;
            // If it is dead, the peer may have been told of other nodes of that destruction
            // already, without the promise that more follows.
            if known || handle.node.dead() == 0 {
                let mut charge = (!known).then_some(loan.claimant.peer);
                given = table.gain(&mut inbox, &handle, &mut charge, Some(promised));
                loan.charged = usize::from(charge.is_some());
            }
            drop(inbox);
            drop(table);
            if given == HANDLE_INVALID {
                write(HANDLE_INVALID)?;
            } else {
                loan.slots = KVVec::new();
                handle.rise(owed);
            }
            break;
        }
        import.finish();
        Ok(())
    }
}
