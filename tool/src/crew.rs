// SPDX-License-Identifier: MIT OR Apache-2.0

//! The workers of a demo, as threads or processes of the program that started them.
//!
//! A worker is started with a peer that was opened for it and that has one handle: to the node that
//! stands for it at the directory. Dropping the crew ends all workers that still run.

use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use bus1::{Host, Node, Peer};

use crate::interrupt::Interrupt;
use crate::launch;
use crate::wire::WorkerId;

/// The pause between two looks at a worker that is about to end.
const LOOK: Duration = Duration::from_millis(5);

/// The thread or process of a worker.
enum Runner {
    /// A thread; none is left once its end was seen.
    Thread(Option<JoinHandle<Result<()>>>),
    Process(Child),
}

/// The state of a worker.
enum State {
    Running,
    EndedWell,
    /// It ended as this says.
    EndedBadly(String),
}

struct Member {
    id: WorkerId,
    runner: Runner,
    /// True if its end was seen.
    ended: bool,
}

/// All workers.
pub struct Crew {
    host: Host,
    /// The peer of the directory: all threads end when it does.
    directory: Peer,
    members: Vec<Member>,
}

impl Crew {
    pub fn new(directory: &Peer) -> Self {
        Self {
            host: directory.host(),
            directory: directory.clone(),
            members: Vec::new(),
        }
    }

    /// Returns the kind of the workers on this host.
    pub fn kind(&self) -> &'static str {
        match self.host {
            Host::Kernel => "processes",
            _ => "threads",
        }
    }

    /// Starts a worker with a handle to `node`.
    pub fn start(&mut self, id: WorkerId, node: &Node) -> Result<()> {
        let runner = match self.host {
            Host::Kernel => self.start_process(id, node),
            _ => self.start_thread(id, node),
        }
        .with_context(|| format!("cannot start {id}"))?;
        self.add(id, runner);
        Ok(())
    }

    fn add(&mut self, id: WorkerId, runner: Runner) {
        self.members.push(Member {
            id,
            runner,
            ended: false,
        });
    }

    fn start_thread(&self, id: WorkerId, node: &Node) -> Result<Runner> {
        let peer = Peer::open_on(self.host)?;
        let directory = self
            .directory
            .transfer(node.handle(), &peer)?
            .context("the directory is gone")?;
        let thread = thread::Builder::new()
            .name(id.to_string())
            .spawn(move || launch::work(peer, directory, id))?;
        Ok(Runner::Thread(Some(thread)))
    }

    fn start_process(&self, id: WorkerId, node: &Node) -> Result<Runner> {
        // The child gets its own peer, and in it a handle to the directory: nothing more of ours.
        let peer = Peer::open_on(self.host)?;
        let directory = self
            .directory
            .transfer_to_fd(node.handle(), &peer)?
            .context("the directory is gone")?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = Command::new(&program)
            .arg(launch::Command::name(id.role))
            .args(["--index", &id.index.to_string()])
            .args(["--directory", &directory.raw().to_string()])
            .stdin(Stdio::from(peer.duplicate_fd()?))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Runner::Process(child))
    }

    /// Looks at all workers.
    ///
    /// # Errors
    ///
    /// One ended badly, or ended though it is not `finished`.
    pub fn check(&mut self, finished: impl Fn(WorkerId) -> bool) -> Result<()> {
        for member in &mut self.members {
            if member.ended {
                continue;
            }
            match member.look()? {
                State::Running => {}
                State::EndedWell if finished(member.id) => {}
                State::EndedWell => bail!("{} ended early", member.id),
                State::EndedBadly(how) => bail!("{} {how}", member.id),
            }
        }
        Ok(())
    }

    /// Waits for workers that have nothing left to do.
    ///
    /// # Errors
    ///
    /// One ended badly; or the user wants an end, which a worker that does not come to its own,
    /// such as a stopped process, does not delay.
    pub fn join(mut self, interrupt: &Interrupt) -> Result<()> {
        loop {
            self.check(|_| true)?;
            if self.members.iter().all(|member| member.ended) {
                self.members.clear();
                return Ok(());
            }
            interrupt.check()?;
            thread::sleep(LOOK);
        }
    }
}

