// SPDX-License-Identifier: MIT OR Apache-2.0

//! The protocol of a peer's eventfd, in all interleavings: `src/event.rs` as it is, with stand-ins
//! for the eventfd and its lock, explored by loom.
//!
//! A receiver waits for an edge, receives until nothing is left, and waits for the next edge. loom
//! reports a receiver that waits for ever as a deadlock.

#[path = "../src/event.rs"]
mod event;

/// Stand-ins for the eventfd and its lock, as `src/eventfd.rs` has them.
mod eventfd {
    use loom::sync::Condvar;

    /// A lock of loom's.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    struct State {
        readable: bool,
        edges: u32,
    }

    /// An eventfd in memory that counts its edges.
    pub(crate) struct Eventfd {
        state: loom::sync::Mutex<State>,
        edge: Condvar,
    }

    impl Eventfd {
        pub(crate) fn new() -> Self {
            Self {
                state: loom::sync::Mutex::new(State {
                    readable: false,
                    edges: 0,
                }),
                edge: Condvar::new(),
            }
        }

        pub(crate) fn set(&self) {
            let mut state = self.state.lock().unwrap();
            assert!(!state.readable, "it is never set twice");
            state.readable = true;
            state.edges += 1;
            self.edge.notify_all();
        }

        pub(crate) fn clear(&self) {
            let mut state = self.state.lock().unwrap();
            assert!(state.readable, "it is never cleared twice");
            state.readable = false;
        }

        pub(crate) fn is_readable(&self) -> bool {
            self.state.lock().unwrap().readable
        }

        /// Waits until there were more edges than `seen`; returns how many there were.
        pub(crate) fn next_edge(&self, seen: u32) -> u32 {
            let mut state = self.state.lock().unwrap();
            while state.edges == seen {
                state = self.edge.wait(state).unwrap();
            }
            state.edges
        }
    }
}

use std::sync::Arc;

use event::Event;
use eventfd::{Eventfd, Mutex};

/// A peer: a queue of which only the length matters, and its eventfd.
struct Peer {
    queued: Mutex<u32>,
    event: Event,
    eventfd: Arc<Eventfd>,
}

impl Peer {
    fn new() -> Arc<Self> {
        let event = Event::new();
        let eventfd = Arc::new(Eventfd::new());
        event.attach(&eventfd);
        Arc::new(Self {
            queued: Mutex::new(0),
            event,
            eventfd,
        })
    }

    /// Returns whether something is in the queue.
    fn is_ready(&self) -> bool {
        *self.queued.lock() != 0
    }

    /// Sends a message; the wake-up comes later.
    fn send(&self) {
        *self.queued.lock() += 1;
        self.event.raise();
    }

    /// Receives a message; returns false if nothing is left.
    fn receive(&self) -> bool {
        let received = {
            let mut queued = self.queued.lock();
            let some = *queued != 0;
            *queued -= u32::from(some);
            some
        };
        if received {
            self.event.settle(|| self.is_ready());
        } else {
            self.event.rearm(|| self.is_ready());
        }
        received
    }

    /// Receives `messages`, edge by edge, from the moment when it saw `seen` edges.
    fn receive_by_edges(&self, messages: u32, mut seen: u32) {
        let mut received = 0;
        while received < messages {
            seen = self.eventfd.next_edge(seen);
            while self.receive() {
                received += 1;
            }
        }
    }
}

/// Explores the model with at most so many preemptions; each thread may be preempted anywhere.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn a_late_wake_up_hides_no_message() {
    // The eventfd is raised on an empty queue, and the receiver saw that edge.
    explore(8, || {
        let peer = Peer::new();
        peer.event.raise();
        let sender = loom::thread::spawn({
            let peer = peer.clone();
            move || peer.send()
        });
        if !peer.receive() {
            peer.receive_by_edges(1, 1);
        }
        sender.join().unwrap();
        assert!(!peer.is_ready());
    });
}

#[test]
fn every_message_of_two_senders_is_received() {
    explore(3, || {
        let peer = Peer::new();
        let senders = [1, 2].map(|messages| {
            let peer = peer.clone();
            loom::thread::spawn(move || (0..messages).for_each(|_| peer.send()))
        });
        peer.receive_by_edges(3, 0);
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn two_receivers_leave_no_message_without_an_edge() {
    explore(3, || {
        let peer = Peer::new();
        let threads = [
            loom::thread::spawn({
                let peer = peer.clone();
                move || (0..2).for_each(|_| peer.send())
            }),
            // A second receiver that does not wait.
            loom::thread::spawn({
                let peer = peer.clone();
                move || {
                    // It sends back the message that it receives.
                    if peer.receive() {
                        peer.send();
                    }
                }
            }),
        ];
        peer.receive_by_edges(2, 0);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn the_level_follows_the_queue() {
    explore(3, || {
        let peer = Peer::new();
        let sender = loom::thread::spawn({
            let peer = peer.clone();
            move || (0..2).for_each(|_| peer.send())
        });
        peer.receive();
        sender.join().unwrap();
        // All senders have returned.
        if peer.is_ready() {
            assert!(peer.eventfd.is_readable());
        }
        while peer.receive() {}
        assert!(!peer.eventfd.is_readable());
    });
}
