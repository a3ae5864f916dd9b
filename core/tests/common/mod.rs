// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A host in plain memory, for the tests of the core.
//!
//! A [`World`] is one bus; a [`Client`] is one peer of it, with every command as a function. All
//! commands go through `dispatch`, as on a real host. At calls of the host without locks a test may
//! step in ([`Hooks`]) and do what another thread could do at that moment.
//!
//! Locks here are those of `std`: never held across a call of the core, and unknown to loom, so
//! that they add no order to what a model explores. Only wake-ups are known to it.

#![allow(dead_code, unused_imports)] // No single test uses all of it.

use std::boxed::Box;
use std::prelude::rust_2021::*;
use std::sync::{Arc as Shared, Mutex};
use std::vec;

use bus1_core::abi::*;
use bus1_core::bus::{
    self, dispatch, user_limits, Bus, Info, Limits, Peer, Ready, Usage, LOCK_ORDER,
};
use kernel::error::{code::*, Result};
use kernel::sync::Arc;

mod call;
mod host;

use call::{Arena, Call};
pub use call::{Hooks, Script};
pub use host::{as_user, at_look, killed_at, looks, Pool, Test, Waker};

/// Limits of a peer, below those of which claimants keep credit, so that every number is exact.
pub const LIMITS: [u32; 4] = [1024, 1024, 4000, 512];

struct Inner {
    bus: Arc<Bus<Test>>,
    /// Every peer, by its "descriptor".
    peers: Mutex<Vec<Arc<Peer<Test>>>>,
    /// One reference more for each peer that lives.
    live: Shared<()>,
    /// One reference more for each file in flight.
    files: Shared<()>,
    last_fd: Mutex<i32>,
    /// The limits that each peer is given, if not those that it starts with.
    limits: Option<[u32; 4]>,
}

/// A bus and its clients.
#[derive(Clone)]
pub struct World(Shared<Inner>);

impl Default for World {
    fn default() -> Self {
        Self::new(LIMITS)
    }
}

impl World {
    /// Returns an empty bus, on which peers have these limits and users eight times as much.
    pub fn new(limits: [u32; 4]) -> Self {
        let users = limits.map(|limit| 8 * u64::from(limit));
        Self::of(users, Some(limits))
    }

    /// Returns an empty bus with the limits that it has on a machine of 4 GiB.
    pub fn by_default() -> Self {
        Self::of(user_limits(4 << 30), None)
    }

    /// Returns an empty bus on which users have these limits, and peers others if there are any.
    pub fn of(users: Limits, limits: Option<[u32; 4]>) -> Self {
        kernel::lockdep::declare(&LOCK_ORDER);
        Self(Shared::new(Inner {
            bus: Bus::new(users).unwrap(),
            peers: Mutex::default(),
            live: Shared::default(),
            files: Shared::default(),
            last_fd: Mutex::new(100),
            limits,
        }))
    }

    /// Returns a new peer of user `uid`.
    pub fn open(&self, uid: u32) -> Client {
        self.try_open(uid).unwrap()
    }

    /// Returns a new peer of user `uid`, if there is memory for it.
    pub fn try_open(&self, uid: u32) -> Result<Client> {
        let waker = Waker::new(&self.0.live);
        let pool = Pool::default();
        let peer = Bus::open(&self.0.bus, uid, pool.clone(), waker)?;
        let mut peers = self.0.peers.lock().unwrap();
        peers.push(peer.clone());
        let client = Client {
            fd: peers.len() as u64 - 1,
            peer,
            pool,
            world: self.0.clone(),
            fds: Shared::default(),
        };
        drop(peers);
        if let Some(limits) = self.0.limits {
            client.reset(0, limits)?;
        }
        Ok(client)
    }

    /// Returns the amounts in use.
    pub fn usage(&self) -> Usage {
        self.0.bus.usage()
    }

    /// Returns the number of files in flight.
    pub fn files(&self) -> usize {
        Shared::strong_count(&self.0.files) - 1
    }

    /// Returns the numbers of the bus and of every peer.
    pub fn state(&self) -> (Usage, Vec<Info>, usize) {
        let peers = self.0.peers.lock().unwrap().clone();
        let infos = peers.iter().map(|peer| peer.info()).collect();
        (self.usage(), infos, self.files())
    }

