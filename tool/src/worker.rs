// SPDX-License-Identifier: MIT OR Apache-2.0

//! A worker of the demo: a peer that knows nobody but the directory.
//!
//! It is a thread, or a process that inherits its peer as stdin and is told the ID of its handle to
//! the directory. It has no other way to anybody: what it may do it gets in messages.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use bus1::{Event, Handle, HandleId, Message, Outgoing, Peer};
use clap::Args;

use crate::backoff::{self, Refused};
use crate::wire::{Control, Role};
use crate::{publisher, subscriber};

/// The directory is gone: somebody ended the demo, and there is nobody to tell.
#[derive(Debug)]
pub struct Orphaned;

impl std::fmt::Display for Orphaned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the directory is gone")
    }
}

impl std::error::Error for Orphaned {}

#[derive(clap::Subcommand)]
pub enum Command {
    /// A publisher of the demo, started by it
    #[command(hide = true)]
    Publisher(Place),
    /// A subscriber of the demo, started by it
    #[command(hide = true)]
    Subscriber(Place),
}

/// What a process is told by the one that started it.
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
    /// The name of the command for a role.
    pub fn name(role: Role) -> &'static str {
        role.name()
    }
}

/// Works as a process.
pub fn run_process(command: &Command) -> Result<ExitCode> {
    let (role, place) = match command {
        Command::Publisher(place) => (Role::Publisher, place),
        Command::Subscriber(place) => (Role::Subscriber, place),
    };
    let fd = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot take the peer from stdin")?;
    // SAFETY: the program that started this one opened the peer for it alone, and keeps no
    // message of it.
    let peer = unsafe { Peer::from_fd(fd) }
        .context("stdin is no peer: this command is for `bus1 demo` to start")?;
    let null = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).context("cannot replace stdin")?;
    let directory = peer.adopt_handle(HandleId::from_raw(place.directory));
    Ok(match work(peer, directory, role, place.index) {
        Ok(()) => ExitCode::SUCCESS,
        // Told to the directory, which will tell the user.
        Err(_) => ExitCode::FAILURE,
    })
}

/// Works from the greeting to the end, and tells the directory if that comes early.
pub fn work(peer: Peer, directory: Handle, role: Role, index: u32) -> Result<()> {
    let worker = Worker {
        peer,
        directory,
        index,
    };
    let done = worker.work(role);
    if let Err(error) = &done {
        if !error.is::<Orphaned>() {
            let failed = Control::Failed {
                role,
                index,
                reason: format!("{error:#}"),
            };
            // If it does not get there, the directory still sees that the worker is gone.
            let _ = worker.tell(&failed);
        }
    }
    done
}

/// What all workers have.
pub struct Worker {
    pub peer: Peer,
    directory: Handle,
    pub index: u32,
}

impl Worker {
    fn work(&self, role: Role) -> Result<()> {
        let node = self.peer.create_node().context("cannot create a node")?;
        let hello = Control::Hello {
            role,
            index: self.index,
        };
        let payload = hello.encode()?;
        let message = Outgoing::new().payload(&payload).handle(node.handle());
        self.send(&message)?;
        match role {
            Role::Publisher => publisher::publish(self),
            Role::Subscriber => subscriber::subscribe(self),
        }
    }

    /// Tells the directory something.
    pub fn tell(&self, control: &Control) -> Result<()> {
        let payload = control.encode()?;
        self.send(&Outgoing::new().payload(&payload))
    }

    fn send(&self, message: &Outgoing<'_>) -> Result<()> {
        let mut refused = Refused::default();
        backoff::send(&mut refused, || {
            self.peer.send_to([&self.directory], message)
        })
        .context("cannot reach the directory")
    }

    /// What an event means: a message, or nothing of interest.
    pub fn understand(&self, event: Event) -> Result<Option<Message>> {
        match event {
            Event::Message(message) => Ok(Some(message)),
            Event::NodeDestroyed(id) if id == self.directory.id() => bail!(Orphaned),
            _ => Ok(None),
        }
    }

    /// The next message.
    pub fn recv(&self) -> Result<Message> {
        loop {
            let event = self.peer.recv().context("cannot receive")?;
            if let Some(message) = self.understand(event)? {
                return Ok(message);
            }
        }
    }
}
