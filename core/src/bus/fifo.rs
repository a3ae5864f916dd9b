// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Messages in the order in which they will be received, in a ring.
//!
//! Most messages come after all that are committed, and a part that settles mostly becomes the first.
//! So they need no tree: they are put in at either end, and taken out in front.
//!
//! The ring has at least as many slots as the array of the pool's extents has room for, and a message
//! has a slice until it left the ring, so there is always room. Ring and array grow together, in
//! `Inbox::stow`. What is taken out in the middle leaves a hole; the holes are passed over, or pressed
//! out when there is no other slot. That, and growing, is all that takes time in proportion: it moves
//! pointers and looks at no message, 16,384 of which take less than 50 µs.
//!
//! # Invariants
//!
//! - The number of slots is a power of two. A position counts on where slots start anew.
//! - Keys rise from `head` to `tail`, and the first slot is no hole.
//! - What is in keeps its position or moves towards the end: a purge remembers one while the lock is free.

use kernel::prelude::*;

use super::host::Host;
use super::message::Message;
use super::queue::{Body, Key};
use super::GFP_KEPT;

/// Memory for the slots.
pub(super) type Ring<H> = KVVec<Option<Body<H>>>;

/// See the module.
pub(super) struct Fifo<H: Host> {
    slots: Ring<H>,
    /// The position of the first one.
    pub(super) head: u32,
    /// The position behind the last one.
    tail: u32,
}

impl<H: Host> Fifo<H> {
    /// Without memory, until it grows.
    pub(super) const EMPTY: Self = Self {
        slots: KVVec::new(),
        head: 0,
        tail: 0,
    };

    /// Memory for `n` messages, for [`Fifo::grow`]. ENOMEM.
    pub(super) fn ring(n: usize) -> Result<Ring<H>> {
        let n = n.next_power_of_two();
        let mut ring = Ring::with_capacity(n, GFP_KEPT)?;
        for _ in 0..n {
            ring.push(None, GFP_KEPT)?;
        }
        Ok(ring)
    }

    /// Moves into a larger ring. Returns the old one, to be freed without locks.
    pub(super) fn grow(&mut self, mut ring: Ring<H>) -> Ring<H> {
        if ring.len() > self.slots.len() {
            core::mem::swap(&mut self.slots, &mut ring);
            let mut at = self.head;
            while at != self.tail {
                let old = at as usize & (ring.len() - 1);
                *self.slot(at) = ring[old].take();
                at = at.wrapping_add(1);
            }
        }
        ring
    }

    /// Where a position is in the slots, if there are any.
    #[inline]
    fn index(&self, at: u32) -> usize {
        at as usize & self.slots.len().wrapping_sub(1)
    }

    #[inline]
    fn slot(&mut self, at: u32) -> &mut Option<Body<H>> {
        let index = self.index(at);
        &mut self.slots[index]
    }

    /// Makes room for one more.
    #[inline]
    fn make_room(&mut self) {
        if self.tail.wrapping_sub(self.head) as usize == self.slots.len() {
            self.press();
            debug_assert!(
                self.slot(self.head.wrapping_sub(1)).is_none(),
                "a ring without room"
            );
        }
    }

    /// Moves all to the end, so that there is no hole any more.
    #[cold]
    fn press(&mut self) {
        let (mut at, mut to) = (self.tail, self.tail);
        while at != self.head {
            at = at.wrapping_sub(1);
            if let Some(body) = self.slot(at).take() {
                to = to.wrapping_sub(1);
                *self.slot(to) = Some(body);
            }
        }
        self.head = to;
    }

    /// Puts a message in behind all others.
    #[inline]
    pub(super) fn push(&mut self, message: KBox<Message<H>>) {
        self.make_room();
        let at = self.tail;
        *self.slot(at) = Some(Body::Data(message));
        self.tail = at.wrapping_add(1);
    }

    /// Puts a message in before all others.
    #[inline]
    pub(super) fn push_first(&mut self, message: KBox<Message<H>>) {
        self.make_room();
        self.head = self.head.wrapping_sub(1);
        *self.slot(self.head) = Some(Body::Data(message));
    }

    /// The first one and its key.
    #[inline]
    pub(super) fn first(&self) -> Option<(Key, &Body<H>)> {
        let body = self.get(self.head)?;
        let Body::Data(message) = body else {
            return None;
        };
        Some((message.key, body))
    }

    /// Takes the first one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Body<H>> {
        self.remove(self.head)
    }

    /// The first position at or behind `from` where something stands or stood; None at the end.
    pub(super) fn seek(&self, from: u32) -> Option<u32> {
        // What was before the head is gone.
        let skipped = (from.wrapping_sub(self.head) as i32).max(0) as u32;
        (skipped < self.tail.wrapping_sub(self.head)).then(|| self.head.wrapping_add(skipped))
    }

    /// What stands at this position.
    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&Body<H>> {
        self.slots.get(self.index(at))?.as_ref()
    }

    /// Takes out what stands at this position.
    #[inline]
    pub(super) fn remove(&mut self, at: u32) -> Option<Body<H>> {
        let index = self.index(at);
        let body = self.slots.get_mut(index)?.take()?;
        while self.head != self.tail && self.get(self.head).is_none() {
            self.head = self.head.wrapping_add(1);
        }
        Some(body)
    }

    /// How many there are; takes time in proportion.
    pub(super) fn count(&self) -> usize {
        let used = self.tail.wrapping_sub(self.head);
        (0..used)
            .filter(|&n| self.get(self.head.wrapping_add(n)).is_some())
            .count()
    }
}

#[cfg(test)]
#[path = "fifo_tests.rs"]
mod tests;
