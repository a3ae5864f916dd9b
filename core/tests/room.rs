// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Room again: a sender that was refused is notified once, when what was refused could be granted
//! or the destination is gone, whichever account refused, and nothing is left of a wait that ended.

#![cfg(not(loom))]

mod common;

use std::collections::HashMap;
use std::prelude::rust_2021::*;
use std::time::{Duration, Instant};
use std::vec;

use bus1_core::abi::*;
use common::*;
use kernel::error::{code::*, Result};
use kernel::fault;

/// Sends with the flag.
fn send(from: &Client, to: u64, data: &[u8]) -> Result {
    from.send(Letter {
        flags: SEND_FLAG_ROOM,
        ..Letter::new(&[to], data)
    })
}

/// Sends until the destination refuses. Returns the number of messages that it took.
fn fill(from: &Client, to: u64, data: &[u8]) -> usize {
    let mut n = 0;
    loop {
        match send(from, to, data) {
            Ok(()) => n += 1,
            error => break assert_eq!(error, Err(EDQUOT)),
        }
    }
    n
}

/// Receives everything that there is, which has to be notices of room. Returns their handles.
#[track_caller]
fn rooms(client: &Client) -> Vec<u64> {
    let all = client.take_all();
    assert!(all.iter().all(|one| one.kind == MSG_ROOM), "{all:?}");
    all.iter().map(|one| one.destination).collect()
}

/// Returns a receiver and a sender with a handle to it, of users 1 and `uid`.
fn pair_of(world: &World, uid: u32) -> (Client, Client, u64) {
    let (r, s) = (world.open(1), world.open(uid));
    let to = r.transfer(0, &s).unwrap();
    (r, s, to)
}

#[test]
fn a_refused_sender_is_notified_once() {
    for uid in [1, 2] {
        let world = World::default();
        let (r, s, to) = pair_of(&world, uid);
        let n = fill(&s, to, b"");
        assert!(n > 100);
        // One is outstanding, however many are refused.
        assert_eq!(fill(&s, to, b""), 0);
        assert_eq!(rooms(&s), []);
        assert!(!s.ready().readable);
        r.take().unwrap();
        assert!(s.ready().readable);
        assert_eq!(rooms(&s), [to]);
        r.take_all();
        assert_eq!(rooms(&s), []);
        // The same again.
        assert_eq!(fill(&s, to, b""), n);
        r.take().unwrap();
        assert_eq!(rooms(&s), [to]);
        drop((r, s));
        world.end();
    }
}

#[test]
fn a_refusal_without_the_flag_has_no_notice() {
    let world = World::default();
    let (r, s, to) = pair_of(&world, 2);
    while s.send(Letter::new(&[to], b"")).is_ok() {}
    r.take_all();
    assert_eq!(rooms(&s), []);
    drop((r, s));
    world.end();
}

#[test]
fn a_message_that_is_never_granted_has_no_notice() {
    let world = World::default();
    let (r, s, to) = pair_of(&world, 2);
    fill(&s, to, &[7; 100]);
    assert_eq!(rooms(&s), []);
    r.take_all();
    assert_eq!(rooms(&s), [to]);
    assert_eq!(send(&s, to, &[7; 4000]), Err(EMSGSIZE));
    fill(&s, to, &[7; 100]);
    assert_eq!(send(&s, to, &[7; 4000]), Err(EMSGSIZE));
    drop((r, s));
    world.end();
}

/// A large message waits until there is room for it, and not for a small one.
#[test]
fn the_notice_comes_once_it_could_be_granted() {
    let world = World::default();
    let (r, s, to) = pair_of(&world, 2);
    while s.send(Letter::new(&[to], &[7; 50])).is_ok() {}
    assert_eq!(send(&s, to, &[7; 400]), Err(EDQUOT));
    let mut released = 0;
    while rooms(&s).is_empty() {
        assert_eq!(send(&s, to, &[7; 400]), Err(EDQUOT));
        r.take().unwrap();
        released += 1;
    }
    assert!(released > 1);
    assert_eq!(send(&s, to, &[7; 400]), Ok(()));
    drop((r, s));
    world.end();
}

