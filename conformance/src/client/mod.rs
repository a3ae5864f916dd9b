// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thin typed layer over the commands, so that cases read well. It can form every bad argument:
//! nothing is checked here that a host has to check.

mod exchange;
mod expect;
mod peer;
mod recv;
mod send;

pub use exchange::Exchange;
pub use peer::{align8, Peer};
pub use recv::{Message, Recv};
pub use send::{Outcome, Send, UNWRITTEN};
