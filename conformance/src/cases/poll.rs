// SPDX-License-Identifier: MIT OR Apache-2.0

//! The events that poll reports, and its wake-ups.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus1_conformance_case::case;
use bus1_uapi as abi;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::event::epoll::EventFlags;

use crate::client::{Limits, Peer};
use crate::env::{Env, PATIENCE};
use crate::host::{Errno as E, Events, Poller};

const IDLE: Events = Events {
    hangup: false,
    readable: false,
    writable: true,
    other: false,
};
const READY: Events = Events {
    readable: true,
    ..IDLE
};
const GONE: Events = Events {
    hangup: true,
    readable: false,
    writable: false,
    other: false,
};

/// An edge for each message that comes when nothing is left.
const BY_EDGE: EventFlags = EventFlags::IN.union(EventFlags::ET);
/// Messages that come at random pace.
const MESSAGES: u32 = 300_000;
/// Messages where each takes many times as long: in an emulated machine 300,000 take 90 s, and
/// without optimization even more.
const MESSAGES_SLOW: u32 = 60_000;
/// Longest pause between two of them, in spins: about as long as a receiver takes for one, so that
/// messages come at every point of what it does.
const PAUSE_MAX: u32 = 1_000;

#[case("abi.md#poll-out")]
fn fresh_peer_is_writable_only(env: &Env) {
    let peer = env.peer();
    assert_eq!(peer.events(), IDLE);
    peer.expect_nothing();
    assert_eq!(peer.events(), IDLE);
}

#[case("abi.md#poll-in")]
fn readable_as_long_as_something_is_ready(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).send().unwrap();
    b.message().to(&[to]).send().unwrap();
    assert_eq!(a.events(), READY);
    a.expect_data();
    assert_eq!(a.events(), READY);
    a.expect_data();
    assert_eq!(a.events(), IDLE);
    assert_eq!(b.events(), IDLE);
}

#[case("abi.md#poll-out")]
fn full_peer_is_still_writable(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    a.limit(Limits {
        slices: 2,
        ..Limits::KEEP
    })
    .unwrap();
    b.message().to(&[to]).send().unwrap();
    assert_eq!(b.message().to(&[to]).send(), Err(E::DQUOT));
    assert_eq!((a.events(), b.events()), (READY, IDLE));
}

#[case("abi.md#poll-hup")]
fn only_hangup_once_disconnected(env: &Env) {
    let peer = env.peer();
    peer.disconnect().unwrap();
    assert_eq!(peer.events(), GONE);
    let _ = peer.disconnect();
    assert_eq!(peer.events(), GONE);
}

#[case("abi.md#poll-hup")]
fn hangup_hides_ready_messages(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    b.message().to(&[to]).send().unwrap();
    a.disconnect().unwrap();
    assert_eq!(a.events(), GONE);
}

/// Runs `act` while another thread waits for `peer`, which must wake up readable.
fn wakes(peer: &Peer, act: impl FnOnce()) {
    assert!(!peer.events().readable);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| peer.door().poll(PATIENCE));
        // The waiter mostly sleeps by now. If not, it must see the event before it sleeps.
        std::thread::sleep(Duration::from_millis(5));
        act();
        let events = waiter.join().unwrap();
        assert!(events.readable && !events.hangup, "{events:?}");
    });
}

#[case("abi.md#poll-wake")]
fn message_wakes(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    for _ in 0..20 {
        wakes(&a, || b.message().to(&[to]).send().unwrap());
        a.expect_data();
    }
}

#[case("abi.md#poll-wake")]
fn notices_wake(env: &Env) {
    let [owner, holder] = env.peers();
    for _ in 0..10 {
        let (node, id) = owner.node_for(&holder);
        wakes(&owner, || holder.release(id).unwrap());
        owner.expect_node_release(node);
        let (node, id) = owner.node_for(&holder);
        wakes(&holder, || owner.destroy_and_release(&[node]).unwrap());
        holder.expect_node_destroy(id);
        let third = env.peer();
        let id = holder.handle_of(&third);
        wakes(&holder, || third.close());
        holder.expect_node_destroy(id);
    }
}

