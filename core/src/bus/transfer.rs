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

use super::account::Claimant;
use super::handle::Handle;
use super::host::Host;
use super::peer::Peer;
use super::table::Import;
use crate::abi::HANDLE_INVALID;

/// A reference and a charge that end when this is dropped, unless they were used.
struct Loan<'p, H: Host> {
    to: &'p Arc<Peer<H>>,
    handle: Option<Arc<Handle<H>>>,
    charge: Option<Claimant>,
}

impl<H: Host> Drop for Loan<'_, H> {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            self.to.inbox.lock().discharge_handles(charge, 1);
        }
        if let Some(handle) = self.handle.take() {
            handle.unlink(1, false);
        }
    }
}

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
            let Some((handle, owed)) = Handle::link(&source.node, to)? else {
                write(HANDLE_INVALID)?;
                break;
            };
            let mut loan = Loan {
                to,
                handle: Some(handle.clone()),
                charge: None,
            };
            // What the ID will be: the one it has, or a new one, which is used up in any case.
            let mut table = to.table.lock();
            table.check_open()?;
            let known = handle.local.access(&table).refs != 0;
            let promised = if known {
                handle.local.access(&table).id
            } else {
                table.id_for(&handle)
            };
            drop(table);
            if !known {
                to.charge_handles(this.claimant(), 1)?;
                loan.charge = Some(this.claimant());
            }
            write(promised)?;

            let mut table = to.table.lock();
            table.check_open()?;
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
                let charge = &mut loan.charge;
                Some(table.gain(&mut inbox, &handle, charge, Some(promised)))
            };
            drop(inbox);
            drop(table);
            match given {
                None => continue,
                Some(HANDLE_INVALID) => write(HANDLE_INVALID)?,
                Some(_) => {
                    loan.handle = None;
                    handle.rise(owed);
                }
            }
            break;
        }
        import.finish();
        Ok(())
    }
}
