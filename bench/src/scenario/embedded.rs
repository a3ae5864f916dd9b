// SPDX-License-Identifier: MIT OR Apache-2.0

//! The embedded host on the machine itself, against a channel of `crossbeam` into which each
//! payload is copied once.

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use bus1::Host;
use bus1_embedded::{Bus, Limits};
use bus1_uapi::Msg;
use crossbeam_channel::{bounded, Receiver, Sender};

use super::multicast::{self, RECEIVERS};
use super::unicast::{by_crate, pair, SIZES};
use crate::measure::{Bench, Point};
use crate::peer::{Cargo, Embedded, Exchange, Peer, NODE};
use crate::process::pin;

/// Messages that may be on their way to another thread.
const WINDOW: u64 = 256;
/// Messages that one EXCHANGE takes at most.
const BATCH: usize = 64;
/// The receiver that takes all that there is in one call.
pub const BATCHES: &str = "bus1 batch";
/// The channel whose buffers come back to be used again.
pub const REUSE: &str = "crossbeam reuse";

/// Runs one thread, two threads, many receivers, two pairs.
pub fn run(bench: &mut Bench) {
    let point = |scenario, implementation, param: usize, per_run: usize| Point {
        scenario,
        implementation,
        param: param as u64,
        per_run: per_run as u64,
    };
    for size in SIZES {
        let one = |implementation| point("embedded, one thread", implementation, size, 1);
        bench.run(one("bus1 raw"), || same_thread(size));
        bench.run(one("bus1 crate"), || by_crate(Host::Embedded, size));
        bench.run(one("crossbeam"), || crossbeam(size));
    }
    for size in SIZES {
        let two = |implementation| point("embedded, two threads", implementation, size, 1);
        bench.run(two("bus1 raw"), || peers_of_threads(size));
        bench.run(two(BATCHES), || batches_of_threads(size));
        bench.run(two("crossbeam"), || crossbeam_of_threads(size));
        bench.run(two(REUSE), || crossbeam_with_buffers(size));
    }
    for n in RECEIVERS {
        let many = |implementation| point("embedded, multicast", implementation, n, n);
        bench.run(many("bus1 raw"), || multicast(n));
        bench.run(many("crossbeam"), || crossbeam_multicast(n));
    }
    for pairs in [1, 2] {
        let pair = |implementation| point("embedded, scaling", implementation, pairs, 1);
        bench.run(pair("bus1 raw"), || peers_beside(pairs));
        bench.run(pair("crossbeam"), || beside(pairs, || crossbeam(64)));
        for (n, implementation) in BURSTS {
            let burst = point("embedded, scaling", implementation, pairs, n);
            bench.run(burst, || bursts_beside(pairs, n));
        }
    }
}

/// Returns a bus with limits that nothing here reaches.
fn bus() -> Result<Bus> {
    let most = i32::MAX as u32;
    let limits = Limits {
        slices: most,
        handles: most,
        bytes: u64::from(most),
        fds: most,
    };
    Bus::with_limits(limits).context("no bus")
}

fn open(bus: &Bus) -> Result<Peer<Embedded>> {
    Peer(Embedded(bus.open()?)).without_limits()
}

/// Measures SEND, RECV and SLICE_RELEASE.
pub fn same_thread(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let bus = bus()?;
    pair(open(&bus)?, open(&bus)?, size)
}

/// Measures a copy into the channel and out of it.
pub fn crossbeam(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (to, from) = channel();
    let payload = vec![1; size];
    Ok(move || {
        to.send(payload.clone())?;
        drop(std::hint::black_box(from.recv()?));
        Ok(())
    })
}

fn channel() -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    bounded(2 * WINDOW as usize)
}

/// Measures one SEND to all, and RECV and SLICE_RELEASE by each.
pub fn multicast(receivers: usize) -> Result<impl FnMut() -> Result<()>> {
    let bus = bus()?;
    multicast::peers(move || open(&bus), receivers)
}

/// Measures a copy for each receiver.
pub fn crossbeam_multicast(receivers: usize) -> Result<impl FnMut() -> Result<()>> {
    let channels: Vec<_> = (0..receivers).map(|_| channel()).collect();
    let payload = vec![1; 1 << 10];
    Ok(move || {
        for (to, _) in &channels {
            to.send(payload.clone())?;
        }
        for (_, from) in &channels {
            drop(std::hint::black_box(from.recv()?));
        }
        Ok(())
    })
}