#[case("abi.md#poll-wake")]
fn multicast_wakes_every_receiver(env: &Env) {
    let sender = env.peer();
    let receivers: [Peer; 5] = env.peers();
    let to = receivers
        .each_ref()
        .map(|receiver| sender.handle_of(receiver));
    for _ in 0..10 {
        std::thread::scope(|scope| {
            let wait = |receiver: &Peer| {
                assert!(receiver.wait(PATIENCE), "a wake-up was lost");
                receiver.expect_data();
            };
            for receiver in &receivers {
                scope.spawn(move || wait(receiver));
            }
            std::thread::sleep(Duration::from_millis(2));
            sender.message().to(&to).send().unwrap();
        });
    }
}

#[case("abi.md#poll-wake")]
fn multicast_to_itself_wakes(env: &Env) {
    let [a, b] = env.peers();
    let to = a.handle_of(&b);
    let own = a.new_node();
    for _ in 0..10 {
        wakes(&a, || a.message().to(&[own, to]).send().unwrap());
        a.expect_data();
        b.expect_data();
    }
}

#[case("abi.md#poll-hup", "abi.md#poll-wake")]
fn disconnect_wakes_all_waiters(env: &Env) {
    let peer = env.peer();
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| peer.door().poll(PATIENCE)))
            .collect();
        std::thread::sleep(Duration::from_millis(5));
        peer.disconnect().unwrap();
        for waiter in waiters {
            assert!(waiter.join().unwrap().hangup);
        }
    });
}

#[case("abi.md#poll-in")]
fn refused_message_leaves_it_quiet(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    assert_eq!(b.message().to(&[to]).vector(16, 8).send(), Err(E::FAULT));
    assert_eq!(b.message().to(&[to, to]).send(), Err(E::NOTUNIQ));
    a.expect_nothing();
    assert_eq!(a.events(), IDLE);
}

/// Returns the next message, however long it takes to come.
fn next(peer: &Peer) -> Vec<u8> {
    loop {
        match peer.recv() {
            Ok(message) => {
                peer.release_slice(message.msg.offset).unwrap();
                return message.bytes;
            }
            Err(E::AGAIN) => assert!(peer.wait(PATIENCE), "a wake-up was lost"),
            Err(errno) => panic!("RECV says {errno:?}"),
        }
    }
}

#[case("abi.md#poll-wake")]
fn ping_pong_never_stalls(env: &Env) {
    let [a, b] = env.peers();
    let (to_a, to_b) = (b.handle_of(&a), a.handle_of(&b));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..500 {
                let bytes = next(&b);
                b.message().to(&[to_a]).bytes(&bytes).send().unwrap();
            }
        });
        for i in 0..500_u32 {
            a.message()
                .to(&[to_b])
                .bytes(&i.to_ne_bytes())
                .send()
                .unwrap();
            assert_eq!(next(&a), i.to_ne_bytes());
        }
    });
}

#[case("abi.md#poll-wake")]
fn many_senders_never_lose_a_wake_up(env: &Env) {
    let receivers: &[Peer; 2] = &env.peers();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let sender = env.peer();
                let to = receivers
                    .each_ref()
                    .map(|receiver| sender.handle_of(receiver));
                for i in 0..300 {
                    let to = if i % 4 == 0 { &to[..] } else { &to[..1] };
                    sender.message().to(to).bytes(b"wake").send().unwrap();
                    if i % 50 == 0 {
                        std::thread::yield_now();
                    }
                }
                // Notices of the end of the sender are not counted below.
                let _ = sender.flush(abi::PEER_RESET_FLAG_FLUSH);
            });
        }
        let count = |receiver: &Peer, all: usize| {
            let mut data = 0;
            while data < all {
                match receiver.recv() {
                    Ok(message) => data += usize::from(message.msg.kind == abi::MSG_DATA),
                    Err(E::AGAIN) => assert!(receiver.wait(PATIENCE), "a wake-up was lost"),
                    Err(errno) => panic!("RECV says {errno:?}"),
                }
            }
        };
        scope.spawn(move || count(&receivers[0], 900));
        count(&receivers[1], 225);
    });
}

