// SPDX-License-Identifier: MIT OR Apache-2.0

//! The argument of EXCHANGE, and how far the command came.
//!
//! Invariant: after each call the structure holds what is left to be done, whether the call
//! succeeded or failed; so the same argument again does the rest, and nothing twice.

use std::marker::PhantomData;

use bus1_uapi::{CmdExchange, Msg, DEADLINE_NOW, EXCHANGE_FLAG_INSTALL_FDS, EXCHANGE_FLAG_SEND};

use crate::send::{address, address_mut, SendArgs};

/// The argument of EXCHANGE: slices to give back, a message to send, room for messages to receive,
/// all borrowed.
///
/// Without a call to one of its methods it does nothing, and does not wait.
///
/// ```
/// use bus1_ioctl::{ExchangeArgs, SendArgs};
/// use bus1_uapi::{Msg, DEADLINE_NEVER};
///
/// let mut messages = [Msg::default(); 4];
/// let args = ExchangeArgs::new()
///     .release(&[0x1000, 0x2000])
///     .send(SendArgs::new().destinations(&[3]))
///     .receive(&mut messages, 1 << 32, DEADLINE_NEVER);
/// assert_eq!((args.slices_left(), args.is_unsent()), (2, true));
/// ```
#[derive(Debug)]
pub struct ExchangeArgs<'a> {
    command: CmdExchange,
    borrowed: PhantomData<(&'a [u64], SendArgs<'a>, &'a mut [Msg])>,
}

impl Default for ExchangeArgs<'_> {
    #[inline]
    fn default() -> Self {
        Self {
            command: CmdExchange {
                size: CmdExchange::SIZE as u64,
                deadline: DEADLINE_NOW,
                ..Default::default()
            },
            borrowed: PhantomData,
        }
    }
}

impl<'a> ExchangeArgs<'a> {
    /// Makes an exchange that does nothing.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the slices to give back, by their offsets, at most `EXCHANGE_MAX`.
    #[inline]
    #[must_use]
    pub fn release(mut self, offsets: &'a [u64]) -> Self {
        self.command.ptr_slices = address(offsets);
        self.command.n_slices = offsets.len() as u64;
        self
    }

    /// Sets the message to send.
    #[inline]
    #[must_use]
    pub fn send(mut self, message: SendArgs<'a>) -> Self {
        self.command.flags |= EXCHANGE_FLAG_SEND;
        self.command.send = *message.command();
        self
    }

    /// Sets the room for messages to receive, at most `EXCHANGE_MAX`; how many bytes of the pool
    /// the caller has mapped; and until when to wait for the first message: nanoseconds of
    /// `CLOCK_MONOTONIC`, `DEADLINE_NOW` or `DEADLINE_NEVER`.
    #[inline]
    #[must_use]
    pub fn receive(mut self, room: &'a mut [Msg], mapped: u64, deadline: u64) -> Self {
        self.command.ptr_msgs = address_mut(room);
        self.command.n_msgs = room.len() as u64;
        self.command.max_offset = mapped;
        self.command.deadline = deadline;
        self
    }

    /// Has the descriptors of received messages installed. Otherwise they are dropped.
    #[inline]
    #[must_use]
    pub fn install_fds(mut self) -> Self {
        self.command.flags |= EXCHANGE_FLAG_INSTALL_FDS;
        self
    }

    /// Returns whether the message is still to be sent: there is one, and no call has sent it.
    #[inline]
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.command.flags & EXCHANGE_FLAG_SEND != 0
    }

    /// Returns the number of slices, the last ones, that are still to be given back.
    #[inline]
    #[must_use]
    pub fn slices_left(&self) -> usize {
        self.command.n_slices as usize
    }

    /// Leaves out the first slice that is still to be given back, if there is one.
    pub fn skip_slice(&mut self) {
        if self.command.n_slices != 0 {
            self.command.ptr_slices += size_of::<u64>() as u64;
            self.command.n_slices -= 1;
        }
    }

    /// Returns the structure, to be looked at or copied. A copy is not tied to what it points to.
    #[inline]
    #[must_use]
    pub fn command(&self) -> &CmdExchange {
        &self.command
    }

    /// Returns the structure, for the command itself.
    #[inline]
    pub(crate) fn command_mut(&mut self) -> &mut CmdExchange {
        &mut self.command
    }

    /// Notes that a call has done everything, and returns how many messages it brought.
    #[inline]
    pub(crate) fn finish(&mut self) -> usize {
        let CmdExchange {
            flags,
            ptr_slices,
            n_slices,
            n_msgs,
            ..
        } = &mut self.command;
        *flags &= !EXCHANGE_FLAG_SEND;
        (*ptr_slices, *n_slices) = (0, 0);
        std::mem::take(n_msgs) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus1_uapi::DEADLINE_NEVER;

    #[test]
    fn every_part_has_its_own_fields() {
        let offsets = [0x10, 0x20];
        let mut room = [Msg::default(); 3];
        let at = room.as_mut_ptr().expose_provenance() as u64;
        let args = ExchangeArgs::new()
            .release(&offsets)
            .send(SendArgs::new().flags(2).destinations(&[7]))
            .receive(&mut room, 4096, DEADLINE_NEVER)
            .install_fds();
        let command = args.command();
        assert_eq!(command.size, 144);
        assert_eq!(
            command.flags,
            EXCHANGE_FLAG_SEND | EXCHANGE_FLAG_INSTALL_FDS
        );
        assert_eq!(command.ptr_slices, offsets.as_ptr().addr() as u64);
        assert_eq!((command.ptr_msgs, command.n_msgs), (at, 3));
        assert_eq!(
            (command.max_offset, command.deadline),
            (4096, DEADLINE_NEVER)
        );
        assert_eq!((command.send.flags, command.send.n_destinations), (2, 1));
    }

    #[test]
    fn slices_are_left_out_from_the_front() {
        let offsets = [0x10, 0x20];
        let mut args = ExchangeArgs::new().release(&offsets);
        args.skip_slice();
        assert_eq!(args.slices_left(), 1);
        assert_eq!(
            args.command().ptr_slices,
            offsets[1..].as_ptr().addr() as u64
        );
        args.skip_slice();
        args.skip_slice();
        assert_eq!(args.slices_left(), 0);
    }

    #[test]
    fn a_finished_step_leaves_nothing() {
        let offsets = [0x10];
        let mut args = ExchangeArgs::new()
            .release(&offsets)
            .send(SendArgs::new().destinations(&[7]));
        assert!(args.is_unsent());
        assert_eq!(args.finish(), 0);
        assert_eq!((args.is_unsent(), args.slices_left()), (false, 0));
        assert_eq!((args.command().flags, args.command().n_msgs), (0, 0));
    }
}
