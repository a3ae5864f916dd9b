// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! EXCHANGE: several commands in one call, and the wait between them.
//!
//! Slices are released, then a message is sent, then messages are received, the first of which is
//! waited for. Each step is that of its own command. A completed step is taken off the argument,
//! and if the call fails, the rest is written to the caller: so it does nothing twice, whether the
//! program calls it again or the system does after a signal.
//!
//! Nothing is held while it waits, and no message is taken before it was written to the caller: the
//! messages of a caller that dies are left to the other tasks that have the peer.

use core::cell::Cell;
use core::mem::offset_of;

use kernel::prelude::*;

use crate::abi::*;
use crate::bus::command::dispatch::{check_flags, Command};
use crate::bus::command::{Caller, Receiver};
use crate::bus::host::{Host, WakeHint, Waker};
use crate::bus::object::ensure;

/// Most bytes that an argument may have beyond the size that is known here.
const BEYOND_MAX: u64 = 4096;

impl<H: Host, C: Caller<H>> Command<'_, H, C> {
    /// Carries out EXCHANGE.
    pub(crate) fn exchange(&self) -> Result {
        let mut left = CmdExchangeHead::from_bytes(&self.argument()?);
        if left.size != CmdExchange::SIZE as u64 {
            self.check_beyond(left.size, CmdExchange::SIZE)?;
        }
        check_flags(left.flags, EXCHANGE_FLAG_SEND | EXCHANGE_FLAG_INSTALL_FDS)?;
        ensure(left.n_slices.max(left.n_msgs) <= EXCHANGE_MAX, EMSGSIZE)?;
        self.exchange_steps(&mut left).or_else(|error| {
            let told = offset_of!(CmdExchangeHead, flags)..offset_of!(CmdExchangeHead, ptr_msgs);
            self.caller
                .write(self.field(told.start)?, &left.to_bytes()[told])?;
            Err(error)
        })
    }

    /// Checks the bytes of a larger argument beyond the size that is `known` here.
    #[cold]
    pub(crate) fn check_beyond(&self, size: u64, known: usize) -> Result {
        let n = size.wrapping_sub(known as u64);
        ensure(n <= BEYOND_MAX && n & 7 == 0, EINVAL)?;
        let beyond: KVVec<u64> = self.array(self.field(known)?, n / 8)?;
        ensure(beyond.iter().all(|&field| field == 0), E2BIG)
    }

    /// Carries out the steps, and takes each one off `left` when it is done.
    fn exchange_steps(&self, left: &mut CmdExchangeHead) -> Result {
        while left.n_slices != 0 {
            self.peer.release_slice(self.number(left.ptr_slices)?)?;
            left.ptr_slices = left.ptr_slices.wrapping_add(8);
            left.n_slices -= 1;
        }
        if left.flags & EXCHANGE_FLAG_SEND != 0 {
            let sleeps = left.n_msgs != 0 && left.deadline != DEADLINE_NOW;
            let hint = if sleeps {
                WakeHint::Sleeps
            } else {
                WakeHint::Continues
            };
            self.send(self.field(CmdExchangeHead::SIZE)?, hint)?;
            left.flags &= !EXCHANGE_FLAG_SEND;
        }
        let received = self.recv_several(left);
        if received != Err(EAGAIN) || left.deadline == DEADLINE_NOW {
            return received;
        }
        let received = self.wait(left);
        // Another task may still sleep although there is a message for it: the wake-up woke only
        // this one.
        if self.peer.waker().is_awaited() && self.peer.ready().readable {
            self.peer.wake();
        }
        received
    }

    /// Waits until a message is received, or the deadline passes.
    #[cold]
    fn wait(&self, left: &CmdExchangeHead) -> Result {
        loop {
            let waker = self.peer.waker();
            waker.wait(&mut || self.peer.ready().any(), left.deadline)?;
            let received = self.recv_several(left);
            if received != Err(EAGAIN) {
                return received;
            }
        }
    }

    /// Receives the messages that are ready, as far as there is room. Fails if there is none.
    fn recv_several(&self, left: &CmdExchangeHead) -> Result {
        let receiver = Receiver {
            caller: self.caller,
            msg_addr: left.ptr_msgs,
            write_count: None,
            max_offset: left.max_offset,
            wants_files: left.flags & EXCHANGE_FLAG_INSTALL_FDS != 0,
        };
        match left.n_msgs {
            // A caller with room for one message needs no count.
            1 => self.peer.recv(&receiver),
            most => self.recv_and_count(receiver, most),
        }
    }

    /// Receives at most `most` messages, and counts them in the argument.
    #[inline(never)]
    fn recv_and_count(&self, receiver: Receiver<'_, C>, most: u64) -> Result {
        let addr = self.field(offset_of!(CmdExchange, n_msgs))?;
        // `count` is written with the message that is being received; `written` is the number that
        // the argument has. A receipt that fails before its last step leaves it one behind.
        let count = Cell::new(0);
        let written = Cell::new(0);
        let write_count = || {
            let n: u64 = count.get();
            self.caller.write(addr, &n.to_ne_bytes())?;
            written.set(n);
            Ok(())
        };
        let mut receiver = Receiver {
            write_count: Some(&write_count),
            ..receiver
        };
        for n in 0..most {
            count.set(n + 1);
            match self.peer.recv(&receiver) {
                Ok(()) => (),
                Err(error) if n == 0 => return Err(error),
                // The message will come up again. A write that is not needed must not fail a call
                // that has received messages.
                Err(_) if written.get() == n => return Ok(()),
                // Another task took the next message after it was counted.
                Err(_) => return self.caller.write(addr, &n.to_ne_bytes()),
            }
            receiver.msg_addr = receiver.msg_addr.wrapping_add(Msg::SIZE as u64);
        }
        Ok(())
    }
}
