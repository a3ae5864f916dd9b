// SPDX-License-Identifier: MIT OR Apache-2.0

//! The directory: the one peer that all workers know at the start.
//!
//! Subscribers hand it their capabilities, it hands them to the publishers, together with the text.
//! Then it collects the reports of the workers, and compares while they come in. A worker that goes
//! away before its time is noticed by the destruction of its node.
//!
//! Invariant: a worker is known by the node that the directory gave it a handle to, and by nothing
//! that it says. So no message can come from a stranger or in another worker's name.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use bus1::{Event, Handle, HandleId, Message, Node, Outgoing, Peer};

use crate::backoff::{self, Refused};
use crate::crew::Crew;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::sequence::Comparison;
use crate::wire::{Control, Done, Role, Summary, WorkerId};

/// Time to wait for a message before looking at workers and signals.
const LOOK: Duration = Duration::from_millis(100);

/// A worker as the directory knows it.
struct Seat {
    id: WorkerId,
    /// Stands for the worker: only it gets a handle to this node.
    node: Node,
    /// A handle to the worker's node, once it has greeted.
    handle: Option<Handle>,
}

/// All that the directory knows.
pub struct Directory {
    peer: Peer,
    interrupt: Interrupt,
    seats: Vec<Seat>,
    /// Indices of `seats`, by the node that stands for the worker.
    by_node: HashMap<HandleId, usize>,
    /// Indices of `seats`, by the handle to the worker's node.
    by_handle: HashMap<HandleId, usize>,
    pub comparison: Comparison,
    /// The summary of each subscriber, at its index.
    pub summaries: Vec<Option<Summary>>,
    /// The last report of each publisher, at its index.
    pub done: Vec<Option<Done>>,
}

impl Directory {
    /// Makes a seat for each worker.
    pub fn new(
        peer: Peer,
        interrupt: Interrupt,
        publishers: u32,
        subscribers: u32,
    ) -> Result<Self> {
        let mut directory = Self {
            peer,
            interrupt,
            seats: Vec::new(),
            by_node: HashMap::new(),
            by_handle: HashMap::new(),
            comparison: Comparison::new(publishers as usize, subscribers as usize),
            summaries: vec![None; subscribers as usize],
            done: vec![None; publishers as usize],
        };
        let roles = [
            (Role::Subscriber, subscribers),
            (Role::Publisher, publishers),
        ];
        for (role, n) in roles {
            for index in 0..n {
                let node = directory.peer.create_node()?;
                directory.by_node.insert(node.id(), directory.seats.len());
                directory.seats.push(Seat {
                    id: WorkerId { role, index },
                    node,
                    handle: None,
                });
            }
        }
        Ok(directory)
    }

    /// Starts all workers.
    pub fn start(&self, crew: &mut Crew) -> Result<()> {
        for seat in &self.seats {
            self.interrupt.check()?;
            crew.start(seat.id, &seat.node)?;
        }
        Ok(())
    }

    /// Waits until all workers are there.
    pub fn gather(&mut self, crew: &mut Crew) -> Result<()> {
        while self.by_handle.len() < self.seats.len() {
            self.step(crew)?;
        }
        Ok(())
    }

    /// Gives the publishers what they need, and lets all begin.
    pub fn begin(&self, order: &Control, text: &std::fs::File) -> Result<()> {
        let publishers = self.handles(Role::Publisher);
        let subscribers = self.handles(Role::Subscriber);
        let expect = Control::Expect {
            publishers: publishers.len() as u32,
        }
        .encode()?;
        self.multicast(&subscribers, &Outgoing::new().payload(&expect))?;

        let order = order.encode()?;
        let message = Outgoing::new()
            .payload(&order)
            .handles(subscribers.iter().copied())
            .fd(text);
        self.multicast(&publishers, &message)
    }

    /// Returns handles to all workers of a role that have greeted, by their index.
    fn handles(&self, role: Role) -> Vec<&Handle> {
        self.seats
            .iter()
            .filter(|seat| seat.id.role == role)
            .filter_map(|seat| seat.handle.as_ref())
            .collect()
    }

    fn multicast(&self, to: &[&Handle], message: &Outgoing<'_>) -> Result<()> {
        let go_on = || self.interrupt.check();
        let send = || self.peer.send_to(to, message);
        backoff::send(&mut Refused::default(), go_on, send).context("cannot reach the workers")
    }

    /// Collects until all workers have made their last report.
    pub fn collect(&mut self, crew: &mut Crew, progress: &mut Progress) -> Result<()> {
        while !self.seats.iter().all(|seat| self.is_finished(seat.id)) {
            self.step(crew)?;
            progress.show(self.comparison.told_by_all());
        }
        Ok(())
    }

    /// Returns whether a worker has made its last report.
    fn is_finished(&self, id: WorkerId) -> bool {
        let index = id.index as usize;
        match id.role {
            Role::Publisher => self.done[index].is_some(),
            Role::Subscriber => self.summaries[index].is_some(),
        }
    }

    /// Takes what is next, or looks after the workers.
    fn step(&mut self, crew: &mut Crew) -> Result<()> {
        self.interrupt.check()?;
        match self.peer.recv_timeout(LOOK).context("cannot receive")? {
            Some(Event::Message(message)) => self.take(message),
            Some(Event::NodeDestroyed(id)) => self.worker_is_gone(id),
            Some(_) => Ok(()),
            None => {
                // Everything that it said before it ended was received: the queue is empty.
                let checked = crew.check(|id| self.is_finished(id));
                // An interrupt on a terminal is for the workers as well.
                self.interrupt.check()?;
                checked
            }
        }
    }

    /// Takes the end of a worker's node: an error, unless the worker has made its last
    /// report.
    fn worker_is_gone(&self, handle: HandleId) -> Result<()> {
        let Some(&seat) = self.by_handle.get(&handle) else {
            return Ok(());
        };
        let id = self.seats[seat].id;
        if !self.is_finished(id) {
            // An interrupt on a terminal is for the workers as well.
            self.interrupt.check()?;
            bail!("{id} is gone");
        }
        Ok(())
    }

    fn take(&mut self, mut message: Message) -> Result<()> {
        let seat = *self
            .by_node
            .get(&message.destination())
            .context("a message came to a node that stands for no worker")?;
        let id = self.seats[seat].id;
        let index = id.index as usize;
        let control = Control::decode(message.payload())
            .with_context(|| format!("{id} is not understood"))?;
        ensure!(!self.is_finished(id), "{id} goes on after its end");
        match (id.role, control) {
            (_, Control::Hello) => {
                let handle = message.take_handles().into_iter().flatten().next();
                let handle = handle.with_context(|| format!("{id} is gone"))?;
                ensure!(self.seats[seat].handle.is_none(), "{id} came twice");
                let before = self.by_handle.insert(handle.id(), seat);
                ensure!(before.is_none(), "{id} has another worker's node");
                self.seats[seat].handle = Some(handle);
            }
            (Role::Subscriber, Control::Received { first, entries }) => {
                self.comparison.add(index, first, &entries);
            }
            (Role::Subscriber, Control::Summary(summary)) => {
                self.summaries[index] = Some(summary);
            }
            (Role::Publisher, Control::Done(done)) => self.done[index] = Some(done),
            (_, Control::Failed { reason }) => {
                self.interrupt.check()?;
                bail!("{id} failed: {reason}");
            }
            (_, control) => bail!("{id} sent what is not its to send: {control:?}"),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
