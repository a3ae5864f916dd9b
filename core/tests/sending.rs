// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! SEND against other calls that happen while it copies the payload or reports errors: everything
//! is reserved then and nothing is sent.

#![cfg(not(loom))]

mod common;

use bus1_core::abi::*;
use bus1_core::bus::Limits;
use common::*;
use kernel::error::{code::*, Error, Result};

fn errno(error: Error) -> i32 {
    -error.to_errno()
}

/// Three receivers, and a sender with a handle to node 0 of each.
struct Scene {
    world: World,
    to: [Client; 3],
    from: Client,
    ids: [u64; 3],
}

impl Scene {
    fn new() -> Self {
        let world = World::default();
        let to = [1, 1, 2].map(|uid| world.open(uid));
        let from = world.open(3);
        let ids = [0, 1, 2].map(|i: usize| to[i].transfer(0, &from).unwrap());
        Self {
            world,
            to,
            from,
            ids,
        }
    }

    /// Receives at each of the receivers; returns the counts.
    fn received(&self) -> Vec<usize> {
        let data = |client: &Client| {
            let all = client.take_all();
            assert!(all.iter().all(|one| !one.more));
            all.iter().filter(|one| one.kind == MSG_DATA).count()
        };
        self.to.iter().map(data).collect()
    }

    /// Checks that nothing is in flight, and ends.
    fn end(self) {
        for client in &self.to {
            let info = client.info();
            assert_eq!((info.queued, info.staged, info.slices), (0, 0, 0));
            assert_eq!((info.charged[0], info.charged[2]), (0, 0));
        }
        assert_eq!(self.world.files(), 0);
        drop((self.from, self.to));
        self.world.end();
    }
}

/// Returns a message to all, with a handle and a file.
fn letter(ids: &[u64], flags: u64) -> Letter<'_> {
    Letter {
        to: ids,
        handles: &[8],
        data: b"letter",
        fds: &[3],
        flags,
    }
}

/// Something that makes the second destination vanish.
const DEATHS: [fn(&Scene) -> Result; 4] = [
    |scene| scene.to[1].destroy(&[0]),
    |scene| scene.to[1].destroy_with(&[0], NODES_DESTROY_FLAG_RELEASE_HANDLES),
    |scene| scene.to[1].disconnect(),
    |scene| scene.to[1].flush(PEER_RESET_FLAG_FLUSH),
];

#[test]
fn one_of_many_dies_while_the_payload_is_copied() {
    for death in DEATHS {
        let scene = Scene::new();
        let hooks = Hooks::at_copy(|| death(&scene));
        let (result, errors) = scene.from.send_with(letter(&scene.ids, 0), &hooks);
        assert_eq!(result, Err(EHOSTUNREACH));
        assert_eq!(errors, [0, errno(EHOSTUNREACH), 0]);
        drop(hooks);
        // Neither did it create its node.
        let own = scene.from.info();
        assert_eq!((own.nodes, own.handles), (0, 3));
        // Wakes without cause are allowed, messages are not.
        assert!(!scene.to[0].ready().readable && !scene.to[2].ready().readable);
        if scene.to[1].peer.check_open().is_ok() {
            assert_eq!(scene.received(), [0, 0, 0]);
        }
        scene.end();
    }
}

#[test]
fn one_of_many_dies_and_the_others_get_it() {
    for death in DEATHS {
        let scene = Scene::new();
        let hooks = Hooks::at_copy(|| death(&scene));
        let (result, errors) = scene
            .from
            .send_with(letter(&scene.ids, SEND_FLAG_CONTINUE), &hooks);
        assert_eq!(result, Ok(()));
        assert_eq!(errors, [0, errno(EHOSTUNREACH), 0]);
        drop(hooks);
        for i in [0, 2] {
            assert!(scene.to[i].wakes() > 0);
            let received = scene.to[i].take().unwrap();
            assert_eq!(received.data, b"letter");
            assert!(!received.more);
            scene.to[i].release(received.handles[0]).unwrap();
        }
        if scene.to[1].peer.check_open().is_ok() {
            scene.to[1].take_all();
        }
        let notice = scene.from.take_all();
        assert_eq!(notice.last().unwrap().kind, MSG_NODE_RELEASE);
        scene.end();
    }
}

#[test]
fn the_reports_themselves_take_time() {
    // Each time the errors are written another destination dies.
    let scene = Scene::new();
    let hooks = Hooks {
        write: Script::default()
            .then(|| scene.to[0].destroy(&[0]))
            .then(|| scene.to[1].disconnect())
            .then(|| Ok(())),
        ..Hooks::default()
    };
    let (result, errors) = scene
        .from
        .send_with(letter(&scene.ids, SEND_FLAG_CONTINUE), &hooks);
    assert_eq!(result, Ok(()));
    assert_eq!(errors, [113, 113, 0]);
    assert_eq!(hooks.write.left(), 0);
    drop(hooks);
    let received = scene.to[2].take().unwrap();
    assert!(!received.more);
    assert_eq!(scene.to[0].take_all().len(), 1);
    scene.end();
}

