// SPDX-License-Identifier: MIT OR Apache-2.0

//! A worker of a storm: some peers, and a mind of its own.
//!
//! A command may fail only with an error that the contract has for it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use bus1_uapi as abi;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Place, HUB_NODE};
use crate::client::{Limits, Message, Peer};
use crate::host::{Errno as E, Result};
use crate::sys::memory::NOWHERE;
use crate::sys::thread::monotonic;

/// IDs that a peer remembers; more are released.
const MEMORY: usize = 64;
/// Slices that a peer keeps.
const KEPT: usize = 32;

/// Errors of a SEND.
const UNSENT: [E; 9] = [
    E::NXIO,
    E::MSGSIZE,
    E::NOTUNIQ,
    E::HOSTUNREACH,
    E::DQUOT,
    E::XFULL,
    E::BADF,
    E::OPNOTSUPP,
    E::FAULT,
];

/// A peer, its handles, and its slices.
struct Mate {
    peer: Peer,
    ids: Vec<u64>,
    offsets: Vec<u64>,
}

/// A worker.
pub struct Worker<'a> {
    place: &'a Place<'a>,
    random: SmallRng,
    mates: Vec<Mate>,
    /// For each hub, handles that this worker saw it receive.
    hub_ids: Vec<Vec<u64>>,
    files: Vec<OwnedFd>,
    payload: Vec<u8>,
    limits: Limits,
}

/// Description of a failure.
pub type Trouble = String;

/// Accepts success and the errors that a command may give.
fn allow<T>(
    command: &str,
    result: Result<T>,
    errors: &[E],
) -> std::result::Result<Option<T>, Trouble> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(errno) if errors.contains(&errno) => Ok(None),
        Err(errno) => Err(format!("{command} says {errno:?}")),
    }
}

impl<'a> Worker<'a> {
    /// Returns a worker with fresh peers; `life` counts the workers of this number.
    pub fn new(
        place: &'a Place<'a>,
        number: usize,
        life: u64,
    ) -> std::result::Result<Self, Trouble> {
        let seed = place.options.seed.wrapping_mul(1_000_003);
        let seed = seed
            .wrapping_add(number as u64)
            .wrapping_mul(1_000_003)
            .wrapping_add(life);
        let files: std::io::Result<Vec<OwnedFd>> = (|| {
            let (out, into) = std::io::pipe()?;
            let (one, other) = std::os::unix::net::UnixStream::pair()?;
            Ok(vec![out.into(), into.into(), one.into(), other.into()])
        })();
        let mut worker = Self {
            place,
            random: SmallRng::seed_from_u64(seed),
            mates: Vec::new(),
            hub_ids: vec![vec![HUB_NODE]; place.hubs.len()],
            files: files.map_err(|error| format!("cannot open a file: {error}"))?,
            payload: (0..6000).map(|i| i as u8).collect(),
            limits: Limits::DEFAULT,
        };
        for _ in 0..place.options.peers {
            let mate = worker.open()?;
            worker.mates.push(mate);
        }
        Ok(worker)
    }

    /// Returns a fresh peer that knows a hub, and that a hub knows.
    fn open(&mut self) -> std::result::Result<Mate, Trouble> {
        let user = self.place.user(self.random.random());
        let door = self
            .place
            .bus
            .open(user)
            .map_err(|errno| format!("open says {errno:?}"))?;
        let peer = Peer::new(door);
        let mut ids = vec![peer.new_node()];
        let hub = self
            .place
            .hubs
            .choose(&mut self.random)
            .expect("there is a hub");
        let quota = [E::DQUOT];
        if let Some(id) = allow("HANDLE_TRANSFER", hub.give(&peer, HUB_NODE), &quota)? {
            ids.push(id);
            let sent = peer.message().to(&[id]).handles(&[ids[0]]).send();
            allow("SEND", sent, &UNSENT)?;
        }
        Ok(Mate {
            peer,
            ids,
            offsets: Vec::new(),
        })
    }

