// SPDX-License-Identifier: MIT OR Apache-2.0

//! One command with one point failing after the other.

use std::panic::{self, AssertUnwindSafe};

use super::commands::{Command, Points};
use super::scene::{Received, Scene};
use super::trace::Trace;
use super::{Faults, Injected, Mode};
use crate::host::{Bus, Errno, Result as Called};

/// A command with more points than that has no end.
const MOST: u32 = 5_000;

/// Counts of one walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Points whose fault made the command fail.
    pub refused: u64,
    /// Points whose fault the command got over.
    pub survived: u64,
    /// Faults that were injected.
    pub injected: Injected,
}

/// The states that a command passes through if nothing fails.
struct Reference {
    /// Before the command, and after each step that stays done if a later one fails.
    steps: Vec<Trace>,
    after: Trace,
    received: Vec<Received>,
}

/// The outcome of one call.
struct Attempt {
    result: Called,
    injected: Injected,
}

/// Lets each point of `command` fail in turn.
///
/// # Errors
///
/// Describes the first fault that left a trace, or was not reported as it has to be.
pub fn walk(
    bus: &dyn Bus,
    faults: &dyn Faults,
    first_user: u32,
    command: &Command,
    mode: Mode,
) -> Result<Walk, String> {
    let reference = record(bus, first_user, command)?;
    let mut walk = Walk::default();
    for nth in 1..MOST {
        let at = |why: String| format!("point {nth}: {why}");
        let mut scene = (command.scene)(bus, first_user);
        let attempt = attempt(faults, mode, nth, || (command.call)(&mut scene, 0)).map_err(at)?;
        let injected = attempt.injected;
        if mode == Mode::Once && injected.allocations + injected.copies > 1 {
            return Err(at(format!("{injected} failed in place of one")));
        }
        walk.injected += injected;
        match attempt.result {
            Err(errno) if !injected.any() => {
                return Err(at(format!("{errno:?} without a fault")));
            }
            Err(errno) if !command.points.can_end_in(errno, injected) => {
                return Err(at(format!(
                    "the fault is reported as {errno:?}: {injected} failed"
                )));
            }
            Err(_) => {
                walk.refused += 1;
                let done = reference.step_of(&scene).map_err(at)?;
                (command.call)(&mut scene, done)
                    .map_err(|errno| at(format!("the next call says {errno:?}")))?;
                reference.check(command, scene, false).map_err(at)?;
            }
            Ok(()) => {
                reference
                    .check(command, scene, injected.any())
                    .map_err(at)?;
                if !injected.any() {
                    return command.points.check(walk);
                }
                walk.survived += 1;
            }
        }
    }
    Err(format!("no end after {MOST} points"))
}

/// Gives the command without a fault.
fn record(bus: &dyn Bus, first_user: u32, command: &Command) -> Result<Reference, String> {
    let whole = || -> Result<_, String> {
        let mut scene = (command.scene)(bus, first_user);
        (command.call)(&mut scene, 0)
            .map_err(|errno| format!("without a fault the command says {errno:?}"))?;
        let after = Trace::of(&scene);
        scene.drain()?;
        let received = std::mem::take(&mut scene.received);
        scene.end()?;
        Ok((after, received))
    };
    // The first call also makes what outlives a scene, such as caches of the host.
    whole()?;
    let mut scene = (command.scene)(bus, first_user);
    let mut steps = vec![Trace::of(&scene)];
    for step in command.steps {
        step(&mut scene).map_err(|errno| format!("a step alone says {errno:?}"))?;
        steps.push(Trace::of(&scene));
    }
    scene.end()?;
    let (after, received) = whole()?;
    Ok(Reference {
        steps,
        after,
        received,
    })
}

/// Makes one call with a fault. A panic of the call is an error, and the fault ends with it.
fn attempt(
    faults: &dyn Faults,
    mode: Mode,
    nth: u32,
    call: impl FnOnce() -> Called,
) -> Result<Attempt, String> {
    faults.arm(mode, nth).map_err(|error| error.to_string())?;
    // The scene is dropped after a panic, and nothing else is used again.
    let called = panic::catch_unwind(AssertUnwindSafe(call));
    let injected = faults.disarm().map_err(|error| error.to_string())?;
    let result = called.map_err(|_| "the client panicked, as written above".to_owned())?;
    Ok(Attempt { result, injected })
}

impl Reference {
    /// Returns how many steps a failed call has done.
    fn step_of(&self, scene: &Scene<'_>) -> Result<usize, String> {
        let now = Trace::of(scene);
        let Some(done) = self.steps.iter().position(|step| *step == now) else {
            let difference = self.steps[0].difference(&now).unwrap_or_default();
            return Err(format!("the failed call changed {difference}"));
        };
        match scene.reported {
            Some(reported) if reported != done => Err(format!(
                "the failed call has done {done} steps and reports {reported}"
            )),
            _ => Ok(done),
        }
    }

    /// Checks that a call has had its whole effect. A call that got over a fault may have received
    /// less than there was, if the command is one that receives many.
    fn check(&self, command: &Command, mut scene: Scene<'_>, less: bool) -> Result<(), String> {
        let now = Trace::of(&scene);
        if !(less && command.many) {
            if let Some(difference) = self.after.difference(&now) {
                return Err(format!("the call has another effect: {difference}"));
            }
        }
        scene.drain()?;
        if scene.received != self.received {
            return Err(format!(
                "received {:?} in place of {:?}",
                scene.received, self.received
            ));
        }
        scene.end()
    }
}

impl Points {
    /// Whether a command with these points may end in `errno` after these faults.
    fn can_end_in(self, errno: Errno, injected: Injected) -> bool {
        match errno {
            Errno::NOMEM => self.has_allocations() && injected.allocations > 0,
            Errno::FAULT => self.has_copies() && injected.copies > 0,
            _ => false,
        }
    }

    /// Checks that a walk met a point of each kind that the command has.
    fn check(self, walk: Walk) -> Result<Walk, String> {
        let Injected {
            allocations,
            copies,
        } = walk.injected;
        if self == Self::None && walk.injected.any() {
            return Err(format!(
                "a command that cannot fail has a point: {} failed",
                walk.injected
            ));
        }
        if self.has_allocations() && allocations == 0 {
            return Err("no fault was injected: the command has allocations".to_owned());
        }
        if self.has_copies() && copies == 0 {
            return Err("no fault was injected: the command has user copies".to_owned());
        }
        Ok(walk)
    }
}
