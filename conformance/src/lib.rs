// SPDX-License-Identifier: MIT OR Apache-2.0

//! One suite for every host of bus1.
//!
//! - [`attacks`]: what one client can do to others, measured.
//! - [`cases`]: the effects of every command, case by case, each with the requirements that it
//!   checks; [`run`] runs them.
//! - [`history`]: senders and receivers at full speed, and a checker that compares their
//!   histories with the promises about order.
//! - [`storm`]: random commands from everywhere, processes killed at random, and the proof
//!   that nothing is left behind.
//! - [`sweep`]: every command with each of its allocations and user copies failing in turn, on a
//!   kernel with fault injection.
//!
//! The suite knows a host only by its binary interface ([`host`]). It checks the
//! effects that a user of the interface can see.

pub mod attacks;
pub mod cases;
pub mod client;
pub mod env;
pub mod history;
pub mod host;
pub mod run;
pub mod storm;
pub mod sweep;
pub mod sys;
