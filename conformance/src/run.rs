// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs cases: each in a thread of its own, on fresh peers, with a time limit.
//!
//! A case that hangs is a failure, and its thread is left behind. On a host that counts charges, a
//! case that leaves a charge behind is a failure as well.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use crate::cases::{self, Case, Needs, On};
use crate::env::{Env, USERS};
use crate::host::{self, Kind};

/// First user ID that cases use, far from the users of the system.
const FIRST_USER: u32 = 1_000_000;

/// The cases to run, and how.
pub struct Options {
    /// The host.
    pub kind: Kind,
    /// Text that the names of the cases contain.
    pub filter: Option<String>,
    /// Cases at once.
    pub jobs: usize,
    /// Time after which a case counts as hanging.
    pub patience: Duration,
}

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that could not run here.
    pub ignored: usize,
}

struct Job {
    name: String,
    case: &'static Case,
    first_user: u32,
}

/// A case that was started and has not reported yet.
struct Running {
    name: String,
    requirements: &'static [&'static str],
    since: Instant,
}

/// Report of a case that has ended.
struct Report {
    name: String,
    verdict: Verdict,
}

thread_local! {
    /// Message of the last panic of this thread.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the message of a panic for the report, instead of printing it at once.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if thread::current()
                .name()
                .is_some_and(|name| name.contains("::"))
            {
                PANIC.with(|panic| *panic.borrow_mut() = info.to_string());
            } else {
                // A helper thread of a case: its case only learns that it panicked.
                before(info);
            }
        }));
    });
}

/// Runs all cases that the options ask for, and prints the result of each to `out`.
///
/// # Errors
///
/// The host cannot be opened, a thread cannot be started, or `out` cannot be written. A case that
/// fails is no error; the returned counts show it.
pub fn run(options: &Options, out: &mut dyn Write) -> std::io::Result<Tally> {
    // A host that cannot be opened is reported once, before the first case.
    let bus = host::open(options.kind)?;
    let alone_here = bus.left_over().is_none();
    keep_panics();
    crate::sys::process::allow_many_descriptors();

    let (jobs, missing): (Vec<_>, Vec<_>) = select(options).into_iter().partition(|job| {
        let needs = job.case.needs;
        needs.is_none_or(|needs| Path::new(needs.device).exists())
    });
    let (alone, together): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.case.alone);
    let mut tally = Tally::default();
    for Job { name, case, .. } in missing {
        if let Some(needs) = case.needs {
            let Needs { device, module } = needs;
            writeln!(
                out,
                "test {name} ... ignored: no {device}, load the module {module}"
            )?;
        }
        tally.ignored += 1;
    }
    run_all(together, options.jobs.max(1), options, &mut tally, out)?;
    run_all(alone, 1, options, &mut tally, out)?;
    // A case that hangs has its peers still.
    if alone_here && tally.failed == 0 {
        if let Some(what) = bus.left_over() {
            tally.failed += 1;
            writeln!(out, "all peers are closed, but the bus still counts {what}")?;
        }
    }
    write!(out, "{} passed, {} failed", tally.passed, tally.failed)?;
    if tally.ignored > 0 {
        write!(out, ", {} ignored", tally.ignored)?;
    }
    writeln!(out)?;
    Ok(tally)
}

/// Returns the cases that the options ask for, each with users of its own.
fn select(options: &Options) -> Vec<Job> {
    let users = (FIRST_USER..).step_by(USERS as usize);
    let jobs = cases::all().into_iter().zip(users);
    let jobs = jobs.map(|(case, first_user)| Job {
        name: case.full_name(),
        case,
        first_user,
    });
    jobs.filter(|job| runs_on(job.case, options.kind) && fits(&job.name, options))
        .collect()
}

fn runs_on(case: &Case, kind: Kind) -> bool {
    match case.on {
        On::All => true,
        On::Kernel => kind == Kind::Kernel,
        On::Embedded => kind == Kind::Embedded,
    }
}

fn fits(name: &str, options: &Options) -> bool {
    let filter = options.filter.as_deref();
    filter.is_none_or(|filter| name.contains(filter))
}

