// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands of the sweep, and the system calls on a peer that are no commands.

use std::os::fd::{BorrowedFd, RawFd};

use bus1_uapi as abi;

use super::scene::{self, Scene};
use crate::client::{Exchange, Limits, Send};
use crate::host::{Bus, Errno, Result};

/// A command on a scene.
pub struct Command {
    pub name: &'static str,
    /// Makes the peers that it is tried on.
    pub scene: for<'a> fn(&'a dyn Bus, u32) -> Scene<'a>,
    /// Gives the command without its first steps, which are done; 0 for the whole command.
    pub call: fn(&mut Scene<'_>, usize) -> Result,
    /// The steps that stay done if a later one fails, each by a command of its own.
    pub steps: &'static [fn(&mut Scene<'_>) -> Result],
    pub points: Points,
    /// Whether it receives several messages, the later ones only if nothing fails.
    pub many: bool,
}

/// The kinds of points that a command has, of each at least one.
///
/// An allocation ends in ENOMEM or is survived, a user copy in EFAULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Points {
    /// It allocates nothing, and copies no more than one number.
    None,
    Allocations,
    Copies,
    Both,
}

impl Points {
    /// Whether the command has allocations that can fail it.
    pub fn has_allocations(self) -> bool {
        matches!(self, Self::Allocations | Self::Both)
    }

    /// Whether the command has user copies.
    pub fn has_copies(self) -> bool {
        matches!(self, Self::Copies | Self::Both)
    }
}

/// More than one row of pages, in no whole number of them.
static LARGE: [u8; 150_000] = [b'x'; 150_000];
/// Descriptors in one poll: more than the kernel keeps on the stack.
const POLLED: usize = 64;
/// Bytes of a mapping.
const MAPPED: u64 = 1 << 20;

impl Command {
    const fn new(
        name: &'static str,
        scene: for<'a> fn(&'a dyn Bus, u32) -> Scene<'a>,
        points: Points,
        call: fn(&mut Scene<'_>, usize) -> Result,
    ) -> Self {
        Self {
            name,
            scene,
            call,
            steps: &[],
            points,
            many: false,
        }
    }

    const fn steps(mut self, steps: &'static [fn(&mut Scene<'_>) -> Result]) -> Self {
        self.steps = steps;
        self
    }

    const fn many(mut self) -> Self {
        self.many = true;
        self
    }
}

/// Returns all commands.
pub fn all() -> Vec<Command> {
    [peers(), handles(), sends(), receipts(), exchanges()]
        .into_iter()
        .flatten()
        .collect()
}

/// Opening, limits, mappings, poll, the end.
fn peers() -> Vec<Command> {
    vec![
        Command::new("open", scene::idle, Points::Allocations, |scene, _| {
            scene.open_here()
        }),
        Command::new("peer_query", scene::idle, Points::Copies, |scene, _| {
            scene.a().query().map(drop)
        }),
        Command::new(
            "peer_reset: limits",
            scene::waiting,
            Points::Copies,
            |scene, _| scene.a().limit(Limits::all(1000)),
        ),
        Command::new(
            "peer_reset: flush",
            scene::waiting,
            Points::Copies,
            |scene, _| scene.a().flush(abi::PEER_RESET_FLAG_FLUSH),
        ),
        Command::new(
            "peer_reset: flush the seed",
            scene::waiting,
            Points::Copies,
            |scene, _| scene.a().flush(abi::PEER_RESET_FLAG_FLUSH_SEED),
        ),
        Command::new(
            "peer_reset: flush all",
            scene::waiting,
            Points::Copies,
            |scene, _| {
                let flags = abi::PEER_RESET_FLAG_FLUSH | abi::PEER_RESET_FLAG_FLUSH_SEED;
                scene.a().flush(flags)
            },
        ),
        Command::new("quota: own", scene::received, Points::Copies, |scene, _| {
            let own = abi::HANDLE_INVALID;
            scene.a().quota(own, [0; 3]).map(drop)
        }),
        Command::new(
            "quota: of a receiver",
            scene::busy,
            Points::Copies,
            |scene, _| scene.b().quota(scene.back[0], [1, 2, 3]).map(drop),
        ),
        // The first mapping of a pool makes the file that all mappings of it share.
        Command::new("mmap", scene::idle, Points::Allocations, |scene, _| {
            let view = scene.c().door().map(MAPPED)?;
            scene.views.push(view);
            Ok(())
        }),
        Command::new("poll", scene::idle, Points::Allocations, |scene, _| {
            poll(scene.a().fd())
        }),
        Command::new("epoll", scene::waiting, Points::Allocations, |scene, _| {
            epoll(scene.a().fd())
        }),
        Command::new(
            "peer_disconnect",
            scene::waiting,
            Points::None,
            |scene, _| scene.a().disconnect(),
        ),
        Command::new("close", scene::waiting, Points::None, |scene, _| {
            scene.peers.remove(0);
            Ok(())
        }),
    ]
}