impl Member {
    /// Looks whether it ended, and how, without waiting.
    fn look(&mut self) -> Result<State> {
        let state = match &mut self.runner {
            Runner::Thread(Some(thread)) if !thread.is_finished() => State::Running,
            Runner::Thread(thread) => match thread.take().map(JoinHandle::join) {
                None | Some(Ok(Ok(()))) => State::EndedWell,
                Some(Ok(Err(error))) => State::EndedBadly(format!("failed: {error:#}")),
                Some(Err(_)) => State::EndedBadly("panicked".into()),
            },
            Runner::Process(child) => match child.try_wait().context("cannot wait")? {
                None => State::Running,
                Some(status) if status.success() => State::EndedWell,
                Some(status) => State::EndedBadly(format!("ended with {status}")),
            },
        };
        self.ended = !matches!(state, State::Running);
        Ok(state)
    }

    /// Waits for its end, which is near. The way of its end was reported already, or does not
    /// matter.
    fn end(&mut self) {
        match &mut self.runner {
            Runner::Thread(thread) => drop(thread.take().map(JoinHandle::join)),
            Runner::Process(child) => drop(child.wait()),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if self.members.is_empty() {
            return;
        }
        // Threads see that the directory is gone. An error says that it was before.
        let _ = self.directory.disconnect();
        for member in &mut self.members {
            if let Runner::Process(child) = &mut member.runner {
                // It ends a stopped process, too. An error says that it has ended.
                let _ = child.kill();
            }
        }
        self.members.iter_mut().for_each(Member::end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupted;
    use crate::wire::Role;
    use rustix::process::{kill_process, test_kill_process, Pid, Signal};

    fn crew() -> Crew {
        Crew::new(&Peer::open_on(Host::Embedded).unwrap())
    }

    fn publisher(index: u32) -> WorkerId {
        WorkerId {
            role: Role::Publisher,
            index,
        }
    }

    fn process(program: &str, argument: &str) -> Child {
        Command::new(program).arg(argument).spawn().unwrap()
    }

    #[test]
    fn an_interrupt_ends_a_wait_for_a_stopped_process() {
        let child = process("sleep", "3600");
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::STOP).unwrap();
        let mut crew = crew();
        crew.add(publisher(0), Runner::Process(child));

        let interrupt = Interrupt::default();
        let user = interrupt.clone();
        let joined = thread::scope(|threads| {
            threads.spawn(move || {
                thread::sleep(10 * LOOK);
                user.raise();
            });
            crew.join(&interrupt)
        });
        assert!(joined.unwrap_err().is::<Interrupted>());
        assert!(test_kill_process(pid).is_err(), "it is still there");
    }

    #[test]
    fn workers_that_end_are_waited_for_and_their_end_is_reported() {
        let mut good = crew();
        good.add(publisher(0), Runner::Process(process("sleep", "0.1")));
        let thread = thread::spawn(|| {
            thread::sleep(10 * LOOK);
            Ok(())
        });
        good.add(publisher(1), Runner::Thread(Some(thread)));
        good.join(&Interrupt::default()).unwrap();

        let mut bad = crew();
        bad.add(publisher(3), Runner::Process(process("sleep", "nonsense")));
        let error = bad.join(&Interrupt::default()).unwrap_err();
        assert!(error.to_string().starts_with("publisher 3 ended with"));

        let mut early = crew();
        early.add(publisher(5), Runner::Process(process("sleep", "0")));
        let error = loop {
            match early.check(|_| false) {
                Ok(()) => thread::sleep(LOOK),
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), "publisher 5 ended early");
    }
}
