// SPDX-License-Identifier: MIT OR Apache-2.0

//! Descriptors: those that travel with messages, and those that stand for peers.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use bus1_embedded::abi::*;
use bus1_embedded::{Bus, Errno};
use common::{address, ioctl, own, Client};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};

/// Returns whether poll(2) calls a descriptor readable now.
fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).unwrap() == 1
}

/// Returns an owner, a sender and the sender's handle.
fn pair(bus: &Bus) -> (Client, Client, u64) {
    let (owner, sender) = (Client::new(bus), Client::new(bus));
    let handle = owner.transfer(8, &sender.peer).unwrap();
    (owner, sender, handle)
}

#[test]
fn files_travel() {
    let bus = Bus::new().unwrap();
    let (owner, sender, handle) = pair(&bus);
    let (mut reader, writer) = rustix::pipe::pipe()
        .map(|(reader, writer)| (File::from(reader), writer))
        .unwrap();
    let numbers = [writer.as_raw_fd(), writer.as_raw_fd()];
    sender
        .send(&[handle], &[b"odd"], &[8 + 8], &numbers)
        .unwrap();
    drop(writer);

    let received = owner.receive().unwrap();
    assert_eq!(received.msg.n_fds, 2);
    assert_eq!(received.bytes, b"odd");
    let files: Vec<File> = received.fds.into_iter().map(|fd| own(fd).into()).collect();
    for mut file in files {
        let flags = rustix::io::fcntl_getfd(&file).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        file.write_all(b"through").unwrap();
    }
    // All ends are closed, so this comes to an end.
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "throughthrough");
}

#[test]
fn files_that_are_not_received_are_closed() {
    let bus = Bus::new().unwrap();
    let (owner, sender, handle) = pair(&bus);
    let (mut reader, writer) = rustix::pipe::pipe()
        .map(|(reader, writer)| (File::from(reader), writer))
        .unwrap();
    sender
        .send(&[handle], &[], &[], &[writer.as_raw_fd()])
        .unwrap();
    sender
        .send(&[handle], &[], &[], &[writer.as_raw_fd()])
        .unwrap();
    drop(writer);
    let mut command = CmdRecv {
        max_offset: u64::MAX,
        ..Default::default()
    };
    ioctl(&owner.peer, CMD_RECV, address(&mut command)).unwrap();
    assert_eq!(command.msg.n_fds, 0);
    drop(owner);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn kinds_that_could_form_cycles_are_refused() {
    let bus = Bus::new().unwrap();
    let (owner, sender, handle) = pair(&bus);
    let send = |fd: &dyn AsRawFd| sender.send(&[handle], &[], &[], &[fd.as_raw_fd()]);

    let (socket, _other) = UnixStream::pair().unwrap();
    assert_eq!(send(&socket), Err(Errno::OPNOTSUPP));
    assert_eq!(send(&owner.peer), Err(Errno::OPNOTSUPP));
    let duplicate = owner.peer.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(send(&duplicate), Err(Errno::OPNOTSUPP));
    let elsewhere = Bus::new().unwrap().open().unwrap();
    assert_eq!(send(&elsewhere), Err(Errno::OPNOTSUPP));
    assert_eq!(owner.receive(), Err(Errno::AGAIN));

    // Others of the same make are fine.
    send(&eventfd(0, EventfdFlags::CLOEXEC).unwrap()).unwrap();
    send(&rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap())
        .unwrap();
    send(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    send(&std::io::stdin()).unwrap();
    // So is a mere path to one of the former.
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let path: OwnedFd =
        rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    send(&path).unwrap();

    for bad in [-1, i32::MIN, i32::MAX] {
        assert_eq!(
            sender.send(&[handle], &[], &[], &[bad]),
            Err(Errno::BADF),
            "{bad}"
        );
    }
}

#[test]
fn io_uring_is_refused() {
    let bus = Bus::new().unwrap();
    let (_owner, sender, handle) = pair(&bus);
    let mut parameters = [0u64; 15];
    // SAFETY: the parameters are as long as the system's structure, and zero.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if ring < 0 {
        // The system has none, so there is nothing to refuse; any other error is a failure.
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap();
        assert!([libc::ENOSYS, libc::EPERM].contains(&errno), "{errno}");
        return;
    }
    let ring = own(ring as i32);
    let refused = sender.send(&[handle], &[], &[], &[ring.as_raw_fd()]);
    assert_eq!(refused, Err(Errno::OPNOTSUPP));
}

#[test]
fn a_peer_is_found_by_any_of_its_numbers() {
    let bus = Bus::new().unwrap();
    let (owner, other) = (Client::new(&bus), Client::new(&bus));
    let by_clone = owner.transfer(8, &other.peer.clone()).unwrap();
    let duplicate = other.peer.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(
        owner.transfer_to(8, duplicate.as_raw_fd() as u64),
        Ok(by_clone)
    );

    // Another file takes the number over, and later the peer is gone.
    let file = File::open("/dev/null").unwrap();
    let mut reused = duplicate;
    rustix::io::dup2(&file, &mut reused).unwrap();
    let refused = owner.transfer_to(8, reused.as_raw_fd() as u64);
    assert_eq!(refused, Err(Errno::OPNOTSUPP));
    let left = other.peer.as_fd().try_clone_to_owned().unwrap();
    drop(other);
    assert!(is_readable(&left));
    let refused = owner.transfer_to(8, left.as_raw_fd() as u64);
    assert_eq!(refused, Err(Errno::OPNOTSUPP));
}

#[test]
fn a_descriptor_that_is_no_peer_is_refused() {
    let bus = Bus::new().unwrap();
    let owner = Client::new(&bus);
    let to = |fd: i32| owner.transfer_to(8, fd as u64);
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    assert_eq!(to(event.as_raw_fd()), Err(Errno::OPNOTSUPP));
    let elsewhere = Bus::new().unwrap().open().unwrap();
    assert_eq!(to(elsewhere.as_raw_fd()), Err(Errno::OPNOTSUPP));
    let path = format!("/proc/self/fd/{}", owner.peer.as_raw_fd());
    let path = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    assert_eq!(to(path.as_raw_fd()), Err(Errno::BADF));
    assert_eq!(to(i32::MAX), Err(Errno::BADF));
    let dead = Client::new(&bus);
    dead.disconnect().unwrap();
    assert_eq!(owner.transfer(8, &dead.peer), Err(Errno::SHUTDOWN));
}

#[test]
fn poll_follows_the_queue() {
    let bus = Bus::new().unwrap();
    let (owner, sender, handle) = pair(&bus);
    assert!(!is_readable(&owner.peer));
    sender.send(&[handle], &[b"1"], &[], &[]).unwrap();
    sender.send(&[handle], &[b"2"], &[], &[]).unwrap();
    assert!(is_readable(&owner.peer));
    owner.receive().unwrap();
    assert!(is_readable(&owner.peer));
    owner.receive().unwrap();
    assert!(!is_readable(&owner.peer));
    sender.send(&[handle], &[b"3"], &[], &[]).unwrap();
    assert!(is_readable(&owner.peer));
    owner.receive().unwrap();
    assert_eq!(owner.receive(), Err(Errno::AGAIN));
    assert!(!is_readable(&owner.peer));
    owner.disconnect().unwrap();
    assert!(is_readable(&owner.peer));

    // One that is made late knows what was before.
    let (late, sender, handle) = pair(&bus);
    sender.send(&[handle], &[b"early"], &[], &[]).unwrap();
    assert!(is_readable(&late.peer));
}