/// Handles, nodes and slices.
fn handles() -> Vec<Command> {
    vec![
        Command::new(
            "handle_transfer: new node",
            scene::busy,
            Points::Both,
            |scene, _| scene.a().give(scene.b(), 4).map(drop),
        ),
        Command::new(
            "handle_transfer: to itself",
            scene::idle,
            Points::Both,
            |scene, _| scene.a().give_self(4).map(drop),
        ),
        Command::new(
            "handle_transfer: known handle",
            scene::idle,
            Points::Both,
            |scene, _| scene.a().give(scene.b(), 0).map(drop),
        ),
        Command::new(
            "handle_transfer: passed on",
            scene::waiting,
            Points::Both,
            |scene, _| scene.a().give(scene.c(), scene.to[0]).map(drop),
        ),
        Command::new(
            "handle_release",
            scene::waiting,
            Points::None,
            |scene, _| scene.b().release(scene.back[0]),
        ),
        Command::new(
            "nodes_destroy: one",
            scene::waiting,
            Points::Copies,
            |scene, _| scene.a().destroy(&[0]),
        ),
        Command::new(
            "nodes_destroy: many",
            scene::waiting,
            Points::Both,
            |scene, _| scene.a().destroy(&[12, 0, 4, 16]),
        ),
        Command::new(
            "nodes_destroy: release handles",
            scene::waiting,
            Points::Both,
            |scene, _| scene.a().destroy_and_release(&[0, 4, 20]),
        ),
        Command::new(
            "slice_release",
            scene::received,
            Points::None,
            |scene, _| scene.a().release_slice(scene.slices[1]),
        ),
    ]
}

