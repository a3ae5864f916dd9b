// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The objects of a bus, and what each guards.
//!
//! They refer to each other: a peer has handles, a handle its node, a node its owner. The commands,
//! which use them, are one floor above.

// Floors, bottom to top; `cargo xtask layers` checks that no file imports a higher one:
//   bus, dying, handle, inbox, message, node, peer, permits, reservation, seed, table, waits (together)
//   info, resolver, room

mod bus;
mod dying;
mod handle;
mod inbox;
mod info;
mod message;
mod node;
mod peer;
mod permits;
mod reservation;
mod resolver;
mod room;
mod seed;
mod table;
mod waits;

pub use bus::Bus;
pub(crate) use dying::{DeathKey, Doomed, Dying, DyingReservation, Step};
pub(crate) use handle::{Creation, Detached, Handle, Linked, NewHandle};
pub(crate) use inbox::{Inbox, Remains};
pub use info::{Info, Usage};
pub(crate) use message::{
    charges, clear, slice_charges, EntryRef, EntryReservation, Handles, Message, Notice,
    NoticeState, Removed,
};
pub(crate) use node::{HolderReservation, Holders, Node};
pub(crate) use peer::{check, ensure};
pub use peer::{Peer, Ready};
pub(crate) use reservation::{Denied, Reservations, SliceReservation};
pub(crate) use resolver::{Distinct, Resolver};
pub(crate) use room::WaitReservation;
pub(crate) use seed::Seed;
pub(crate) use table::{creates, Table, TableReservation};
pub(crate) use waits::{Enlisted, SentFds, UserWaits, Wait, WaitEntry, WaitPlace, Waits};