/// Time between two looks for cases that hang.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the cases, `at_once` at a time.
fn run_all(
    jobs: Vec<Job>,
    at_once: usize,
    options: &Options,
    tally: &mut Tally,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let mut jobs = VecDeque::from(jobs);
    let mut running: Vec<Running> = Vec::new();
    let (done, finished) = mpsc::channel();
    loop {
        while running.len() < at_once {
            let Some(job) = jobs.pop_front() else { break };
            running.push(Running {
                name: job.name.clone(),
                requirements: job.case.requirements,
                since: Instant::now(),
            });
            start(job, options.kind, done.clone())?;
        }
        if running.is_empty() {
            return Ok(());
        }
        let ended = match finished.recv_timeout(LOOK_EVERY) {
            Ok(Report { name, verdict }) => {
                // A case that was given up may still end: it was counted.
                let at = running.iter().position(|running| running.name == name);
                at.map(|at| (running.swap_remove(at), verdict))
            }
            Err(_) => {
                let late = |case: &Running| case.since.elapsed() > options.patience;
                let seconds = options.patience.as_secs();
                let why = format!("it hangs: no end after {seconds} s");
                let at = running.iter().position(late);
                at.map(|at| (running.swap_remove(at), Err(why)))
            }
        };
        if let Some((case, verdict)) = ended {
            print(&case, verdict, tally, out)?;
        }
    }
}

/// Counts and prints how one case went.
fn print(
    case: &Running,
    verdict: Verdict,
    tally: &mut Tally,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let name = &case.name;
    match verdict {
        Ok(()) => {
            tally.passed += 1;
            writeln!(out, "test {name} ... ok")?;
        }
        Err(why) => {
            tally.failed += 1;
            let requirements = case.requirements.join(", docs/");
            writeln!(out, "test {name} ... FAILED")?;
            writeln!(out, "    contract: docs/{requirements}")?;
            for line in why.lines() {
                writeln!(out, "    {line}")?;
            }
        }
    }
    out.flush()
}

type Verdict = Result<(), String>;

fn start(job: Job, kind: Kind, done: mpsc::Sender<Report>) -> std::io::Result<()> {
    let builder = thread::Builder::new().name(job.name.clone());
    builder.spawn(move || {
        let verdict = run_one(&job, kind);
        // Without a receiver the run is over.
        let _ = done.send(Report {
            name: job.name,
            verdict,
        });
    })?;
    Ok(())
}

fn run_one(job: &Job, kind: Kind) -> Verdict {
    let bus = host::open(kind).map_err(|error| error.to_string())?;
    let env = Env::new(bus, job.first_user);
    let run = || (job.case.run)(&env);
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| PANIC.with(RefCell::take))?;
    // On the kernel other cases have peers as well.
    let left_over = if kind == Kind::Embedded {
        env.bus().left_over()
    } else {
        None
    };
    match left_over {
        Some(what) => Err(format!(
            "all peers are closed, but the bus still counts {what}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(run: fn(&Env), patience: Duration) -> (Tally, String) {
        keep_panics();
        let case = Case {
            name: "case",
            module: "subject",
            line: 1,
            requirements: &["abi.md#send-copy"],
            on: On::All,
            alone: false,
            needs: None,
            run,
            source: "",
        };
        let job = Job {
            name: "subject::case".into(),
            case: Box::leak(Box::new(case)),
            first_user: FIRST_USER,
        };
        let options = Options {
            kind: Kind::Embedded,
            filter: None,
            jobs: 1,
            patience,
        };
        let (mut tally, mut out) = (Tally::default(), Vec::new());
        run_all(vec![job], 1, &options, &mut tally, &mut out).unwrap();
        (tally, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_case_that_panics_fails_with_its_requirement() {
        let (tally, said) = verdict(|_| panic!("no such luck"), Duration::from_secs(10));
        assert_eq!(
            tally,
            Tally {
                failed: 1,
                ..Tally::default()
            }
        );
        assert!(
            said.contains("FAILED\n    contract: docs/abi.md#send-copy\n"),
            "{said}"
        );
        assert!(said.contains("no such luck"), "{said}");
    }

    #[test]
    fn a_case_that_hangs_fails() {
        let hang = |_: &Env| loop {
            thread::park();
        };
        let (tally, said) = verdict(hang, Duration::from_millis(200));
        assert_eq!(
            tally,
            Tally {
                failed: 1,
                ..Tally::default()
            }
        );
        assert!(said.contains("hangs"), "{said}");
    }

    #[test]
    fn a_case_that_leaves_something_behind_fails() {
        let leak = |env: &Env| std::mem::forget(env.peer());
        let (tally, said) = verdict(leak, Duration::from_secs(10));
        assert_eq!(
            tally,
            Tally {
                failed: 1,
                ..Tally::default()
            }
        );
        assert!(said.contains("still counts"), "{said}");
    }

    #[test]
    fn a_case_that_returns_passes() {
        let (tally, said) = verdict(|env| drop(env.peer()), Duration::from_secs(10));
        assert_eq!(
            (tally, &*said),
            (
                Tally {
                    passed: 1,
                    ..Tally::default()
                },
                "test subject::case ... ok\n"
            )
        );
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = cases::all().iter().map(|case| case.full_name()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
