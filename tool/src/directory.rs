// SPDX-License-Identifier: MIT OR Apache-2.0

//! The directory: the one peer that all workers know at the start.
//!
//! Subscribers hand it their capabilities, it hands them to the publishers, together with the text.
//! Then it collects what the workers tell, and compares while it comes in. A worker that goes away
//! before its time is noticed by the destruction of its node.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use bus1::{Event, Handle, HandleId, Message, Outgoing, Peer};

use crate::backoff::{self, Refused};
use crate::crew::Crew;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::sequence::Comparison;
use crate::wire::{Control, Done, Role, Summary};

/// How long to wait for a message before looking at workers and signals.
const LOOK: Duration = Duration::from_millis(100);

/// All that the directory knows.
pub struct Directory {
    peer: Peer,
    interrupt: Interrupt,
    handles: HashMap<(Role, u32), Handle>,
    names: HashMap<HandleId, (Role, u32)>,
    pub comparison: Comparison,
    pub summaries: Vec<Option<Summary>>,
    pub done: Vec<Option<Done>>,
}

impl Directory {
    pub fn new(peer: Peer, interrupt: Interrupt, publishers: u32, subscribers: u32) -> Self {
        Self {
            peer,
            interrupt,
            handles: HashMap::new(),
            names: HashMap::new(),
            comparison: Comparison::new(publishers as usize, subscribers as usize),
            summaries: vec![None; subscribers as usize],
            done: vec![None; publishers as usize],
        }
    }

    /// Waits until all workers are there.
    pub fn gather(&mut self, crew: &mut Crew) -> Result<()> {
        while self.handles.len() < self.summaries.len() + self.done.len() {
            self.step(crew)?;
        }
        Ok(())
    }

    /// Gives the publishers what they need, and lets all begin.
    pub fn begin(&self, order: &Control, text: &std::fs::File) -> Result<()> {
        let all = |role, n: usize| -> Vec<&Handle> {
            (0..n as u32)
                .filter_map(|index| self.handles.get(&(role, index)))
                .collect()
        };
        let publishers = all(Role::Publisher, self.done.len());
        let subscribers = all(Role::Subscriber, self.summaries.len());

        let expect = Control::Expect {
            publishers: self.done.len() as u32,
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

    fn multicast(&self, to: &[&Handle], message: &Outgoing<'_>) -> Result<()> {
        backoff::send(&mut Refused::default(), || self.peer.send_to(to, message))
            .context("cannot reach the workers")
    }

    /// Collects until all workers have told everything.
    pub fn collect(&mut self, crew: &mut Crew, progress: &mut Progress) -> Result<()> {
        while !self.is_complete() {
            self.step(crew)?;
            progress.show(self.comparison.told_by_all());
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.summaries.iter().all(Option::is_some) && self.done.iter().all(Option::is_some)
    }

    fn is_finished(&self, role: Role, index: u32) -> bool {
        match role {
            Role::Publisher => self.done[index as usize].is_some(),
            Role::Subscriber => self.summaries[index as usize].is_some(),
        }
    }

    /// Takes what is next, or looks after the workers.
    fn step(&mut self, crew: &mut Crew) -> Result<()> {
        self.interrupt.check()?;
        match self.peer.recv_timeout(LOOK).context("cannot receive")? {
            Some(Event::Message(message)) => self.take(message)?,
            Some(Event::NodeDestroyed(id)) => {
                if let Some(&(role, index)) = self.names.get(&id) {
                    if !self.is_finished(role, index) {
                        // An interrupt on a terminal is for the workers as well.
                        self.interrupt.check()?;
                        bail!("{} {index} is gone", role.name());
                    }
                }
            }
            Some(_) => {}
            None => {
                // Everything that it said before it ended was received: the queue is empty.
                let checked = crew.check(|role, index| self.is_finished(role, index));
                self.interrupt.check()?;
                checked?;
            }
        }
        Ok(())
    }

    fn take(&mut self, mut message: Message) -> Result<()> {
        match Control::decode(message.payload())? {
            Control::Hello { role, index } => {
                let handle = message.take_handles().into_iter().flatten().next();
                let handle = handle.with_context(|| format!("{} {index} is gone", role.name()))?;
                self.names.insert(handle.id(), (role, index));
                let before = self.handles.insert((role, index), handle);
                ensure!(before.is_none(), "{} {index} came twice", role.name());
            }
            Control::Received {
                index,
                first,
                entries,
            } => {
                ensure!(
                    (index as usize) < self.summaries.len(),
                    "a stranger reports"
                );
                self.comparison.add(index as usize, first, &entries);
            }
            Control::Summary { index, summary } => {
                let place = self.summaries.get_mut(index as usize);
                *place.context("a stranger reports")? = Some(summary);
            }
            Control::Done { index, done } => {
                let place = self.done.get_mut(index as usize);
                *place.context("a stranger reports")? = Some(done);
            }
            Control::Failed {
                role,
                index,
                reason,
            } => {
                self.interrupt.check()?;
                bail!("{} {index} failed: {reason}", role.name());
            }
            Control::Expect { .. } | Control::Publish { .. } => {
                bail!("an order came to the one who gives them")
            }
        }
        Ok(())
    }
}
