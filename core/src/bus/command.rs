// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The binary interface: reads a command's argument, checks it, and calls the core.
//!
//! This is one client of the core among others: all that it does is in the functions of
//! [`Peer`]. It is here, and not in a host, because what is checked, and in which order, is the same
//! everywhere.
//!
//! Results are written to the caller before what they tell becomes final.

use core::mem::offset_of;

use kernel::prelude::*;
use kernel::sync::Arc;

use super::account::HANDLES;
use super::host::{Caller, Host};
use super::peer::Peer;
use super::recv::Receiver;
use super::reset::Flush;
use super::send::Outgoing;
use super::GFP_KEPT;
use crate::abi::*;
use crate::errno::ESHUTDOWN;

const INT_MAX: u64 = i32::MAX as u64;
/// Most iovecs in a message.
const VECS_MAX: u64 = 1024;
/// A limit that stays as it is.
const KEEP: u32 = u32::MAX;

/// Carries out one command of `peer` for `caller`.
pub fn dispatch<H: Host, C: Caller<H>>(
    peer: &Arc<Peer<H>>,
    caller: &C,
    cmd: u32,
    arg: u64,
) -> Result {
    if cmd == CMD_PEER_DISCONNECT {
        if arg != 0 {
            return Err(EINVAL);
        }
        return peer.disconnect();
    }
    peer.check_open()?;
    let command = Command { peer, caller, arg };
    match cmd {
        CMD_PEER_QUERY => command.peer_query(),
        CMD_PEER_RESET => command.peer_reset(),
        CMD_HANDLE_RELEASE => peer.release_handle(command.number(arg)?),
        CMD_HANDLE_TRANSFER => command.handle_transfer(),
        CMD_NODES_DESTROY => command.nodes_destroy(),
        CMD_SLICE_RELEASE => peer.release_slice(command.number(arg)?),
        CMD_SEND => {
            let mut bytes = [0; CmdSend::SIZE];
            caller.read(arg, &mut bytes)?;
            command.send(&bytes, false)
        }
        CMD_RECV => command.recv(),
        CMD_EXCHANGE => command.exchange(),
        _ => Err(ENOTTY),
    }
}

pub(super) fn check_flags(flags: u64, known: u64) -> Result {
    if flags & !known != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

/// One call, with its argument still to be read.
pub(super) struct Command<'c, H: Host, C: Caller<H>> {
    pub(super) peer: &'c Arc<Peer<H>>,
    pub(super) caller: &'c C,
    pub(super) arg: u64,
}

