// SPDX-License-Identifier: MIT OR Apache-2.0

//! A command that breaks a promise is found, and all commands work without a fault.

use std::cell::Cell;

use super::commands::{self, Command, Points};
use super::scene::{self, Scene};
use super::walk::{walk, Walk};
use super::{Faults, Injected, Mode};
use crate::host::{Embedded, Errno, Result};

/// First user of the tests.
const USER: u32 = 900;
/// Points of the commands below.
const N_POINTS: u32 = 3;

thread_local! {
    /// Points that the planted commands of this thread have until one fails; 0 if none will.
    static UNTIL: Cell<u32> = const { Cell::new(0) };
    /// Faults since the points were armed.
    static INJECTED: Cell<Injected> = const { Cell::new(Injected { allocations: 0, copies: 0 }) };
    /// Descriptors that a planted command leaks.
    static LEAKED: Cell<Option<std::io::PipeReader>> = const { Cell::new(None) };
}

/// Counts the points that the planted commands announce by [`allocation`] and [`copy`].
struct Planted;

impl Faults for Planted {
    fn arm(&self, _: Mode, nth: u32) -> std::io::Result<()> {
        UNTIL.set(nth);
        INJECTED.take();
        Ok(())
    }

    fn disarm(&self) -> std::io::Result<Injected> {
        UNTIL.set(0);
        Ok(INJECTED.take())
    }
}

/// A point of a planted command; returns whether it is the one that fails.
fn fails() -> bool {
    let left = UNTIL.get();
    UNTIL.set(left.saturating_sub(1));
    left == 1
}

fn allocation() -> Result {
    if !fails() {
        return Ok(());
    }
    let mut injected = INJECTED.get();
    injected.allocations += 1;
    INJECTED.set(injected);
    Err(Errno::NOMEM)
}

fn copy() -> Result {
    if !fails() {
        return Ok(());
    }
    let mut injected = INJECTED.get();
    injected.copies += 1;
    INJECTED.set(injected);
    Err(Errno::FAULT)
}

fn points() -> Result {
    (0..N_POINTS).try_for_each(|_| allocation())
}

