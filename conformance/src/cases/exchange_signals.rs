// SPDX-License-Identifier: MIT OR Apache-2.0

//! Signals, stops and deaths of EXCHANGE waiters, of processes that share a peer as well.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{mpsc, Barrier};
use std::time::{Duration, Instant};

use bus1_conformance_case::case;
use bus1_uapi as abi;

use crate::client::{Exchange, Peer};
use crate::env::{Env, PATIENCE};
use crate::host::Errno as E;
use crate::sys::process::{fork, Child, End};
use crate::sys::thread::{current, handle_signal, handled, monotonic, send_signal, state};

/// Handled, and system calls go on.
const RESTARTS: i32 = libc::SIGUSR1;
/// Handled, and system calls end.
const INTERRUPTS: i32 = libc::SIGUSR2;

/// Returns a slice that the peer has received.
fn held(peer: &Peer) -> u64 {
    let own = peer.new_node();
    peer.expect_sent(own, b"held");
    peer.expect_text(b"held").msg.offset
}

/// Returns the number of messages that wait.
fn queued(peer: &Peer) -> u64 {
    let counts = peer.door().counts();
    counts
        .iter()
        .find(|(name, _)| name == "queued")
        .expect("they are counted")
        .1
}

/// Runs `body` in a thread, and `act` with the thread's number once it sleeps there.
fn during<T: Send>(env: &Env, body: impl FnOnce() -> T + Send, act: impl FnOnce(i32)) -> T {
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let thread = scope.spawn(move || {
            tell.send(current()).unwrap();
            body()
        });
        let tid = told.recv().unwrap();
        env.wait_until_asleep(tid);
        act(tid);
        thread.join().unwrap()
    })
}

/// Returns when `holds` does. If that does not happen, disconnects `peer`, which ends all its
/// waits, and fails the case.
#[track_caller]
fn wait_until(peer: &Peer, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        if started.elapsed() > PATIENCE {
            let _ = peer.disconnect();
            panic!("it does not come");
        }
        std::thread::yield_now();
    }
}

/// Has a thread that waits for `peer` handle a signal.
fn interrupt(peer: &Peer, tid: i32, signal: i32) {
    let before = handled();
    send_signal(tid, signal);
    wait_until(peer, || handled() != before);
}

/// Releases a slice, asks, and waits for the answer.
fn question<'a>(peer: &'a Peer, to: u64, slice: u64, room: usize) -> Exchange<'a> {
    let message = peer.message().to(&[to]).bytes(b"question");
    peer.exchange()
        .release(&[slice])
        .send(message)
        .room(room)
        .patient()
}

#[case("abi.md#exchange-signals", kernel, alone)]
fn restarted_after_a_handler(env: &Env) {
    handle_signal(RESTARTS, true);
    let [a, b] = env.peers();
    let (to_a, to_b) = (b.handle_of(&a), a.handle_of(&b));
    for room in [1, 3] {
        let slice = held(&a);
        let messages = during(
            env,
            || question(&a, to_b, slice, room).expect_messages(),
            |tid| {
                for _ in 0..5 {
                    interrupt(&a, tid, RESTARTS);
                    env.wait_until_asleep(tid);
                }
                b.expect_text(b"question");
                b.expect_nothing();
                b.expect_sent(to_a, b"answer");
            },
        );
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].bytes, b"answer");
        b.expect_nothing();
    }
}

#[case("abi.md#exchange-signals", "abi.md#exchange-deadline", kernel, alone)]
fn deadline_survives_a_restart(env: &Env) {
    handle_signal(RESTARTS, true);
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let deadline = monotonic() + 200_000_000;
    let (over, end) = (AtomicBool::new(false), Barrier::new(2));
    let body = || {
        let slice = held(&a);
        let mut exchange = question(&a, to, slice, 1).until(deadline);
        let result = exchange.call();
        let now = monotonic();
        over.store(true, SeqCst);
        end.wait();
        (result, now, exchange.arg.flags)
    };
    // Signals as long as it waits, so a time that began anew with each would never be up.
    let (result, now, flags) = during(env, body, |tid| {
        while !over.load(SeqCst) {
            send_signal(tid, RESTARTS);
            std::thread::sleep(Duration::from_millis(1));
        }
        end.wait();
    });
    assert_eq!(
        (result, flags),
        (Err(E::TIMEDOUT), abi::EXCHANGE_FLAG_INSTALL_FDS)
    );
    assert!(now >= deadline);
    b.expect_text(b"question");
    b.expect_nothing();
}

