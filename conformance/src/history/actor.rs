// SPDX-License-Identifier: MIT OR Apache-2.0

//! The common parts of all actors of a history: a peer, the shared memory, and the log.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::log::{Actor, Part, Sent};
use super::payload::{self, Header, FILLER};
use super::shared::{Phase, Shared};
use super::Options;
use crate::client::{Outcome, Peer};
use crate::host::Errno as E;

/// Time that an actor naps after EDQUOT or EXFULL.
const NAP: Duration = Duration::from_micros(200);

/// The reason why an actor gave up: a command failed unexpectedly, or another actor gave up.
pub type Trouble = String;

/// The peers of all actors, and the handles that they have from the beginning.
pub struct Stage {
    /// The peers: senders first.
    pub peers: Vec<Peer>,
    /// For each actor, its handles of the nodes that receivers never destroy.
    pub to_control: Vec<Vec<u64>>,
    /// The memory beside the bus.
    pub shared: Shared,
    /// The options of the history.
    pub options: Options,
}

/// An actor that can send.
pub struct Voice<'a> {
    stage: &'a Stage,
    actor: usize,
    serial: u32,
    bytes: Vec<u8>,
    /// The transactions that it has made.
    pub sent: Vec<Sent>,
    /// Its own source of chance.
    pub random: SmallRng,
}

impl<'a> Voice<'a> {
    /// Returns the voice of an actor.
    pub fn new(stage: &'a Stage, actor: usize) -> Self {
        let seed = stage
            .options
            .seed
            .wrapping_mul(1000)
            .wrapping_add(actor as u64);
        let random = SmallRng::seed_from_u64(seed);
        Self {
            stage,
            actor,
            serial: 0,
            bytes: Vec::new(),
            sent: Vec::new(),
            random,
        }
    }

    /// Its peer.
    pub fn peer(&self) -> &'a Peer {
        &self.stage.peers[self.actor]
    }

    /// Lets other actors run. Fails if one of them gave up.
    pub fn nap(&self) -> Result<(), Trouble> {
        if self.stage.shared.has_failed() {
            return Err("another actor gave up".to_owned());
        }
        if self.stage.shared.has_entered(Phase::Over) {
            return Err("the history is over".to_owned());
        }
        std::thread::sleep(NAP);
        Ok(())
    }

    /// Notes a transaction that began with `known` and has succeeded.
    fn note(&mut self, parts: Vec<Part>, known: Vec<u32>, cause: Option<(Actor, u32)>) {
        let serial = self.serial;
        self.stage.shared.count(parts.len());
        self.sent.push(Sent {
            serial,
            parts,
            seen: known,
            cause,
        });
        self.stage.shared.publish(self.actor, serial);
    }

    /// Attempts once to send to these handles, which stand for `parts`. Returns the error of a
    /// refusal, and otherwise logs the transaction.
    pub fn send(
        &mut self,
        to: &[u64],
        parts: &[Part],
        flags: u32,
        proceed: bool,
        cause: Option<(Actor, u32)>,
    ) -> Result<(), E> {
        self.serial += 1;
        let header = Header {
            actor: self.actor as Actor,
            serial: self.serial,
            flags,
        };
        let filler = self.random.random_range(0..FILLER);
        let known = self.stage.shared.known();
        payload::put(&mut self.bytes, header, &known, filler);
        let message = self.stage.peers[self.actor]
            .message()
            .to(to)
            .bytes(&self.bytes);
        let reached = if proceed {
            let Outcome { result, errors } = message.proceed().outcome();
            result?;
            let reached = parts.iter().zip(errors).filter(|&(_, error)| error == 0);
            reached.map(|(&part, _)| part).collect()
        } else {
            message.send()?;
            parts.to_vec()
        };
        self.note(reached, known, cause);
        Ok(())
    }

    /// Destroys own nodes, as one transaction with these parts.
    pub fn destroy(&mut self, nodes: &[u64], parts: Vec<Part>) -> Result<(), Trouble> {
        self.serial += 1;
        let known = self.stage.shared.known();
        let destroyed = self.peer().destroy_and_release(nodes);
        destroyed.map_err(|errno| format!("NODES_DESTROY says {errno:?}"))?;
        self.note(parts, known, None);
        Ok(())
    }

    /// Sends a last message to the node that a receiver never destroys, however long it takes.
    pub fn farewell(&mut self, receiver: usize) -> Result<(), Trouble> {
        let to = self.stage.to_control[self.actor][receiver];
        let part = control_part(receiver);
        loop {
            match self.send(&[to], &[part], payload::FLAG_LAST, false, None) {
                Ok(()) => return Ok(()),
                Err(errno) if is_full(errno) => self.nap()?,
                Err(errno) => return Err(format!("the last SEND says {errno:?}")),
            }
        }
    }
}

/// Returns the part of a message to the node that a receiver never destroys.
pub fn control_part(receiver: usize) -> Part {
    let target = super::log::Target::Slot(super::shared::SLOTS as u8);
    Part {
        receiver: receiver as u8,
        target,
    }
}

/// Returns whether a refusal is the receiver's way to ask for time.
pub fn is_full(errno: E) -> bool {
    errno == E::DQUOT || errno == E::XFULL
}
