// SPDX-License-Identifier: MIT OR Apache-2.0

//! The round trip through Binder, by its bare interface: the client calls the context manager, two
//! processes on one CPU. Each side does one ioctl where the driver lets it.

use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{open, Mode, OFlags};
use rustix::io::{read, write, Errno};
use rustix::ioctl::{self, opcode, Opcode, Updater};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

use super::round_trip::{point, SCENARIO, SIZES};
use crate::measure::Bench;
use crate::process::Partner;
use crate::socket::pipe;

/// The device, which is there if the kernel has the module loaded.
const DEVICE: &str = "/dev/binder";
/// Bytes of the area in which messages are received.
const AREA: usize = 128 << 10;
/// All processes are on this one.
const CPU: usize = 0;
/// Number of times that a server tries to become the context manager.
const MANAGER_TRIES: u32 = 100;

/// `struct binder_write_read`.
#[repr(C)]
#[derive(Default)]
struct WriteRead {
    write_size: u64,
    write_consumed: u64,
    write_buffer: u64,
    read_size: u64,
    read_consumed: u64,
    read_buffer: u64,
}

/// Bytes of `struct binder_transaction_data`.
const TRANSACTION: usize = 64;
/// Offsets of the fields that matter here; the others stay 0. The target is handle 0, which is
/// always the context manager.
const DATA_SIZE: usize = 32;
const BUFFER: usize = 48;

const WRITE_READ: Opcode = opcode::read_write::<WriteRead>(b'b', 1);
const SET_CONTEXT_MGR: Opcode = opcode::write::<i32>(b'b', 7);

const BC_TRANSACTION: u32 = opcode::write::<[u8; TRANSACTION]>(b'c', 0) as u32;
const BC_REPLY: u32 = opcode::write::<[u8; TRANSACTION]>(b'c', 1) as u32;
const BC_FREE_BUFFER: u32 = opcode::write::<u64>(b'c', 3) as u32;
const BC_ENTER_LOOPER: u32 = opcode::none(b'c', 12) as u32;
const BR_TRANSACTION: u32 = opcode::read::<[u8; TRANSACTION]>(b'r', 2) as u32;
const BR_REPLY: u32 = opcode::read::<[u8; TRANSACTION]>(b'r', 3) as u32;
const BR_TRANSACTION_COMPLETE: u32 = opcode::none(b'r', 6) as u32;
const BR_NOOP: u32 = opcode::none(b'r', 12) as u32;
const BR_SPAWN_LOOPER: u32 = opcode::none(b'r', 13) as u32;

/// Runs all sizes, if the kernel has Binder.
pub fn run(bench: &mut Bench) {
    if !bench.wants(SCENARIO, "binder") {
        return;
    }
    if !Path::new(DEVICE).exists() {
        eprintln!("binder is left out: there is no {DEVICE}");
        return;
    }
    for size in SIZES {
        bench.run(point("binder", size), || round_trip(size));
    }
}

/// The end of one process.
struct Binder {
    fd: OwnedFd,
    area: *mut c_void,
    /// Commands for the next call.
    write: Vec<u8>,
    /// The message that was received last, which goes back with the next call.
    received: Option<u64>,
}

impl Binder {
    fn open() -> Result<Self> {
        let fd = open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.context("cannot open /dev/binder")?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address that the system chooses.
        let area = unsafe { mmap(std::ptr::null_mut(), AREA, ProtFlags::READ, flags, &fd, 0) };
        Ok(Self {
            area: area.context("cannot map the area of Binder")?,
            fd,
            write: Vec::with_capacity(256),
            received: None,
        })
    }

    fn become_manager(&self) -> Result<()> {
        for _ in 0..MANAGER_TRIES {
            let mut zero = 0_i32;
            // SAFETY: the command reads an integer.
            match unsafe { ioctl::ioctl(&self.fd, Updater::<SET_CONTEXT_MGR, _>::new(&mut zero)) } {
                // The manager of the round before is gone, and not yet cleared away.
                Err(Errno::BUSY) => sleep(Duration::from_millis(10)),
                done => return done.context("cannot become the context manager"),
            }
        }
        bail!("another process is the context manager of Binder");
    }