    /// Disconnects everybody and checks that nothing is left behind. The clients are to be dropped
    /// before.
    pub fn end(self) {
        let peers = core::mem::take(&mut *self.0.peers.lock().unwrap());
        for peer in peers {
            let _ = peer.disconnect();
            let info = peer.info();
            let left = (info.handles, info.nodes, info.queued, info.staged);
            assert_eq!(left, (0, 0, 0, 0));
        }
        assert_eq!(self.usage(), Usage::default());
        assert_eq!(self.files(), 0, "files are left");
        let peers = Shared::strong_count(&self.0.live) - 1;
        assert_eq!(peers, 0, "peers are left");
    }
}

/// Returns a receiver, and a sender with handles to its nodes 0 and 4.
pub fn pair() -> (World, Client, Client, [u64; 2]) {
    let world = World::default();
    let (r, s) = (world.open(1), world.open(2));
    let ids = [0, 4].map(|node| r.transfer(node, &s).unwrap());
    (world, r, s, ids)
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Letter<'a> {
    pub to: &'a [u64],
    pub handles: &'a [u64],
    pub data: &'a [u8],
    pub fds: &'a [i32],
    pub flags: u64,
}

impl<'a> Letter<'a> {
    /// Returns some bytes for one or many.
    pub fn new(to: &'a [u64], data: &'a [u8]) -> Self {
        Self {
            to,
            data,
            ..Self::default()
        }
    }
}

impl Letter<'_> {
    /// Builds the argument of SEND, with room for errors, which are -1 where none is written.
    fn command(&self, arena: &Arena) -> CmdSend {
        let vec = [arena.put(self.data), self.data.len() as u64];
        CmdSend {
            flags: self.flags,
            ptr_destinations: arena.numbers(self.to, u64::to_ne_bytes),
            ptr_errors: arena.numbers(&vec![-1; self.to.len()], i32::to_ne_bytes),
            n_destinations: self.to.len() as u64,
            ptr_vecs: arena.numbers(&vec, u64::to_ne_bytes),
            n_vecs: 1,
            ptr_handles: arena.numbers(self.handles, u64::to_ne_bytes),
            n_handles: self.handles.len() as u64,
            ptr_fds: arena.numbers(self.fds, i32::to_ne_bytes),
            n_fds: self.fds.len() as u64,
        }
    }
}

/// A received message or notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub kind: u64,
    pub more: bool,
    pub destination: u64,
    pub data: Vec<u8>,
    pub handles: Vec<u64>,
    pub fds: Vec<i32>,
    pub offset: u64,
}

/// The work of an exchange: give back, send, receive.
#[derive(Clone, Copy, Default)]
pub struct Exchange<'a> {
    pub release: &'a [u64],
    /// Not sent if it goes to nobody.
    pub letter: Letter<'a>,
    pub room: usize,
    pub deadline: u64,
}

/// The argument after an exchange: the rest of the work, and the contents of the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanged {
    pub sends: bool,
    pub slices: u64,
    pub n: u64,
    pub texts: Vec<Vec<u8>>,
}

/// One peer, and all that it can do.
#[derive(Clone)]
pub struct Client {
    pub peer: Arc<Peer<Test>>,
    pub pool: Pool,
    /// The number by which others name it in HANDLE_TRANSFER.
    pub fd: u64,
    world: Shared<Inner>,
    fds: Shared<Mutex<Vec<(i32, u32)>>>,
}

impl Client {
    fn call(&self, arena: &Arena, hooks: &Hooks<'_>, cmd: u32, arg: u64) -> Result {
        let caller = Call {
            client: self,
            arena,
            hooks,
        };
        dispatch(&self.peer, &caller, cmd, arg)
    }

    fn simple(&self, cmd: u32, argument: &[u8]) -> Result {
        let arena = Arena::default();
        let arg = arena.put(argument);
        self.call(&arena, &Hooks::default(), cmd, arg)
    }

    /// SEND.
    pub fn send(&self, letter: Letter<'_>) -> Result {
        self.send_with(letter, &Hooks::default()).0
    }

    /// Makes `handles` and `data` its seed.
    pub fn seed(&self, handles: &[u64], data: &[u8]) {
        let letter = Letter {
            handles,
            flags: SEND_FLAG_SEED,
            to: &[],
            data,
            ..Letter::default()
        };
        self.send(letter).unwrap();
    }

