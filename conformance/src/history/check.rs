// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compares a history with the promises of `docs/ordering.md`.
//!
//! The checks are, in this order:
//! - Every payload is whole, and no message comes to a node after its destruction.
//! - Every part received was sent, and every part sent was received, once; except what a sender
//!   sent after it was stopped for good.
//! - The parts of a transaction at one receiver are consecutive and in the order in which they were
//!   named (`#consecutive`).
//! - Any two receivers saw their common transactions in one order (`#consistency`), and all
//!   receivers together leave one order possible.
//! - No transaction came before one that had returned, or had been received, before it began
//!   (`#causality`).
//! - A part is flagged as long as another follows (`#flag`).

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::log::{Actor, Got, History, Sent, Target, What};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A payload was not as it was sent.
    Corrupt(Place),
    /// A message came to a node after the notice of its destruction.
    Late(Place),
    /// A part was received that no actor sent, or whose SEND failed.
    Invented(Place),
    /// A part was received twice.
    Doubled(Place),
    /// A part was never received.
    Lost(Name, u8),
    /// Parts of one transaction were not consecutive.
    Torn(Place),
    /// Parts of one transaction came in another order than they were named in.
    PartOrder(Place),
    /// A part was promised that did not come, or came without promise.
    Flag(Place),
    /// Two receivers saw two transactions in different orders.
    Consistency(Name, Name, [u8; 2]),
    /// No order of all transactions fits all receivers; the named one is part of a circle.
    Circle(Name),
    /// The second was received before the first, which had returned before it began.
    Causality(Name, Name, u8),
    /// The second was received before the first, which its maker had received before.
    Triangle(Name, Name, u8),
}

/// A position in the log of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The receiver.
    pub receiver: u8,
    /// Number of parts that it had received before.
    pub at: usize,
}

/// A transaction by its maker and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub Actor, pub u32);

/// Counts of a checked history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Transactions.
    pub transactions: usize,
    /// Of these, with more than one part.
    pub multicasts: usize,
    /// Parts.
    pub parts: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receiver {}, reception {}", self.receiver, self.at)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {} of actor {}", self.1, self.0)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(place) => write!(f, "payload changed on the way ({place})"),
            Self::Late(place) => write!(f, "message to a node after its destruction ({place})"),
            Self::Invented(place) => write!(f, "received what was not sent, or refused ({place})"),
            Self::Doubled(place) => write!(f, "received twice ({place})"),
            Self::Lost(name, receiver) => write!(f, "{name} is missing at receiver {receiver}"),
            Self::Torn(place) => write!(f, "3.3: parts are not consecutive ({place})"),
            Self::PartOrder(place) => write!(f, "3.3: parts not in the order named ({place})"),
            Self::Flag(place) => write!(f, "3.3: CONTINUE flag is wrong ({place})"),
            Self::Consistency(first, second, [a, b]) => {
                write!(
                    f,
                    "3.1: {first} before {second} at receiver {a}, after it at receiver {b}"
                )
            }
            Self::Circle(name) => write!(f, "3.3: no order of all transactions fits; see {name}"),
            Self::Causality(first, second, receiver) => write!(
                f,
                "3.2: {first} had returned before {second} began, and came after it at receiver \
                 {receiver}"
            ),
            Self::Triangle(first, second, receiver) => write!(
                f,
                "3.2: {first} was received before {second} was sent, and came after it at \
                 receiver {receiver}"
            ),
        }
    }
}

/// Checks a history.
pub fn check(history: &History) -> Result<Summary, Violation> {
    let index = Index::new(history);
    let mut orders = Vec::new();
    for (r, got) in history.got.iter().enumerate() {
        orders.push(index.transactions_at(r as u8, got)?);
    }
    index.complete(&orders)?;
    consistent(&index, &orders)?;
    circles(&index, &orders)?;
    causal(&index, &orders)?;
    for (r, got) in history.got.iter().enumerate() {
        index.flags_at(r as u8, got)?;
    }
    Ok(Summary {
        transactions: index.all.len(),
        multicasts: index
            .all
            .iter()
            .filter(|(_, sent)| sent.parts.len() > 1)
            .count(),
        parts: index.all.iter().map(|(_, sent)| sent.parts.len()).sum(),
    })
}

