// SPDX-License-Identifier: MIT OR Apache-2.0

//! One command with one point failing after the other.

use std::panic::{self, AssertUnwindSafe};

use super::commands::{Command, Points};
use super::scene::{Received, Scene};
use super::trace::Trace;
use super::{Counts, Faults, Kind, Mode};
use crate::host::{Bus, Errno, Result as Called};

/// A command with more points than that has no end.
const MOST: u32 = 5_000;
/// Times that the points of one kind are walked before the walk gives up.
const MOST_TIMES: usize = 12;

/// Counts of the walks of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Points, by their kind.
    pub points: Counts,
    /// Calls that failed by their fault.
    pub refused: u64,
    /// Calls that got over their fault.
    pub survived: u64,
    /// Faults that were injected.
    pub injected: Counts,
    /// Kinds of points that moved, and were walked more than twice for it.
    pub moved: usize,
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
    injected: Counts,
}

/// A command to be walked, and the means for it.
struct Walker<'a> {
    bus: &'a dyn Bus,
    faults: &'a dyn Faults,
    first_user: u32,
    command: &'a Command,
    reference: Reference,
}

/// Lets each point of `command` fail in turn in both modes, one kind after the other.
///
/// # Errors
///
/// Describes the first fault that left a trace, or was not reported as it has to be.
pub fn walk(
    bus: &dyn Bus,
    faults: &dyn Faults,
    first_user: u32,
    command: &Command,
) -> Result<Walk, String> {
    let walker = Walker {
        bus,
        faults,
        first_user,
        command,
        reference: record(bus, first_user, command)?,
    };
    let mut walk = Walk::default();
    for kind in Kind::ALL {
        let said = walker.steady(kind, &mut walk);
        said.map_err(|why| format!("{kind}: {why}"))?;
    }
    command.points.check(walk)
}

impl Walker<'_> {
    /// Walks the points of one kind in one mode after the other, until two walks in a row have the
    /// same number of points.
    fn steady(&self, kind: Kind, walk: &mut Walk) -> Result<(), String> {
        let mut last = None;
        let modes = [Mode::Once, Mode::Onwards].into_iter().cycle();
        for (time, mode) in modes.take(MOST_TIMES).enumerate() {
            let n_points = self.once(kind, mode, walk)?;
            if last.replace(n_points) == Some(n_points) {
                *walk.points.of_mut(kind) += u64::from(n_points);
                walk.moved += usize::from(time > 1);
                return Ok(());
            }
        }
        Err(format!("the points moved each of {MOST_TIMES} times"))
    }

    /// Lets each point of one kind fail in turn. Returns their number.
    fn once(&self, kind: Kind, mode: Mode, walk: &mut Walk) -> Result<u32, String> {
        for nth in 1..MOST {
            let reached = self.point(kind, mode, nth, walk);
            if !reached.map_err(|why| format!("point {nth} ({mode}): {why}"))? {
                return Ok(nth - 1);
            }
        }
        Err(format!("no end after {MOST} points"))
    }

    /// Lets one point fail. Returns whether the call reached it.
    fn point(&self, kind: Kind, mode: Mode, nth: u32, walk: &mut Walk) -> Result<bool, String> {
        let Self {
            command, reference, ..
        } = self;
        let mut scene = (command.scene)(self.bus, self.first_user);
        let attempt = self.attempt(kind, mode, nth, || (command.call)(&mut scene, 0))?;
        let injected = attempt.injected;
        if injected.sum() != injected.of(kind) {
            return Err(format!("{injected} failed, of another kind as well"));
        }
        if mode == Mode::Once && injected.sum() > 1 {
            return Err(format!("{injected} failed in place of one"));
        }
        walk.injected += injected;
        match attempt.result {
            Err(errno) if !injected.any() => Err(format!("{errno:?} without a fault")),
            Err(errno) if !command.points.can_end_in(errno, kind) => {
                Err(format!("the fault is reported as {errno:?}"))
            }
            Err(_) => {
                let done = reference.step_of(&scene)?;
                (command.call)(&mut scene, done)
                    .map_err(|errno| format!("the next call says {errno:?}"))?;
                reference.check(command, scene, false)?;
                walk.refused += 1;
                Ok(true)
            }
            Ok(()) => {
                reference.check(command, scene, injected.any())?;
                walk.survived += u64::from(injected.any());
                Ok(injected.any())
            }
        }
    }

    /// Makes one call with a fault. A panic of the call is an error, and the fault ends with it.
    fn attempt(
        &self,
        kind: Kind,
        mode: Mode,
        nth: u32,
        call: impl FnOnce() -> Called,
    ) -> Result<Attempt, String> {
        let armed = self.faults.arm(kind, mode, nth);
        armed.map_err(|error| error.to_string())?;
        // The scene is dropped after a panic, and nothing else is used again.
        let called = panic::catch_unwind(AssertUnwindSafe(call));
        let injected = self.faults.disarm().map_err(|error| error.to_string())?;
        let result = called.map_err(|_| "the client panicked, as written above".to_owned())?;
        Ok(Attempt { result, injected })
    }
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
    /// Whether a command with these points may end in `errno` after a fault of this kind.
    fn can_end_in(self, errno: Errno, kind: Kind) -> bool {
        match kind {
            Kind::Slabs | Kind::Pages => errno == Errno::NOMEM && self.has_allocations(),
            Kind::Copies => errno == Errno::FAULT && self.has_copies(),
        }
    }

    /// Checks that a walk met a point of each kind that the command has.
    fn check(self, walk: Walk) -> Result<Walk, String> {
        let Counts {
            slabs,
            pages,
            copies,
        } = walk.injected;
        if self == Self::None && walk.injected.any() {
            return Err(format!(
                "a command that cannot fail has a point: {} failed",
                walk.injected
            ));
        }
        if self.has_allocations() && slabs + pages == 0 {
            return Err("no fault was injected: the command has allocations".to_owned());
        }
        if self.has_copies() && copies == 0 {
            return Err("no fault was injected: the command has user copies".to_owned());
        }
        Ok(walk)
    }
}
