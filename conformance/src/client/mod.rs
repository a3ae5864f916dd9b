// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thin typed layer over the commands, so that cases read well.
//!
//! The layer can form every bad argument: it makes none of the checks that a host has to make.

mod exchange;
mod expect;
mod limits;
mod peer;
mod recv;
mod send;

pub use exchange::Exchange;
pub use limits::Limits;
pub use peer::{align8, Peer, FIRST_NODE};
pub use recv::{Message, Recv};
pub use send::{Outcome, Send, UNWRITTEN};

/// An ID with both flag bits set that no peer of a case ever gets.
pub const UNKNOWN_ID: u64 = 0x7f3;
