// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! RECV against other calls that happen while it writes its result: no lock is held then.

#![cfg(not(loom))]

mod common;

use std::cell::Cell;

use bus1_core::abi::*;
use bus1_core::bus::{BYTES, SLICES};
use common::*;
use kernel::error::code::*;

/// Returns the destination, the data and the flag of what was received.
fn brief(received: &Received) -> (u64, &[u8], bool) {
    (received.destination, &received.data, received.more)
}

#[test]
fn another_thread_takes_the_head() {
    let (world, r, s, [id, _]) = pair();
    for data in [b"1", b"2"] {
        s.send(Letter::new(&[id], data)).unwrap();
    }
    let hooks = Hooks::at_write(|| {
        assert_eq!(r.take().unwrap().data, b"1");
        Ok(())
    });
    let received = r.recv_with(0, &hooks).unwrap();
    assert_eq!(brief(&received), (0, &b"2"[..], false));
    assert_eq!(r.recv(), Err(EAGAIN));
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn another_thread_takes_the_only_message() {
    let (world, r, s, [id, _]) = pair();
    s.send(Letter::new(&[id], b"1")).unwrap();
    let hooks = Hooks::at_write(|| r.take().map(drop));
    assert_eq!(r.recv_with(0, &hooks), Err(EAGAIN));
    assert_eq!(r.info().slices, 0);
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn a_fault_leaves_the_message() {
    let (world, r, s, [id, _]) = pair();
    let letter = Letter {
        handles: &[8, id],
        fds: &[5],
        to: &[id],
        data: b"abc",
        ..Letter::default()
    };
    s.send(letter).unwrap();
    let before = world.state();
    for _ in 0..3 {
        let hooks = Hooks::at_write(|| Err(EFAULT));
        assert_eq!(r.recv_with(RECV_FLAG_INSTALL_FDS, &hooks), Err(EFAULT));
        assert_eq!(world.state(), before);
        assert!(r.fds().is_empty());
    }
    let received = r.recv_with(RECV_FLAG_INSTALL_FDS, &Hooks::default());
    let received = received.unwrap();
    assert_eq!(received.data, b"abc");
    // A new one, and its own node.
    assert!(received.handles[0] & HANDLE_FLAG_REMOTE != 0);
    assert_eq!(received.handles[1], 0);
    assert_eq!(r.fds(), [(received.fds[0], 5)]);
    drop((s, r));
    world.end();
}

#[test]
fn later_messages_change_nothing() {
    let (world, r, s, [id, other]) = pair();
    s.send(Letter::new(&[id], b"1")).unwrap();
    let hooks = Hooks::at_write(|| s.send(Letter::new(&[other], b"2")));
    assert_eq!(r.recv_with(0, &hooks).unwrap().data, b"1");
    assert_eq!(r.take().unwrap().data, b"2");
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn a_release_notice_is_withdrawn() {
    let (world, o, p, [id, _]) = pair();
    p.release(id).unwrap();
    let given = Cell::new(0);
    let hooks = Hooks::at_write(|| o.transfer(0, &p).map(|id| given.set(id)));
    assert_eq!(o.recv_with(0, &hooks), Err(EAGAIN));
    assert!(!o.ready().readable);
    assert_ne!(given.get(), id, "an ID came back");
    p.release(given.get()).unwrap();
    let received = o.take_all();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].kind, MSG_NODE_RELEASE);
    drop(hooks);
    drop((o, p));
    world.end();
}

#[test]
fn a_release_notice_is_withdrawn_and_owed_again() {
    let (world, o, p, [id, _]) = pair();
    p.release(id).unwrap();
    let hooks = Hooks::at_write(|| {
        let id = o.transfer(0, &p)?;
        p.release(id)
    });
    let received = o.recv_with(0, &hooks).unwrap();
    assert_eq!(received.kind, MSG_NODE_RELEASE);
    assert_eq!(o.recv(), Err(EAGAIN), "one notice, not two");
    drop(hooks);
    drop((o, p));
    world.end();
}

#[test]
fn a_failed_send_withdraws_no_notice() {
    let (world, o, p, [id, other]) = pair();
    p.release(id).unwrap();
    let to_p = p.transfer(0, &o).unwrap();
    let hooks = Hooks::at_copy(|| Err(EFAULT));
    let letter = Letter {
        handles: &[0],
        to: &[to_p],
        data: b"x",
        ..Letter::default()
    };
    assert_eq!(o.send_with(letter, &hooks).0, Err(EFAULT));
    let received = o.take().unwrap();
    assert_eq!((received.kind, received.destination), (MSG_NODE_RELEASE, 0));
    assert_eq!(p.send(Letter::new(&[other], b"alive")), Ok(()));
    drop(hooks);
    drop((o, p));
    world.end();
}

#[test]
fn the_handle_of_a_destroyed_node_is_released() {
    let (world, o, p, [id, _]) = pair();
    o.destroy(&[0]).unwrap();
    let hooks = Hooks::at_write(|| p.release(id));
    assert_eq!(p.recv_with(0, &hooks), Err(EAGAIN));
    assert_eq!(p.release(id), Err(ENXIO));
    drop(hooks);
    drop((o, p));
    world.end();
}

#[test]
fn the_second_part_vanishes_and_the_flag_with_it() {
    let (world, r, s, ids) = pair();
    s.send(Letter::new(&ids, b"both")).unwrap();
    r.destroy(&[4]).unwrap();
    let hooks = Hooks::at_write(|| r.release(4));
    let received = r.recv_with(0, &hooks).unwrap();
    assert_eq!(brief(&received), (0, &b"both"[..], false));
    // A part that was promised to nobody does not come.
    assert_eq!(r.recv(), Err(EAGAIN));
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn the_flag_stays_where_the_second_part_comes() {
    let (world, r, s, ids) = pair();
    s.send(Letter::new(&ids, b"both")).unwrap();
    let hooks = Hooks::at_write(|| r.destroy(&[4]));
    let received = r.recv_with(0, &hooks).unwrap();
    assert_eq!(brief(&received), (0, &b"both"[..], true));
    assert_eq!(brief(&r.take().unwrap()), (4, &b"both"[..], false));
    assert_eq!(r.take().unwrap().kind, MSG_NODE_DESTROY);
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn a_handle_dies_under_a_receipt() {
    let (world, r, s, [id, _]) = pair();
    let letter = Letter {
        handles: &[8],
        to: &[id],
        data: b"x",
        ..Letter::default()
    };
    s.send(letter).unwrap();
    let hooks = Hooks::at_write(|| s.destroy(&[8]));
    let received = r.recv_with(0, &hooks).unwrap();
    // The message is before the destruction.
    let handle = received.handles[0];
    assert_ne!(handle, HANDLE_INVALID);
    let notice = r.take().unwrap();
    assert_eq!(
        (notice.kind, notice.destination),
        (MSG_NODE_DESTROY, handle)
    );
    r.release(handle).unwrap();
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn descriptors_are_installed_once() {
    let (world, r, s, [id, _]) = pair();
    let letter = Letter {
        fds: &[5, 6],
        to: &[id],
        data: b"x",
        ..Letter::default()
    };
    s.send(letter).unwrap();
    let hooks = Hooks {
        install: Script::default().then(|| {
            let received = r.recv_with(RECV_FLAG_INSTALL_FDS, &Hooks::default())?;
            assert_eq!(received.fds.len(), 2);
            Ok(())
        }),
        ..Hooks::default()
    };
    assert_eq!(r.recv_with(RECV_FLAG_INSTALL_FDS, &hooks), Err(EAGAIN));
    let files: Vec<u32> = r.fds().iter().map(|fd| fd.1).collect();
    assert_eq!(files, [5, 6]);
    assert_eq!(world.files(), 0);
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn a_full_table_of_descriptors_leaves_the_message() {
    let (world, r, s, [id, _]) = pair();
    let letter = Letter {
        fds: &[5, 6],
        to: &[id],
        data: b"x",
        ..Letter::default()
    };
    s.send(letter).unwrap();
    let before = world.state();
    assert_eq!(before.2, 2);
    let hooks = Hooks {
        install: Script::default().then(|| Err(EMFILE)),
        ..Hooks::default()
    };
    assert_eq!(r.recv_with(RECV_FLAG_INSTALL_FDS, &hooks), Err(EMFILE));
    assert_eq!(world.state(), before);
    // A receiver that does not want them drops them.
    let received = r.recv().unwrap();
    assert!(received.fds.is_empty() && r.fds().is_empty());
    assert_eq!(world.files(), 0);
    drop(hooks);
    drop((s, r));
    world.end();
}

#[test]
fn the_peer_is_disconnected_or_flushed() {
    for flush in [false, true] {
        let (world, r, s, [id, other]) = pair();
        let letter = Letter {
            handles: &[8],
            fds: &[1],
            to: &[id, other],
            data: b"x",
            ..Letter::default()
        };
        s.send(letter).unwrap();
        let hooks = Hooks::at_write(|| {
            if flush {
                r.flush(PEER_RESET_FLAG_FLUSH)
            } else {
                r.disconnect()
            }
        });
        let error = if flush { EAGAIN } else { ESHUTDOWN };
        assert_eq!(r.recv_with(0, &hooks), Err(error));
        assert_eq!(world.files(), 0);
        drop(hooks);
        drop((s, r));
        world.end();
    }
}

#[test]
fn a_flush_drops_what_was_committed_behind_the_head() {
    let (world, r, s, [id, other]) = pair();
    r.seed(&[0], b"seed");
    // The second is in the queue as it was staged until somebody asks for it.
    s.send(Letter::new(&[id], b"1")).unwrap();
    s.send(Letter::new(&[id, other], b"2")).unwrap();
    r.flush(PEER_RESET_FLAG_FLUSH).unwrap();
    let info = r.info();
    assert_eq!((info.queued, info.staged), (0, 0));
    assert_eq!(r.recv(), Err(EAGAIN));
    // The node lives.
    s.send(Letter::new(&[id], b"3")).unwrap();
    assert_eq!(r.take().unwrap().data, b"3");
    drop((s, r));
    world.end();
}

#[test]
fn a_disconnect_leaves_pinned_only_what_the_user_has() {
    let (world, r, s, [id, _]) = pair();
    r.seed(&[0], b"seed");
    for text in [b"1", b"2", b"3"] {
        s.send(Letter::new(&[id], text)).unwrap();
    }
    // The first slice is given back, and its memory is kept for the next message; the user has the
    // second; the third waits.
    r.take().unwrap();
    r.recv().unwrap();
    r.disconnect().unwrap();
    assert_eq!(r.pool.pins(), 1);
    drop((s, r));
    world.end();
}

/// Slices that the user has are pinned for as long as the pool is mapped, so they are charged for
/// as long: closing and opening again would wipe the slate clean.
#[test]
fn what_a_disconnected_peer_was_given_stays_charged_with_its_pool() {
    let (world, r, s, [id, _]) = pair();
    let other = world.open(1);
    let charged = || other.info().user_charged;
    let before = charged();
    let mapped = r.peer.pool().unwrap();
    for data in [[7; 100], [8; 100]] {
        s.send(Letter::new(&[id], &data)).unwrap();
    }
    s.send(Letter::new(&[id], b"unread")).unwrap();
    r.recv().unwrap();
    // This one is released again.
    r.take().unwrap();
    r.disconnect().unwrap();
    let kept = |r: usize| charged()[r] - before[r];
    assert_eq!((kept(SLICES), kept(BYTES)), (1, 100));
    drop(r);
    assert_eq!((kept(SLICES), kept(BYTES)), (1, 100));
    drop(mapped);
    assert_eq!((kept(SLICES), kept(BYTES)), (0, 0));
    drop((s, other));
    world.end();
}