    /// SEND, and the errors of the destinations; -1 where none was written.
    pub fn send_with(&self, letter: Letter<'_>, hooks: &Hooks<'_>) -> (Result, Vec<i32>) {
        let arena = Arena::default();
        let n = letter.to.len();
        let cmd = letter.command(&arena);
        let arg = arena.put(&cmd.to_bytes());
        let result = self.call(&arena, hooks, CMD_SEND, arg);
        let mut errors = vec![0; 4 * n];
        arena.get(cmd.ptr_errors, &mut errors).unwrap();
        let errors = errors.chunks_exact(4);
        let errors = errors.map(|one| i32::from_ne_bytes(one.try_into().unwrap()));
        (result, errors.collect())
    }

    /// RECV. The slice stays.
    pub fn recv(&self) -> Result<Received> {
        self.recv_with(0, &Hooks::default())
    }

    /// RECV with flags.
    pub fn recv_with(&self, flags: u64, hooks: &Hooks<'_>) -> Result<Received> {
        let arena = Arena::default();
        let cmd = CmdRecv {
            flags,
            max_offset: <Pool as bus::Pool>::SIZE,
            msg: Msg::default(),
        };
        let arg = arena.put(&cmd.to_bytes());
        self.call(&arena, hooks, CMD_RECV, arg)?;
        let mut bytes = [0; CmdRecv::SIZE];
        arena.get(arg, &mut bytes)?;
        let msg = CmdRecv::from_bytes(&bytes).msg;
        let mut received = Received {
            kind: msg.kind,
            more: msg.flags & MSG_FLAG_CONTINUE != 0,
            destination: msg.destination,
            data: Vec::new(),
            handles: Vec::new(),
            fds: Vec::new(),
            offset: msg.offset,
        };
        if msg.offset == OFFSET_INVALID {
            return Ok(received);
        }
        received.data = self.pool.read(msg.offset, msg.n_bytes);
        let at = msg.offset + msg.n_bytes.next_multiple_of(8);
        let handles = self.pool.read(at, 8 * msg.n_handles);
        let handles = handles.chunks_exact(8);
        let handles = handles.map(|one| u64::from_ne_bytes(one.try_into().unwrap()));
        received.handles = handles.collect();
        let fds = self.pool.read(at + 8 * msg.n_handles, 4 * msg.n_fds);
        let fds = fds.chunks_exact(4);
        received.fds = fds
            .map(|one| i32::from_ne_bytes(one.try_into().unwrap()))
            .collect();
        Ok(received)
    }