    /// Gives one random command.
    pub fn step(&mut self) -> std::result::Result<(), Trouble> {
        if self.random.random_ratio(1, 10) {
            return self.use_hub();
        }
        let at = self.random.random_range(0..self.mates.len());
        match self.random.random_range(0..100) {
            0..30 => self.send(at),
            30..52 => self.receive(at),
            52..60 => self.exchange(at),
            60..68 => self.transfer(at),
            68..78 => self.release(at),
            78..86 => self.release_slice(at),
            86..91 => self.destroy(at),
            91..93 => self.reset(at),
            93..96 => self.ask(at),
            96..99 => self.nonsense(at),
            _ => self.replace(at),
        }
    }

    fn id(&mut self, at: usize) -> u64 {
        match self.random.random_range(0..40) {
            0 => self.mates[at].peer.new_node(),
            1 => self.random.random::<u64>() & !7 | 3,
            _ => self.mates[at]
                .ids
                .choose(&mut self.random)
                .copied()
                .unwrap_or(HUB_NODE),
        }
    }

    fn ids(&mut self, at: usize, most: usize) -> Vec<u64> {
        (0..self.random.random_range(0..=most))
            .map(|_| self.id(at))
            .collect()
    }

    fn fds(&mut self) -> Vec<RawFd> {
        let n = if self.random.random_ratio(1, 4) {
            self.random.random_range(1..4)
        } else {
            0
        };
        (0..n)
            .map(|_| match self.random.random_range(0..50) {
                0 => -1,
                1 => self.files[2].as_raw_fd(),
                i => self.files[i % 2].as_raw_fd(),
            })
            .collect()
    }

    fn send(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let (to, handles, fds) = (self.ids(at, 5), self.ids(at, 4), self.fds());
        let len = self.random.random_range(0..self.payload.len());
        let len = if self.random.random() { len } else { len % 64 };
        let message = self.mates[at].peer.message().handles(&handles).fds(&fds);
        let message = message.bytes(&self.payload[..len]);
        let sent = match self.random.random_range(0..32) {
            0 => message.seed().send(),
            1..12 => message.to(&to).proceed().send(),
            12 => message.to(&to).room().vector(NOWHERE, 64).send(),
            13..16 => message.to(&to).room().proceed().send(),
            16..22 => message.to(&to).room().send(),
            _ => message.to(&to).send(),
        };
        allow("SEND", sent, &UNSENT)?;
        Ok(())
    }

    fn receive(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let seed = if self.random.random_ratio(1, 20) {
            abi::RECV_FLAG_SEED
        } else {
            0
        };
        let install = if self.random.random() {
            abi::RECV_FLAG_INSTALL_FDS
        } else {
            0
        };
        let mate = &mut self.mates[at];
        let mut received = mate.peer.receive().flags(seed | install);
        if self.random.random_ratio(1, 30) {
            received = received.max_offset(64);
        }
        // A seed is delivered again and again, and the handles that it brings are charged each time
        // that the peer does not have them.
        let full = if seed != 0 { E::DQUOT } else { E::AGAIN };
        let Some(message) = allow("RECV", received.run(), &[E::AGAIN, E::RANGE, full])? else {
            return Ok(());
        };
        self.keep(at, message)
    }

    /// Gives up to four things to do at once, and receives up to five messages.
    fn exchange(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let (to, handles, fds) = (self.ids(at, 3), self.ids(at, 2), self.fds());
        let (room, sends) = (self.random.random_range(0..6), self.random.random());
        let waits = self.random.random_ratio(1, 8);
        let mate = &mut self.mates[at];
        let kept = self.random.random_range(0..=mate.offsets.len());
        let release = mate
            .offsets
            .split_off(kept.max(mate.offsets.len().saturating_sub(4)));
        let mut exchange = mate.peer.exchange().release(&release).room(room);
        if sends {
            let message = mate.peer.message().to(&to).handles(&handles).fds(&fds);
            exchange = exchange.send(message.bytes(&self.payload[..64]));
        }
        if waits {
            exchange = exchange.until(monotonic() + 100_000);
        }
        let errors = [UNSENT.as_slice(), &[E::AGAIN, E::TIMEDOUT]].concat();
        if allow("EXCHANGE", exchange.call(), &errors)?.is_none() {
            // It stopped at a slice that is gone, or released them all. The seed's is delivered
            // many times, and released once.
            let left = (exchange.arg.n_slices as usize).saturating_sub(1);
            mate.offsets.extend(&release[release.len() - left..]);
            return Ok(());
        }
        let messages = exchange.messages();
        drop(exchange);
        for message in messages {
            self.keep(at, message)?;
        }
        Ok(())
    }

