// SPDX-License-Identifier: MIT OR Apache-2.0

//! The peers that a command is tried on. Each attempt gets a scene of its own, so that every
//! attempt meets the same state.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use bus1_uapi as abi;

use crate::client::{Message, Peer};
use crate::host::{Bus, Errno, Result, View};

/// Three peers that know each other: each has node 0, and each other peer has a handle of it.
pub struct Scene<'a> {
    pub bus: &'a dyn Bus,
    /// The first two belong to one user, the third to another; peers that a command opened follow.
    pub peers: Vec<Peer>,
    /// IDs of the nodes of the second and the third, at the first.
    pub to: [u64; 2],
    /// IDs of the first's node, at the second and the third.
    pub back: [u64; 2],
    /// Slices that the first has received and not released.
    pub slices: Vec<u64>,
    /// Messages that a command has received.
    pub received: Vec<Received>,
    /// Mappings that a command has made.
    pub views: Vec<Box<dyn View>>,
    /// Steps of EXCHANGE that are done, as the failed call reports; none if the call could not.
    pub reported: Option<usize>,
    null: File,
}

/// A message or notification without what differs from scene to scene.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    peer: usize,
    kind: u64,
    flags: u64,
    destination: u64,
    bytes: Vec<u8>,
    handles: Vec<u64>,
    n_fds: usize,
}

/// Returns an ID as its owner chose it; of an ID that the bus chose, only its kind.
fn plain(id: u64) -> u64 {
    const FLAGS: u64 = abi::HANDLE_FLAG_MANAGED | abi::HANDLE_FLAG_REMOTE;
    if id & FLAGS == 0 || id == abi::HANDLE_INVALID {
        id
    } else {
        id & FLAGS
    }
}

impl Received {
    /// Returns the message that peer number `peer` has received; closes its descriptors.
    fn new(peer: usize, message: Message) -> Self {
        Self {
            peer,
            kind: message.msg.kind,
            flags: message.msg.flags,
            destination: plain(message.msg.destination),
            bytes: message.bytes,
            handles: message.handles.into_iter().map(plain).collect(),
            n_fds: message.fds.len(),
        }
    }
}

/// Returns peers with nothing in their queues. Of the pools only that of the first is mapped.
pub fn idle(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let open = |user| Peer::new(bus.open(first_user + user).expect("cannot open a peer"));
    let peers = vec![open(0), open(0), open(1)];
    let [a, b, c] = &peers[..] else {
        unreachable!("three peers")
    };
    let give = |from: &Peer, to: &Peer| from.give(to, 0).expect("cannot give a handle");
    // A client maps its pool when it first reads a message, which must not be part of a call.
    a.view();
    let to = [give(b, a), give(c, a)];
    let back = [give(a, b), give(a, c)];
    Scene {
        bus,
        to,
        back,
        peers,
        slices: Vec::new(),
        received: Vec::new(),
        views: Vec::new(),
        reported: None,
        null: File::open("/dev/null").expect("cannot open /dev/null"),
    }
}

/// Returns peers of which the first has messages of the second, so that its tables have no
/// spare room.
pub fn busy(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let scene = idle(bus, first_user);
    for _ in 0..7 {
        scene.b().expect_sent(scene.back[0], b"busy");
    }
    scene
}

/// Returns peers of which the first has an entry of every kind: a message with handles and
/// descriptors, notifications and a seed.
pub fn waiting(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let scene = idle(bus, first_user);
    let (a, b, fd) = (scene.a(), scene.b(), scene.fd());
    let message = b.message().to(&scene.back[..1]).bytes(b"waiting");
    message.handles(&[4, 8, 0]).fds(&[fd, fd]).send().unwrap();
    b.destroy(&[8]).unwrap();
    let (node, there) = a.node_for(b);
    b.release(there).unwrap();
    let seed = a.message().seed().bytes(b"seed").fds(&[fd]);
    seed.handles(&[4, scene.to[0], 0, node]).send().unwrap();
    scene
}

/// Returns peers of which the first has received two messages, and has two more to receive.
pub fn received(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let mut scene = idle(bus, first_user);
    let fd = scene.fd();
    for text in [b"first", b"other"] {
        scene.b().expect_sent(scene.back[0], text);
        scene.slices.push(scene.a().expect_data().msg.offset);
    }
    for text in [b"third", b"final"] {
        let message = scene.b().message().to(&scene.back[..1]).bytes(text);
        message.handles(&[4, 0]).fds(&[fd]).send().unwrap();
    }
    scene
}

/// Returns peers of which the second is gone; the first has been notified.
pub fn bereft(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let scene = idle(bus, first_user);
    scene.b().disconnect().unwrap();
    scene.a().expect_node_destroy(scene.to[0]);
    scene
}

/// Receives everything at peer number `number`, and releases the slices.
fn drain(
    number: usize,
    peer: &Peer,
    received: &mut Vec<Received>,
) -> std::result::Result<(), String> {
    loop {
        let message = match peer.recv() {
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::SHUTDOWN) => return Ok(()),
            Err(errno) => return Err(format!("RECV at peer {number} says {errno:?}")),
        };
        if message.msg.offset != abi::OFFSET_INVALID {
            peer.release_slice(message.msg.offset)
                .map_err(|errno| format!("SLICE_RELEASE at peer {number} says {errno:?}"))?;
        }
        received.push(Received::new(number, message));
    }
}

impl Scene<'_> {
    /// The peer that commands are tried on.
    pub fn a(&self) -> &Peer {
        &self.peers[0]
    }

    /// A peer of the same user.
    pub fn b(&self) -> &Peer {
        &self.peers[1]
    }

    /// A peer of another user.
    pub fn c(&self) -> &Peer {
        &self.peers[2]
    }

    /// A descriptor that may travel.
    pub fn fd(&self) -> RawFd {
        self.null.as_raw_fd()
    }

    /// Keeps a message that the first has received.
    pub fn keep(&mut self, message: Message) {
        self.received.push(Received::new(0, message));
    }

    /// Receives everything at every peer, in addition to what commands have received, and releases
    /// the slices. Goes round until nothing is left: room that a peer makes is news for another.
    pub fn drain(&mut self) -> std::result::Result<(), String> {
        loop {
            let before = self.received.len();
            for (number, peer) in self.peers.iter().enumerate() {
                drain(number, peer, &mut self.received)?;
            }
            if self.received.len() == before {
                return Ok(());
            }
        }
    }

    /// Flushes all peers, and checks that they count nothing any more.
    pub fn end(self) -> std::result::Result<(), String> {
        let flags = abi::PEER_RESET_FLAG_FLUSH | abi::PEER_RESET_FLAG_FLUSH_SEED;
        for peer in &self.peers {
            match peer.flush(flags) {
                Ok(()) | Err(Errno::SHUTDOWN) => (),
                Err(errno) => return Err(format!("PEER_RESET says {errno:?}")),
            }
        }
        for (number, peer) in self.peers.iter().enumerate() {
            let counts = peer.door().counts().into_iter();
            // Limits stay.
            let counts = counts.filter(|(name, _)| !name.starts_with("user-max-"));
            let left: Vec<_> = counts.filter(|&(_, n)| n != 0).collect();
            if !left.is_empty() {
                return Err(format!("peer {number} was flushed and counts {left:?}"));
            }
        }
        Ok(())
    }

    /// Opens one more peer, as the user of the calling thread where the host has such.
    pub fn open_here(&mut self) -> Result {
        let door = self.bus.open_here()?;
        self.peers.push(Peer::new(door));
        Ok(())
    }
}