    /// EXCHANGE, as often as the caller likes: each time with what the one before left. Gives the
    /// result of each call, and what is left.
    pub fn exchange(&self, give: &Exchange<'_>, hooks: &[&Hooks<'_>]) -> (Vec<Result>, Exchanged) {
        let arena = Arena::default();
        let room = vec![0; Msg::SIZE * give.room];
        let cmd = CmdExchange {
            size: CmdExchange::SIZE as u64,
            flags: EXCHANGE_FLAG_INSTALL_FDS
                | (u64::from(!give.letter.to.is_empty()) * EXCHANGE_FLAG_SEND),
            ptr_slices: arena.numbers(give.release, u64::to_ne_bytes),
            n_slices: give.release.len() as u64,
            n_msgs: give.room as u64,
            ptr_msgs: arena.put(&room),
            max_offset: <Pool as bus::Pool>::SIZE,
            deadline: give.deadline,
            send: give.letter.command(&arena),
        };
        let arg = arena.put(&cmd.to_bytes());
        let call = |hooks: &&Hooks<'_>| self.call(&arena, hooks, CMD_EXCHANGE, arg);
        let results = hooks.iter().map(call).collect();
        let mut bytes = [0; CmdExchange::SIZE];
        arena.get(arg, &mut bytes).unwrap();
        let left = CmdExchange::from_bytes(&bytes);
        let mut room = room;
        arena.get(cmd.ptr_msgs, &mut room).unwrap();
        let texts = room.chunks_exact(Msg::SIZE).map(|msg| {
            let msg = Msg::from_bytes(msg.try_into().unwrap());
            match msg.n_bytes {
                0 => Vec::new(),
                n => self.pool.read(msg.offset, n),
            }
        });
        let exchanged = Exchanged {
            sends: left.flags & EXCHANGE_FLAG_SEND != 0,
            slices: left.n_slices,
            n: left.n_msgs,
            texts: texts.collect(),
        };
        (results, exchanged)
    }

    /// Does this when it sleeps next; it may fail as a host does. Then it is awake, for no reason
    /// or for that.
    pub fn at_sleep(&self, sleep: impl FnOnce() -> Result + Send + 'static) {
        self.peer.waker().sleep(Box::new(sleep));
    }

    /// Returns the number of wake-ups by callers that were about to sleep.
    pub fn yields(&self) -> u64 {
        self.peer.waker().yields()
    }

    /// RECV, and the slice is given back at once.
    pub fn take(&self) -> Result<Received> {
        let received = self.recv()?;
        if received.offset != OFFSET_INVALID {
            self.release_slice(received.offset)?;
        }
        Ok(received)
    }

    /// Receives everything that there is, by `take`.
    pub fn take_all(&self) -> Vec<Received> {
        core::iter::from_fn(|| match self.take() {
            Err(EAGAIN) => None,
            received => Some(received.unwrap()),
        })
        .collect()
    }

    /// SLICE_RELEASE.
    pub fn release_slice(&self, offset: u64) -> Result {
        self.simple(CMD_SLICE_RELEASE, &offset.to_ne_bytes())
    }

    /// HANDLE_RELEASE.
    pub fn release(&self, id: u64) -> Result {
        self.simple(CMD_HANDLE_RELEASE, &id.to_ne_bytes())
    }

    /// HANDLE_TRANSFER.
    pub fn transfer(&self, id: u64, to: &Client) -> Result<u64> {
        self.transfer_with(id, to, &Hooks::default())
    }

    /// HANDLE_TRANSFER.
    pub fn transfer_with(&self, id: u64, to: &Client, hooks: &Hooks<'_>) -> Result<u64> {
        let arena = Arena::default();
        let cmd = CmdHandleTransfer {
            flags: 0,
            src_handle: id,
            dst_fd: to.fd,
            dst_handle: HANDLE_INVALID,
        };
        let arg = arena.put(&cmd.to_bytes());
        self.call(&arena, hooks, CMD_HANDLE_TRANSFER, arg)?;
        let mut bytes = [0; CmdHandleTransfer::SIZE];
        arena.get(arg, &mut bytes)?;
        Ok(CmdHandleTransfer::from_bytes(&bytes).dst_handle)
    }

    /// NODES_DESTROY; the pins stay.
    pub fn destroy(&self, nodes: &[u64]) -> Result {
        self.destroy_with(nodes, 0)
    }

    /// NODES_DESTROY.
    pub fn destroy_with(&self, nodes: &[u64], flags: u64) -> Result {
        let arena = Arena::default();
        let cmd = CmdNodesDestroy {
            flags,
            ptr_nodes: arena.numbers(nodes, u64::to_ne_bytes),
            n_nodes: nodes.len() as u64,
        };
        let arg = arena.put(&cmd.to_bytes());
        self.call(&arena, &Hooks::default(), CMD_NODES_DESTROY, arg)
    }

    /// PEER_RESET.
    pub fn reset(&self, flags: u64, limits: [u32; 4]) -> Result {
        let cmd = CmdPeerReset {
            flags,
            peer_flags: u64::MAX,
            max_slices: limits[0],
            max_handles: limits[1],
            max_inflight_bytes: limits[2],
            max_inflight_fds: limits[3],
        };
        self.simple(CMD_PEER_RESET, &cmd.to_bytes())
    }

    /// PEER_RESET with all limits as they are.
    pub fn flush(&self, flags: u64) -> Result {
        self.reset(flags, [u32::MAX; 4])
    }

    /// PEER_DISCONNECT.
    pub fn disconnect(&self) -> Result {
        self.call(&Arena::default(), &Hooks::default(), CMD_PEER_DISCONNECT, 0)
    }

    /// Returns the answer that poll would give.
    pub fn ready(&self) -> Ready {
        self.peer.ready()
    }

    /// Does this when it is woken next, as what it woke would on a machine with one CPU. No real
    /// host could do that from within the wake-up, which may come with locks held; now none is.
    pub fn at_wake(&self, hook: impl FnOnce() + Send + 'static) {
        self.peer.waker().hook(Box::new(hook));
    }

    /// Returns the number of wake-ups.
    pub fn wakes(&self) -> u64 {
        self.peer.waker().wakes()
    }

    /// Its counts.
    pub fn info(&self) -> Info {
        self.peer.info()
    }

    /// Descriptors that it was given, and the files behind them.
    pub fn fds(&self) -> Vec<(i32, u32)> {
        self.fds.lock().unwrap().clone()
    }
}
