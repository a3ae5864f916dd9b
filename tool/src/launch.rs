// SPDX-License-Identifier: MIT OR Apache-2.0

//! The life of a worker, from its start to its last report: on a thread, or as a process that
//! inherits its peer as stdin and learns the ID of its handle to the directory from its arguments.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bus1::{Handle, HandleId, Outgoing, Peer};
use clap::Args;

use crate::wire::{Control, Role, WorkerId};
use crate::worker::{Orphaned, Worker};
use crate::{publisher, subscriber};

#[derive(clap::Subcommand)]
pub enum Command {
    /// A publisher of the demo, started by it
    #[command(hide = true)]
    Publisher(Place),
    /// A subscriber of the demo, started by it
    #[command(hide = true)]
    Subscriber(Place),
}

/// The arguments of a worker's process.
#[derive(Args)]
pub struct Place {
    /// Its number among its kind
    #[arg(long)]
    index: u32,
    /// The handle to the directory, in the peer on stdin
    #[arg(long)]
    directory: u64,
}

impl Command {
    /// Returns the name of the command for a role.
    pub fn name(role: Role) -> &'static str {
        role.name()
    }
}

/// Works as a process that `bus1 demo` started.
pub fn run_process(command: &Command) -> Result<ExitCode> {
    let (role, place) = match command {
        Command::Publisher(place) => (Role::Publisher, place),
        Command::Subscriber(place) => (Role::Subscriber, place),
    };
    let index = place.index;
    let fd = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot take the peer from stdin")?;
    // SAFETY: the program that started this one opened the peer only for it, and keeps no
    // message of it.
    let peer = unsafe { Peer::from_fd(fd) }
        .context("stdin is no peer: this command is for `bus1 demo` to start")?;
    let null = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot replace stdin")?;
    let directory = peer.adopt_handle(HandleId::from_raw(place.directory));
    Ok(match work(peer, directory, WorkerId { role, index }) {
        Ok(()) => ExitCode::SUCCESS,
        // The directory has the reason, and shows it to the user.
        Err(_) => ExitCode::FAILURE,
    })
}

/// Works from the greeting to the end, and reports to the directory if that comes early.
pub fn work(peer: Peer, directory: Handle, id: WorkerId) -> Result<()> {
    let worker = Worker {
        peer,
        directory,
        index: id.index,
    };
    let done = greet_and_work(&worker, id.role);
    if let Err(error) = &done {
        if !error.is::<Orphaned>() {
            let reason = format!("{error:#}");
            // If it does not get there, the directory still sees that the worker is gone.
            let _ = worker.tell(&Control::Failed { reason });
        }
    }
    done
}

fn greet_and_work(worker: &Worker, role: Role) -> Result<()> {
    let node = worker.peer.create_node().context("cannot create a node")?;
    let hello = Control::Hello.encode()?;
    worker.send(&Outgoing::new().payload(&hello).handle(node.handle()))?;
    match role {
        Role::Publisher => publisher::publish(worker),
        Role::Subscriber => subscriber::subscribe(worker),
    }
}