    /// Remembers the handles and the slice of a message.
    fn keep(&mut self, at: usize, message: Message) -> std::result::Result<(), Trouble> {
        let mate = &mut self.mates[at];
        if message.msg.offset != abi::OFFSET_INVALID {
            mate.offsets.push(message.msg.offset);
        }
        let known = message
            .handles
            .into_iter()
            .filter(|&id| id != abi::HANDLE_INVALID);
        mate.ids.extend(known);
        if mate.ids.len() > MEMORY {
            self.release(at)?;
        }
        while self.mates[at].offsets.len() > KEPT {
            self.release_slice(at)?;
        }
        Ok(())
    }

    fn transfer(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let id = self.id(at);
        let other = self.random.random_range(0..self.mates.len());
        let from = &self.mates[at].peer;
        let given = if self.random.random_ratio(1, 8) {
            let hub = self.random.random_range(0..self.place.hubs.len());
            let given = from.give(&self.place.hubs[hub], id);
            given
                .inspect(|&id| self.hub_ids[hub].push(id))
                .map(|_| abi::HANDLE_INVALID)
        } else {
            from.give(&self.mates[other].peer, id)
        };
        let errors = [E::NXIO, E::DQUOT, E::SHUTDOWN];
        if let Some(id) = allow("HANDLE_TRANSFER", given, &errors)? {
            if id != abi::HANDLE_INVALID {
                self.mates[other].ids.push(id);
            }
        }
        Ok(())
    }

    fn release(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let mate = &mut self.mates[at];
        if mate.ids.is_empty() {
            return Ok(());
        }
        let id = mate
            .ids
            .swap_remove(self.random.random_range(0..mate.ids.len()));
        if allow("HANDLE_RELEASE", mate.peer.release(id), &[E::NXIO, E::BUSY])?.is_none()
            && id & 3 == 0
        {
            // An own node stays known.
            mate.ids.push(id);
            mate.ids.truncate(2 * MEMORY);
        }
        Ok(())
    }

    fn release_slice(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let mate = &mut self.mates[at];
        if mate.offsets.is_empty() {
            return Ok(());
        }
        let i = self.random.random_range(0..mate.offsets.len());
        let offset = mate.offsets.swap_remove(i);
        // The seed's is delivered many times, and released once.
        allow("SLICE_RELEASE", mate.peer.release_slice(offset), &[E::NXIO])?;
        Ok(())
    }

    fn destroy(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let ids = self.ids(at, 3);
        let release = if self.random.random() {
            abi::NODES_DESTROY_FLAG_RELEASE_HANDLES
        } else {
            0
        };
        let destroyed = self.mates[at].peer.destroy_with(release, &ids);
        let errors = [E::NXIO, E::NOTUNIQ, E::REMOTE, E::STALE, E::DQUOT];
        allow("NODES_DESTROY", destroyed, &errors)?;
        Ok(())
    }

    fn reset(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let mate = &mut self.mates[at];
        if self.random.random() {
            let mut limits = self.limits;
            for limit in limits.each_mut() {
                match self.random.random_range(0..4) {
                    0 => *limit = self.random.random_range(0..200),
                    1 => *limit = u32::MAX,
                    _ => (),
                }
            }
            allow("PEER_RESET", mate.peer.limit(limits), &[])?;
        } else {
            let flags = self.random.random_range(1..4);
            allow("PEER_RESET", mate.peer.flush(flags), &[])?;
            if flags & abi::PEER_RESET_FLAG_FLUSH != 0 {
                mate.ids.clear();
                mate.offsets.clear();
                mate.ids.push(mate.peer.new_node());
            }
        }
        Ok(())
    }

    fn ask(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let peer = &self.mates[at].peer;
        allow("PEER_QUERY", peer.query(), &[])?;
        let events = peer.events();
        if events.hangup || events.other {
            return Err(format!("poll says {events:?} of a connected peer"));
        }
        Ok(())
    }

