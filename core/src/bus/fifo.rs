// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Messages to one destination alone, in the order in which they were committed.
//!
//! Most messages are such, and each is committed after all that are here. So they need no tree: what
//! comes is put on one stack, and where the other has run out it is turned over onto that, so that
//! sending and receiving take the same few steps on average however many wait. Who comes first to a
//! queue that has filled up turns all of it, in one go.
//!
//! # Invariants
//!
//! Timestamps rise from `first` down through `front`, and from there up through `back`. Without
//! `first` there is nothing in `front`, once [`Fifo::turn`] was called.

use kernel::prelude::*;

use super::host::Host;
use super::message::Message;
use super::queue::Body;

/// Messages that hang on each other.
pub(super) struct Stack<H: Host>(Option<KBox<Message<H>>>);

impl<H: Host> Stack<H> {
    pub(super) const EMPTY: Self = Self(None);

    #[inline]
    fn push(&mut self, mut message: KBox<Message<H>>) {
        message.next = self.0.take();
        self.0 = Some(message);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<KBox<Message<H>>> {
        let mut message = self.0.take()?;
        self.0 = message.next.take();
        Some(message)
    }

    fn count(&self) -> usize {
        core::iter::successors(self.0.as_deref(), |&message| message.next.as_deref()).count()
    }
}

// One after the other: each dropping the next would take as much of the call stack as there are.
impl<H: Host> Drop for Stack<H> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// See the module.
pub(super) struct Fifo<H: Host> {
    first: Option<(u64, Body<H>)>,
    front: Stack<H>,
    back: Stack<H>,
}

impl<H: Host> Fifo<H> {
    pub(super) const EMPTY: Self = Self { first: None, front: Stack::EMPTY, back: Stack::EMPTY };

    /// Appends what is committed at `at`.
    #[inline]
    pub(super) fn push(&mut self, at: u64, mut message: KBox<Message<H>>) {
        message.at = at;
        self.back.push(message);
    }

    /// Gets the first one ready to be looked at.
    #[inline]
    pub(super) fn turn(&mut self) {
        if self.first.is_some() {
            return;
        }
        let mut first = self.front.pop();
        if first.is_none() {
            while let Some(message) = self.back.pop() {
                if let Some(behind) = first.replace(message) {
                    self.front.push(behind);
                }
            }
        }
        self.first = first.map(|message| (message.at, Body::Data(message)));
    }

    /// The first one and its timestamp, once it is ready.
    #[inline]
    pub(super) fn first(&self) -> Option<(u64, &Body<H>)> {
        self.first.as_ref().map(|(at, body)| (*at, body))
    }

    /// Takes the first one.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Body<H>> {
        self.turn();
        Some(self.first.take()?.1)
    }

    /// Takes all out for which `stale` holds.
    pub(super) fn sift(&mut self, stale: impl Fn(&Message<H>) -> bool) -> Stack<H> {
        let (mut kept, mut out) = (Stack::EMPTY, Stack::EMPTY);
        while let Some(Body::Data(message)) = self.pop() {
            if stale(&message) {
                out.push(message);
            } else {
                kept.push(message);
            }
        }
        self.back = kept;
        out
    }

    /// How many there are; takes time in proportion.
    pub(super) fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.front.count() + self.back.count()
    }
}

#[cfg(test)]
#[path = "fifo_tests.rs"]
mod tests;
