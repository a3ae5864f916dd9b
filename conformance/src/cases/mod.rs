// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cases, a file for each subject.
//!
//! A case is a function that panics if the bus breaks the contract. The attribute
//! [`case`](bus1_conformance_case::case) registers it in [`CASES`] and names the requirements that
//! it checks, by their anchors in `docs/abi.md` and `docs/ordering.md`.

mod arguments;
mod conservation;
mod continue_errors;
mod copies;
mod dead_handles;
mod descriptors;
mod descriptors_lost;
pub(crate) mod descriptors_slow;
mod device;
mod disconnect;
mod exchange;
mod exchange_batch;
mod exchange_calls;
mod exchange_progress;
mod exchange_races;
mod exchange_signals;
mod exchange_wait;
mod faults;
mod flush;
mod handle_release;
mod handles_in_messages;
mod interface;
mod map_errors;
mod mapping;
mod no_trace;
mod nodes_destroy;
mod notifications;
mod order;
mod order_races;
mod poll;
mod pool;
mod query_reset;
pub(crate) mod quota;
mod quota_query;
mod quota_users;
mod reclaim;
mod recv;
mod room;
mod seeds;
mod send_limits;
mod send_multicast;
mod send_unicast;
mod slices;
mod stalled;
pub(crate) mod stopped_senders;
mod transfer;

use linkme::distributed_slice;

use crate::env::Env;

pub use device::take_over;
pub use quota::{claim_all, Resource};

/// The host that a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// On every host.
    All,
    /// On the kernel only: the case is about processes, or the device file.
    Kernel,
    /// On the embedded host only.
    Embedded,
}

/// A device that a case needs beside the bus.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Path of the device.
    pub device: &'static str,
    /// The kernel module that makes it.
    pub module: &'static str,
}

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name of the case, without its subject.
    pub name: &'static str,
    /// Path of the module of the case.
    pub module: &'static str,
    /// Line of the case in its file.
    pub line: u32,
    /// The requirements that the case checks, each as `FILE#ANCHOR` of the folder `docs/`.
    pub requirements: &'static [&'static str],
    /// The host that the case runs on.
    pub on: On,
    /// True if nothing else may run in the process meanwhile.
    pub alone: bool,
    /// A device that has to be there.
    pub needs: Option<Needs>,
    /// The case itself.
    pub run: fn(&Env),
    /// The tokens of the function, separated by spaces.
    pub source: &'static str,
}

/// Every function with the attribute `#[case]`, in an order that the linker chooses.
#[distributed_slice]
pub static CASES: [Case];

impl Case {
    /// Returns the name of the subject: the file that the case is in.
    pub fn subject(&self) -> &'static str {
        match self.module.rsplit_once("::") {
            Some((_, subject)) => subject,
            None => self.module,
        }
    }

    /// Returns the name of the case as users see it.
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.subject(), self.name)
    }
}

/// Returns all cases, by subject and in the order of their files.
pub fn all() -> Vec<&'static Case> {
    let mut all: Vec<_> = CASES.iter().collect();
    all.sort_by_key(|case| (case.module, case.line, case.name));
    all
}