#[case("abi.md#exchange-eintr", kernel, alone)]
fn interrupted_by_a_handler(env: &Env) {
    handle_signal(INTERRUPTS, false);
    let [a, b] = env.peers();
    let (to_a, to_b) = (b.handle_of(&a), a.handle_of(&b));
    let slice = held(&a);
    let body = || {
        let mut exchange = question(&a, to_b, slice, 2);
        let before = exchange.arg;
        let mut left = Vec::new();
        while let Err(errno) = exchange.call() {
            assert_eq!(errno, E::INTR);
            left.push(exchange.arg);
        }
        let n = exchange.arg.n_msgs;
        (before, left, n, exchange.messages().remove(0).bytes)
    };
    let (before, left, n, bytes) = during(env, body, |tid| {
        for _ in 0..3 {
            interrupt(&a, tid, INTERRUPTS);
            env.wait_until_asleep(tid);
        }
        b.expect_text(b"question");
        b.expect_nothing();
        b.expect_sent(to_a, b"answer");
    });
    let wanted = abi::CmdExchange {
        flags: before.flags & !abi::EXCHANGE_FLAG_SEND,
        ptr_slices: before.ptr_slices + 8,
        n_slices: 0,
        ..before
    };
    assert_eq!(left, [wanted; 3]);
    assert_eq!((n, &*bytes), (1, &b"answer"[..]));
    b.expect_nothing();
}

#[case("abi.md#exchange-passes", kernel, alone)]
fn interrupted_waiter_passes_it_on(env: &Env) {
    handle_signal(INTERRUPTS, false);
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..100 {
        // The errno of each, once it has returned, or 1.
        let ends = [AtomicU32::new(0), AtomicU32::new(0)];
        let over = Barrier::new(3);
        let body = |i: usize| {
            let result = a.exchange().room(1).patient().call();
            let end = result.map_or_else(|errno| errno.raw_os_error() as u32, |()| u32::MAX);
            ends[i].store(end, SeqCst);
            over.wait();
        };
        during(
            env,
            || body(0),
            |early| {
                during(
                    env,
                    || body(1),
                    |_| {
                        // The first to sleep is the first to be woken: interrupted at that moment.
                        std::thread::scope(|scope| {
                            scope.spawn(|| send_signal(early, INTERRUPTS));
                            b.expect_sent(to, b"for one of them");
                        });
                        wait_until(&a, || ends[0].load(SeqCst) != 0);
                        if ends[0].load(SeqCst) == u32::MAX {
                            b.expect_sent(to, b"for the other");
                        }
                        wait_until(&a, || ends[1].load(SeqCst) != 0);
                        over.wait();
                    },
                );
            },
        );
        assert_eq!(ends[1].load(SeqCst), u32::MAX);
        let first = ends[0].load(SeqCst);
        assert!(
            first == u32::MAX || first == libc::EINTR as u32,
            "errno {first}"
        );
        a.expect_nothing();
    }
}

/// Starts a process that waits for a message that says "go".
fn waiter(env: &Env, peer: &Peer) -> Child {
    peer.view();
    let child = fork(|| i32::from(peer.exchange().room(1).patient().expect_one().bytes != b"go"));
    env.wait_until_asleep(child.pid());
    child
}

#[case("abi.md#device-peer", "abi.md#exchange-use", kernel, alone)]
fn child_waits_on_an_inherited_peer(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let child = waiter(env, &a);
    b.expect_sent(to, b"go");
    assert_eq!(child.wait(), End::Exit(0));
    a.expect_nothing();
}

