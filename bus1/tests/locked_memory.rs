// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process whose memory is locked, with a limit that no pool fits below. It changes its whole
//! process, so it is the only test in it.

mod common;

use std::time::Duration;

use bus1::{Error, Event, Handle, Host, Peer};
use common::*;
use rustix::mm::{mlockall, munlockall, MlockAllFlags};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use rustix::thread::{capabilities, set_capabilities, CapabilitySet};

/// The most that the process may lock from now on, in bytes.
const LOCKED_MAX: u64 = 64 << 20;

/// Locks all memory that is mapped from now on, as far as the limit allows; then mmap(2) of more is
/// EAGAIN.
fn lock_memory() {
    // A privileged thread has no limit.
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
    let limit = getrlimit(Resource::Memlock);
    let most = limit
        .maximum
        .map_or(LOCKED_MAX, |most| most.min(LOCKED_MAX));
    let lower = Rlimit {
        current: Some(most),
        ..limit
    };
    setrlimit(Resource::Memlock, lower).unwrap();
    mlockall(MlockAllFlags::FUTURE).unwrap();
}

/// Calls in every way by which a message can be sent and something received.
fn calls(caller: &Peer, to: &Handle) -> Vec<(Error, bool)> {
    let soon = Duration::from_millis(1);
    let timeout = caller.call_timeout(to, &text(b"question"), soon);
    let call = caller.call(to, &text(b"question"));
    [timeout.map(drop), call.map(drop)]
        .into_iter()
        .map(|result| result.map_err(|error| (error.error(), error.sent())))
        .map(|result| result.expect_err("the receiver has no pool"))
        .collect()
}

/// Checks that nothing can be received by this peer, and that no error asks to try again.
fn cannot_receive(peer: &Peer) {
    let soon = Duration::from_millis(1);
    let results = [
        peer.try_recv().map(drop),
        peer.recv().map(drop),
        peer.recv_timeout(soon).map(drop),
        peer.recv_many([], 4).map(drop),
        peer.try_recv_many([], 4).map(drop),
        peer.recv_seed().map(drop),
    ];
    assert_eq!(results, [Err(Error::NoMemory); 6]);
    assert!(!Error::NoMemory.is_temporary());
}

#[test]
fn a_pool_that_cannot_be_mapped_is_out_of_memory() {
    let (owner, node, user, handle) = pair();
    // The user has its pool on either host; on the embedded one the owner has none.
    nothing(&user);
    lock_memory();

    match owner.host() {
        Host::Kernel => {
            // The kernel maps less of a pool, which does for what is in its beginning.
            let (late, late_node, sender, late_handle) = pair();
            sender.send(&late_handle, &text(b"beginning")).unwrap();
            assert_eq!(message(&late).payload(), b"beginning");
            drop(late_node);
        }
        _ => {
            assert_eq!(calls(&user, &handle), [(Error::NoMemory, false); 2]);
            assert_eq!(user.send(&handle, &text(b"")), Err(Error::NoMemory));
            cannot_receive(&owner);
        }
    }

    // It passes when the memory is not locked any more, and nothing was sent before.
    munlockall().unwrap();
    user.send(&handle, &text(b"unlocked")).unwrap();
    match owner.recv() {
        Ok(Event::Message(message)) => assert_eq!(message.payload(), b"unlocked"),
        other => panic!("{other:?}"),
    }
    nothing(&owner);
    drop(node);
}
