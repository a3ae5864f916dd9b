// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process without a number left for a descriptor. It limits its whole process, so it is
//! the only test in it.

mod common;

use std::fs::File;

use bus1::{Error, Event};
use common::*;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

#[test]
fn a_message_stays_until_its_descriptors_can_be_installed() {
    let (owner, _node, user, handle) = pair();
    owner.descriptor().unwrap();
    let file = File::open("/dev/null").unwrap();
    for _ in 0..2 {
        user.send(&handle, &text(b"two").fd(&file).fd(&file))
            .unwrap();
    }

    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(64),
            ..limit
        },
    )
    .unwrap();
    let mut taken = Vec::new();
    let mut leave_one = || {
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        taken.pop();
    };

    leave_one();
    assert_eq!(owner.try_recv().unwrap_err(), Error::TooManyDescriptors);
    match owner.try_recv_without_fds() {
        Ok(Some(Event::Message(first))) => assert_eq!(first.payload(), b"two"),
        other => panic!("{other:?}"),
    }
    // On the embedded host those in flight had numbers of this process.
    leave_one();
    assert_eq!(owner.try_recv().unwrap_err(), Error::TooManyDescriptors);
    drop(taken);
    let second = message(&owner);
    assert_eq!((second.payload(), second.fds().len()), (&b"two"[..], 2));
}