#[test]
fn the_end_of_the_destination_ends_the_wait() {
    for disconnect in [false, true] {
        let world = World::default();
        let (r, s, to) = pair_of(&world, 2);
        fill(&s, to, b"");
        match disconnect {
            true => r.disconnect().unwrap(),
            false => r.destroy(&[0]).unwrap(),
        }
        let kinds: Vec<_> = s.take_all().iter().map(|one| one.kind).collect();
        assert_eq!(kinds, [MSG_NODE_DESTROY, MSG_ROOM]);
        assert_eq!(send(&s, to, b""), Err(EHOSTUNREACH));
        drop((r, s));
        world.end();
    }
}

#[test]
fn the_release_of_the_handle_ends_the_wait() {
    for queued in [false, true] {
        let world = World::default();
        let (r, s, to) = pair_of(&world, 2);
        let n = fill(&s, to, b"");
        if queued {
            r.take().unwrap();
        }
        s.release(to).unwrap();
        assert_eq!(s.recv(), Err(EAGAIN));
        r.take_all();
        assert_eq!(s.recv(), Err(EAGAIN));
        // The next handle has a wait of its own.
        let to = r.transfer(0, &s).unwrap();
        assert_eq!(fill(&s, to, b""), n);
        r.take_all();
        assert_eq!(rooms(&s), [to]);
        drop((r, s));
        world.end();
    }
}

#[test]
fn the_end_of_the_sender_ends_the_wait() {
    for queued in [false, true] {
        let world = World::default();
        let (r, s, to) = pair_of(&world, 2);
        fill(&s, to, b"");
        if queued {
            r.take().unwrap();
        }
        s.disconnect().unwrap();
        r.take_all();
        drop((r, s));
        world.end();
    }
}

#[test]
fn a_flush_drops_the_notice_and_the_next_refusal_waits_again() {
    let world = World::default();
    let (r, s) = (world.open(1), world.open(2));
    let to = r.transfer(0, &s).unwrap();
    fill(&s, to, b"");
    r.take().unwrap();
    s.flush(PEER_RESET_FLAG_FLUSH).unwrap();
    assert_eq!(s.recv(), Err(EAGAIN));
    let to = r.transfer(0, &s).unwrap();
    fill(&s, to, b"");
    r.take().unwrap();
    assert_eq!(rooms(&s), [to]);
    drop((r, s));
    world.end();
}

/// Two receivers of one user share the user's limit: what one gives back is room at the other.
#[test]
fn room_in_the_account_of_the_user() {
    for also_disconnect in [false, true] {
        let world = World::of([2000, 4000, 1 << 20, 64], Some([1000, 1000, 1 << 20, 64]));
        let (a, b) = (world.open(1), world.open(1));
        let senders: Vec<_> = (2..12).map(|uid| world.open(uid)).collect();
        for s in &senders {
            let to = a.transfer(0, s).unwrap();
            fill(s, to, b"");
            s.release(to).unwrap();
        }
        let s = &senders[0];
        let to = b.transfer(0, s).unwrap();
        fill(s, to, b"");
        let before = rooms(s);
        assert_eq!(before, [], "{:?}", b.info());
        // Everything that is at the other peer of the user.
        match also_disconnect {
            true => a.disconnect().unwrap(),
            false => drop(a.take_all()),
        }
        assert_eq!(rooms(s), [to]);
        drop((a, b, senders));
        world.end();
    }
}