    fn nonsense(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        let commands = [
            abi::CMD_PEER_QUERY,
            abi::CMD_PEER_RESET,
            abi::CMD_HANDLE_RELEASE,
            abi::CMD_HANDLE_TRANSFER,
            abi::CMD_NODES_DESTROY,
            abi::CMD_SLICE_RELEASE,
            abi::CMD_SEND,
            abi::CMD_RECV,
            0xc008_9603,
        ];
        let cmd = *commands.choose(&mut self.random).expect("there are some");
        let peer = &self.mates[at].peer;
        match self.random.random_range(0..3) {
            0 => {
                let done = peer.ioctl(cmd, NOWHERE);
                if !matches!(done, Err(E::FAULT | E::NOTTY)) {
                    return Err(format!("{cmd:#x} on no memory says {done:?}"));
                }
            }
            1 => {
                let done = peer.ioctl(abi::CMD_PEER_DISCONNECT, 1);
                if done != Err(E::INVAL) {
                    return Err(format!("PEER_DISCONNECT(1) says {done:?}"));
                }
            }
            _ => {
                // Undefined flags, and pointers to nowhere.
                let mut words = [
                    u64::MAX << 3,
                    NOWHERE,
                    NOWHERE,
                    1,
                    NOWHERE,
                    1,
                    NOWHERE,
                    1,
                    NOWHERE,
                    1,
                ];
                let done = peer.command(cmd, &mut words);
                if done.is_ok() {
                    return Err(format!("{cmd:#x} takes any flags"));
                }
            }
        }
        Ok(())
    }

    /// Opens another peer in the place of one that disconnects, or is just closed.
    fn replace(&mut self, at: usize) -> std::result::Result<(), Trouble> {
        if self.random.random() {
            allow("PEER_DISCONNECT", self.mates[at].peer.disconnect(), &[])?;
            let again = self.mates[at].peer.disconnect();
            if again != Err(E::SHUTDOWN) {
                return Err(format!("the second PEER_DISCONNECT says {again:?}"));
            }
        }
        self.mates[at] = self.open()?;
        Ok(())
    }

    /// Does something with a peer that other workers use at the same time.
    fn use_hub(&mut self) -> std::result::Result<(), Trouble> {
        let hub = self.random.random_range(0..self.place.hubs.len());
        let peer = &self.place.hubs[hub];
        let ids = &mut self.hub_ids[hub];
        match self.random.random_range(0..10) {
            0..6 => {
                if let Some(message) = allow("RECV", peer.recv(), &[E::AGAIN])? {
                    if message.msg.offset != abi::OFFSET_INVALID {
                        allow("SLICE_RELEASE", peer.release_slice(message.msg.offset), &[])?;
                    }
                    let known = message
                        .handles
                        .into_iter()
                        .filter(|&id| id != abi::HANDLE_INVALID);
                    ids.extend(known);
                }
            }
            6 => {
                let id = *ids
                    .choose(&mut self.random)
                    .expect("the hub's node is always there");
                let at = self.random.random_range(0..self.mates.len());
                let mate = &mut self.mates[at];
                let given = peer.give(&mate.peer, id);
                if let Some(id) = allow("HANDLE_TRANSFER", given, &[E::NXIO, E::DQUOT])? {
                    mate.ids.extend((id != abi::HANDLE_INVALID).then_some(id));
                }
            }
            7 => {
                let to: Vec<u64> = (0..4)
                    .filter_map(|_| ids.choose(&mut self.random).copied())
                    .collect();
                let sent = peer
                    .message()
                    .to(&to)
                    .handles(&to)
                    .bytes(b"from a hub")
                    .proceed()
                    .send();
                allow("SEND", sent, &[E::NXIO, E::NOTUNIQ])?;
            }
            _ if ids.len() > 1 => {
                let id = ids.swap_remove(self.random.random_range(1..ids.len()));
                allow("HANDLE_RELEASE", peer.release(id), &[E::NXIO, E::BUSY])?;
            }
            _ => (),
        }
        Ok(())
    }
}
