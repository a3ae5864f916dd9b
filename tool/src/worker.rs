// SPDX-License-Identifier: MIT OR Apache-2.0

//! A worker of the demo: a peer that at first has only a handle to the directory. All further
//! handles come to it in messages.

use std::fmt;

use anyhow::{bail, Context, Result};
use bus1::{Event, Handle, Message, Outgoing, Peer};

use crate::backoff::{self, Refused};
use crate::wire::Control;

/// The error that the directory is gone: the demo was ended, and no report can reach it.
#[derive(Debug)]
pub struct Orphaned;

impl fmt::Display for Orphaned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the directory is gone")
    }
}

impl std::error::Error for Orphaned {}

/// A worker, as its role uses it.
pub struct Worker {
    pub peer: Peer,
    /// A handle to the node that stands for this worker at the directory.
    pub directory: Handle,
    /// Its number among those of its role.
    pub index: u32,
}

impl Worker {
    /// Tells the directory something.
    pub fn tell(&self, control: &Control) -> Result<()> {
        let payload = control.encode()?;
        self.send(&Outgoing::new().payload(&payload))
    }

    /// Sends a message to the directory.
    pub fn send(&self, message: &Outgoing<'_>) -> Result<()> {
        let send = || self.peer.send_to([&self.directory], message);
        backoff::send(&mut Refused::default(), || Ok(()), send)
            .context("cannot reach the directory")
    }

    /// Returns the message, if an event is one. Other events are of no interest, except the end of
    /// the directory, which is an error.
    pub fn understand(&self, event: Event) -> Result<Option<Message>> {
        match event {
            Event::Message(message) => Ok(Some(message)),
            Event::NodeDestroyed(id) if id == self.directory.id() => bail!(Orphaned),
            _ => Ok(None),
        }
    }

    /// Waits for the next message.
    pub fn recv(&self) -> Result<Message> {
        loop {
            let event = self.peer.recv().context("cannot receive")?;
            if let Some(message) = self.understand(event)? {
                return Ok(message);
            }
        }
    }
}