#[test]
fn all_destinations_die_one_after_the_other() {
    let scene = Scene::new();
    let hooks = Hooks {
        write: Script::default()
            .then(|| scene.to[0].destroy(&[0]))
            .then(|| scene.to[1].destroy(&[0]))
            .then(|| scene.to[2].destroy(&[0])),
        ..Hooks::default()
    };
    let (result, errors) = scene
        .from
        .send_with(letter(&scene.ids, SEND_FLAG_CONTINUE), &hooks);
    // It was partial, and as such it succeeded: the node stays, unknown to all others.
    assert_eq!((result, &errors[..]), (Ok(()), &[113; 3][..]));
    assert_eq!(scene.from.info().nodes, 1);
    drop(hooks);
    assert_eq!(scene.received(), [0, 0, 0]);
    scene.end();
}

#[test]
fn a_report_that_cannot_be_written_fails_the_whole() {
    for good in 0..3 {
        let scene = Scene::new();
        let mut write = Script::default();
        for i in 0..good {
            let client = &scene.to[i];
            write = write.then(|| client.destroy(&[0]));
        }
        let hooks = Hooks {
            write: write.then(|| Err(EFAULT)),
            ..Hooks::default()
        };
        let letter = letter(&scene.ids, SEND_FLAG_CONTINUE);
        assert_eq!(scene.from.send_with(letter, &hooks).0, Err(EFAULT));
        drop(hooks);
        assert_eq!(scene.received(), [0, 0, 0]);
        assert_eq!(scene.from.info().nodes, 0);
        scene.end();
    }
}

#[test]
fn a_fault_in_the_payload_leaves_no_trace() {
    for flags in [0, SEND_FLAG_CONTINUE] {
        let scene = Scene::new();
        let before = scene.world.state();
        let hooks = Hooks::at_copy(|| Err(EFAULT));
        let letter = letter(&scene.ids, flags);
        assert_eq!(scene.from.send_with(letter, &hooks).0, Err(EFAULT));
        assert_eq!(scene.world.state(), before);
        drop(hooks);
        scene.end();
    }
}

#[test]
fn memory_for_a_pool_is_the_senders_matter() {
    for flags in [0, SEND_FLAG_CONTINUE] {
        let scene = Scene::new();
        let before = scene.world.state();
        scene.to[1].pool.fail_pins_after(Some(0));
        assert_eq!(scene.from.send(letter(&scene.ids, flags)), Err(ENOMEM));
        assert_eq!(scene.world.state(), before);
        // Nothing is kept for the next message, which would stay the sender's to pay for.
        assert!(scene.to.iter().all(|client| client.pool.pins() == 0));
        assert_eq!(scene.to[0].pool.abandoned(), 1);
        scene.to[1].pool.fail_pins_after(None);
        assert_eq!(scene.from.send(letter(&scene.ids, flags)), Ok(()));
        assert_eq!(scene.received(), [1, 1, 1]);
        scene.end();
    }
}

#[test]
fn one_small_slice_is_kept_and_no_more() {
    let world = World::new([1024, 1024, 1 << 20, 64]);
    let (to, from) = (world.open(1), world.open(1));
    let ids = [to.transfer(0, &from).unwrap()];
    for size in [1, 64, 64, 0, 4096, 8, 8] {
        for _ in 0..2 {
            assert_eq!(from.send(Letter::new(&ids, &vec![7; size])), Ok(()));
        }
        assert_eq!(to.pool.pins() as u64, to.info().slices);
        assert_eq!(to.take_all().len(), 2);
        assert_eq!((to.info().slices, to.pool.pins()), (0, 1), "{size}");
    }
    // A large one is not.
    assert_eq!(from.send(Letter::new(&ids, &[7; 4097])), Ok(()));
    assert_eq!(to.pool.pins(), 1);
    assert_eq!(to.take_all().len(), 1);
    assert_eq!(to.pool.pins(), 0);
    drop((to, from));
    world.end();
}

