// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows that the debug kernel sees faults in Rust: a module commits one of each kind, and the
//! console has to have the report.
//!
//! Each fault has a VM of its own, because a first report switches some checkers off.

use anyhow::Result;

use crate::kernel::Kernel;
use crate::{module, vm};

/// A fault of the module `bus1_selftest`, by the number that its parameter takes.
struct Fault {
    number: u32,
    name: &'static str,
    /// Words in the kernel's report.
    report: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        number: 0,
        name: "no fault",
        report: "",
    },
    Fault {
        number: 1,
        name: "use after free",
        report: "KASAN: slab-use-after-free",
    },
    Fault {
        number: 2,
        name: "access beyond the end",
        report: "KASAN: slab-out-of-bounds",
    },
    Fault {
        number: 3,
        name: "arithmetic overflow",
        report: "attempt to add with overflow",
    },
    Fault {
        number: 4,
        name: "assertion",
        report: "assertion failed",
    },
    Fault {
        number: 5,
        name: "locks in a circle",
        report: "possible circular locking dependency",
    },
    Fault {
        number: 6,
        name: "sleep under a spin lock",
        report: "sleeping function called from invalid context",
    },
    Fault {
        number: 7,
        name: "leak",
        report: "suspected memory leaks",
    },
];

/// Commits each fault in a VM, and prints a line for each and the counts.
pub fn run(kernel: &Kernel) -> Result<String> {
    let module = module::build_selftest(kernel)?;
    let (mut passed, mut failed) = (0, 0);
    for fault in FAULTS {
        let job = vm::Job {
            command: vec!["true".into()],
            params: vec![format!("fault={}", fault.number)],
            ..vm::Job::new(Some(module.clone()))
        };
        let outcome = vm::run_silently(kernel, &job)?;
        let name = fault.name;
        match verdict(fault, &outcome) {
            Ok(()) => {
                passed += 1;
                println!("test selftest::{name} ... ok");
            }
            Err(why) => {
                failed += 1;
                println!("test selftest::{name} ... FAILED\n{why}");
            }
        }
    }
    let counts = format!("{passed} passed, {failed} failed\n");
    print!("{counts}");
    Ok(counts)
}

/// Compares what the kernel reported with what it has to.
fn verdict(fault: &Fault, outcome: &vm::Outcome) -> Result<(), String> {
    let Fault { name, report, .. } = fault;
    match (&outcome.trouble, report.is_empty()) {
        (None, true) if outcome.end == vm::End::Exit(0) => Ok(()),
        (None, true) => Err(format!("the VM ended with {:?}", outcome.end)),
        (None, false) => Err(format!("the kernel has reported nothing for: {name}")),
        (Some(trouble), false) if trouble.contains(report) => Ok(()),
        (Some(trouble), _) => Err(format!(
            "the kernel has reported other than \"{report}\":\n{trouble}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_needed_where_there_is_a_fault_and_only_there() {
        let outcome = |trouble: Option<&str>| vm::Outcome {
            end: vm::End::Exit(0),
            output: String::new(),
            trouble: trouble.map(str::to_owned),
        };
        let (calm, free) = (&FAULTS[0], &FAULTS[1]);
        let report = Some("BUG: KASAN: slab-use-after-free in x");
        assert!(verdict(calm, &outcome(None)).is_ok());
        assert!(verdict(calm, &outcome(report)).is_err());
        assert!(verdict(free, &outcome(report)).is_ok());
        assert!(verdict(free, &outcome(None)).is_err());
        assert!(verdict(free, &outcome(Some("WARNING: other"))).is_err());
    }

    #[test]
    fn the_module_has_every_fault() {
        let source = include_str!("../selftest/selftest.rs");
        for fault in FAULTS {
            let arm = format!("\n            {} => ", fault.number);
            assert!(source.contains(&arm), "{}", fault.name);
        }
    }
}
