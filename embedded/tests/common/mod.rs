// SPDX-License-Identifier: MIT OR Apache-2.0

//! A thin client for the tests: one function a command, on checked addresses.

#![allow(dead_code)] // Each test uses a part.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use bus1_embedded::abi::*;
use bus1_embedded::{Bus, Errno, Map, Peer};

/// A peer with its pool mapped. A clone is the same peer.
#[derive(Clone)]
pub struct Client {
    pub peer: Peer,
    pub map: Map,
}

/// A message as it was received.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub msg: Msg,
    pub bytes: Vec<u8>,
    pub handles: Vec<u64>,
    pub fds: Vec<i32>,
}

/// Address of an argument, as an ioctl takes it.
pub fn address<T>(argument: &mut T) -> usize {
    std::ptr::from_mut(argument).expose_provenance()
}

/// Address of memory, as a field of an argument.
pub fn pointer<T>(memory: &[T]) -> u64 {
    memory.as_ptr().expose_provenance() as u64
}

/// Vectors for some pieces of payload.
pub fn vectors(pieces: &[&[u8]]) -> Vec<[usize; 2]> {
    pieces
        .iter()
        .map(|piece| [pointer(piece) as usize, piece.len()])
        .collect()
}

/// Runs one command. The command checks whether the argument can be read and written.
pub fn ioctl(peer: &Peer, cmd: u32, arg: usize) -> Result<(), Errno> {
    // SAFETY: the tests give arguments of their own, which no other thread uses meanwhile, or
    // addresses at which nothing is mapped or can be written.
    unsafe { peer.ioctl_checked(cmd, arg) }
}

/// Returns a descriptor that was received.
pub fn own(fd: i32) -> OwnedFd {
    // SAFETY: the number was just given to this process, and only this test knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl Client {
    pub fn new(bus: &Bus) -> Self {
        let peer = bus.open().unwrap();
        let map = peer.pool().unwrap();
        Self { peer, map }
    }

    /// Gives `to` a handle on `id`, which is made if it is new.
    pub fn transfer(&self, id: u64, to: &Peer) -> Result<u64, Errno> {
        self.transfer_to(id, to.as_raw_fd() as u64)
    }

    pub fn transfer_to(&self, id: u64, dst_fd: u64) -> Result<u64, Errno> {
        let mut command = CmdHandleTransfer {
            src_handle: id,
            dst_fd,
            dst_handle: HANDLE_INVALID,
            ..Default::default()
        };
        ioctl(&self.peer, CMD_HANDLE_TRANSFER, address(&mut command))?;
        Ok(command.dst_handle)
    }

    pub fn send(
        &self,
        destinations: &[u64],
        pieces: &[&[u8]],
        handles: &[u64],
        fds: &[i32],
    ) -> Result<(), Errno> {
        let vecs = vectors(pieces);
        let mut command = CmdSend {
            ptr_destinations: pointer(destinations),
            n_destinations: destinations.len() as u64,
            ptr_vecs: pointer(&vecs),
            n_vecs: vecs.len() as u64,
            ptr_handles: pointer(handles),
            n_handles: handles.len() as u64,
            ptr_fds: pointer(fds),
            n_fds: fds.len() as u64,
            ..Default::default()
        };
        ioctl(&self.peer, CMD_SEND, address(&mut command))
    }

    /// Receives, and reads the slice, which stays.
    pub fn receive(&self) -> Result<Received, Errno> {
        let mut command = CmdRecv {
            flags: RECV_FLAG_INSTALL_FDS,
            max_offset: self.map.len() as u64,
            ..Default::default()
        };
        ioctl(&self.peer, CMD_RECV, address(&mut command))?;
        let msg = command.msg;
        let mut received = Received {
            msg,
            bytes: vec![0; msg.n_bytes as usize],
            handles: Vec::new(),
            fds: Vec::new(),
        };
        if msg.kind == MSG_DATA {
            assert!(self.map.read(msg.offset, &mut received.bytes));
            let mut at = msg.offset + msg.n_bytes.next_multiple_of(8);
            for _ in 0..msg.n_handles {
                let mut handle = [0; 8];
                assert!(self.map.read(at, &mut handle));
                received.handles.push(u64::from_ne_bytes(handle));
                at += 8;
            }
            for _ in 0..msg.n_fds {
                let mut fd = [0; 4];
                assert!(self.map.read(at, &mut fd));
                received.fds.push(i32::from_ne_bytes(fd));
                at += 4;
            }
        }
        Ok(received)
    }

    pub fn release_slice(&self, mut offset: u64) -> Result<(), Errno> {
        ioctl(&self.peer, CMD_SLICE_RELEASE, address(&mut offset))
    }

    pub fn disconnect(&self) -> Result<(), Errno> {
        ioctl(&self.peer, CMD_PEER_DISCONNECT, 0)
    }
}