/// A thread on another CPU that receives for ever. It ends when this is dropped, for which one more
/// message is needed.
struct Reader<S: FnMut() -> Result<()>> {
    send: S,
    sent: u64,
    /// Number of messages received when this was last looked at.
    seen: u64,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<S: FnMut() -> Result<()>> Reader<S> {
    /// `receive` waits for messages, and gives how many it took.
    fn start(send: S, mut receive: impl FnMut() -> Result<u64> + Send + 'static) -> Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, end) = (received.clone(), stop.clone());
        // On one CPU they would take turns, and the figure would be that of the scheduler.
        pin(0)?;
        let thread = thread::spawn(move || {
            pin(1).expect("no CPU for the receiver");
            while !end.load(Ordering::Acquire) {
                count.fetch_add(receive().expect("the receiver failed"), Ordering::Release);
            }
        });
        Ok(Self {
            send,
            sent: 0,
            seen: 0,
            received,
            stop,
            thread: Some(thread),
        })
    }

    /// Sends as soon as there is room in the window.
    fn send(&mut self) -> Result<()> {
        // Not looked at more often than needed: that would slow the receiver down.
        while self.sent - self.seen >= WINDOW {
            self.seen = self.received.load(Ordering::Acquire);
            if self.sent - self.seen < WINDOW {
                break;
            }
            // Without anyone to receive this would never end.
            anyhow::ensure!(
                self.thread.as_ref().is_some_and(|t| !t.is_finished()),
                "the receiver is gone"
            );
            thread::yield_now();
        }
        (self.send)()?;
        self.sent += 1;
        Ok(())
    }
}

impl<S: FnMut() -> Result<()>> Drop for Reader<S> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // If it fails the receiver is gone, too.
        let _ = (self.send)();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes a peer, and a function that sends to it from another one.
fn line(size: usize) -> Result<(impl FnMut() -> Result<()>, Peer<Embedded>)> {
    let bus = bus()?;
    let (from, to) = (open(&bus)?, open(&bus)?);
    let handle = to.transfer(NODE, &from.0)?;
    let payload = vec![1; size];
    let send = move || {
        let vec = [IoSlice::new(&payload)];
        from.send(&[handle], Cargo::payload(&vec))
    };
    Ok((send, to))
}

/// Measures RECV and SLICE_RELEASE in one thread, as fast as it can, while another one sends.
pub fn peers_of_threads(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (send, to) = line(size)?;
    let receive = move || loop {
        if let Some(msg) = to.try_recv(0)? {
            to.release(&msg)?;
            return Ok(1);
        }
        to.0 .0.wait(None);
    };
    let mut reader = Reader::start(send, receive)?;
    Ok(move || reader.send())
}

/// Sends from one thread to another that receives by EXCHANGE, which gives the slices of the call
/// before back, waits, and receives all that there is, up to [`BATCH`] messages.
pub fn batches_of_threads(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (send, to) = line(size)?;
    let mut msgs = [Msg::default(); BATCH];
    let mut held = Vec::with_capacity(BATCH);
    let receive = move || {
        let receive = Exchange {
            slices: &held,
            wait: true,
            ..Exchange::default()
        };
        let n = to.exchange(receive, &mut msgs)?;
        held.clear();
        held.extend(msgs[..n].iter().map(|msg| msg.offset));
        Ok(n as u64)
    };
    let mut reader = Reader::start(send, receive)?;
    Ok(move || reader.send())
}

/// Sends from one thread to another through a channel.
pub fn crossbeam_of_threads(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (to, from) = channel();
    let payload = vec![1; size];
    let send = move || Ok(to.send(payload.clone())?);
    let receive = move || {
        drop(std::hint::black_box(from.recv()?));
        Ok(1)
    };
    let mut reader = Reader::start(send, receive)?;
    Ok(move || reader.send())
}

/// Sends from one thread to another through a channel whose buffers come back by another one, so
/// that none is allocated here and freed there.
pub fn crossbeam_with_buffers(size: usize) -> Result<impl FnMut() -> Result<()>> {
    let (to, from) = channel();
    let (back, spare) = channel();
    let payload = vec![1; size];
    let send = move || {
        let mut buffer = spare.try_recv().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(&payload);
        Ok(to.send(buffer)?)
    };
    let receive = move || {
        back.send(std::hint::black_box(from.recv()?))?;
        Ok(1)
    };
    let mut reader = Reader::start(send, receive)?;
    Ok(move || reader.send())
}

/// A thread that works for ever beside the measured one. It ends when this is dropped.
struct Other {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Other {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Measures a pair of one bus, while `pairs - 1` others of the same bus and user are at work, all
/// at the default limits.
pub fn peers_beside(pairs: usize) -> Result<impl FnMut() -> Result<()>> {
    let bus = Bus::new().context("no bus")?;
    let open = move || anyhow::Ok(Peer(Embedded(bus.open()?)));
    beside(pairs, move || pair(open()?, open()?, 64))
}

/// Messages that a pair has under way in the scenario `embedded, scaling`, and their name.
const BURSTS: [(usize, &str); 2] = [(16, "bus1 bursts of 16"), (64, "bus1 bursts of 64")];

/// Measures bursts of `n` messages, each received when all of them are sent, as [`peers_beside`].
fn bursts_beside(pairs: usize, n: usize) -> Result<impl FnMut() -> Result<()>> {
    let bus = Bus::new().context("no bus")?;
    beside(pairs, move || {
        let [from, to] = [bus.open()?, bus.open()?].map(|peer| Peer(Embedded(peer)));
        let handle = to.transfer(NODE, &from.0)?;
        let payload = [1; 64];
        Ok(move || {
            let vec = [IoSlice::new(&payload)];
            for _ in 0..n {
                from.send(&[handle], Cargo::payload(&vec))?;
            }
            (0..n).try_for_each(|_| to.take())
        })
    })
}

/// Measures the body of one pair, while `pairs - 1` others are at work on CPUs of their own.
/// Channels share nothing for sure, so they show what the machine itself loses.
pub fn beside<B: FnMut() -> Result<()>>(
    pairs: usize,
    set_up: impl Fn() -> Result<B> + Send + Sync + 'static,
) -> Result<impl FnMut() -> Result<()>> {
    let set_up = Arc::new(set_up);
    let mut others = Vec::new();
    for cpu in 1..pairs {
        let set_up = set_up.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let end = stop.clone();
        let (ready, is_ready) = bounded(1);
        let thread = thread::spawn(move || {
            pin(cpu).expect("no CPU for another pair");
            // In the thread that drives it, so that the pair's memory is its own.
            let mut body = set_up().expect("another pair could not be set up");
            ready.send(()).expect("the pair that is measured is gone");
            while !end.load(Ordering::Relaxed) {
                body().expect("another pair failed");
            }
        });
        others.push(Other {
            stop,
            thread: Some(thread),
        });
        is_ready
            .recv()
            .context("another pair could not be set up")?;
    }
    pin(0)?;
    let mut body = set_up()?;
    Ok(move || {
        let _ = &others;
        body()
    })
}
