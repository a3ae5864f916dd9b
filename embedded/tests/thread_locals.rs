// SPDX-License-Identifier: MIT OR Apache-2.0

//! Peers in thread-locals: they are dropped while the thread-locals of the bus are destroyed,
//! before and after them. A panic of such a destructor aborts the process.

mod common;

use std::cell::RefCell;
use std::thread;

use bus1_embedded::{Bus, Errno, Usage};
use common::Client;

thread_local! {
    static FIRST: RefCell<Vec<Client>> = const { RefCell::new(Vec::new()) };
    static SECOND: RefCell<Vec<Client>> = const { RefCell::new(Vec::new()) };
}

/// The steps of a thread before its end. Thread-locals are destroyed in the reverse
/// order of their first use, so each order of these is another order of destruction.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Runs commands, so that the thread-locals of the bus are used.
    Commands,
    /// Puts a peer into the first thread-local.
    First,
    /// Puts a peer into the second one.
    Second,
}
use Step::{Commands, First, Second};

const ORDERS: [[Step; 3]; 6] = [
    [Commands, First, Second],
    [Commands, Second, First],
    [First, Commands, Second],
    [First, Second, Commands],
    [Second, Commands, First],
    [Second, First, Commands],
];

/// Sends a message from one peer to the other and receives it: wake-ups are noted and delivered.
fn exchange(from: &Client, to: &Client, id: u64) {
    let handle = to.transfer(id, &from.peer).unwrap();
    from.send(&[handle], &[b"hello"], &[], &[]).unwrap();
    assert_eq!(to.receive().unwrap().bytes, b"hello");
}

#[test]
fn peers_are_dropped_in_any_order() {
    for order in ORDERS {
        let bus = Bus::new().unwrap();
        // The peers are made here, so that the thread uses the bus only in the steps of its order.
        let [one, two, three] = [(); 3].map(|()| Client::new(&bus));
        // The end of one is a notice for the other, and for a peer that outlives both.
        let at_two = one.transfer(8, &two.peer).unwrap();
        let at_one = two.transfer(8, &one.peer).unwrap();
        let to_three = [&one, &two].map(|client| client.transfer(16, &three.peer).unwrap());
        // They have descriptors, so that the wake-ups of the end have to be delivered.
        for client in [&one, &two, &three] {
            client.peer.descriptor().unwrap();
        }
        thread::spawn({
            let bus = bus.clone();
            move || {
                let (mut one, mut two) = (Some(one), Some(two));
                for step in order {
                    match step {
                        Commands => exchange(&Client::new(&bus), &Client::new(&bus), 8),
                        First => FIRST.with_borrow_mut(|all| all.extend(one.take())),
                        Second => SECOND.with_borrow_mut(|all| all.extend(two.take())),
                    }
                }
            }
        })
        .join()
        .unwrap();

        // Both are gone, and the third one was notified of both.
        for handle in to_three {
            let gone = three.send(&[handle], &[b"anybody?"], &[], &[]);
            assert_eq!(gone, Err(Errno::HOSTUNREACH), "{order:?}");
            assert!(three.receive().is_ok(), "{order:?}");
        }
        assert_eq!(three.receive(), Err(Errno::AGAIN), "{order:?}");
        assert!(at_one != 0 && at_two != 0);
        drop(three);
        assert_eq!(bus.usage(), Usage::default(), "{order:?}");
    }
}