/// A transaction by its place in [`Index::all`].
type Id = usize;

/// All transactions, to be found by name or by the handles that they destroyed.
struct Index<'a> {
    all: Vec<(Name, &'a Sent)>,
    /// For each actor, by serial, without failed transactions.
    by_serial: Vec<HashMap<u32, Id>>,
    by_handle: HashMap<(u8, u64), Id>,
    stopped: &'a BTreeMap<Actor, u32>,
}

impl<'a> Index<'a> {
    fn new(history: &'a History) -> Self {
        let mut index = Self {
            all: vec![],
            by_serial: vec![],
            by_handle: HashMap::new(),
            stopped: &history.stopped,
        };
        for (actor, sent) in history.sent.iter().enumerate() {
            let mut by_serial = HashMap::with_capacity(sent.len());
            for sent in sent {
                let id = index.all.len();
                index.all.push((Name(actor as Actor, sent.serial), sent));
                by_serial.insert(sent.serial, id);
                for part in &sent.parts {
                    if let Target::Handle(handle) = part.target {
                        index.by_handle.insert((part.receiver, handle), id);
                    }
                }
            }
            index.by_serial.push(by_serial);
        }
        index
    }

    fn name(&self, id: Id) -> Name {
        self.all[id].0
    }

    fn find(&self, receiver: u8, got: &Got) -> Option<Id> {
        match got.what {
            What::Data { actor, serial, .. } => self
                .by_serial
                .get(usize::from(actor))?
                .get(&serial)
                .copied(),
            What::Destroyed(handle) => self.by_handle.get(&(receiver, handle)).copied(),
        }
    }

    /// Returns the transactions that one receiver saw, in that order, each once; checks their
    /// parts.
    fn transactions_at(&self, receiver: u8, got: &[Got]) -> Result<Vec<Id>, Violation> {
        let place = |at| Place { receiver, at };
        if let Some(at) = got.iter().position(|got| got.corrupt) {
            return Err(Violation::Corrupt(place(at)));
        }
        if let Some(at) = got.iter().position(|got| got.late) {
            return Err(Violation::Late(place(at)));
        }
        let mut order = Vec::new();
        let mut seen = vec![false; self.all.len()];
        let mut at = 0;
        while at < got.len() {
            let id = self
                .find(receiver, &got[at])
                .ok_or(Violation::Invented(place(at)))?;
            let same = |got: &&Got| self.find(receiver, got) == Some(id);
            let run = &got[at..at + got[at..].iter().take_while(same).count()];
            if std::mem::replace(&mut seen[id], true) {
                // All of it had come before, or it would not have got this far.
                return Err(Violation::Doubled(place(at)));
            }
            let parts = self.all[id]
                .1
                .parts
                .iter()
                .filter(|part| part.receiver == receiver);
            let wanted: Vec<Target> = parts.map(|part| part.target).collect();
            for (i, part) in run.iter().enumerate() {
                let target = part.target();
                if !wanted.contains(&target) {
                    return Err(Violation::Invented(place(at + i)));
                }
                if run[..i].iter().any(|before| before.what == part.what) {
                    return Err(Violation::Doubled(place(at + i)));
                }
            }
            if run.len() < wanted.len() {
                return Err(if got[at + run.len()..].iter().any(|got| same(&got)) {
                    Violation::Torn(place(at + run.len()))
                } else {
                    Violation::Lost(self.name(id), receiver)
                });
            }
            if let Some(i) = (0..run.len()).find(|&i| run[i].target() != wanted[i]) {
                return Err(Violation::PartOrder(place(at + i)));
            }
            order.push(id);
            at += run.len();
        }
        Ok(order)
    }

    /// Checks that every part except the last of its transaction promises another.
    fn flags_at(&self, receiver: u8, got: &[Got]) -> Result<(), Violation> {
        for at in 0..got.len() {
            let id = self.find(receiver, &got[at]);
            let follows = got
                .get(at + 1)
                .is_some_and(|next| self.find(receiver, next) == id);
            if got[at].more != follows {
                return Err(Violation::Flag(Place { receiver, at }));
            }
        }
        Ok(())
    }