#[case("abi.md#poll-spurious")]
fn two_waiters_share_the_work(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let done = AtomicBool::new(false);
    let got: usize = std::thread::scope(|scope| {
        let work = || {
            let mut mine = 0;
            while !done.load(Ordering::Acquire) {
                match a.recv() {
                    Ok(message) if message.bytes == b"end" => {
                        done.store(true, Ordering::Release);
                        // Wakes the other one.
                        b.message().to(&[to]).bytes(b"end").send().unwrap();
                    }
                    Ok(_) => mine += 1,
                    Err(E::AGAIN) => assert!(a.wait(PATIENCE), "a wake-up was lost"),
                    Err(errno) => panic!("RECV says {errno:?}"),
                }
            }
            mine
        };
        let threads = [scope.spawn(work), scope.spawn(work)];
        for _ in 0..300 {
            b.message().to(&[to]).bytes(b"work").send().unwrap();
        }
        b.message().to(&[to]).bytes(b"end").send().unwrap();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(got, 300);
}

#[case("abi.md#poll-in")]
fn epoll_follows_the_queue(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let poller = Poller::new(a.door(), EventFlags::IN);
    assert_eq!(poller.now(), None);
    b.message().to(&[to]).send().unwrap();
    assert_eq!(poller.now(), Some(EventFlags::IN));
    assert_eq!(poller.now(), Some(EventFlags::IN));
    a.expect_data();
    assert_eq!(poller.now(), None);
}

#[case("abi.md#poll-wake")]
fn every_arrival_at_a_drained_peer_is_an_edge(env: &Env) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let poller = Poller::new(a.door(), BY_EDGE);
    assert_eq!(poller.now(), None);
    for _ in 0..100 {
        b.message().to(&[to]).send().unwrap();
        assert_eq!(poller.now(), Some(EventFlags::IN), "an edge was lost");
        assert_eq!(poller.now(), None, "an edge is reported once");
        a.expect_data();
        a.expect_nothing();
    }
    let (node, id) = a.node_for(&b);
    b.release(id).unwrap();
    assert_eq!(poller.now(), Some(EventFlags::IN), "a notice is an edge");
    a.expect_node_release(node);
    a.expect_nothing();
    a.disconnect().unwrap();
    assert!(poller.now().is_some(), "the end is an edge");
    assert_eq!(a.events(), GONE);
}

/// Disconnects its peer, so that the sender ends with the receiver.
struct Disconnect<'a>(&'a Peer);

impl Drop for Disconnect<'_> {
    fn drop(&mut self) {
        let _ = self.0.disconnect();
    }
}

/// Sends all messages, each after a pause of random length.
fn send_at_random_pace(sender: &Peer, to: u64, messages: u32) {
    let mut random = SmallRng::seed_from_u64(1);
    for number in 0..messages {
        for _ in 0..random.random_range(0..PAUSE_MAX) {
            std::hint::spin_loop();
        }
        if random.random_ratio(1, 256) {
            std::thread::sleep(Duration::from_micros(50));
        }
        let bytes = number.to_ne_bytes();
        loop {
            match sender.message().to(&[to]).bytes(&bytes).send() {
                Ok(()) => break,
                // The receiver is slower than the quota allows.
                Err(E::DQUOT) => std::thread::yield_now(),
                // The receiver failed, and says why.
                Err(E::HOSTUNREACH) => return,
                Err(errno) => panic!("SEND says {errno:?}"),
            }
        }
    }
}

/// Receives until nothing is left, waits for the next event, and so on, while messages come at
/// random pace.
fn expect_every_message(env: &Env, flags: EventFlags) {
    let [a, b] = env.peers();
    let to = b.handle_of(&a);
    let poller = Poller::new(a.door(), flags);
    let messages = if env.on_kernel() || cfg!(debug_assertions) {
        MESSAGES_SLOW
    } else {
        MESSAGES
    };
    std::thread::scope(|scope| {
        let _disconnect = Disconnect(&a);
        scope.spawn(|| send_at_random_pace(&b, to, messages));
        let mut next = 0_u32;
        while next < messages {
            let event = poller.wait(PATIENCE);
            assert!(
                event.is_some(),
                "no event, while poll says {:?}, after {next} messages",
                a.events()
            );
            loop {
                match a.recv() {
                    Ok(message) => {
                        assert_eq!(message.bytes, next.to_ne_bytes());
                        a.release_slice(message.msg.offset).unwrap();
                        next += 1;
                    }
                    Err(E::AGAIN) => break,
                    Err(errno) => panic!("RECV says {errno:?}"),
                }
            }
        }
    });
}

#[case("abi.md#poll-wake")]
fn no_message_at_random_pace_lacks_an_edge(env: &Env) {
    expect_every_message(env, BY_EDGE);
}

#[case("abi.md#poll-wake")]
fn no_message_at_random_pace_is_overlooked(env: &Env) {
    expect_every_message(env, EventFlags::IN);
}