    fn command(&mut self, command: u32) {
        self.write.extend_from_slice(&command.to_ne_bytes());
    }

    /// Gives back what was received before.
    fn give_back(&mut self) {
        if let Some(buffer) = self.received.take() {
            self.command(BC_FREE_BUFFER);
            self.write.extend_from_slice(&buffer.to_ne_bytes());
        }
    }

    /// Adds a transaction, or an answer, with this payload.
    fn message(&mut self, command: u32, payload: &[u8]) {
        let mut data = [0; TRANSACTION];
        data[DATA_SIZE..][..8].copy_from_slice(&(payload.len() as u64).to_ne_bytes());
        let address = payload.as_ptr().expose_provenance() as u64;
        data[BUFFER..][..8].copy_from_slice(&address.to_ne_bytes());
        self.command(command);
        self.write.extend_from_slice(&data);
    }

    /// Does the commands, whose payload lives until this returns, and waits for the message
    /// `wanted`; gives the number of its bytes.
    fn call(&mut self, wanted: u32) -> Result<u64> {
        let mut results = [0_u8; 256];
        loop {
            let mut call = WriteRead {
                write_size: self.write.len() as u64,
                write_buffer: self.write.as_ptr().expose_provenance() as u64,
                read_size: results.len() as u64,
                read_buffer: results.as_mut_ptr().expose_provenance() as u64,
                ..WriteRead::default()
            };
            // SAFETY: both buffers are as long as the structure says and live until it returns.
            let done = unsafe { ioctl::ioctl(&self.fd, Updater::<WRITE_READ, _>::new(&mut call)) };
            match done {
                Err(Errno::INTR) => {}
                done => done.context("BINDER_WRITE_READ")?,
            }
            self.write.drain(..call.write_consumed as usize);
            if let Some(len) = self.take(&results[..call.read_consumed as usize], wanted)? {
                return Ok(len);
            }
        }
    }

    /// Looks for `wanted` in what came.
    fn take(&mut self, mut results: &[u8], wanted: u32) -> Result<Option<u64>> {
        let mut found = None;
        while let Some((result, rest)) = results.split_first_chunk() {
            let result = u32::from_ne_bytes(*result);
            // The number says how long what follows is.
            let (data, rest) = rest
                .split_at_checked((result >> 16 & 0x3fff) as usize)
                .context("a result of Binder is cut off")?;
            match result {
                BR_NOOP | BR_TRANSACTION_COMPLETE | BR_SPAWN_LOOPER => {}
                result if result == wanted => {
                    let word = |at: usize| {
                        let bytes = data[at..at + 8].try_into().expect("eight bytes");
                        u64::from_ne_bytes(bytes)
                    };
                    self.received = Some(word(BUFFER));
                    found = Some(word(DATA_SIZE));
                }
                other => bail!("Binder answered {other:#x}"),
            }
            results = rest;
        }
        Ok(found)
    }
}

impl Drop for Binder {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it.
        let _ = unsafe { munmap(self.area, AREA) };
    }
}

/// Answers every call with as many bytes, for ever. Says so to `ready` first.
fn serve(size: usize, ready: &impl AsFd) -> Result<()> {
    let mut binder = Binder::open()?;
    binder.become_manager()?;
    binder.command(BC_ENTER_LOOPER);
    let payload = vec![1; size];
    write(ready, b"!").context("write to a pipe")?;
    loop {
        let len = binder.call(BR_TRANSACTION)?;
        ensure!(len == size as u64, "{len} bytes in place of {size}");
        binder.give_back();
        binder.message(BC_REPLY, &payload);
    }
}

fn round_trip(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (from, to) = pipe(0)?;
    let server = Partner::start(CPU, || serve(size, &to))?;
    drop(to);
    let started = read(&from, &mut [0]).context("read from a pipe")?;
    ensure!(started == 1, "the Binder server did not start");
    let mut client = Binder::open()?;
    let payload = vec![1; size];
    Ok(move || {
        let _ = &server;
        client.give_back();
        client.message(BC_TRANSACTION, &payload);
        let len = client.call(BR_REPLY)?;
        ensure!(len == payload.len() as u64, "an answer of {len} bytes");
        Ok(())
    })
}
