// SPDX-License-Identifier: MIT OR Apache-2.0

//! Descriptors that nobody takes, of files whose end takes long.
//!
//! Such a file is a TCP socket that lingers: its last close waits until the other end of the
//! connection has taken all that was sent.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use bus1_conformance_case::case;
use bus1_uapi as abi;

use super::descriptors_lost::table_with_room_for;
use crate::client::Peer;
use crate::env::{Env, PATIENCE};
use crate::host::Errno as E;
use crate::sys::fuse::Deaf;
use crate::sys::process::become_user;

/// The other end of a connection whose first end lingers when it is closed.
pub struct OtherEnd(TcpStream);

impl OtherEnd {
    /// Takes all that was sent, up to the end of the connection.
    pub fn drain(mut self) {
        self.0.read_to_end(&mut Vec::new()).unwrap();
    }
}

/// Most files of one opener that are being closed at a time.
const WORKERS: usize = 4;

/// Opens a file as user number `user` of the case.
fn open_as<T: Send>(env: &Env, user: u32, open: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| {
            become_user(env.uid(user), None).expect("run as root");
            open()
        });
        opener.join().unwrap()
    })
}

/// Sends a socket that lingers, which user number `opener` made; the message has the only reference
/// to it.
pub fn send_lingering(env: &Env, opener: u32, sender: &Peer, to: u64) -> OtherEnd {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut socket = open_as(env, opener, || TcpStream::connect(address).unwrap());
    let (other, _) = listener.accept().unwrap();
    set_socket_linger(&socket, Some(Duration::from_secs(3600))).unwrap();
    // More than the other end has room for.
    socket.set_nonblocking(true).unwrap();
    loop {
        match socket.write(&[7; 1 << 16]) {
            Ok(_) => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    sender
        .message()
        .to(&[to])
        .fds(&[socket.as_raw_fd()])
        .send()
        .unwrap();
    // This is not the last one, so it does not wait.
    drop(socket);
    OtherEnd(other)
}

/// Expects that `act` ends while the other end has not taken anything.
fn expect_no_wait(other: OtherEnd, what: &str, act: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        scope.spawn(move || {
            act();
            done.send(())
        });
        let ended = is_done.recv_timeout(PATIENCE);
        // Now the thread ends in any case.
        other.drain();
        assert!(ended.is_ok(), "{what} waited for the end of a file");
    });
}

#[case("abi.md#fds-dropped", kernel)]
fn nobody_waits_for_files_that_are_not_taken(env: &Env) {
    let [receiver, sender] = env.peers();
    let to = sender.handle_of(&receiver);
    let other = send_lingering(env, 1, &sender, to);
    expect_no_wait(other, "RECV", || {
        receiver.receive().flags(0).header().unwrap();
    });
    let other = send_lingering(env, 1, &sender, to);
    expect_no_wait(other, "PEER_RESET", || {
        receiver.flush(abi::PEER_RESET_FLAG_FLUSH).unwrap();
    });
    sender.expect_node_destroy(to);

    let to = sender.handle_of(&receiver);
    let other = send_lingering(env, 1, &sender, to);
    expect_no_wait(other, "PEER_DISCONNECT", || receiver.disconnect().unwrap());

    let receiver = env.peer();
    let to = sender.handle_of(&receiver);
    let other = send_lingering(env, 1, &sender, to);
    expect_no_wait(other, "close", || receiver.close());
}

#[case("abi.md#fds-dropped", "abi.md#recv-emfile", kernel, alone)]
fn a_receipt_that_takes_descriptors_back_does_not_close_them(env: &Env) {
    let (receiver, sender, to) = env.linked();
    let deaf = Deaf::mount();
    let file = deaf.open();
    let fds = [file.as_raw_fd(); 3];
    sender.message().to(&[to]).fds(&fds).send().unwrap();
    receiver.view();
    std::thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        let receiver = &receiver;
        scope.spawn(move || {
            let (limit, fill) = table_with_room_for(2);
            let error = receiver.receive().expect_errno();
            drop((limit, fill));
            done.send(error)
        });
        let error = is_done.recv_timeout(PATIENCE);
        // Now the thread ends in any case.
        drop(deaf);
        let error = error.expect("RECV waited for the file system of a file");
        assert_eq!(error, E::MFILE);
    });
    assert_eq!(receiver.expect_data().fds.len(), fds.len());
}

/// Expects that a pipe that user number `opener` made is closed when its message is dropped.
fn expect_closed(env: &Env, opener: u32, sender: &Peer, receiver: &Peer, to: u64) {
    let (mut out, into) = open_as(env, opener, || std::io::pipe().unwrap());
    let fds = [into.as_raw_fd(); 100];
    sender.message().to(&[to]).fds(&fds).send().unwrap();
    drop(into);
    receiver.receive().flags(0).header().unwrap();
    // It meets the end when the last writer is closed.
    assert_eq!(out.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[case("abi.md#fds-dropped", kernel)]
fn files_of_other_openers_do_not_wait_for_a_slow_one(env: &Env) {
    let (receiver, sender, to) = env.linked();
    let mut slow = Vec::new();
    let mut drop_slow = || {
        slow.push(send_lingering(env, 1, &sender, to));
        receiver.receive().flags(0).header().unwrap();
    };
    // Neither do files of the same opener, as long as a worker is left.
    for _ in 1..WORKERS {
        drop_slow();
        expect_closed(env, 1, &sender, &receiver, to);
    }
    // None is left for that opener, who sent none of them: the sender's other files go on.
    drop_slow();
    drop_slow();
    for opener in [2, 3] {
        expect_closed(env, opener, &sender, &receiver, to);
    }
    slow.into_iter().for_each(OtherEnd::drain);
}

#[case("abi.md#send-edquot-closing", "abi.md#fds-dropped", kernel, alone)]
fn an_opener_cannot_pile_up_files_to_be_closed(env: &Env) {
    let (receiver, sender, to) = env.linked();
    let slow = [(); WORKERS].map(|()| {
        let other = send_lingering(env, 1, &sender, to);
        receiver.receive().flags(0).header().unwrap();
        other
    });
    let null = [1, 2].map(|user| open_as(env, user, || File::open("/dev/null").unwrap()));
    let [fds, fds_of_other] = null.each_ref().map(|null| [null.as_raw_fd(); 64]);
    let send = |fds: &[i32]| sender.message().to(&[to]).fds(fds).send();
    let mut waiting = WORKERS;
    let error = loop {
        match send(&fds) {
            Ok(()) => receiver.receive().flags(0).header().unwrap(),
            Err(error) => break error,
        };
        waiting += fds.len();
    };
    assert_eq!(error, E::DQUOT);
    let most = env.bus().user_limits().fds as usize;
    assert!(
        (most..most + fds.len()).contains(&waiting),
        "{waiting} files"
    );
    // Files of another opener are not counted with them.
    assert_eq!(send(&fds_of_other), Ok(()));
    receiver.receive().flags(0).header().unwrap();
    slow.into_iter().for_each(OtherEnd::drain);
    let started = Instant::now();
    while send(&fds) == Err(E::DQUOT) {
        assert!(started.elapsed() < PATIENCE, "they are still not closed");
        std::thread::yield_now();
    }
}
