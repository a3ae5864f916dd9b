// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The types of the host: memory of pools, files in flight, wake-ups.

use std::boxed::Box;
use std::cell::Cell;
use std::collections::VecDeque;
use std::prelude::rust_2021::*;
use std::sync::{Arc as Shared, Mutex};

use bus1_core::bus::{self, WakeHint};
use kernel::alloc::KVec;
use kernel::error::{code::*, Result};
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::Arc;

/// The host.
pub enum Test {}

impl bus::Host for Test {
    type Pool = Pool;
    type Files = Files;
    type Waker = Waker;

    fn is_killed() -> bool {
        LOOKS.set(LOOKS.get() + 1);
        if let Some(mut step) = AT_LOOK.take() {
            step();
            AT_LOOK.set(Some(step));
        }
        KILLED_AT
            .get()
            .is_some_and(|killed_at| LOOKS.get() >= killed_at)
    }

    fn uid() -> Option<u32> {
        UID.get()
    }
}

std::thread_local! {
    /// The user of this thread, if the host can tell.
    static UID: Cell<Option<u32>> = const { Cell::new(None) };
    /// How often calls of this thread looked whether it was killed.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
    /// The look at which it is.
    static KILLED_AT: Cell<Option<u64>> = const { Cell::new(None) };
    /// What others do at each look.
    static AT_LOOK: Cell<Option<Box<dyn FnMut()>>> = const { Cell::new(None) };
}

/// Has `step` run whenever a call of this thread looks whether it was killed, except in calls of
/// `step`, until this is called with None.
pub fn at_look(step: Option<Box<dyn FnMut()>>) {
    AT_LOOK.set(step);
}

/// Returns how often the calls that run looked whether their caller was killed.
pub fn looks() -> u64 {
    LOOKS.get()
}

/// Runs calls of a task of this user.
pub fn as_user<T>(uid: u32, calls: impl FnOnce() -> T) -> T {
    UID.set(Some(uid));
    let result = calls();
    UID.set(None);
    result
}

/// Runs calls that find at their `n`-th look that the caller was killed, or never. Returns their
/// result and the number of their looks.
pub fn killed_at<T>(n: Option<u64>, calls: impl FnOnce() -> T) -> (T, u64) {
    LOOKS.set(0);
    KILLED_AT.set(n);
    let result = calls();
    KILLED_AT.set(None);
    (result, LOOKS.get())
}

#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    pins: Vec<(u64, u64)>,
    /// Number of calls of `pin` from now on that succeed, if not all.
    failing: Option<u32>,
    /// Number of ranges of messages that failed.
    abandoned: usize,
    /// Memory below this offset may stay when nothing pins it.
    retained: u64,
    /// End of the memory that stayed.
    idle: u64,
    kept: Option<bus::KeptCharges>,
}

/// Memory of a pool. It checks that only pinned memory is used.
#[derive(Clone, Default)]
pub struct Pool(Shared<Mutex<Memory>>);

impl Memory {
    fn is_pinned(&self, offset: u64, len: u64) -> bool {
        let covers = |&(start, size): &(u64, u64)| start <= offset && offset + len <= start + size;
        self.pins.iter().any(covers)
    }

    fn check(&self, offset: u64, len: u64) {
        assert!(self.is_pinned(offset, len), "{offset}+{len} is not pinned");
    }
}

impl Pool {
    /// Makes the `n`-th next call of `pin` fail, counted from 0, and all after it.
    pub fn fail_pins_after(&self, n: Option<u32>) {
        self.0.lock().unwrap().failing = n;
    }

    /// Returns the number of ranges that were given back because their message failed.
    pub fn abandoned(&self) -> usize {
        self.0.lock().unwrap().abandoned
    }

    /// Returns the most bytes that the pool holds without a pin.
    pub fn idle(&self) -> u64 {
        self.0.lock().unwrap().idle
    }

    /// Returns the number of pinned ranges.
    pub fn pins(&self) -> usize {
        self.0.lock().unwrap().pins.len()
    }

    /// Reads memory as the owner sees it.
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        self.0.lock().unwrap().bytes[offset as usize..(offset + len) as usize].to_vec()
    }
}

impl bus::Pool for Pool {
    const SIZE: u64 = 1 << 16;

