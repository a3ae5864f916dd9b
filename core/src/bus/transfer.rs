// SPDX-License-Identifier: GPL-2.0 OR MIT

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
use super::message::Handles;
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
            let known = handle.local.access(&table).refs != 0;
            let promised = if known {
                handle.local.access(&table).id
            } else {
                table.id_for(&handle)
            };
            drop(table);
            if !known {
                to.charge_handles(loan.claimant, 1)?;
                loan.charged = 1;
            }
            write(promised)?;

            let mut table = to.table.lock();
            check(table.open)?;
            let mut inbox = to.inbox.lock();
            let still = (handle.local.access(&table).refs != 0) == known;
            // If it is dead, the peer may have been told of other nodes of that destruction
            // already, without the promise that more follows.
            let late = !known && handle.node.dead() != 0;
            let given = if !still || known && handle.local.access(&table).id != promised {
                None
            } else if late {
                Some(HANDLE_INVALID)
            } else {
                let mut charge = Some(loan.claimant).filter(|_| !known);
                let id = table.gain(&mut inbox, &handle, &mut charge, Some(promised));
                loan.charged = usize::from(charge.is_some());
                Some(id)
            };
            drop(inbox);
            drop(table);
            match given {
                None => continue,
                Some(HANDLE_INVALID) => write(HANDLE_INVALID)?,
                Some(_) => {
                    loan.slots = Handles::NONE;
                    handle.rise(owed);
                }
            }
            break;
        }
        import.finish();
        Ok(())
    }
}
