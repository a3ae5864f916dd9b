// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process without descriptors to spare. It has a binary of its own, because the limit concerns
//! the whole process.

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;

use bus1_embedded::{Bus, Errno};
use common::{own, Client};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// Returns the lowest number that is not in use.
fn lowest() -> i32 {
    File::open("/dev/null").unwrap().as_raw_fd()
}

#[test]
fn without_numbers_the_message_stays() {
    let bus = Bus::new().unwrap();
    let (owner, sender) = (Client::new(&bus), Client::new(&bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    let file = File::open("/dev/null").unwrap();
    let fds = [file.as_raw_fd(); 3];
    sender.send(&[handle], &[b"kept"], &[], &fds).unwrap();

    let limit = getrlimit(Resource::Nofile);
    let free = lowest();
    let tight = Rlimit {
        current: Some(free as u64 + 2),
        ..limit
    };
    setrlimit(Resource::Nofile, tight).unwrap();
    let refused = owner.receive();
    let left = lowest();
    let unsent = sender.send(&[handle], &[], &[], &fds);
    let closed = lowest();
    let unnamed = bus.open().and_then(|peer| {
        let _files = [File::open("/dev/null")?, File::open("/dev/null")?];
        Ok(peer.descriptor().err())
    });
    setrlimit(Resource::Nofile, limit).unwrap();

    assert_eq!(refused, Err(Errno::MFILE));
    assert_eq!(left, free, "all that were installed were closed again");
    assert_eq!(unsent, Err(Errno::MFILE));
    assert_eq!(closed, free, "all that were taken were closed again");
    assert_eq!(unnamed.unwrap(), Some(Errno::MFILE));

    let received = owner.receive().unwrap();
    assert_eq!(received.bytes, b"kept");
    assert_eq!(received.fds.len(), 3);
    received.fds.into_iter().map(own).for_each(drop);
    assert_eq!(owner.receive(), Err(Errno::AGAIN));
}
