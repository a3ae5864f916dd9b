// SPDX-License-Identifier: MIT OR Apache-2.0

//! Opening, limits, mappings, poll, the end of a peer.

use std::os::fd::{BorrowedFd, RawFd};

use bus1_uapi as abi;

use super::{Command, Points};
use crate::client::Limits;
use crate::host::Result;
use crate::sweep::scene;

/// Descriptors in one poll: more than the kernel keeps on the stack.
const POLLED: usize = 64;
/// Bytes of a mapping.
const MAPPED: u64 = 1 << 20;

/// Returns the commands about one peer, and the system calls that are no commands.
pub(super) fn all() -> Vec<Command> {
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
        // All mappings of a pool share a file, which is made when the peer is opened.
        Command::new("mmap", scene::idle, Points::None, |scene, _| {
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