    fn pin(&self, offset: u64, len: u64) -> Result {
        let mut memory = self.0.lock().unwrap();
        match &mut memory.failing {
            Some(0) => return Err(ENOMEM),
            Some(left) => *left -= 1,
            None => (),
        }
        let end = (offset + len) as usize;
        if memory.bytes.len() < end {
            memory.bytes.resize(end, 0);
        }
        // Bytes that are not written show. A range that is pinned keeps its content.
        if !memory.is_pinned(offset, len) {
            memory.bytes[offset as usize..end].fill(0xee);
        }
        memory.pins.push((offset, len));
        Ok(())
    }

    fn unpin(&self, offset: u64, len: u64) {
        let mut memory = self.0.lock().unwrap();
        let place = memory.pins.iter().position(|&pin| pin == (offset, len));
        let place = place.expect("a range is unpinned that was not pinned");
        memory.pins.swap_remove(place);
        memory.idle = memory.idle.max((offset + len).min(memory.retained));
    }

    fn keep(&self, kept: bus::KeptCharges) {
        let last = self.0.lock().unwrap().kept.replace(kept);
        assert!(last.is_none(), "charges are kept once");
    }

    fn abandon(&self, offset: u64, len: u64) {
        self.0.lock().unwrap().abandoned += 1;
        self.unpin(offset, len);
    }

    fn retain(&self, end: u64) {
        let mut memory = self.0.lock().unwrap();
        assert!(memory.retained <= end, "a promise is taken back");
        memory.retained = end;
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let mut memory = self.0.lock().unwrap();
        memory.check(offset, bytes.len() as u64);
        memory.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn copy(&self, offset: u64, len: u64, to: &Self, to_offset: u64) {
        self.0.lock().unwrap().check(offset, len);
        let bytes = self.read(offset, len);
        to.write(to_offset, &bytes);
    }
}

pub(super) type Hook = Box<dyn FnOnce() + Send>;
pub(super) type Sleep = Box<dyn FnOnce() -> Result + Send>;

/// Counts wake-ups. A reader of the count sees what the wake-ups so far were for, as with every
/// host.
pub struct Waker {
    wakes: Atomic<u64>,
    /// Number of these by a caller that was about to sleep.
    yields: Atomic<u64>,
    /// A hook that the next wake-up runs first.
    hook: Mutex<Option<Hook>>,
    /// Hooks that run while somebody sleeps.
    sleeps: Mutex<VecDeque<Sleep>>,
    /// Lives as long as the peer.
    _peer: Shared<()>,
}

impl Waker {
    pub(super) fn new(live: &Shared<()>) -> Self {
        Self {
            wakes: Atomic::new(0),
            yields: Atomic::new(0),
            hook: Mutex::default(),
            sleeps: Mutex::default(),
            _peer: live.clone(),
        }
    }

    pub(super) fn wakes(&self) -> u64 {
        self.wakes.load(Acquire)
    }

    pub(super) fn yields(&self) -> u64 {
        self.yields.load(Acquire)
    }

    pub(super) fn hook(&self, hook: Hook) {
        *self.hook.lock().unwrap() = Some(hook);
    }

    pub(super) fn sleep(&self, sleep: Sleep) {
        self.sleeps.lock().unwrap().push_back(sleep);
    }
}

impl bus::Waker for Waker {
    fn wake(&self, hint: WakeHint) {
        self.wakes.fetch_add(1u64, Release);
        self.yields
            .fetch_add(u64::from(hint == WakeHint::Sleeps), Release);
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Runs the hook of the test in place of a sleep; after that the time is up.
    fn wait(&self, ready: &mut dyn FnMut() -> bool, _deadline: u64) -> Result {
        if ready() {
            return Ok(());
        }
        let sleep = self.sleeps.lock().unwrap().pop_front();
        sleep.map_or(Err(ETIMEDOUT), |sleep| sleep())
    }
}

/// A file in flight.
pub(super) struct File {
    pub(super) number: u32,
    pub(super) _live: Shared<()>,
}

/// The files of a message.
#[derive(Clone)]
pub struct Files(pub(super) Arc<KVec<File>>);

impl bus::Files for Files {
    fn count(&self) -> usize {
        self.0.len()
    }
}