/// SEND in all its forms.
fn sends() -> Vec<Command> {
    vec![
        Command::new("send: unicast", scene::busy, Points::Both, |scene, _| {
            scene
                .c()
                .message()
                .to(&scene.back[1..])
                .bytes(b"text")
                .send()
        }),
        Command::new("send: large", scene::idle, Points::Both, |scene, _| {
            scene
                .b()
                .message()
                .to(&scene.back[..1])
                .bytes(&LARGE)
                .send()
        }),
        Command::new(
            "send: many vectors",
            scene::idle,
            Points::Both,
            |scene, _| {
                let message = scene.b().message().to(&scene.back[..1]);
                let parts = LARGE.chunks(5_000);
                parts.fold(message, Send::bytes).send()
            },
        ),
        Command::new(
            "send: to a new node",
            scene::idle,
            Points::Both,
            |scene, _| scene.a().message().to(&[4]).bytes(b"own").send(),
        ),
        Command::new("send: handles", scene::waiting, Points::Both, |scene, _| {
            let message = scene.a().message().to(&scene.to[..1]).bytes(b"handles");
            let [b, c] = scene.to;
            message.handles(&[24, 0, b, c, 24]).send()
        }),
        Command::new(
            "send: descriptors",
            scene::busy,
            Points::Both,
            |scene, _| {
                let message = scene.c().message().to(&scene.back[1..]).bytes(b"files");
                message.fds(&[scene.fd(); 20]).send()
            },
        ),
        Command::new("send: multicast", scene::busy, Points::Both, |scene, _| {
            everything(scene).send()
        }),
        Command::new("send: CONTINUE", scene::busy, Points::Both, |scene, _| {
            everything(scene).proceed().send()
        }),
        Command::new(
            "send: CONTINUE past the dead",
            scene::bereft,
            Points::Both,
            |scene, _| {
                let message = scene.a().message().to(&scene.to).bytes(b"partial");
                let sent = message.handles(&[4]).proceed().outcome();
                // Lack of memory is no matter of one destination.
                if sent.result.is_ok() {
                    assert_eq!(sent.errors, [libc::EHOSTUNREACH, 0]);
                }
                sent.result
            },
        ),
        Command::new("send: to nobody", scene::idle, Points::Both, |scene, _| {
            scene.a().message().handles(&[4, 8]).send()
        }),
        Command::new("send: SEED", scene::waiting, Points::Both, |scene, _| {
            let message = scene.a().message().seed().bytes(&LARGE[..9_000]);
            message
                .handles(&[4, scene.to[1], 28])
                .fds(&[scene.fd()])
                .send()
        }),
    ]
}

/// A message to several nodes of several peers, two of them new, with everything.
fn everything<'a>(scene: &'a Scene<'_>) -> Send<'a> {
    let [b, c] = scene.to;
    let message = scene.a().message().to(&[c, 4, b, 8]).bytes(b"everything");
    message.handles(&[12, b, 4]).fds(&[scene.fd(); 2])
}

/// RECV in all its forms.
fn receipts() -> Vec<Command> {
    vec![
        Command::new("recv", scene::busy, Points::Copies, |scene, _| {
            recv(scene, 0)
        }),
        Command::new(
            "recv: handles",
            scene::waiting,
            Points::Copies,
            |scene, _| recv(scene, 0),
        ),
        Command::new(
            "recv: INSTALL_FDS",
            scene::waiting,
            Points::Both,
            |scene, _| recv(scene, abi::RECV_FLAG_INSTALL_FDS),
        ),
        Command::new(
            "recv: notification",
            notified,
            Points::Copies,
            |scene, _| recv(scene, 0),
        ),
        Command::new("recv: SEED", scene::waiting, Points::Both, |scene, _| {
            recv(scene, abi::RECV_FLAG_SEED)
        }),
        Command::new(
            "recv: SEED, INSTALL_FDS",
            scene::waiting,
            Points::Both,
            |scene, _| recv(scene, abi::RECV_FLAG_SEED | abi::RECV_FLAG_INSTALL_FDS),
        ),
    ]
}

/// Makes a scene with a notification at the head of the first's queue.
fn notified(bus: &dyn Bus, first_user: u32) -> Scene<'_> {
    let scene = scene::idle(bus, first_user);
    scene.b().destroy(&[0]).unwrap();
    scene
}

/// RECV at the first.
fn recv(scene: &mut Scene<'_>, flags: u64) -> Result {
    let message = scene.a().receive().flags(flags).run()?;
    scene.keep(message);
    Ok(())
}

