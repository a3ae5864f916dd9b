// SPDX-License-Identifier: MIT OR Apache-2.0

//! The cases, a file for each subject.
//!
//! A case is a function that panics if the bus does not do what the contract says. Its entry names
//! the line of the contract: a number and a title for a section (`3.2` is the second promise
//! about order, `5 SEND` the paragraph on that command).

use crate::env::Env;

/// Where a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// On every host.
    All,
    /// On the kernel alone: it is about processes, or the device file.
    Kernel,
    /// On the embedded host alone.
    Embedded,
}

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is called, within its subject.
    pub name: &'static str,
    /// The line of the contract that it checks.
    pub spec: &'static str,
    /// Where it runs.
    pub on: On,
    /// Whether nothing else may run in the process meanwhile.
    pub alone: bool,
    /// A device that it needs beside the bus, and the module that makes it.
    pub needs: Option<(&'static str, &'static str)>,
    /// The case.
    pub run: fn(&Env),
}

/// All cases about one subject.
pub struct Subject {
    /// Its name.
    pub name: &'static str,
    /// The cases.
    pub cases: &'static [Case],
}

impl Case {
    const fn kernel(self) -> Self {
        Self {
            on: On::Kernel,
            ..self
        }
    }

    const fn embedded(self) -> Self {
        Self {
            on: On::Embedded,
            ..self
        }
    }

    const fn alone(self) -> Self {
        Self {
            alone: true,
            ..self
        }
    }

    const fn needs(self, device: &'static str, module: &'static str) -> Self {
        Self {
            needs: Some((device, module)),
            ..self
        }
    }
}

/// An entry of a table: the function, and the line of the contract.
macro_rules! case {
    ($run:ident, $spec:literal) => {
        $crate::cases::Case {
            name: stringify!($run),
            spec: $spec,
            on: $crate::cases::On::All,
            alone: false,
            needs: None,
            run: $run,
        }
    };
}

macro_rules! subjects {
    ($($name:ident,)*) => {
        $(mod $name;)*

        /// All subjects, in the order in which they run.
        pub const SUBJECTS: &[Subject] =
            &[$(Subject { name: stringify!($name), cases: $name::CASES },)*];
    };
}

pub use device::take_over;
pub use quota::{claim_all, Resource};

subjects! {
    interface,
    arguments,
    disconnect,
    query_reset,
    flush,
    handle_release,
    transfer,
    nodes_destroy,
    send_unicast,
    send_limits,
    send_multicast,
    continue_errors,
    recv,
    seeds,
    slices,
    pool,
    notifications,
    handles_in_messages,
    dead_handles,
    order,
    order_races,
    quota,
    quota_users,
    conservation,
    descriptors,
    descriptors_lost,
    poll,
    exchange,
    exchange_progress,
    exchange_wait,
    exchange_signals,
    exchange_calls,
    faults,
    copies,
    no_trace,
    mapping,
    device,
    stalled,
    reclaim,
}
