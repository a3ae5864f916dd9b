// SPDX-License-Identifier: MIT OR Apache-2.0

//! The workers of a demo, as the one who started them sees them.
//!
//! A worker is started with a peer that was opened for it and that has one handle: to the directory.
//! Dropping the crew ends all who still run.

use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{bail, Context, Result};
use bus1::{Host, Node, Peer};

use crate::wire::Role;
use crate::worker;

/// One worker.
enum Runner {
    Thread(Option<JoinHandle<Result<()>>>),
    Process(Child),
}

struct Member {
    role: Role,
    index: u32,
    runner: Runner,
    /// Whether it is known to have ended.
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

    /// What the workers are on this host.
    pub fn kind(&self) -> &'static str {
        match self.host {
            Host::Kernel => "processes",
            _ => "threads",
        }
    }

    /// Starts a worker with a handle to `node`.
    pub fn start(&mut self, role: Role, index: u32, node: &Node) -> Result<()> {
        let runner = match self.host {
            Host::Kernel => self.start_process(role, index, node),
            _ => self.start_thread(role, index, node),
        }
        .with_context(|| format!("cannot start {} {index}", role.name()))?;
        self.members.push(Member {
            role,
            index,
            runner,
            ended: false,
        });
        Ok(())
    }

    fn start_thread(&self, role: Role, index: u32, node: &Node) -> Result<Runner> {
        let peer = Peer::open_on(self.host)?;
        let directory = self
            .directory
            .transfer(node.handle(), &peer)?
            .context("the directory is gone")?;
        let thread = thread::Builder::new()
            .name(format!("{} {index}", role.name()))
            .spawn(move || worker::work(peer, directory, role, index))?;
        Ok(Runner::Thread(Some(thread)))
    }

    fn start_process(&self, role: Role, index: u32, node: &Node) -> Result<Runner> {
        // The child gets its own peer, and in it a handle to the directory: nothing else of ours.
        let peer = Peer::open_on(self.host)?;
        let id = self
            .directory
            .transfer_to_fd(node.handle(), &peer)?
            .context("the directory is gone")?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = Command::new(&program)
            .arg(worker::Command::name(role))
            .args(["--index", &index.to_string()])
            .args(["--directory", &id.raw().to_string()])
            .stdin(Stdio::from(peer.duplicate_fd()?))
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Runner::Process(child))
    }

    /// Fails if a worker ended badly; those that `finished` says nothing of were not to end at all.
    pub fn check(&mut self, finished: impl Fn(Role, u32) -> bool) -> Result<()> {
        for member in &mut self.members {
            if member.ended {
                continue;
            }
            let Some(end) = member.poll()? else {
                continue;
            };
            member.ended = true;
            if let Some(how) = end {
                bail!("{} {} {how}", member.role.name(), member.index);
            }
            if !finished(member.role, member.index) {
                bail!("{} {} ended early", member.role.name(), member.index);
            }
        }
        Ok(())
    }

    /// Waits for workers that have nothing left to do.
    pub fn join(mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(how) = member.wait()? {
                bail!("{} {} {how}", member.role.name(), member.index);
            }
        }
        self.members.clear();
        Ok(())
    }
}

impl Member {
    /// Whether it ended, and how, if that was not well.
    fn poll(&mut self) -> Result<Option<Option<String>>> {
        match &mut self.runner {
            Runner::Thread(thread) if thread.as_ref().is_some_and(|t| !t.is_finished()) => Ok(None),
            Runner::Thread(_) => Ok(Some(self.wait()?)),
            Runner::Process(child) => match child.try_wait().context("cannot wait")? {
                Some(status) if status.success() => Ok(Some(None)),
                Some(status) => Ok(Some(Some(format!("ended with {status}")))),
                None => Ok(None),
            },
        }
    }

    /// Waits for its end; says how it was, if not well.
    fn wait(&mut self) -> Result<Option<String>> {
        match &mut self.runner {
            Runner::Thread(thread) => match thread.take().map(JoinHandle::join) {
                None | Some(Ok(Ok(()))) => Ok(None),
                Some(Ok(Err(error))) => Ok(Some(format!("failed: {error:#}"))),
                Some(Err(_)) => Ok(Some("panicked".into())),
            },
            Runner::Process(child) => {
                let status = child.wait().context("cannot wait")?;
                Ok((!status.success()).then(|| format!("ended with {status}")))
            }
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
                // An error says that it has ended.
                let _ = child.kill();
            }
        }
        for member in &mut self.members {
            // How it ended was said already, or does not matter.
            let _ = member.wait();
        }
    }
}