#[test]
fn nodes_of_one_peer_die_one_by_one() {
    let world = World::default();
    let (r, s) = (world.open(1), world.open(2));
    let ids = [0, 4, 12].map(|node| r.transfer(node, &s).unwrap());
    let hooks = Hooks::at_copy(|| r.destroy(&[12]));
    let letter = Letter {
        flags: SEND_FLAG_CONTINUE,
        ..Letter::new(&ids, b"x")
    };
    let (result, errors) = s.send_with(letter, &hooks);
    assert_eq!((result, &errors[..]), (Ok(()), &[0, 0, 113][..]));
    let parts: Vec<_> = r
        .take_all()
        .iter()
        .map(|one| (one.kind, one.destination, one.more))
        .collect();
    // The flag does not promise the part that was refused.
    let expected = [
        (MSG_NODE_DESTROY, 12, false),
        (MSG_DATA, 0, true),
        (MSG_DATA, 4, false),
    ];
    assert_eq!(parts, expected);
    drop(hooks);
    drop((r, s));
    world.end();
}

#[test]
fn a_handle_dies_before_the_message_is_sent() {
    let scene = Scene::new();
    let known = scene.from.transfer(12, &scene.to[0]).unwrap();
    let hooks = Hooks::at_copy(|| scene.from.destroy(&[12]));
    let letter = Letter {
        handles: &[12],
        ..Letter::new(&scene.ids, b"x")
    };
    assert_eq!(scene.from.send_with(letter, &hooks).0, Ok(()));
    drop(hooks);
    // The holder is notified of the end first.
    let notice = scene.to[0].take().unwrap();
    assert_eq!((notice.kind, notice.destination), (MSG_NODE_DESTROY, known));
    for client in &scene.to {
        let received = client.take().unwrap();
        assert_eq!(received.handles, [HANDLE_INVALID]);
        assert_eq!(client.recv(), Err(EAGAIN));
    }
    scene.end();
}

#[test]
fn the_sender_leaves_while_it_sends() {
    for flags in [0, SEND_FLAG_CONTINUE] {
        let scene = Scene::new();
        let hooks = Hooks::at_copy(|| scene.from.disconnect());
        let (result, _) = scene.from.send_with(letter(&scene.ids, flags), &hooks);
        // The message may go out or not; its handle is dead in any case.
        drop(hooks);
        for client in &scene.to {
            // It releases what it held.
            assert_eq!(client.take().unwrap().kind, MSG_NODE_RELEASE);
            match (result, client.take()) {
                (Ok(()), Ok(received)) => assert_eq!(received.handles, [HANDLE_INVALID]),
                (Err(error), Err(EAGAIN)) => assert_eq!(error, ESHUTDOWN),
                other => panic!("{other:?}"),
            }
            assert_eq!(client.recv(), Err(EAGAIN));
        }
        scene.end();
    }
}

#[test]
fn the_destination_is_released_while_it_is_used() {
    let scene = Scene::new();
    let hooks = Hooks::at_copy(|| scene.from.release(scene.ids[0]));
    let letter = Letter::new(&scene.ids, b"x");
    assert_eq!(scene.from.send_with(letter, &hooks).0, Ok(()));
    drop(hooks);
    let kinds: Vec<u64> = scene.to[0].take_all().iter().map(|one| one.kind).collect();
    assert_eq!(kinds, [MSG_NODE_RELEASE, MSG_DATA]);
    assert_eq!(scene.received(), [0, 1, 1]);
    scene.end();
}

#[test]
fn a_send_within_a_send_comes_first() {
    let scene = Scene::new();
    let inner = Letter::new(&scene.ids[..2], b"inner");
    let hooks = Hooks::at_copy(|| scene.from.send(inner));
    let outer = Letter::new(&scene.ids, b"outer");
    assert_eq!(scene.from.send_with(outer, &hooks).0, Ok(()));
    drop(hooks);
    for client in &scene.to[..2] {
        assert_eq!(client.take().unwrap().data, b"inner");
        assert_eq!(client.take().unwrap().data, b"outer");
    }
    assert_eq!(scene.received(), [0, 0, 1]);
    scene.end();
}

#[test]
fn a_stalled_sender_delays_nobody() {
    // While the payload is copied the receiver can do all that it likes.
    let scene = Scene::new();
    let hooks = Hooks::at_copy(|| {
        let r = &scene.to[0];
        scene.from.send(Letter::new(&scene.ids[..1], b"other"))?;
        assert_eq!(r.take()?.data, b"other");
        assert_eq!(r.recv(), Err(EAGAIN));
        assert_eq!(r.info().slices, 1, "the one that is being filled");
        r.flush(0)?;
        r.disconnect()
    });
    let letter = Letter::new(&scene.ids[..1], b"stalled");
    assert_eq!(scene.from.send_with(letter, &hooks).0, Err(EHOSTUNREACH));
    drop(hooks);
    assert!(scene.to[0].ready().hangup);
    scene.end();
}