impl<H: Host, C: Caller<H>> Command<'_, H, C> {
    /// Reads `N` bytes at `addr`.
    pub(super) fn read<const N: usize>(&self, addr: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.caller.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn argument<const N: usize>(&self) -> Result<[u8; N]> {
        self.read(self.arg)
    }

    /// The address of what lies at this offset in the argument.
    pub(super) fn field(&self, offset: usize) -> Result<u64> {
        self.arg.checked_add(offset as u64).ok_or(EFAULT)
    }

    /// Reads a number.
    pub(super) fn number(&self, addr: u64) -> Result<u64> {
        Ok(u64::from_ne_bytes(self.read(addr)?))
    }

    /// Reads `n` elements at `addr`; the caller has bounded `n`.
    pub(super) fn array<const N: usize, T>(
        &self,
        mut addr: u64,
        n: u64,
        from: fn([u8; N]) -> T,
    ) -> Result<KVVec<T>> {
        let n = n as usize;
        let mut array = KVVec::with_capacity(n, GFP_KERNEL)?;
        while array.len() < n {
            let mut chunk = [0; 256];
            let bytes = &mut chunk[..256.min((n - array.len()) * N)];
            self.caller.read(addr, bytes)?;
            addr = addr.checked_add(bytes.len() as u64).ok_or(EFAULT)?;
            for element in bytes.chunks_exact(N) {
                let mut copy = [0; N];
                copy.copy_from_slice(element);
                array.push(from(copy), GFP_KERNEL)?;
            }
        }
        Ok(array)
    }

    fn peer_query(&self) -> Result {
        let mut cmd = CmdPeerReset::from_bytes(&self.argument()?);
        check_flags(cmd.flags, 0)?;
        cmd.peer_flags = 0;
        [
            cmd.max_slices,
            cmd.max_handles,
            cmd.max_inflight_bytes,
            cmd.max_inflight_fds,
        ] = self.peer.limits()?.map(|limit| limit as u32);
        self.caller.write(self.arg, &cmd.to_bytes())
    }

    fn peer_reset(&self) -> Result {
        let cmd = CmdPeerReset::from_bytes(&self.argument()?);
        check_flags(
            cmd.flags,
            PEER_RESET_FLAG_FLUSH | PEER_RESET_FLAG_FLUSH_SEED,
        )?;
        if cmd.peer_flags != u64::MAX {
            return Err(EINVAL);
        }
        let given = [
            cmd.max_slices,
            cmd.max_handles,
            cmd.max_inflight_bytes,
            cmd.max_inflight_fds,
        ];
        let limits = given.map(|given| (given != KEEP).then_some(given));
        if limits
            .iter()
            .flatten()
            .any(|&limit| u64::from(limit) > INT_MAX)
        {
            return Err(EINVAL);
        }
        let flush = Flush {
            all: cmd.flags & PEER_RESET_FLAG_FLUSH != 0,
            seed: cmd.flags & PEER_RESET_FLAG_FLUSH_SEED != 0,
        };
        self.peer.reset(limits, flush)
    }

    fn handle_transfer(&self) -> Result {
        let cmd = CmdHandleTransfer::from_bytes(&self.argument()?);
        check_flags(cmd.flags, 0)?;
        let to = if cmd.dst_fd == u64::MAX {
            self.peer.clone()
        } else {
            let fd = i32::try_from(cmd.dst_fd).map_err(|_| EBADF)?;
            self.caller.peer(fd)?
        };
        to.check_open()?;
        if cmd.dst_handle != HANDLE_INVALID {
            return Err(EINVAL);
        }
        Peer::transfer_handle(self.peer, cmd.src_handle, &to, &mut |id| {
            let cmd = CmdHandleTransfer {
                dst_handle: id,
                ..cmd
            };
            self.caller.write(self.arg, &cmd.to_bytes())
        })
    }

    fn nodes_destroy(&self) -> Result {
        let cmd = CmdNodesDestroy::from_bytes(&self.argument()?);
        check_flags(cmd.flags, NODES_DESTROY_FLAG_RELEASE_HANDLES)?;
        if cmd.n_nodes > u64::from(self.peer.user_limits()[HANDLES]) {
            return Err(EINVAL);
        }
        let nodes = self.array(cmd.ptr_nodes, cmd.n_nodes, u64::from_ne_bytes)?;
        let release = cmd.flags & NODES_DESTROY_FLAG_RELEASE_HANDLES != 0;
        Peer::destroy_nodes(self.peer, &nodes, release)
    }

    /// `yields`: the caller sleeps next.
    #[inline]
    pub(super) fn send(&self, cmd: &[u8; CmdSend::SIZE], yields: bool) -> Result {
        let cmd = CmdSend::from_bytes(cmd);
        check_flags(cmd.flags, SEND_FLAG_CONTINUE | SEND_FLAG_SEED)?;
        if cmd.n_vecs > VECS_MAX || cmd.n_fds > FD_MAX || cmd.n_destinations > INT_MAX {
            return Err(EMSGSIZE);
        }
        let most = u64::from(self.peer.user_limits()[HANDLES]);
        if cmd.n_destinations > most || cmd.n_handles > most {
            return Err(EINVAL);
        }
        let mut payload = self.caller.payload(cmd.ptr_vecs, cmd.n_vecs as usize)?;
        if (cmd.flags, cmd.n_handles, cmd.n_fds, cmd.n_destinations) != (0, 0, 0, 1) {
            return self.send_any(&cmd, payload);
        }
        let id = self.number(cmd.ptr_destinations)?;
        Peer::send_bytes(self.peer, id, &mut payload, yields).or_else(|error| {
            // All others are not the destination's fault.
            if cmd.ptr_errors != 0 && ![ESHUTDOWN, ENOMEM, EFAULT].contains(&error) {
                self.write_errors(cmd.ptr_errors, &mut core::iter::once(-error.to_errno()))?;
            }
            Err(error)
        })
    }

    /// The way of those that are not just bytes for one.
    fn send_any(&self, cmd: &CmdSend, payload: C::Payload) -> Result {
        let handles = self.array(cmd.ptr_handles, cmd.n_handles, u64::from_ne_bytes)?;
        // A seed must not have any, so nobody looks at them.
        let seed = cmd.flags & SEND_FLAG_SEED != 0;
        let n = if seed { 0 } else { cmd.n_destinations };
        let destinations = self.array(cmd.ptr_destinations, n, u64::from_ne_bytes)?;
        let mut files = || {
            let fds = self.array(cmd.ptr_fds, cmd.n_fds, i32::from_ne_bytes)?;
            let mut files = KVec::with_capacity(fds.len(), GFP_KERNEL)?;
            for &fd in fds.iter() {
                files.push(self.caller.file(fd)?, GFP_KERNEL)?;
            }
            Ok(Arc::new(files, GFP_KEPT)?)
        };
        let partial = cmd.flags & SEND_FLAG_CONTINUE != 0;
        let out = Outgoing {
            destinations: &destinations,
            handles: &handles,
            files: (cmd.n_fds != 0).then_some(&mut files),
            payload,
            partial,
        };
        if seed {
            return Peer::send_seed(self.peer, out, cmd.n_destinations == 0);
        }
        Peer::send(self.peer, out, &mut |errors| {
            if cmd.ptr_errors == 0 && !partial {
                return Ok(());
            }
            self.write_errors(cmd.ptr_errors, errors)
        })
    }

    fn write_errors(&self, mut addr: u64, errors: &mut dyn Iterator<Item = i32>) -> Result {
        loop {
            let mut bytes = [0; 256];
            let mut len = 0;
            for (bytes, error) in bytes.chunks_exact_mut(4).zip(&mut *errors) {
                bytes.copy_from_slice(&error.to_ne_bytes());
                len += 4;
            }
            if len == 0 {
                return Ok(());
            }
            self.caller.write(addr, &bytes[..len])?;
            addr = addr.checked_add(len as u64).ok_or(EFAULT)?;
        }
    }

    fn recv(&self) -> Result {
        let cmd = CmdRecv::from_bytes(&self.argument()?);
        check_flags(cmd.flags, RECV_FLAG_SEED | RECV_FLAG_INSTALL_FDS)?;
        let receiver = Receiver {
            caller: self.caller,
            msg_addr: self.field(offset_of!(CmdRecv, msg))?,
            count: None,
            max_offset: cmd.max_offset,
            wants_files: cmd.flags & RECV_FLAG_INSTALL_FDS != 0,
        };
        if cmd.flags & RECV_FLAG_SEED != 0 {
            Peer::recv_seed(self.peer, &receiver)
        } else {
            self.peer.recv(&receiver)
        }
    }
}
