// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that all actors of a history share, across processes as well.
//!
//! It is the channel beside the bus through which news travels. An actor stores the number of its
//! transaction after the call has returned (Release); before a call of its own every actor loads
//! the numbers of all others (Acquire), so it knows the calls that had returned by then.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::memory::{Pages, PAGE};

/// Nodes of a receiver that come and go.
pub const SLOTS: usize = 2;

/// The end of a history with senders that are stopped for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// These senders are stopped, and all others have ended.
    Stopped = 1,
    /// The receivers have ended, and the stopped ones go on.
    Over = 2,
}

/// The shared memory.
pub struct Shared {
    pages: Pages,
    senders: usize,
    receivers: usize,
}

impl Shared {
    /// Makes memory for so many actors.
    pub fn new(senders: usize, receivers: usize) -> Self {
        let actors = senders + receivers;
        let words = Self::ALIGN * actors + receivers * SLOTS * senders + Self::FLAGS;
        let pages = Pages::shared((words * size_of::<u64>()).div_ceil(PAGE));
        Self {
            pages,
            senders,
            receivers,
        }
    }

    /// Words between two actors' numbers, so that they share no cache line.
    const ALIGN: usize = 8;

    fn actors(&self) -> usize {
        self.senders + self.receivers
    }

    /// Says that the call for this transaction has returned.
    pub fn publish(&self, actor: usize, serial: u32) {
        // Pairs with the load in `known`.
        self.pages.words()[Self::ALIGN * actor].store(u64::from(serial), Ordering::Release);
    }

    /// Returns for each actor the last transaction whose call has returned.
    pub fn known(&self) -> Vec<u32> {
        (0..self.actors())
            // Pairs with the store in `publish`.
            .map(|actor| self.pages.words()[Self::ALIGN * actor].load(Ordering::Acquire) as u32)
            .collect()
    }

    fn slot(&self, receiver: usize, slot: usize, sender: usize) -> &AtomicU64 {
        let at = (receiver * SLOTS + slot) * self.senders + sender;
        &self.pages.words()[Self::ALIGN * self.actors() + at]
    }

    /// Tells a sender by which handle it reaches the receiver's node from now on.
    pub fn announce(&self, receiver: usize, slot: usize, sender: usize, id: u64) {
        // Nothing hangs on the order: the handle is either known by then or not.
        self.slot(receiver, slot, sender)
            .store(id, Ordering::Relaxed);
    }

    /// Returns the handle by which a sender reaches the receiver's node.
    pub fn handle(&self, receiver: usize, slot: usize, sender: usize) -> u64 {
        self.slot(receiver, slot, sender).load(Ordering::Relaxed)
    }

    /// The last words: failure, phase, deliveries.
    const FLAGS: usize = 3;

    fn flag(&self, n: usize) -> &AtomicU64 {
        let at = Self::ALIGN * self.actors() + self.receivers * SLOTS * self.senders;
        &self.pages.words()[at + n]
    }

    fn failed(&self) -> &AtomicU64 {
        self.flag(0)
    }

    /// Tells all that another phase has begun.
    pub fn enter(&self, phase: Phase) {
        self.flag(1).store(phase as u64, Ordering::Release);
    }

    /// Returns whether a phase has begun.
    pub fn has_entered(&self, phase: Phase) -> bool {
        self.flag(1).load(Ordering::Acquire) >= phase as u64
    }

    /// Counts parts that were sent.
    pub fn count(&self, parts: usize) {
        self.flag(2).fetch_add(parts as u64, Ordering::Relaxed);
    }

    /// Returns the number of parts that all actors sent.
    pub fn deliveries(&self) -> u64 {
        self.flag(2).load(Ordering::Relaxed)
    }

    /// Tells all others to give up.
    pub fn fail(&self) {
        self.failed().store(1, Ordering::Relaxed);
    }

    /// Returns whether an actor gave up.
    pub fn has_failed(&self) -> bool {
        self.failed().load(Ordering::Relaxed) != 0
    }
}