#[test]
fn the_reservation_of_a_stalled_sender_counts() {
    let scene = Scene::new();
    // Half of what a foreign peer may have of 4000 bytes is reserved; then all of it.
    let data = vec![7; 500];
    let hooks = Hooks::at_copy(|| scene.from.send(Letter::new(&scene.ids[..1], b"x")));
    let letter = Letter::new(&scene.ids[..1], &data);
    assert_eq!(scene.from.send_with(letter, &hooks).0, Err(EDQUOT));
    drop(hooks);
    assert_eq!(scene.from.send(letter), Ok(()));
    assert_eq!(scene.received(), [1, 0, 0]);
    scene.end();
}

#[test]
fn a_message_sent_after_a_multicast_comes_after_it() {
    // The clocks of the receivers differ, whichever is ahead.
    for ahead in 0..3 {
        let scene = Scene::new();
        for _ in 0..5 {
            let letter = Letter::new(&scene.ids[ahead..=ahead], b"x");
            scene.from.send(letter).unwrap();
        }
        scene.from.send(Letter::new(&scene.ids, b"1")).unwrap();
        for id in &scene.ids {
            let letter = Letter::new(core::slice::from_ref(id), b"2");
            scene.from.send(letter).unwrap();
        }
        scene.from.send(Letter::new(&scene.ids[..2], b"3")).unwrap();
        for (i, client) in scene.to.iter().enumerate() {
            let all = client.take_all();
            let data: Vec<_> = all.iter().map(|one| &one.data[..]).collect();
            let expected = [&b"1"[..], b"2", b"3"];
            let expected = if i < 2 { &expected[..] } else { &expected[..2] };
            let before = if i == ahead { 5 } else { 0 };
            assert_eq!(&data[before..], expected);
        }
        scene.end();
    }
}

/// A message with which the pool of this host is full is refused for now, and not for good.
#[test]
fn a_pool_without_room_is_full_for_now() {
    let world = World::new([1024, 1024, 1 << 20, 64]);
    let (to, from) = (world.open(1), world.open(1));
    let ids = [to.transfer(0, &from).unwrap()];
    let half = vec![7; 40_000];
    let letter = Letter::new(&ids, &half);
    from.send(letter).unwrap();
    assert_eq!(from.send(letter), Err(EXFULL));
    assert_eq!(
        from.send(Letter::new(&ids, &vec![7; 70_000])),
        Err(EMSGSIZE)
    );
    let plant = Letter {
        to: &[],
        flags: SEND_FLAG_SEED,
        ..Letter::new(&[], &half[..20_000])
    };
    to.send(plant).unwrap();
    let again = || to.recv_with(RECV_FLAG_SEED, &Hooks::default());
    assert_eq!(again().map(drop), Err(EXFULL));
    assert_eq!(to.take().unwrap().data, half);
    again().unwrap();
    drop((to, from));
    world.end();
}

/// Sends messages to a peer that takes each at once, each larger by one. Returns the size of the
/// last before the first that is refused, which has to be too large for ever.
fn largest(
    from: &Client,
    to: &Client,
    letter: impl Fn(usize, &mut dyn FnMut(Letter<'_>)),
) -> usize {
    for n in 1.. {
        let mut sent = Ok(());
        letter(n, &mut |letter| sent = from.send(letter));
        if sent.is_err() {
            assert_eq!(sent, Err(EMSGSIZE), "{n} are too many");
            return n - 1;
        }
        to.take().unwrap();
    }
    unreachable!()
}

/// There is no size between those that an idle peer accepts and those that are too large for ever,
/// which would be refused as if they might be granted later.
#[test]
fn a_message_to_an_idle_peer_is_granted_or_too_large() {
    let many: Limits = [8192, 8192, 1 << 20, 8192];
    for (users, peers, expected) in [
        // The limits of the peer decide, then those of users.
        (
            many,
            Some([80, 81, 8000, 80]),
            [[9, 1000, 10], [40, 4000, 40]],
        ),
        (many.map(|n| n / 16), None, [[31, 4096, 32], [27, 8192, 64]]),
    ] {
        for (uid, expected) in [2, 1].into_iter().zip(expected) {
            let world = World::of(users, peers);
            let (r, s) = (world.open(1), world.open(uid));
            let to = [r.transfer(0, &s).unwrap()];
            let empty = Letter::new(&to, b"");
            let handles = largest(&s, &r, |n, send| {
                let handles = &vec![to[0]; n];
                send(Letter { handles, ..empty });
            });
            let bytes = largest(&s, &r, |n, send| send(Letter::new(&to, &vec![7; n])));
            let fds = largest(&s, &r, |n, send| {
                let fds = &vec![3; n];
                send(Letter { fds, ..empty });
            });
            assert_eq!([handles, bytes, fds], expected, "from user {uid}");
            drop((r, s));
            world.end();
        }
    }
}
