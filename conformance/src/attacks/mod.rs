// SPDX-License-Identifier: MIT OR Apache-2.0

//! What one client can do to others: attacks, each measured in a bounded size.
//!
//! An attack prints its figures and passes no verdict: the cases of [`crate::cases`] test the
//! bounds. Times are compared only within one run. Two attacks have no user in common.

mod files;
mod holding;
mod killed;
mod memory;
mod pairs;
mod refused;
mod room;
mod shares;
mod stalled;

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::env::{Env, USERS};
use crate::host::{self, Kind};
use crate::sys::process::allow_many_descriptors;

/// One attack.
struct Attack {
    name: &'static str,
    measure: fn(&Env, &mut Report),
}

/// All attacks: first those that count, then those that take times, then those that fill memory.
const ATTACKS: [Attack; 14] = [
    attack("subscribers", shares::subscribers),
    attack("foreign", shares::foreign),
    attack("descriptors", shares::descriptors),
    attack("room", room::notices),
    attack("wide", room::wide),
    attack("large", room::large),
    attack("stalled", stalled::measure),
    attack("refused", refused::measure),
    attack("killed", killed::measure),
    attack("holding", holding::measure),
    attack("files", files::measure),
    attack("pairs", pairs::measure),
    attack("cgroup", memory::cgroup),
    attack("memory", memory::measure),
];

const fn attack(name: &'static str, measure: fn(&Env, &mut Report)) -> Attack {
    Attack { name, measure }
}

/// The figures of an attack, printed as they come.
pub struct Report<'a> {
    attack: &'static str,
    out: &'a mut dyn Write,
}

impl Report<'_> {
    /// Prints a figure that depends on the machine.
    fn figure(&mut self, what: impl Display, value: impl Display) {
        writeln!(self.out, "{}: {what}: {value}", self.attack).expect("cannot print");
    }

    /// Prints a count, and the count that the default limits lead to.
    fn count(&mut self, what: impl Display, count: usize, expected: impl Display) {
        self.figure(what, format_args!("{count} (expected {expected})"));
    }
}

/// Runs the attacks whose name contains `filter`, as users from `first_user` on, and returns their
/// number.
///
/// # Errors
///
/// The bus cannot be opened.
///
/// # Panics
///
/// Panics if a command fails that no attack should make fail.
pub fn run(
    kind: Kind,
    first_user: u32,
    filter: &str,
    out: &mut dyn Write,
) -> std::io::Result<usize> {
    allow_many_descriptors();
    let chosen = ATTACKS.iter().filter(|attack| attack.name.contains(filter));
    let mut attacks = 0;
    for attack in chosen {
        let env = Env::new(host::open(kind)?, first_user + attacks as u32 * USERS);
        let mut report = Report {
            attack: attack.name,
            out,
        };
        (attack.measure)(&env, &mut report);
        attacks += 1;
    }
    Ok(attacks)
}

/// Ends a thread that loops until this flag is set, also when a measurement fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Durations of one kind of call, in order of length.
struct Times(Vec<Duration>);

impl Times {
    /// Measures `n` calls of `act`.
    fn of(n: usize, act: impl FnMut()) -> Self {
        Self::after(n, || (), act)
    }

    /// Measures `n` calls of `act`, each of them after one of `prepare`, which is not measured.
    fn after(n: usize, mut prepare: impl FnMut(), mut act: impl FnMut()) -> Self {
        let once = |_| {
            prepare();
            let started = Instant::now();
            act();
            started.elapsed()
        };
        Self::from((0..n).map(once).collect::<Vec<_>>())
    }

    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    fn worst(&self) -> Duration {
        self.0[self.0.len() - 1]
    }
}

impl From<Vec<Duration>> for Times {
    fn from(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "median {:.1?}, worst {:.1?}",
            self.median(),
            self.worst()
        )
    }
}

/// Returns how many times `a` is as long as `b`, with two digits.
fn ratio(a: Duration, b: Duration) -> String {
    format!("{:.2}", a.as_secs_f64() / b.as_secs_f64())
}