/// EXCHANGE, one step alone and all together.
fn exchanges() -> Vec<Command> {
    vec![
        Command::new(
            "exchange: release",
            scene::received,
            Points::Copies,
            |scene, done| {
                exchange(
                    scene,
                    Parts {
                        release: true,
                        ..Parts::NONE
                    },
                    done,
                )
            },
        )
        .steps(&[release_first, release_second]),
        Command::new(
            "exchange: send",
            scene::busy,
            Points::Both,
            |scene, done| {
                exchange(
                    scene,
                    Parts {
                        send: true,
                        ..Parts::NONE
                    },
                    done,
                )
            },
        ),
        Command::new(
            "exchange: receive",
            scene::received,
            Points::Both,
            |scene, done| {
                exchange(
                    scene,
                    Parts {
                        room: 1,
                        ..Parts::NONE
                    },
                    done,
                )
            },
        ),
        Command::new(
            "exchange: receive many",
            scene::received,
            Points::Both,
            |scene, done| {
                exchange(
                    scene,
                    Parts {
                        room: 5,
                        ..Parts::NONE
                    },
                    done,
                )
            },
        )
        .many(),
        Command::new(
            "exchange: all",
            scene::received,
            Points::Both,
            |scene, done| {
                exchange(
                    scene,
                    Parts {
                        release: true,
                        send: true,
                        room: 5,
                    },
                    done,
                )
            },
        )
        .steps(&[release_first, release_second, send_alone])
        .many(),
    ]
}

/// The parts of one EXCHANGE.
#[derive(Clone, Copy)]
struct Parts {
    release: bool,
    send: bool,
    room: usize,
}

impl Parts {
    const NONE: Self = Self {
        release: false,
        send: false,
        room: 0,
    };
}

fn release_first(scene: &mut Scene<'_>) -> Result {
    scene.a().release_slice(scene.slices[0])
}

fn release_second(scene: &mut Scene<'_>) -> Result {
    scene.a().release_slice(scene.slices[1])
}

fn send_alone(scene: &mut Scene<'_>) -> Result {
    outgoing(scene).send()
}

/// The message that EXCHANGE sends.
fn outgoing<'a>(scene: &'a Scene<'_>) -> Send<'a> {
    let message = scene.a().message().to(&scene.to).bytes(b"question");
    message.handles(&[32, scene.to[1]]).fds(&[scene.fd()])
}

/// EXCHANGE at the first without the first `done` of its steps: a release for each slice, a SEND.
fn exchange(scene: &mut Scene<'_>, parts: Parts, done: usize) -> Result {
    let slices = if parts.release {
        scene.slices.clone()
    } else {
        Vec::new()
    };
    let released = done.min(slices.len());
    let mut call = scene.a().exchange().release(&slices[released..]);
    if parts.send && done == released {
        call = call.send(outgoing(scene));
    }
    if parts.room > 0 {
        call = call.room(parts.room);
    }
    match call.call() {
        Ok(()) => {
            let messages = call.messages();
            drop(call);
            messages.into_iter().for_each(|message| scene.keep(message));
            Ok(())
        }
        Err(errno) => {
            let all = slices.len() + usize::from(parts.send);
            let reported = all - left(&call);
            drop(call);
            // EFAULT can mean that the structure was not written.
            scene.reported = (errno != Errno::FAULT).then_some(reported);
            Err(errno)
        }
    }
}

/// Returns the number of steps that a failed EXCHANGE reports as left.
fn left(call: &Exchange<'_>) -> usize {
    call.arg.n_slices as usize + usize::from(call.arg.flags & abi::EXCHANGE_FLAG_SEND != 0)
}

/// Polls a peer that is not readable by many descriptors, for no time to speak of.
fn poll(fd: RawFd) -> Result {
    use rustix::event::{poll, PollFd, PollFlags, Timespec};
    // SAFETY: the peer lives longer than this call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut fds = vec![PollFd::new(&fd, PollFlags::IN); POLLED];
    // A poll that may not sleep, or finds something, queues no wait entry.
    let limit = Timespec {
        tv_sec: 0,
        tv_nsec: 1,
    };
    poll(&mut fds, Some(&limit)).map(drop)
}

/// Watches a peer by epoll, which queues a wait entry of its own.
fn epoll(fd: RawFd) -> Result {
    use rustix::event::epoll;
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    // SAFETY: the peer lives longer than this call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    epoll::add(
        &watch,
        fd,
        epoll::EventData::new_u64(0),
        epoll::EventFlags::IN,
    )
}
