// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! One command under way: the memory of its caller, and the places where a test can step in.

use std::boxed::Box;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::prelude::rust_2021::*;
use std::sync::{Arc as Shared, Mutex};
use std::vec;

use bus1_core::bus::{self, Peer};
use kernel::alloc::{flags::GFP_KERNEL, KVec};
use kernel::error::{code::*, Result};
use kernel::sync::Arc;

use super::host::{File, Files, Pool, Test};
use super::Client;

/// The steps of a test at calls of the host; the first is run by the first call, and so on.
#[derive(Default)]
pub struct Script<'a>(RefCell<VecDeque<Box<dyn FnOnce() -> Result + 'a>>>);

impl<'a> Script<'a> {
    /// At the next call: does this, and fails if it does.
    pub fn then(self, step: impl FnOnce() -> Result + 'a) -> Self {
        self.0.borrow_mut().push_back(Box::new(step));
        self
    }

    fn step(&self) -> Result {
        let step = self.0.borrow_mut().pop_front();
        step.map_or(Ok(()), |step| step())
    }

    /// Steps that no call came for.
    pub fn left(&self) -> usize {
        self.0.borrow().len()
    }
}

/// The hooks that run in the middle of a command.
#[derive(Default)]
pub struct Hooks<'a> {
    /// Before the core's results are written to the caller.
    pub write: Script<'a>,
    /// Before the payload is copied: all destinations are reserved.
    pub copy: Script<'a>,
    /// Before descriptors are installed.
    pub install: Script<'a>,
}

impl<'a> Hooks<'a> {
    /// Steps in when a result is written.
    pub fn at_write(step: impl FnOnce() -> Result + 'a) -> Self {
        Self {
            write: Script::default().then(step),
            ..Self::default()
        }
    }

    /// Steps in when the payload is copied.
    pub fn at_copy(step: impl FnOnce() -> Result + 'a) -> Self {
        Self {
            copy: Script::default().then(step),
            ..Self::default()
        }
    }
}

const BASE: u64 = 0x1000;

/// The memory of a caller during one call.
#[derive(Default)]
pub(super) struct Arena(RefCell<Vec<u8>>);

impl Arena {
    pub(super) fn put(&self, bytes: &[u8]) -> u64 {
        let mut memory = self.0.borrow_mut();
        let addr = BASE + memory.len() as u64;
        memory.extend_from_slice(bytes);
        addr
    }

    pub(super) fn numbers<T: Copy, const N: usize>(
        &self,
        all: &[T],
        bytes: fn(T) -> [u8; N],
    ) -> u64 {
        let all: Vec<u8> = all.iter().flat_map(|&one| bytes(one)).collect();
        self.put(&all)
    }

    fn slot(memory: &mut [u8], addr: u64, len: usize) -> Result<&mut [u8]> {
        let start = addr.checked_sub(BASE).ok_or(EFAULT)? as usize;
        memory.get_mut(start..start + len).ok_or(EFAULT)
    }

    pub(super) fn get(&self, addr: u64, to: &mut [u8]) -> Result {
        to.copy_from_slice(Self::slot(&mut self.0.borrow_mut(), addr, to.len())?);
        Ok(())
    }

    fn set(&self, addr: u64, from: &[u8]) -> Result {
        Self::slot(&mut self.0.borrow_mut(), addr, from.len())?.copy_from_slice(from);
        Ok(())
    }
}

/// One command under way.
pub(super) struct Call<'a, 'h> {
    pub(super) client: &'a Client,
    pub(super) arena: &'a Arena,
    pub(super) hooks: &'a Hooks<'h>,
}

/// Payload of a message that is being sent.
pub(super) struct Bytes<'a, 'h> {
    arena: &'a Arena,
    hooks: &'a Hooks<'h>,
    vecs: Vec<(u64, u64)>,
}

impl bus::Payload<Test> for Bytes<'_, '_> {
    fn len(&self) -> u64 {
        self.vecs.iter().map(|vec| vec.1).sum()
    }

    fn copy_to(&mut self, pool: &Pool, mut offset: u64) -> Result {
        self.hooks.copy.step()?;
        for &(addr, len) in &self.vecs {
            let mut bytes = vec![0; len as usize];
            self.arena.get(addr, &mut bytes)?;
            bus::Pool::write(pool, offset, &bytes);
            offset += len;
        }
        Ok(())
    }
}

/// Descriptors that are given to a client, if they are kept.
pub(super) struct Installed {
    numbers: Vec<i32>,
    files: Vec<u32>,
    to: Shared<Mutex<Vec<(i32, u32)>>>,
}

impl bus::Installed for Installed {
    fn numbers(&self) -> &[i32] {
        &self.numbers
    }

    fn keep(self) {
        let open = self.numbers.iter().copied().zip(self.files);
        self.to.lock().unwrap().extend(open);
    }
}

impl<'a, 'h> bus::Caller<Test> for Call<'a, 'h> {
    type Payload = Bytes<'a, 'h>;
    type Installed = Installed;

    fn read(&self, addr: u64, to: &mut [u8]) -> Result {
        self.arena.get(addr, to)
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result {
        self.hooks.write.step()?;
        self.arena.set(addr, from)
    }

    fn payload(&self, addr: u64, n: usize) -> Result<Bytes<'a, 'h>> {
        let mut vecs = Vec::new();
        for i in 0..n as u64 {
            let (mut start, mut len) = ([0; 8], [0; 8]);
            self.arena.get(addr + 16 * i, &mut start)?;
            self.arena.get(addr + 16 * i + 8, &mut len)?;
            vecs.push((u64::from_ne_bytes(start), u64::from_ne_bytes(len)));
        }
        Ok(Bytes {
            arena: self.arena,
            hooks: self.hooks,
            vecs,
        })
    }

    fn files(&self, fds: &[i32]) -> Result<Files> {
        let mut files = KVec::with_capacity(fds.len(), GFP_KERNEL)?;
        for &fd in fds {
            let file = File {
                number: u32::try_from(fd).map_err(|_| EBADF)?,
                _live: self.client.world.files.clone(),
            };
            files.push(file, GFP_KERNEL)?;
        }
        Ok(Files(Arc::new(files, GFP_KERNEL)?))
    }

    fn peer(&self, fd: i32) -> Result<Arc<Peer<Test>>> {
        let peers = self.client.world.peers.lock().unwrap();
        peers.get(fd as usize).cloned().ok_or(EBADF)
    }

    fn install(&self, files: Files) -> Result<Installed> {
        self.hooks.install.step()?;
        let mut last = self.client.world.last_fd.lock().unwrap();
        let numbers = files.0.as_slice().iter().map(|_| {
            *last += 1;
            *last
        });
        Ok(Installed {
            numbers: numbers.collect(),
            files: files.0.as_slice().iter().map(|file| file.number).collect(),
            to: self.client.fds.clone(),
        })
    }
}
