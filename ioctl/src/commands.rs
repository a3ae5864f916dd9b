// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands on everything that executes them.

use bus1_uapi::{CMD_EXCHANGE, CMD_SEND};
use rustix::io::Result;

use crate::exchange::ExchangeArgs;
use crate::execute::Execute;
use crate::send::SendArgs;

/// The commands whose argument is a structure, on every peer that [executes](Execute).
pub trait Commands: Execute {
    /// Executes a command whose argument is a structure, or a number, that it reads and writes in
    /// place.
    ///
    /// # Errors
    ///
    /// The errors of the command.
    ///
    /// # Safety
    ///
    /// `T` is the structure of `cmd`, and its pointers are valid for all that the command does with
    /// them.
    #[inline]
    unsafe fn command<T>(&self, cmd: u32, arg: &mut T) -> Result<()> {
        // SAFETY: the structure is borrowed exclusively; the rest is the caller's promise.
        unsafe { self.ioctl(cmd, std::ptr::from_mut(arg).expose_provenance()) }
    }

    /// SEND: sends one message to all its destinations, in one transaction.
    ///
    /// # Errors
    ///
    /// The errors of SEND. The results that the argument has room for are written also then.
    #[inline]
    fn send(&self, args: &mut SendArgs<'_>) -> Result<()> {
        // SAFETY: all arrays are borrowed by the argument and as long as it says; what is written
        // is borrowed for that.
        unsafe { self.command(CMD_SEND, args.command_mut()) }
    }

    /// EXCHANGE: gives slices back, sends, waits and receives, in one call. Returns the number of
    /// messages that it received; their number is 0 only if there was no room for any.
    ///
    /// # Errors
    ///
    /// The errors of EXCHANGE. The argument says what is left to be done; EINTR asks for the same
    /// call again. EAGAIN and ETIMEDOUT mean that nothing came only where [nothing is
    /// left](ExchangeArgs::is_unsent) to be given back or sent.
    ///
    /// # Safety
    ///
    /// Nothing refers to the slices that it gives back.
    #[inline]
    unsafe fn exchange(&self, args: &mut ExchangeArgs<'_>) -> Result<usize> {
        // SAFETY: all arrays are borrowed by the argument and as long as it says; what is written
        // is borrowed for that. A call that failed left what is left of them.
        unsafe { self.command(CMD_EXCHANGE, args.command_mut()) }?;
        Ok(args.finish())
    }
}

impl<E: Execute + ?Sized> Commands for E {}

#[cfg(test)]
mod tests {
    use super::*;
    use bus1_uapi::{CmdExchange, CmdSend, Msg, EXCHANGE_FLAG_SEND};
    use rustix::io::Errno;
    use std::cell::Cell;

    /// Executes what a test says.
    struct Scripted<F>(F);

    impl<F: Fn(u32, usize) -> Result<()>> Execute for Scripted<F> {
        unsafe fn ioctl(&self, cmd: u32, arg: usize) -> Result<()> {
            (self.0)(cmd, arg)
        }
    }

    #[test]
    fn send_hands_over_its_structure() {
        let seen = Cell::new(CmdSend::default());
        let peer = Scripted(|cmd, arg| {
            assert_eq!(cmd, CMD_SEND);
            // SAFETY: it is what the command takes.
            seen.set(unsafe { std::ptr::with_exposed_provenance::<CmdSend>(arg).read() });
            Err(Errno::DQUOT)
        });
        // Also behind a trait object.
        let peer: &dyn Execute = &peer;
        let mut args = SendArgs::new().handles(&[8, 12]);
        assert_eq!(peer.send(&mut args), Err(Errno::DQUOT));
        assert_eq!(seen.get(), *args.command());
    }

    #[test]
    fn an_exchange_says_what_is_left_and_what_came() {
        let calls = Cell::new(0);
        let peer = Scripted(|cmd, arg| {
            assert_eq!(cmd, CMD_EXCHANGE);
            // SAFETY: it is what the command takes.
            let arg = unsafe { &mut *std::ptr::with_exposed_provenance_mut::<CmdExchange>(arg) };
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                arg.ptr_slices += 8;
                arg.n_slices -= 1;
                return Err(Errno::INTR);
            }
            assert_eq!((arg.n_slices, arg.flags), (1, EXCHANGE_FLAG_SEND));
            arg.n_msgs = 1;
            Ok(())
        });
        let mut room = [Msg::default(); 2];
        let mut args = ExchangeArgs::new()
            .release(&[0x10, 0x20])
            .send(SendArgs::new().destinations(&[7]))
            .receive(&mut room, 4096, 0);
        // SAFETY: there are no slices.
        assert_eq!(unsafe { peer.exchange(&mut args) }, Err(Errno::INTR));
        assert_eq!((args.slices_left(), args.is_unsent()), (1, true));
        // SAFETY: there are no slices of which references could be left.
        assert_eq!(unsafe { peer.exchange(&mut args) }, Ok(1));
        assert_eq!((args.slices_left(), args.is_unsent()), (0, false));
    }
}
