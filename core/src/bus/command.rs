// SPDX-License-Identifier: GPL-2.0 OR MIT

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
use super::few::Few;
use super::host::{Caller, Host};
use super::message::Files;
use super::peer::Peer;
use super::recv::Receive;
use super::reset::Flush;
use super::send::Outgoing;
use super::GFP_KEPT;
use crate::abi::*;

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
        CMD_HANDLE_RELEASE => peer.release_handle(command.number()?),
        CMD_HANDLE_TRANSFER => command.handle_transfer(),
        CMD_NODES_DESTROY => command.nodes_destroy(),
        CMD_SLICE_RELEASE => peer.release_slice(command.number()?),
        CMD_SEND => command.send(),
        CMD_RECV => command.recv(),
        _ => Err(ENOTTY),
    }
}

fn check_flags(flags: u64, known: u64) -> Result {
    if flags & !known != 0 {
        return Err(EINVAL);
    }
    Ok(())
}

/// One call, with its argument still to be read.
struct Command<'c, H: Host, C: Caller<H>> {
    peer: &'c Arc<Peer<H>>,
    caller: &'c C,
    arg: u64,
}

impl<H: Host, C: Caller<H>> Command<'_, H, C> {
    /// Reads `N` bytes at `addr`.
    fn read<const N: usize>(&self, addr: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.caller.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    fn argument<const N: usize>(&self) -> Result<[u8; N]> {
        self.read(self.arg)
    }

    fn number(&self) -> Result<u64> {
        Ok(u64::from_ne_bytes(self.argument()?))
    }

    /// Reads `n` elements at `addr`; the caller has bounded `n`.
    fn array<const N: usize, T>(
        &self,
        mut addr: u64,
        n: u64,
        from: fn([u8; N]) -> T,
    ) -> Result<Few<T>> {
        let mut array = Few::with_capacity(n as usize, GFP_KERNEL)?;
        match n {
            0 => return Ok(array),
            1 => array.push(from(self.read(addr)?), GFP_KERNEL)?,
            _ => (),
        }
        while array.len() < n as usize {
            let mut chunk = [0; 256];
            let bytes = &mut chunk[..256.min((n as usize - array.len()) * N)];
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
        let [slices, handles, bytes, fds] = self.peer.limits()?.map(|limit| limit as u32);
        cmd.peer_flags = 0;
        cmd.max_slices = slices;
        cmd.max_handles = handles;
        cmd.max_inflight_bytes = bytes;
        cmd.max_inflight_fds = fds;
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

    fn send(&self) -> Result {
        let cmd = CmdSend::from_bytes(&self.argument()?);
        check_flags(cmd.flags, SEND_FLAG_CONTINUE | SEND_FLAG_SEED)?;
        if cmd.n_vecs > VECS_MAX || cmd.n_fds > FD_MAX || cmd.n_destinations > INT_MAX {
            return Err(EMSGSIZE);
        }
        let most = u64::from(self.peer.user_limits()[HANDLES]);
        if cmd.n_destinations > most || cmd.n_handles > most {
            return Err(EINVAL);
        }
        let payload = self.caller.payload(cmd.ptr_vecs, cmd.n_vecs as usize)?;
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
        let mut receiver = Receiver {
            caller: self.caller,
            msg_addr: self
                .arg
                .checked_add(offset_of!(CmdRecv, msg) as u64)
                .ok_or(EFAULT)?,
            max_offset: cmd.max_offset,
            wants_files: cmd.flags & RECV_FLAG_INSTALL_FDS != 0,
        };
        if cmd.flags & RECV_FLAG_SEED != 0 {
            Peer::recv_seed(self.peer, &mut receiver)
        } else {
            self.peer.recv(&mut receiver)
        }
    }
}

/// A RECV under way.
struct Receiver<'c, C> {
    caller: &'c C,
    msg_addr: u64,
    max_offset: u64,
    wants_files: bool,
}

impl<H: Host, C: Caller<H>> Receive<H> for Receiver<'_, C> {
    type Installed = C::Installed;

    fn max_offset(&self) -> u64 {
        self.max_offset
    }

    fn result(&mut self, msg: &Msg) -> Result {
        self.caller.write(self.msg_addr, &msg.to_bytes())
    }

    fn install(&mut self, files: &Files<H>) -> Result<Option<C::Installed>> {
        Ok(Some(self.caller.install(files)?))
    }

    fn wants_files(&self) -> bool {
        self.wants_files
    }
}