fn planted(call: fn(&mut Scene<'_>, usize) -> Result) -> Command {
    Command {
        name: "planted",
        scene: scene::idle,
        call,
        steps: &[],
        points: Points::Allocations,
        many: false,
    }
}

/// Gives the calling thread a descriptor table of its own: other tests open descriptors as well.
fn alone() {
    // SAFETY: plain system call; the thread goes on with a copy of its descriptors.
    let result = unsafe { libc::unshare(libc::CLONE_FILES) };
    assert_eq!(result, 0, "unshare: {}", std::io::Error::last_os_error());
}

fn run(command: &Command) -> std::result::Result<Walk, String> {
    alone();
    walk(&Embedded::new(), &Planted, USER, command, Mode::Once)
}

/// Asserts that a command is found guilty, for a reason with this text in it.
#[track_caller]
fn expect_found(command: &Command, text: &str) {
    let why = run(command).expect_err("nothing was found");
    assert!(why.contains(text), "{why}");
}

fn honest(scene: &mut Scene<'_>, _: usize) -> Result {
    points()?;
    scene.a().give(scene.b(), 4).map(drop)
}

#[test]
fn an_honest_command_passes_with_all_its_points() {
    let walk = run(&planted(honest)).unwrap();
    let wanted = Walk {
        refused: N_POINTS.into(),
        survived: 0,
        injected: Injected {
            allocations: N_POINTS.into(),
            copies: 0,
        },
    };
    assert_eq!(walk, wanted);
}

#[test]
fn a_fault_that_a_command_gets_over_counts() {
    let walk = run(&planted(|scene, _| {
        let _ = allocation();
        scene.a().give(scene.b(), 4).map(drop)
    }));
    let wanted = Walk {
        refused: 0,
        survived: 1,
        injected: Injected {
            allocations: 1,
            copies: 0,
        },
    };
    assert_eq!(walk.unwrap(), wanted);
}

#[test]
fn a_node_that_stays_is_found() {
    let command = planted(|scene, _| {
        scene.a().give(scene.b(), 4)?;
        points()
    });
    expect_found(&command, "nodes of peer 0 from 1 to 2");
}

#[test]
fn a_message_that_stays_is_found() {
    let command = planted(|scene, _| {
        scene.a().message().to(&scene.to[..1]).send()?;
        points()
    });
    expect_found(&command, "queued of peer 1 from 0 to 1");
}

#[test]
fn a_descriptor_that_stays_is_found() {
    let command = planted(|_, _| {
        let result = points();
        if result.is_err() {
            LEAKED.set(Some(std::io::pipe().unwrap().0));
        }
        result
    });
    expect_found(&command, "descriptors became");
    LEAKED.take();
}

#[test]
fn a_peer_that_counts_differently_after_the_next_call_is_found() {
    thread_local!(static FAILED: Cell<bool> = const { Cell::new(false) });
    let command = planted(|scene, _| {
        let result = points();
        if result.is_err() {
            FAILED.set(true);
        } else if FAILED.replace(false) {
            scene.a().give(scene.b(), 8)?;
        }
        result
    });
    expect_found(&command, "another effect");
}

#[test]
fn a_message_that_is_lost_is_found() {
    // The fault costs a message, and another one takes its place.
    let command = Command {
        scene: scene::busy,
        ..planted(|scene, _| {
            points().inspect_err(|_| {
                let offset = scene.a().recv().unwrap().msg.offset;
                scene.a().release_slice(offset).unwrap();
                scene.b().expect_sent(scene.back[0], b"same");
            })
        })
    };
    expect_found(&command, "in place of");
}

#[test]
fn an_undocumented_error_is_found() {
    let command = planted(|_, _| points().map_err(|_| Errno::IO));
    expect_found(&command, "reported as");
}

#[test]
fn an_error_without_a_fault_is_found() {
    // The point is reached only if the call is armed.
    let command = planted(|_, _| {
        if UNTIL.get() > 0 {
            return Err(Errno::NOMEM);
        }
        Ok(())
    });
    expect_found(&command, "without a fault");
}

#[test]
fn an_error_of_another_kind_than_the_fault_is_found() {
    let command = Command {
        points: Points::Both,
        ..planted(|_, _| {
            copy()?;
            allocation().map_err(|_| Errno::FAULT)
        })
    };
    expect_found(
        &command,
        "Bad address\" }: 1 allocations and 0 copies failed",
    );
}

#[test]
fn two_faults_in_place_of_one_are_found() {
    let command = planted(|_, _| {
        allocation().or_else(|_| {
            UNTIL.set(1);
            allocation()
        })
    });
    expect_found(
        &command,
        "2 allocations and 0 copies failed in place of one",
    );
}

#[test]
fn a_panic_of_the_client_is_found() {
    let command = planted(|_, _| {
        allocation().expect("planted");
        Ok(())
    });
    expect_found(&command, "point 1: the client panicked");
    assert_eq!(UNTIL.get(), 0, "the fault is still there");
}

#[test]
fn a_command_whose_points_are_not_seen_is_found() {
    let both = |call| Command {
        points: Points::Both,
        ..planted(call)
    };
    let (memory, user) = ("the command has allocations", "the command has user copies");
    expect_found(&planted(|_, _| Ok(())), memory);
    expect_found(&both(|_, _| copy()), memory);
    expect_found(&both(|_, _| allocation()), user);
    let copies = Command {
        points: Points::Copies,
        ..planted(|_, _| Ok(()))
    };
    expect_found(&copies, user);
}

#[test]
fn a_point_of_a_command_that_has_none_is_found() {
    let command = Command {
        points: Points::None,
        ..planted(honest)
    };
    expect_found(&command, "reported as");
    let command = Command {
        points: Points::None,
        ..planted(|_, _| allocation().or(Ok(())))
    };
    expect_found(&command, "cannot fail");
}

#[test]
fn a_step_that_is_reported_wrongly_is_found() {
    let command = Command {
        scene: scene::received,
        steps: &[|scene| scene.a().release_slice(scene.slices[0])],
        ..planted(|scene, done| {
            if done == 0 {
                scene.a().release_slice(scene.slices[0])?;
            }
            scene.reported = Some(0);
            points()
        })
    };
    expect_found(&command, "has done 1 steps and reports 0");
}

#[test]
fn all_commands_work_without_a_fault() {
    alone();
    let (mut names, bus) = (Vec::new(), Embedded::new());
    for command in commands::all() {
        let command = Command {
            points: Points::None,
            ..command
        };
        let walk = walk(&bus, &Planted, USER, &command, Mode::Once);
        assert_eq!(walk, Ok(Walk::default()), "{}", command.name);
        names.push(command.name);
    }
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "two commands have one name");
}

#[test]
fn every_command_of_the_interface_is_swept() {
    let header = include_str!("../../../uapi/include/linux/bus1.h");
    let defined = header.lines().filter_map(|line| {
        line.strip_prefix("#define BUS1_CMD_")?
            .split_whitespace()
            .next()
    });
    let swept = commands::all();
    let mut n_defined = 0;
    for name in defined {
        n_defined += 1;
        let name = name.to_lowercase();
        let is_it = |command: &Command| command.name.split(':').next() == Some(&name);
        assert!(swept.iter().any(is_it), "no command is named {name}");
    }
    assert!(n_defined > 0, "the header has no commands");
}

#[test]
fn the_sum_of_a_sweep_is_printed() {
    alone();
    let (bus, mut out) = (Embedded::new(), Vec::new());
    let tally = super::run(&bus, &Planted, USER, Some("slice_release"), &mut out).unwrap();
    assert_eq!((tally.passed, tally.failed, tally.points), (2, 0, 0));
    assert!(!tally.injected.any());
    let out = String::from_utf8(out).unwrap();
    assert!(out.ends_with("\n2 passed, 0 failed\n"), "{out}");
    // Nothing is injected, so a command that has points fails.
    let tally = super::run(&bus, &Planted, USER, Some("peer_query"), &mut Vec::new()).unwrap();
    assert_eq!((tally.passed, tally.failed), (0, 2));
}
