// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The binary interface: reads a command's argument, checks it, and calls the core.
//!
//! This is one client of the core among others: all that it does is in the functions of [`Peer`].
//! It is here, and not in a host, because the checks and their order are the same everywhere.
//!
//! Results are written to the caller before the step that they report becomes final.

use core::mem::offset_of;

use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::transmute::{AsBytes, FromBytes};

use crate::abi::*;
use crate::bus::allocation::GFP_CALL;
use crate::bus::command::destroy::Also;
use crate::bus::command::{Caller, Flush, Outgoing, Receiver};
use crate::bus::host::{Host, KillCheck, WakeHint};
use crate::bus::object::{ensure, Peer};
use crate::bus::quota::HANDLES;
use crate::errno::ESHUTDOWN;

/// Largest limit, and largest number of destinations, that a command takes.
const INT_MAX: u64 = i32::MAX as u64;
/// Most iovecs in a message.
const VECS_MAX: u64 = 1024;
/// Most bytes of an array that are read at once, between looks whether the caller was killed.
const ARRAY_CHUNK: usize = 4096;
/// The flags of SEND.
const SEND_FLAGS: u64 = SEND_FLAG_CONTINUE | SEND_FLAG_SEED | SEND_FLAG_ROOM;
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
        ensure(arg == 0, EINVAL)?;
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
        CMD_SEND => command.send(arg, WakeHint::Continues),
        CMD_RECV => command.recv(),
        CMD_EXCHANGE => command.exchange(),
        CMD_QUOTA => command.quota(),
        _ => Err(ENOTTY),
    }
}

/// Checks that no unknown flag is set.
///
/// # Errors
///
/// EINVAL.
pub(crate) fn check_flags(flags: u64, known: u64) -> Result {
    ensure(flags & !known == 0, EINVAL)
}

/// One call, with its argument still to be read.
pub(crate) struct Command<'c, H: Host, C: Caller<H>> {
    pub(crate) peer: &'c Arc<Peer<H>>,
    pub(crate) caller: &'c C,
    pub(crate) arg: u64,
}

