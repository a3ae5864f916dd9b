// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps of the tests: one list for stock kernels and for user space, one for the debug kernel.

/// One thing to run.
pub struct TestStep {
    pub name: &'static str,
    pub work: Work,
}

/// The work of a step.
pub enum Work {
    /// `cargo` with these arguments; with an own target folder where the flags for rustc differ.
    Cargo {
        args: &'static [&'static str],
        rustflags: Option<(&'static str, &'static str)>,
    },
    /// The conformance program on this machine, built with these features and called like this.
    Here(&'static [&'static str], &'static [&'static str]),
    /// The conformance program in a VM, called like this.
    Vm(&'static [&'static str]),
    /// The conformance program in a VM with one CPU, called like this.
    OneCpu(&'static [&'static str]),
    /// The conformance suite in a VM, with these modules loaded as far as the kernel has them.
    Suite(&'static [&'static str]),
    /// Every 32-bit program in a VM.
    Compat,
    /// An example of the crate `bus1` in a VM.
    Example(&'static str),
    /// What is measured in instructions, beside what was recorded.
    Guard,
    /// Faults that the debug kernel has to report, each in a VM.
    Selftest,
}

/// A storm in which processes die, and the module is unloaded after it.
const STORM_WITH_DEATHS: &[&str] = &[
    "storm",
    "--host",
    "kernel",
    "--rounds",
    "800",
    "--kill-every",
    "400",
    "--unload",
];

/// The steps of `cargo xtask test`.
pub const STEPS: &[TestStep] = &[
    TestStep {
        name: "user space",
        work: Work::Cargo {
            args: &["test", "--workspace"],
            rustflags: None,
        },
    },
    TestStep {
        name: "loom models",
        work: Work::Cargo {
            args: &[
                "test",
                "--release",
                "--package",
                "bus1-core",
                "--test",
                "loom",
            ],
            rustflags: Some(("--cfg loom", "loom")),
        },
    },
    TestStep {
        name: "loom models without locks",
        work: Work::Cargo {
            args: &[
                "test",
                "--release",
                "--package",
                "bus1-core",
                "--lib",
                "loom_",
            ],
            rustflags: Some(("--cfg loom", "loom")),
        },
    },
    TestStep {
        name: "embedded: conformance",
        work: Work::Here(&[], &["--host", "embedded"]),
    },
    TestStep {
        name: "embedded: history",
        work: Work::Here(&[], &["history", "--host", "embedded"]),
    },
    TestStep {
        name: "embedded: history of an order broken on purpose",
        work: Work::Here(
            &["broken-order"],
            &["history", "--host", "embedded", "--break"],
        ),
    },
    TestStep {
        name: "embedded: storm",
        work: Work::Here(&[], &["storm", "--host", "embedded"]),
    },
    TestStep {
        name: "kernel: conformance",
        work: Work::Suite(&["binder_linux", "vhost_net", "vhost_vsock"]),
    },
    TestStep {
        name: "kernel: 32-bit programs",
        work: Work::Compat,
    },
    TestStep {
        name: "kernel: the first program of the README",
        work: Work::Example("two_processes"),
    },
    TestStep {
        name: "kernel: history",
        work: Work::Vm(&[
            "history",
            "--host",
            "kernel",
            "--stalls",
            "--deliveries",
            "200000",
        ]),
    },
    TestStep {
        name: "kernel: storm",
        work: Work::Vm(STORM_WITH_DEATHS),
    },
    TestStep {
        name: "kernel: instructions beside the recorded ones",
        work: Work::Guard,
    },
];

/// The steps that run in the debug kernel, each on the kernel host.
pub const DEBUG_STEPS: &[TestStep] = &[
    TestStep {
        name: "the kernel sees faults in Rust",
        work: Work::Selftest,
    },
    TestStep {
        name: "sweep",
        // One thread: with a second CPU every peer that is opened or closed would wait for it, and
        // allocations would depend on what that CPU keeps.
        work: Work::OneCpu(&["sweep"]),
    },
    TestStep {
        name: "conformance",
        // Cases of a hundred thousand messages take more than ten minutes beside other work.
        work: Work::Vm(&["--host", "kernel", "--timeout", "2400"]),
    },
    TestStep {
        name: "32-bit programs",
        work: Work::Compat,
    },
    TestStep {
        name: "history",
        work: Work::Vm(&["history", "--host", "kernel", "--multicasts", "4000"]),
    },
    TestStep {
        name: "storm with deaths",
        work: Work::Vm(STORM_WITH_DEATHS),
    },
    TestStep {
        name: "storm of many peers",
        work: Work::Vm(&[
            "storm",
            "--host",
            "kernel",
            "--workers",
            "4",
            "--peers",
            "64",
            "--rounds",
            "1600",
            "--kill-every",
            "0",
            "--seed",
            "2",
            "--unload",
        ]),
    },
];