#[case("abi.md#exchange-signals", kernel, alone)]
fn stopped_and_continued(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let child = waiter(env, &a);
    let stop = || {
        child.signal(libc::SIGSTOP);
        wait_until(&a, || state(child.pid()) == Some('T'));
    };
    for _ in 0..3 {
        stop();
        child.signal(libc::SIGCONT);
        env.wait_until_asleep(child.pid());
    }
    stop();
    b.expect_sent(to, b"go");
    assert_eq!(queued(&a), 1);
    child.signal(libc::SIGCONT);
    assert_eq!(child.wait(), End::Exit(0));
}

#[case("abi.md#exchange-passes", kernel, alone)]
fn killed_waiter_takes_nothing(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let first = waiter(env, &a);
    let second = waiter(env, &a);
    first.kill();
    assert_eq!(first.wait(), End::Signal(libc::SIGKILL));
    b.expect_sent(to, b"go");
    assert_eq!(second.wait(), End::Exit(0));
    a.expect_nothing();

    let last = waiter(env, &a);
    last.kill();
    assert_eq!(last.wait(), End::Signal(libc::SIGKILL));
    b.expect_sent(to, b"for whoever is left");
    a.expect_text(b"for whoever is left");
}

#[case("abi.md#exchange-passes", kernel, alone)]
fn killed_waiter_has_sent(env: &Env) {
    let [a, b] = env.peers();
    let (to_a, to_b) = (b.handle_of(&a), a.handle_of(&b));
    let slice = held(&a);
    let child = fork(|| {
        question(&a, to_b, slice, 1).expect_one();
        0
    });
    env.wait_until_asleep(child.pid());
    child.kill();
    assert_eq!(child.wait(), End::Signal(libc::SIGKILL));
    b.expect_text(b"question");
    b.expect_nothing();
    assert_eq!(a.release_slice(slice), Err(E::NXIO));
    // The answer is for the remaining holder of the peer.
    b.expect_sent(to_a, b"answer");
    a.expect_text(b"answer");
    a.expect_nothing();
}

#[case("abi.md#exchange-passes", kernel, alone)]
fn killed_at_the_moment(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..30 {
        // The first to sleep is the first to be woken, and killed at that moment.
        let first = waiter(env, &a);
        let mut second = waiter(env, &a);
        std::thread::scope(|scope| {
            scope.spawn(|| first.kill());
            b.expect_sent(to, b"go");
        });
        first.wait();
        // Either waiter took the message: the killed one may have been faster.
        wait_until(&a, || queued(&a) == 0);
        if second.try_wait().is_none() {
            // Either it is about to end, or it needs another.
            b.expect_sent(to, b"go");
            wait_until(&a, || second.try_wait().is_some());
        }
        a.expect_all();
    }
}

/// Checks that the deadline is of the clock that the caller sees, which may differ from another
/// task's.
#[case("abi.md#exchange-deadline", kernel, alone)]
fn deadline_in_a_time_namespace(env: &Env) {
    const DAY: i64 = 24 * 60 * 60;
    for shift in [-1, DAY] {
        let peer = env.peer();
        let shifted = format!("monotonic {shift} 0\n");
        let child = fork(|| {
            // SAFETY: the process has one thread; a new time namespace is for its children.
            let made = unsafe { libc::unshare(libc::CLONE_NEWTIME) } == 0
                && std::fs::write("/proc/self/timens_offsets", &shifted).is_ok();
            if !made {
                return 2;
            }
            let inside = fork(|| {
                let (before, wait) = (monotonic(), 200_000_000);
                let ended = peer.exchange().room(1).until(before + wait).call();
                i32::from(ended != Err(E::TIMEDOUT) || monotonic() < before + wait)
            });
            match inside.wait() {
                End::Exit(status) => status,
                _ => 3,
            }
        });
        assert_eq!(child.wait(), End::Exit(0), "shifted by {shift} s");
    }
}
