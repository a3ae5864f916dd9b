// SPDX-License-Identifier: MIT OR Apache-2.0

//! A command that breaks a promise is found, and all commands work without a fault.

use std::cell::Cell;

use super::commands::{self, Command, Points};
use super::scene::{self, Scene};
use super::walk::{walk, Walk};
use super::{Counts, Faults, Kind, Mode};
use crate::host::{Embedded, Errno, Result};

/// First user of the tests.
const USER: u32 = 900;
/// Points of the commands below.
const N_POINTS: u32 = 3;

thread_local! {
    /// The kind of points that may fail in this thread.
    static KIND: Cell<Kind> = const { Cell::new(Kind::Slabs) };
    /// Points of that kind that the planted commands of this thread have until one fails; 0 if none
    /// will.
    static UNTIL: Cell<u32> = const { Cell::new(0) };
    /// Faults since the points were armed.
    static INJECTED: Cell<Counts> =
        const { Cell::new(Counts { slabs: 0, pages: 0, copies: 0 }) };
    /// Numbers that [`changing`] returns in turn, again and again.
    static LENGTHS: Cell<&'static [u32]> = const { Cell::new(&[]) };
    /// Calls of [`changing`] while points were armed.
    static N_ARMED: Cell<usize> = const { Cell::new(0) };
    /// Descriptors that a planted command leaks.
    static LEAKED: Cell<Option<std::io::PipeReader>> = const { Cell::new(None) };
}

/// Counts the points that the planted commands announce by [`allocation`], [`page`] and [`copy`].
struct Planted;

impl Faults for Planted {
    fn arm(&self, kind: Kind, _: Mode, nth: u32) -> std::io::Result<()> {
        KIND.set(kind);
        UNTIL.set(nth);
        INJECTED.take();
        Ok(())
    }

    fn disarm(&self) -> std::io::Result<Counts> {
        UNTIL.set(0);
        Ok(INJECTED.take())
    }
}

/// A point of a planted command; fails with `errno` if it is the one that fails.
fn point(kind: Kind, errno: Errno) -> Result {
    if KIND.get() != kind {
        return Ok(());
    }
    let left = UNTIL.get();
    UNTIL.set(left.saturating_sub(1));
    if left != 1 {
        return Ok(());
    }
    let mut injected = INJECTED.get();
    *injected.of_mut(kind) += 1;
    INJECTED.set(injected);
    Err(errno)
}

fn allocation() -> Result {
    point(Kind::Slabs, Errno::NOMEM)
}

fn page() -> Result {
    point(Kind::Pages, Errno::NOMEM)
}

fn copy() -> Result {
    point(Kind::Copies, Errno::FAULT)
}

fn points() -> Result {
    (0..N_POINTS).try_for_each(|_| allocation())
}

/// Returns the number of points of a call that has not always the same: the next of those that the
/// test has set if points are armed, otherwise the first.
fn changing() -> u32 {
    let lengths = LENGTHS.get();
    if UNTIL.get() == 0 {
        return lengths[0];
    }
    let n = N_ARMED.replace(N_ARMED.get() + 1);
    lengths[n % lengths.len()]
}

/// Returns the counts of a walk whose points are all slabs, and stay.
fn slabs(refused: u64, survived: u64) -> Walk {
    let of = |slabs| Counts {
        slabs,
        ..Counts::default()
    };
    Walk {
        points: of(refused + survived),
        refused: 2 * refused,
        survived: 2 * survived,
        injected: of(2 * (refused + survived)),
        moved: 0,
    }
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
    walk(&Embedded::new(), &Planted, USER, command)
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
    assert_eq!(walk, slabs(N_POINTS.into(), 0));
}

#[test]
fn a_fault_that_a_command_gets_over_counts() {
    let walk = run(&planted(|scene, _| {
        let _ = allocation();
        scene.a().give(scene.b(), 4).map(drop)
    }));
    assert_eq!(walk.unwrap(), slabs(0, 1));
}

/// Points of each kind that stay where they are, whatever those of the other kinds do.
#[test]
fn each_kind_fails_apart() {
    let command = Command {
        points: Points::Both,
        ..planted(|_, _| {
            page()?;
            for _ in 0..changing() {
                allocation()?;
            }
            copy()?;
            page()?;
            copy()
        })
    };
    LENGTHS.set(&[3, 3, 2, 3, 3, 3, 3, 3, 3, 3, 3]);
    let walk = run(&command).unwrap();
    let points = Counts {
        slabs: 3,
        pages: 2,
        copies: 2,
    };
    assert_eq!((walk.points, walk.refused, walk.moved), (points, 16, 1));
}

/// The gap that a sweep of all kinds together has: the fault behind the copy is met at none of its
/// numbers, since the number of allocations before it changes from call to call.
#[test]
fn a_trace_behind_a_copy_is_found_while_allocations_move() {
    let command = Command {
        points: Points::Both,
        ..planted(|scene, _| {
            for _ in 0..changing() {
                allocation().or(Ok(()))?;
            }
            scene.a().give(scene.b(), 4)?;
            copy()
        })
    };
    LENGTHS.set(&[1, 2, 1]);
    expect_found(&command, "nodes of peer 0 from 1 to 2");
}

#[test]
fn a_point_that_moves_past_the_fault_is_met_by_another_walk() {
    // In the first walk the second point is one that the command gets over, and the third is met by
    // none: at its number the call has one point less.
    let command = planted(|scene, _| {
        allocation()?;
        for _ in 2..changing() {
            allocation().or(Ok(()))?;
        }
        scene.a().give(scene.b(), 4)?;
        allocation()
    });
    LENGTHS.set(&[2, 3, 2, 2, 2]);
    expect_found(&command, "nodes of peer 0 from 1 to 2");
}

#[test]
fn points_that_never_stay_are_an_error() {
    let command = planted(|_, _| {
        for _ in 0..changing() {
            allocation()?;
        }
        Ok(())
    });
    LENGTHS.set(&[1, 1, 2, 2, 2]);
    expect_found(&command, "slabs: the points moved each of");
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
    expect_found(&command, "slabs: point 1 (once): the fault is reported as");
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
        "2 slabs, 0 pages and 0 copies failed in place of one",
    );
}

#[test]
fn a_panic_of_the_client_is_found() {
    let command = planted(|_, _| {
        allocation().expect("planted");
        Ok(())
    });
    expect_found(&command, "point 1 (once): the client panicked");
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
        let walk = walk(&bus, &Planted, USER, &command);
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
    assert_eq!((tally.passed, tally.failed), (2, 0));
    assert!(!tally.points.any() && !tally.injected.any());
    let out = String::from_utf8(out).unwrap();
    assert!(out.ends_with("\n2 passed, 0 failed\n"), "{out}");
    // Nothing is injected, so a command that has points fails.
    let tally = super::run(&bus, &Planted, USER, Some("peer_query"), &mut Vec::new()).unwrap();
    assert_eq!((tally.passed, tally.failed), (0, 1));
}
