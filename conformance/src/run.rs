// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs cases: each in a thread of its own, on fresh peers, with an eye on the clock.
//!
//! A case that hangs is a failure, and its thread is left behind. On a host that can tell, a case
//! that leaves a charge behind is a failure as well.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc;
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use crate::cases::{Case, On, SUBJECTS};
use crate::env::{Env, USERS};
use crate::host::{self, Kind};

/// First user ID that cases use; far from those of the system.
const FIRST_USER: u32 = 1_000_000;

/// What to run, and how.
pub struct Options {
    /// The host.
    pub kind: Kind,
    /// Only cases whose name contains this.
    pub filter: Option<String>,
    /// How many at once.
    pub jobs: usize,
    /// How long one may take before it counts as hanging.
    pub patience: Duration,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that did what they should.
    pub passed: usize,
    /// The others.
    pub failed: usize,
    /// Cases that could not run here.
    pub ignored: usize,
}

struct Job {
    name: String,
    case: Case,
    first_user: u32,
}

thread_local! {
    /// What the last panic of this thread said.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a panic says for the report, instead of printing it at once.
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

/// Runs all cases that fit, and prints how each went to `out`.
pub fn run(options: &Options, out: &mut dyn Write) -> std::io::Result<Tally> {
    // Says what is wrong before the first case does.
    let bus = host::open(options.kind)?;
    let alone_here = bus.left_over().is_none();
    keep_panics();
    crate::sys::process::allow_many_descriptors();

    let (jobs, missing): (Vec<_>, Vec<_>) =
        Vec::from(select(options)).into_iter().partition(|job| {
            job.case
                .needs
                .is_none_or(|(device, _)| Path::new(device).exists())
        });
    let (alone, together): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.case.alone);
    let mut tally = Tally::default();
    for Job { name, case, .. } in missing {
        if let Some((device, module)) = case.needs {
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

fn select(options: &Options) -> VecDeque<Job> {
    let mut first_user = FIRST_USER;
    let mut jobs = VecDeque::new();
    for subject in SUBJECTS {
        for &case in subject.cases {
            first_user += USERS;
            let name = format!("{}::{}", subject.name, case.name);
            let here = match case.on {
                On::All => true,
                On::Kernel => options.kind == Kind::Kernel,
                On::Embedded => options.kind == Kind::Embedded,
            };
            if here
                && options
                    .filter
                    .as_deref()
                    .is_none_or(|filter| name.contains(filter))
            {
                jobs.push_back(Job {
                    name,
                    case,
                    first_user,
                });
            }
        }
    }
    jobs
}

fn run_all(
    jobs: Vec<Job>,
    at_once: usize,
    options: &Options,
    tally: &mut Tally,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let mut jobs = VecDeque::from(jobs);
    let mut running: Vec<(String, &'static str, Instant)> = Vec::new();
    let (done, finished) = mpsc::channel();
    loop {
        while running.len() < at_once {
            let Some(job) = jobs.pop_front() else { break };
            running.push((job.name.clone(), job.case.spec, Instant::now()));
            start(job, options.kind, done.clone())?;
        }
        if running.is_empty() {
            return Ok(());
        }
        let verdict = match finished.recv_timeout(Duration::from_millis(100)) {
            Ok((name, verdict)) => {
                // One that was given up may still end: it was counted.
                let Some(at) = running.iter().position(|(running, ..)| *running == name) else {
                    continue;
                };
                let (name, spec, _) = running.swap_remove(at);
                Some((name, spec, verdict))
            }
            Err(_) => {
                let late = |(.., since): &(_, _, Instant)| since.elapsed() > options.patience;
                running.iter().position(late).map(|at| {
                    let (name, spec, _) = running.swap_remove(at);
                    let seconds = options.patience.as_secs();
                    (
                        name,
                        spec,
                        Err(format!("it hangs: no end after {seconds} s")),
                    )
                })
            }
        };
        match verdict {
            None => (),
            Some((name, _, Ok(()))) => {
                tally.passed += 1;
                writeln!(out, "test {name} ... ok")?;
            }
            Some((name, spec, Err(why))) => {
                tally.failed += 1;
                writeln!(out, "test {name} ... FAILED\n    contract: {spec}")?;
                for line in why.lines() {
                    writeln!(out, "    {line}")?;
                }
            }
        }
        out.flush()?;
    }
}

type Verdict = Result<(), String>;

fn start(job: Job, kind: Kind, done: mpsc::Sender<(String, Verdict)>) -> std::io::Result<()> {
    let builder = thread::Builder::new().name(job.name.clone());
    builder.spawn(move || {
        let verdict = run_one(&job, kind);
        // If nobody listens, the run is over.
        let _ = done.send((job.name, verdict));
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
            spec: "5 SEND",
            on: On::All,
            alone: false,
            needs: None,
            run,
        };
        let job = Job {
            name: "subject::case".into(),
            case,
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
    fn a_case_that_panics_fails_with_its_line_of_the_contract() {
        let (tally, said) = verdict(|_| panic!("no such luck"), Duration::from_secs(10));
        assert_eq!(
            tally,
            Tally {
                failed: 1,
                ..Tally::default()
            }
        );
        assert!(said.contains("FAILED\n    contract: 5 SEND\n"), "{said}");
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
        let mut names: Vec<_> = SUBJECTS
            .iter()
            .flat_map(|subject| subject.cases.iter().map(|case| (subject.name, case.name)))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