impl<H: Host, C: Caller<H>> Command<'_, H, C> {
    /// Reads `N` bytes at `addr`.
    pub(crate) fn read<const N: usize>(&self, addr: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.caller.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads the argument.
    pub(crate) fn argument<const N: usize>(&self) -> Result<[u8; N]> {
        self.read(self.arg)
    }

    /// Returns the address of the field at this offset in the argument.
    pub(crate) fn field(&self, offset: usize) -> Result<u64> {
        self.arg.checked_add(offset as u64).ok_or(EFAULT)
    }

    /// Reads a number.
    pub(crate) fn number(&self, addr: u64) -> Result<u64> {
        Ok(u64::from_ne_bytes(self.read(addr)?))
    }

    /// Reads `n` elements at `addr`; the caller has bounded `n`.
    pub(crate) fn array<T>(&self, mut addr: u64, n: u64) -> Result<KVVec<T>>
    where
        T: AsBytes + FromBytes + Clone + Default,
    {
        let mut array = KVVec::from_elem(T::default(), n as usize, GFP_CALL)?;
        let mut kill_check = KillCheck::default();
        for chunk in array.as_bytes_mut().chunks_mut(ARRAY_CHUNK) {
            kill_check.step::<H>(1 + chunk.len() as u64 / 64)?;
            self.caller.read(addr, chunk)?;
            addr = addr.checked_add(chunk.len() as u64).ok_or(EFAULT)?;
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
        let known = PEER_RESET_FLAG_FLUSH | PEER_RESET_FLAG_FLUSH_SEED;
        check_flags(cmd.flags, known)?;
        ensure(cmd.peer_flags == u64::MAX, EINVAL)?;
        let given = [
            cmd.max_slices,
            cmd.max_handles,
            cmd.max_inflight_bytes,
            cmd.max_inflight_fds,
        ];
        let limits = given.map(|given| (given != KEEP).then_some(given));
        let fits = |&limit: &u32| u64::from(limit) <= INT_MAX;
        ensure(limits.iter().flatten().all(fits), EINVAL)?;
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
        ensure(cmd.dst_handle == HANDLE_INVALID, EINVAL)?;
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
        let most = self.peer.user.limits[HANDLES];
        ensure(cmd.n_nodes <= most, EINVAL)?;
        let also = match cmd.flags & NODES_DESTROY_FLAG_RELEASE_HANDLES {
            0 => Also::Nothing,
            _ => Also::Release,
        };
        if cmd.n_nodes == 1 {
            // A program that gives up a node has to succeed, so nothing is allocated for it.
            let node = self.number(cmd.ptr_nodes)?;
            return Peer::destroy_nodes(self.peer, &[node], also);
        }
        let nodes = self.array(cmd.ptr_nodes, cmd.n_nodes)?;
        Peer::destroy_nodes(self.peer, &nodes, also)
    }

    /// Sends the message that the argument of SEND at `addr` describes.
    #[inline]
    pub(crate) fn send(&self, addr: u64, hint: WakeHint) -> Result {
        let cmd = CmdSend::from_bytes(&self.read(addr)?);
        check_flags(cmd.flags, SEND_FLAGS)?;
        let few = cmd.n_vecs <= VECS_MAX && cmd.n_fds <= FD_MAX;
        ensure(few && cmd.n_destinations <= INT_MAX, EMSGSIZE)?;
        let most = self.peer.user.limits[HANDLES];
        ensure(cmd.n_destinations.max(cmd.n_handles) <= most, EINVAL)?;
        let mut payload = self.caller.payload(cmd.ptr_vecs, cmd.n_vecs as usize)?;
        if (cmd.flags, cmd.n_handles, cmd.n_fds, cmd.n_destinations) != (0, 0, 0, 1) {
            return self.send_any(&cmd, payload, hint);
        }
        let id = self.number(cmd.ptr_destinations)?;
        Peer::send_bytes(self.peer, id, &mut payload, hint).or_else(|error| {
            // All other errors are not the destination's fault.
            if cmd.ptr_errors != 0 && ![ESHUTDOWN, ENOMEM, EFAULT].contains(&error) {
                self.write_errors(cmd.ptr_errors, &mut core::iter::once(-error.to_errno()))?;
            }
            Err(error)
        })
    }

    /// Sends a message that is not plain bytes for one destination.
    fn send_any(&self, cmd: &CmdSend, payload: C::Payload, hint: WakeHint) -> Result {
        let handles = self.array(cmd.ptr_handles, cmd.n_handles)?;
        // A seed must not have any, so nobody looks at them.
        let seed = cmd.flags & SEND_FLAG_SEED != 0;
        let n = if seed { 0 } else { cmd.n_destinations };
        let destinations = self.array(cmd.ptr_destinations, n)?;
        let mut files = || {
            let fds = self.array(cmd.ptr_fds, cmd.n_fds)?;
            self.caller.files(&fds)
        };
        let partial = cmd.flags & SEND_FLAG_CONTINUE != 0;
        let waits = cmd.flags & SEND_FLAG_ROOM != 0;
        let out = Outgoing {
            destinations: &destinations,
            handles: &handles,
            files: (cmd.n_fds != 0).then_some(&mut files),
            payload,
            partial,
            waits,
            hint,
        };
        if seed {
            return Peer::send_seed(self.peer, out, cmd.n_destinations == 0 && !waits);
        }
        Peer::send(self.peer, out, &mut |errors| {
            if cmd.ptr_errors == 0 && !partial {
                return Ok(());
            }
            self.write_errors(cmd.ptr_errors, errors)
        })
    }

    fn write_errors(&self, mut addr: u64, errors: &mut dyn Iterator<Item = i32>) -> Result {
        let mut kill_check = KillCheck::default();
        loop {
            let mut bytes = [0; 256];
            let mut n = 0;
            for (bytes, error) in bytes.chunks_exact_mut(4).zip(&mut *errors) {
                bytes.copy_from_slice(&error.to_ne_bytes());
                n += 1;
            }
            if n == 0 {
                return Ok(());
            }
            self.caller.write(addr, &bytes[..4 * n])?;
            addr = addr.checked_add(4 * n as u64).ok_or(EFAULT)?;
            kill_check.step::<H>(n as u64)?;
        }
    }

    fn recv(&self) -> Result {
        let cmd = CmdRecv::from_bytes(&self.argument()?);
        check_flags(cmd.flags, RECV_FLAG_SEED | RECV_FLAG_INSTALL_FDS)?;
        let receiver = Receiver {
            caller: self.caller,
            msg_addr: self.field(offset_of!(CmdRecv, msg))?,
            write_count: None,
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