#[test]
fn room_for_descriptors_in_flight() {
    let world = World::of([8192, 8192, 1 << 20, 64], Some([1024, 1024, 1 << 20, 64]));
    let (a, b, s) = (world.open(1), world.open(3), world.open(2));
    let to = [&a, &b].map(|to| to.transfer(0, &s).unwrap());
    let send = |to: u64| {
        s.send(Letter {
            fds: &[3],
            flags: SEND_FLAG_ROOM,
            ..Letter::new(&[to], b"")
        })
    };
    for to in to {
        while send(to).is_ok() {}
    }
    assert_eq!(rooms(&s), []);
    // What one has received is room for the other as well.
    a.take_all();
    let notified = rooms(&s);
    assert!(notified.contains(&to[0]), "{notified:?}");
    b.take_all();
    assert_eq!(notified.len() + rooms(&s).len(), 2);
    drop((a, b, s));
    world.end();
}

#[test]
fn room_in_the_pool() {
    let most = i32::MAX as u32;
    let world = World::of([1 << 20; 4].map(|n| n << 20), Some([4095, 4095, most, 64]));
    let (r, s, to) = pair_of(&world, 1);
    let size = <Pool as bus1_core::bus::Pool>::SIZE / 4;
    let data = vec![7; size as usize];
    let mut n = 0;
    let refused = loop {
        match send(&s, to, &data) {
            Ok(()) => n += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((n, refused), (3, EXFULL));
    assert_eq!(rooms(&s), []);
    r.take().unwrap();
    assert_eq!(rooms(&s), [to]);
    assert_eq!(send(&s, to, &data), Ok(()));
    drop((r, s));
    world.end();
}

#[test]
fn a_raised_limit_is_room() {
    let world = World::default();
    let (r, s, to) = pair_of(&world, 2);
    fill(&s, to, b"");
    r.reset(0, [2000, u32::MAX, u32::MAX, u32::MAX]).unwrap();
    assert_eq!(rooms(&s), [to]);
    drop((r, s));
    world.end();
}

/// At the default limits senders keep credit, which does not pass the accounts. While one waits,
/// nobody does: the last message that another sender's receiver gives back is noticed.
#[test]
fn credit_that_others_keep_is_no_obstacle() {
    let world = World::by_default();
    let (r, s, to) = pair_of(&world, 2);
    let other = world.open(3);
    let to_other = r.transfer(0, &other).unwrap();
    // Credit of the other: sent and received.
    for _ in 0..200 {
        other.send(Letter::new(&[to_other], b"x")).unwrap();
    }
    r.take_all();
    let n = fill(&s, to, b"");
    assert_eq!(rooms(&s), []);
    // Each message of the other is given back at once; in the end all is as it was.
    for turn in 0..n {
        if !rooms(&s).is_empty() {
            assert_eq!(send(&s, to, b""), Ok(()), "turn {turn}");
            fill(&s, to, b"");
        }
        let received = r.take().unwrap();
        assert_eq!(received.data, b"");
        assert_eq!(rooms(&s), [to], "turn {turn}");
        assert_eq!(send(&s, to, b""), Ok(()));
        assert_eq!(send(&s, to, b""), Err(EDQUOT));
    }
    drop((r, s, other));
    world.end();
}

/// Waits of one user, however many, are no obstacle for those of another.
#[test]
fn users_take_turns() {
    let world = World::new([3000, 4000, 1 << 20, 64]);
    let r = world.open(1);
    let many = world.open(2);
    let few = world.open(3);
    let nodes: Vec<u64> = (0..50).map(|n| 4 * n).collect();
    let ids: Vec<u64> = nodes
        .iter()
        .map(|&node| r.transfer(node, &many).unwrap())
        .collect();
    let to = r.transfer(0, &few).unwrap();
    while many.send(Letter::new(&ids[..1], b"")).is_ok() {}
    for &id in &ids {
        assert_eq!(send(&many, id, b""), Err(EDQUOT));
    }
    fill(&few, to, b"");
    assert_eq!(rooms(&many).len() + rooms(&few).len(), 0);
    let mut taken = 0;
    while rooms(&few).is_empty() {
        r.take().unwrap();
        taken += 1;
        assert!(taken < 200, "starved");
    }
    // In the end all were notified, once.
    let mut notified = rooms(&many);
    r.take_all();
    notified.extend(rooms(&many));
    notified.sort_unstable();
    let mut expected = ids.clone();
    expected.sort_unstable();
    assert_eq!(notified, expected);
    drop((r, many, few));
    world.end();
}

#[test]
fn a_user_has_at_most_1024_waits_and_the_next_is_notified_at_once() {
    let world = World::new([8000, 1 << 20, 1 << 20, 64]);
    let (r, s) = (world.open(1), world.open(2));
    let n = 1100;
    let ids: Vec<u64> = (0..n).map(|n| r.transfer(4 * n, &s).unwrap()).collect();
    while s.send(Letter::new(&ids[..1], b"")).is_ok() {}
    let letter = Letter {
        flags: SEND_FLAG_ROOM | SEND_FLAG_CONTINUE,
        ..Letter::new(&ids, b"")
    };
    let (result, errors) = s.send_with(letter, &Hooks::default());
    assert_eq!(result, Ok(()));
    assert!(errors.iter().all(|&errno| errno == -EDQUOT.to_errno()));
    assert_eq!(rooms(&s), ids[1024..]);
    r.take_all();
    let mut rest = rooms(&s);
    rest.sort_unstable();
    assert_eq!(rest, ids[..1024]);
    drop((r, s));
    world.end();
}

/// Each user may have 64 waits in a list, however many others have there.
#[test]
fn a_user_that_fills_a_list_keeps_no_other_from_waiting() {
    let world = World::new([8000, 1 << 20, 1 << 20, 64]);
    let r = world.open(1);
    let begin = |uid: u32, n: u64| {
        let s = world.open(uid);
        let ids: Vec<u64> = (0..n).map(|n| r.transfer(4 * n, &s).unwrap()).collect();
        while s.send(Letter::new(&ids[..1], b"")).is_ok() {}
        let letter = Letter {
            flags: SEND_FLAG_ROOM | SEND_FLAG_CONTINUE,
            ..Letter::new(&ids, b"")
        };
        assert_eq!(s.send(letter), Ok(()));
        (s, ids)
    };
    let (hog, all) = begin(2, 1024);
    assert_eq!(rooms(&hog), []);
    let (other, ids) = begin(3, 70);
    assert_eq!(rooms(&other), ids[64..]);
    // None is lost that is looked at in vain, and goes behind the others of its user.
    let [mut of_hog, mut of_other] = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        r.take().unwrap();
        of_hog.extend(rooms(&hog));
        of_other.extend(rooms(&other));
    }
    r.take_all();
    of_hog.extend(rooms(&hog));
    of_other.extend(rooms(&other));
    of_hog.sort_unstable();
    of_other.sort_unstable();
    assert_eq!(of_hog, all);
    assert_eq!(of_other, ids[..64]);
    drop((r, hog, other));
    world.end();
}

#[test]
fn each_refused_destination_has_a_notice() {
    let world = World::default();
    let (a, b, s) = (world.open(1), world.open(1), world.open(2));
    let ids = [&a, &b].map(|to| to.transfer(0, &s).unwrap());
    while s.send(Letter::new(&ids[1..], b"")).is_ok() {}
    let letter = |flags| Letter {
        flags: flags | SEND_FLAG_ROOM,
        ..Letter::new(&ids, b"to both")
    };
    assert_eq!(s.send(letter(0)), Err(EDQUOT));
    assert_eq!(a.recv(), Err(EAGAIN));
    assert_eq!(s.send(letter(SEND_FLAG_CONTINUE)), Ok(()));
    assert_eq!(a.take().unwrap().data, b"to both");
    assert_eq!(rooms(&s), []);
    b.take().unwrap();
    assert_eq!(rooms(&s), ids[1..]);
    assert_eq!(s.send(letter(0)), Ok(()));
    drop((a, b, s));
    world.end();
}

#[test]
fn a_call_that_fails_for_another_reason_leaves_no_wait() {
    let world = World::default();
    let (a, b, s) = (world.open(1), world.open(1), world.open(2));
    let ids = [&a, &b].map(|to| to.transfer(0, &s).unwrap());
    while s.send(Letter::new(&ids[1..], b"")).is_ok() {}
    let before = world.state();
    let letter = Letter {
        flags: SEND_FLAG_ROOM | SEND_FLAG_CONTINUE,
        ..Letter::new(&ids, b"to both")
    };
    let hooks = Hooks::at_copy(|| Err(EFAULT));
    assert_eq!(s.send_with(letter, &hooks).0, Err(EFAULT));
    assert_eq!(world.state(), before);
    b.take_all();
    assert_eq!(rooms(&s), []);
    let seed = Letter {
        flags: SEND_FLAG_ROOM | SEND_FLAG_SEED,
        ..Letter::default()
    };
    assert_eq!(s.send(seed), Err(EINVAL));
    drop((a, b, s));
    world.end();
}

#[test]
fn without_memory_for_the_wait_the_destination_fails_with_enomem() {
    for n in 1.. {
        let world = World::default();
        let (r, s, to) = pair_of(&world, 2);
        while s.send(Letter::new(&[to], b"")).is_ok() {}
        fault::fail_after(Some(n));
        let result = send(&s, to, b"");
        let failed = fault::count() >= n;
        fault::fail_after(None);
        let expected = if failed { ENOMEM } else { EDQUOT };
        assert_eq!(result, Err(expected), "allocation {n}");
        r.take_all();
        assert_eq!(rooms(&s).is_empty(), failed);
        drop((r, s));
        world.end();
        if !failed {
            assert!(n > 3, "a wait takes memory");
            break;
        }
    }
}

/// Senders that try again only when notified, against a receiver that is always behind: none sleeps
/// for ever, and each notice costs at most two attempts.
#[test]
fn no_notice_is_lost_between_threads() {
    const MESSAGES: usize = 300;
    for limits in [LIMITS, [4096, 1 << 16, 1 << 20, 64]] {
        let world = World::new(limits);
        let receivers = [world.open(1), world.open(1)];
        let senders: Vec<_> = [1, 2, 2, 3]
            .map(|uid| {
                let s = world.open(uid);
                let ids = receivers.each_ref().map(|r| r.transfer(0, &s).unwrap());
                // So that most are refused.
                for id in ids {
                    while s.send(Letter::new(&[id], b"x")).is_ok() {}
                }
                (s, ids)
            })
            .into();
        let end = Instant::now() + Duration::from_secs(60);
        let done = core::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for (s, ids) in &senders {
                let done = &done;
                scope.spawn(move || {
                    let mut left: HashMap<u64, usize> = ids.map(|id| (id, MESSAGES)).into();
                    let (mut refused, mut notices) = (0, 0);
                    let mut waiting: Vec<u64> = Vec::new();
                    while left.values().any(|&left| left != 0) {
                        for id in ids {
                            let left = left.get_mut(id).unwrap();
                            while *left != 0 && !waiting.contains(id) {
                                match send(s, *id, b"x") {
                                    Ok(()) => *left -= 1,
                                    Err(error) => {
                                        assert_eq!(error, EDQUOT);
                                        refused += 1;
                                        waiting.push(*id);
                                    }
                                }
                            }
                        }
                        if let Ok(notice) = s.take() {
                            assert_eq!(notice.kind, MSG_ROOM);
                            notices += 1;
                            waiting.retain(|id| *id != notice.destination);
                        }
                        assert!(Instant::now() < end, "asleep for ever: {waiting:?}");
                        std::thread::yield_now();
                    }
                    assert!(refused <= 2 * notices + 2, "{refused}, {notices}");
                    done.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
                });
            }
            for r in &receivers {
                let done = &done;
                let n = senders.len();
                scope.spawn(move || {
                    while done.load(core::sync::atomic::Ordering::Relaxed) != n {
                        let _ = r.take();
                        assert!(Instant::now() < end, "the senders are asleep");
                    }
                });
            }
        });
        drop((receivers, senders));
        world.end();
    }
}
