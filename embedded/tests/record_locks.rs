// SPDX-License-Identifier: MIT OR Apache-2.0

//! POSIX record locks of the process on a file that it sends: neither a SEND nor its failure nor
//! the end of the message drops them. A second process says whether they are there.

mod common;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use bus1_embedded::abi::*;
use bus1_embedded::{Bus, Errno};
use common::{address, ioctl, own, pointer, Client};
use rustix::fs::{fcntl_lock, FlockOperation};

/// The variable that turns this program into the second process: the file to look at.
const LOOK_AT: &str = "BUS1_TEST_RECORD_LOCK";
/// The reports of that process, as exit codes.
const LOCKED: i32 = 10;
const FREE: i32 = 11;

/// A file of which the process holds the lock.
struct Locked {
    file: File,
    path: PathBuf,
}

impl Locked {
    fn new(name: &str) -> Self {
        let file = format!("bus1-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(file);
        let file = File::create(&path).unwrap();
        let locked = Self { file, path };
        locked.lock();
        locked
    }

    fn lock(&self) {
        fcntl_lock(&self.file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(self.is_locked());
    }

    /// Returns whether another process finds the file locked.
    fn is_locked(&self) -> bool {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "second_process", "--nocapture"])
            .env(LOOK_AT, &self.path)
            .output()
            .unwrap()
            .status;
        match status.code() {
            Some(LOCKED) => true,
            Some(FREE) => false,
            other => panic!("the second process ended with {other:?}"),
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The second process, if the variable is set; otherwise there is nothing to test here.
#[test]
fn second_process() {
    let Some(path) = std::env::var_os(LOOK_AT) else {
        return;
    };
    let file = File::options().write(true).open(path).unwrap();
    let end = match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => FREE,
        Err(Errno::AGAIN | Errno::ACCESS) => LOCKED,
        Err(errno) => panic!("{errno}"),
    };
    std::process::exit(end);
}

fn pair(bus: &Bus) -> (Client, Client, u64) {
    let (owner, sender) = (Client::new(bus), Client::new(bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    (owner, sender, handle)
}

#[test]
fn a_message_that_is_sent_and_dropped_leaves_the_locks() {
    let bus = Bus::new().unwrap();
    let (owner, sender, handle) = pair(&bus);
    let locked = Locked::new("dropped");
    let fds = [locked.file.as_raw_fd(); 2];
    sender.send(&[handle], &[b"in flight"], &[], &fds).unwrap();
    assert!(locked.is_locked(), "SEND");

    // Received without its descriptors.
    let mut command = CmdRecv {
        max_offset: u64::MAX,
        ..Default::default()
    };
    ioctl(&owner.peer, CMD_RECV, address(&mut command)).unwrap();
    assert_eq!((command.msg.kind, command.msg.n_fds), (MSG_DATA, 0));
    assert!(locked.is_locked(), "RECV without descriptors");

    // Dropped unread, by the end of the receiver.
    sender.send(&[handle], &[], &[], &fds).unwrap();
    owner.disconnect().unwrap();
    drop(owner);
    assert!(locked.is_locked(), "disconnect");
}

#[test]
fn a_send_that_fails_leaves_the_locks() {
    let bus = Bus::new().unwrap();
    let (owner, sender, handle) = pair(&bus);
    let locked = Locked::new("failed");
    let good = locked.file.as_raw_fd();

    // At a later descriptor.
    let (socket, _other) = UnixStream::pair().unwrap();
    let refused = sender.send(&[handle], &[], &[], &[good, socket.as_raw_fd()]);
    assert_eq!(refused, Err(Errno::OPNOTSUPP));
    let refused = sender.send(&[handle], &[], &[], &[good, i32::MAX]);
    assert_eq!(refused, Err(Errno::BADF));
    assert!(locked.is_locked(), "a bad descriptor");

    // After all descriptors were taken: the payload cannot be read.
    let vecs = [[8_usize, 16]];
    let mut command = CmdSend {
        ptr_destinations: pointer(&[handle]),
        n_destinations: 1,
        ptr_vecs: pointer(&vecs),
        n_vecs: 1,
        ptr_fds: pointer(&[good]),
        n_fds: 1,
        ..Default::default()
    };
    let fault = ioctl(&sender.peer, CMD_SEND, address(&mut command));
    assert_eq!(fault, Err(Errno::FAULT));
    assert!(locked.is_locked(), "bad payload");

    // At the destination.
    owner.disconnect().unwrap();
    let gone = sender.send(&[handle], &[], &[], &[good]);
    assert_eq!(gone, Err(Errno::HOSTUNREACH));
    assert!(locked.is_locked(), "no receiver");
}

#[test]
fn a_received_descriptor_is_one_of_the_process() {
    let bus = Bus::new().unwrap();
    let (owner, sender, handle) = pair(&bus);
    let locked = Locked::new("received");
    let fds = [locked.file.as_raw_fd()];
    sender.send(&[handle], &[], &[], &fds).unwrap();
    let received: Vec<OwnedFd> = owner.receive().unwrap().fds.into_iter().map(own).collect();
    assert_eq!(received.len(), 1);
    assert!(locked.is_locked(), "RECV");
    // The receiver closes its own descriptor: so says POSIX, and so say the docs.
    drop(received);
    assert!(!locked.is_locked(), "close");
}
