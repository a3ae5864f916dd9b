// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The commands: what each does with the objects, and in which steps.

mod caller;
mod deliver;
mod destroy;
mod dispatch;
mod exchange;
mod pending;
mod quota;
mod recv;
mod release;
mod reset;
mod room;
#[cfg(test)]
mod schedule_tests;
mod seed;
mod send;
mod transfer;

pub use caller::{Caller, Installed};
pub use dispatch::dispatch;
pub use recv::Receiver;
pub use reset::Flush;
pub use send::Outgoing;