    /// Checks that every receiver saw all parts for it.
    fn complete(&self, orders: &[Vec<Id>]) -> Result<(), Violation> {
        let mut seen = vec![vec![false; self.all.len()]; orders.len()];
        for (r, order) in orders.iter().enumerate() {
            order.iter().for_each(|&id| seen[r][id] = true);
        }
        for (id, (name, sent)) in self.all.iter().enumerate() {
            let stopped = self.stopped.get(&name.0);
            if stopped.is_some_and(|&last| name.1 > last) {
                continue;
            }
            for part in &sent.parts {
                if !seen[usize::from(part.receiver)][id] {
                    return Err(Violation::Lost(*name, part.receiver));
                }
            }
        }
        Ok(())
    }
}

/// Returns the place of every transaction in one order.
fn positions(index: &Index<'_>, order: &[Id]) -> Vec<Option<usize>> {
    let mut positions = vec![None; index.all.len()];
    for (at, &id) in order.iter().enumerate() {
        positions[id] = Some(at);
    }
    positions
}

/// Checks consistency, receiver by receiver: transactions that both saw must rise in the second as
/// they do in the first.
fn consistent(index: &Index<'_>, orders: &[Vec<Id>]) -> Result<(), Violation> {
    for (b, other) in orders.iter().enumerate() {
        let positions = positions(index, other);
        for (a, order) in orders[..b].iter().enumerate() {
            let common: Vec<Id> = order
                .iter()
                .copied()
                .filter(|&id| positions[id].is_some())
                .collect();
            for pair in common.windows(2) {
                if positions[pair[0]] > positions[pair[1]] {
                    let [first, second] = [pair[0], pair[1]].map(|id| index.name(id));
                    return Err(Violation::Consistency(first, second, [a as u8, b as u8]));
                }
            }
        }
    }
    Ok(())
}

/// Checks 3.3: the orders of all receivers together have no circle.
fn circles(index: &Index<'_>, orders: &[Vec<Id>]) -> Result<(), Violation> {
    let mut after = vec![Vec::new(); index.all.len()];
    let mut waits = vec![0_usize; index.all.len()];
    for order in orders {
        for pair in order.windows(2) {
            after[pair[0]].push(pair[1]);
            waits[pair[1]] += 1;
        }
    }
    let mut free: Vec<Id> = (0..waits.len()).filter(|&id| waits[id] == 0).collect();
    while let Some(id) = free.pop() {
        for &next in &after[id] {
            waits[next] -= 1;
            if waits[next] == 0 {
                free.push(next);
            }
        }
    }
    match waits.iter().position(|&n| n > 0) {
        Some(id) => Err(Violation::Circle(index.name(id))),
        None => Ok(()),
    }
}

/// Checks causality, for each receiver: a transaction comes after those that were known when it
/// began.
fn causal(index: &Index<'_>, orders: &[Vec<Id>]) -> Result<(), Violation> {
    for (r, order) in orders.iter().enumerate() {
        let positions = positions(index, order);
        // For each actor, its transactions at this receiver: serial, the latest position up to it,
        // and the transaction there.
        let mut latest: Vec<Vec<(u32, usize)>> = vec![Vec::new(); index.by_serial.len()];
        for (id, (Name(actor, serial), _)) in index.all.iter().enumerate() {
            if let Some(at) = positions[id] {
                latest[usize::from(*actor)].push((*serial, at));
            }
        }
        for list in &mut latest {
            list.sort_unstable();
            let mut highest = 0;
            for (_, at) in list {
                highest = highest.max(*at);
                *at = highest;
            }
        }
        for (at, &id) in order.iter().enumerate() {
            let (name, sent) = index.all[id];
            for (actor, &serial) in sent.seen.iter().enumerate() {
                let list = &latest[actor];
                let known = list.partition_point(|&(other, _)| other <= serial);
                if known > 0 && list[known - 1].1 >= at {
                    let first = index.name(order[list[known - 1].1]);
                    return Err(Violation::Causality(first, name, r as u8));
                }
            }
            if let Some((actor, serial)) = sent.cause {
                let cause = index.by_serial[usize::from(actor)].get(&serial);
                if cause.is_some_and(|&cause| positions[cause].is_some_and(|other| other >= at)) {
                    return Err(Violation::Triangle(Name(actor, serial), name, r as u8));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
