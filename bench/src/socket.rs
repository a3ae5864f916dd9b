// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sockets and pipes, which bus1 is measured against.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use rustix::io::{read, write};
use rustix::net::{
    recv, recvmsg, send, sendmsg, socketpair, sockopt, AddressFamily, RecvAncillaryBuffer,
    RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType,
};
use rustix::pipe::{fcntl_setpipe_size, pipe_with, PipeFlags};

/// A pair of connected AF_UNIX sockets that keep messages apart.
pub struct Pair {
    /// One end.
    pub a: OwnedFd,
    /// The other.
    pub b: OwnedFd,
}

impl Pair {
    /// Makes a pair with room for messages of `size` bytes, for which root may go beyond the
    /// system's limit.
    pub fn new(size: usize) -> Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .context("socketpair")?;
        if size > 32 << 10 {
            for end in [&a, &b] {
                sockopt::set_socket_send_buffer_size_force(end, 4 * size)
                    .context("SO_SNDBUFFORCE (run as root)")?;
            }
        }
        Ok(Self { a, b })
    }
}

/// Sends one message whole.
pub fn put(end: &impl AsFd, bytes: &[u8]) -> Result<()> {
    let sent = send(end, bytes, SendFlags::empty()).context("send")?;
    ensure!(sent == bytes.len(), "send took a part of the message");
    Ok(())
}

/// Receives one message of a known length; blocks until there is one.
pub fn get(end: &impl AsFd, bytes: &mut [u8]) -> Result<()> {
    let len = bytes.len();
    let (_, got) = recv(end, bytes, RecvFlags::empty()).context("recv")?;
    ensure!(got == len, "recv gave {got} bytes in place of {len}");
    Ok(())
}

/// Sends a message of one byte with one descriptor.
pub fn put_fd(end: &impl AsFd, fd: &impl AsFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    let pushed = control.push(SendAncillaryMessage::ScmRights(&fds));
    ensure!(pushed, "no space for a descriptor");
    let vecs = [IoSlice::new(b"x")];
    sendmsg(end, &vecs, &mut control, SendFlags::empty()).context("sendmsg")?;
    Ok(())
}

/// Receives such a message, and closes the descriptor.
pub fn get_fd(end: &impl AsFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut vecs = [IoSliceMut::new(&mut byte)];
    recvmsg(end, &mut vecs, &mut control, RecvFlags::CMSG_CLOEXEC).context("recvmsg")?;
    let mut got = 0;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            got += fds.count();
        }
    }
    ensure!(got == 1, "recvmsg gave {got} descriptors in place of one");
    Ok(())
}

/// Returns a pipe, with room for `size` bytes: both ends, reading first.
pub fn pipe(size: usize) -> Result<(OwnedFd, OwnedFd)> {
    let (from, to) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
    if size > 64 << 10 {
        fcntl_setpipe_size(&to, size).context("F_SETPIPE_SZ")?;
    }
    Ok((from, to))
}

/// Writes all bytes at once.
pub fn put_pipe(end: &impl AsFd, bytes: &[u8]) -> Result<()> {
    let wrote = write(end, bytes).context("write to a pipe")?;
    ensure!(wrote == bytes.len(), "the pipe took a part of the message");
    Ok(())
}

/// Reads until all bytes are there.
pub fn get_pipe(end: &impl AsFd, mut bytes: &mut [u8]) -> Result<()> {
    while !bytes.is_empty() {
        let got = read(end, &mut *bytes).context("read from a pipe")?;
        ensure!(got > 0, "the pipe ended");
        bytes = &mut bytes[got..];
    }
    Ok(())
}
