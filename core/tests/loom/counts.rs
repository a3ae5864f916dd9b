// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! References, messages and charges: none twice, none lost, none left.

use bus1_core::abi::*;
use kernel::error::code::*;

use super::common::*;
use super::{data, model, spawn, Seen, Square, Watch, BOUND, DEEP};

/// Returns the number of release notices for node 0.
fn releases(all: &[Received]) -> usize {
    let notices = all.iter().filter(|one| one.kind == MSG_NODE_RELEASE);
    notices
        .inspect(|one| assert_eq!(one.destination, 0))
        .count()
}

#[test]
fn two_holders_let_go() {
    model("two releases", DEEP, || {
        let world = World::default();
        let [o, p, q] = [1, 2, 3].map(|uid| world.open(uid));
        let ids = [&p, &q].map(|to| o.transfer(0, to).unwrap());
        let other = spawn(move || q.release(ids[1]).unwrap());
        p.release(ids[0]).unwrap();
        let watch = Watch::look(&o);
        other.join().unwrap();
        watch.check();
        assert_eq!(releases(&o.take_all()), 1);
        drop((o, p));
        world.end();
    });
}

#[test]
fn a_reference_in_flight_is_one() {
    model("release and receipt", DEEP, || {
        // P passes its handle on and lets go of it; Q lets go of whatever it gets; the owner looks.
        let world = World::default();
        let [o, p, q] = [1, 2, 3].map(|uid| world.open(uid));
        let id = o.transfer(0, &p).unwrap();
        let to_q = q.transfer(0, &p).unwrap();
        let sender = spawn(move || {
            let letter = Letter {
                handles: &[id],
                to: &[to_q],
                ..Letter::default()
            };
            p.send(letter).unwrap();
            p.release(id).unwrap();
        });
        let let_go = |q: &Client| {
            for received in q.take_all() {
                q.release(received.handles[0]).unwrap();
            }
        };
        let owner = o.clone();
        let looker = spawn(move || owner.take_all());
        let_go(&q);
        let mut seen = looker.join().unwrap();
        sender.join().unwrap();
        let_go(&q);
        seen.extend(o.take_all());
        assert_eq!(releases(&seen), 1);
        drop((o, q));
        world.end();
    });
}

#[test]
fn a_release_notice_is_withdrawn_or_received() {
    model("release and transfer", DEEP, || {
        // The last holder lets go while the owner gives the node anew, and receives.
        let world = World::default();
        let [o, p, q] = [1, 2, 3].map(|uid| world.open(uid));
        let id = o.transfer(0, &p).unwrap();
        let releaser = spawn(move || p.release(id).unwrap());
        let owner = o.clone();
        let looker = spawn(move || releases(&owner.take_all()));
        let again = o.transfer(0, &q).unwrap();
        let early = looker.join().unwrap();
        releaser.join().unwrap();
        assert!(early <= 1);
        // Q holds it now.
        assert_eq!(releases(&o.take_all()), 0);
        q.release(again).unwrap();
        assert_eq!(releases(&o.take_all()), 1);
        drop((o, q));
        world.end();
    });
}

#[test]
fn a_receiver_leaves() {
    for to_both in [false, true] {
        model("send and disconnect", BOUND, move || {
            let Square {
                world,
                r,
                s,
                a,
                b,
                from_a,
                ..
            } = Square::new();
            let leaver = r.clone();
            let leave = spawn(move || leaver.disconnect().unwrap());
            let letter = Letter {
                handles: &[8],
                fds: &[1],
                ..Letter::new(&from_a[..1 + usize::from(to_both)], b"x")
            };
            let sent = a.send(letter);
            leave.join().unwrap();
            assert!(matches!(sent, Ok(()) | Err(EHOSTUNREACH)));
            // Nobody holds the node of a message that was refused, or that vanished.
            let expected = usize::from(sent.is_ok() && to_both);
            assert_eq!(s.take_all().len(), expected);
            assert_eq!(world.files(), 0);
            drop((r, s, a, b));
            world.end();
        });
    }
}

#[test]
fn a_sender_leaves() {
    model("disconnect and send", BOUND, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            ..
        } = Square::new();
        let leaver = a.clone();
        let leave = spawn(move || leaver.disconnect().unwrap());
        let letter = Letter {
            handles: &[8],
            ..Letter::new(&from_a, b"x")
        };
        let sent = a.send(letter);
        leave.join().unwrap();
        assert!(matches!(sent, Ok(()) | Err(ESHUTDOWN)));
        for client in [&r, &s] {
            let all = client.take_all();
            assert_eq!(data(&all).len(), usize::from(sent.is_ok()));
            let seen: Vec<_> = all
                .into_iter()
                .filter(|one| one.kind != MSG_NODE_RELEASE)
                .collect();
            Seen::new(&seen).check();
        }
        drop((r, s, a, b));
        world.end();
    });
}

#[test]
fn two_threads_receive_from_one_peer() {
    model("two receivers", DEEP, || {
        let Square {
            world,
            r,
            s,
            a,
            b,
            from_a,
            ..
        } = Square::new();
        for data in [b"1", b"2"] {
            let letter = Letter {
                handles: &[8],
                ..Letter::new(&from_a[..1], data)
            };
            a.send(letter).unwrap();
        }
        let other = r.clone();
        let one = spawn(move || other.take().unwrap());
        let two = r.take().unwrap();
        let one = one.join().unwrap();
        let mut data = [&one.data[..], &two.data];
        data.sort();
        assert_eq!(data, [b"1", b"2"]);
        assert_eq!(one.handles, two.handles);
        assert_eq!(r.recv(), Err(EAGAIN));
        drop((r, s, a, b));
        world.end();
    });
}

#[test]
fn idle_credit_is_recalled() {
    model("recall", DEEP, || {
        let world = World::of([4096, 4096, 8192, 4096], None);
        // Two peers of one user; two foreign users send to one each, the second all it may.
        let [r, s, a, b] = [1, 1, 2, 3].map(|uid| world.open(uid));
        let to_r = r.transfer(0, &a).unwrap();
        let to_s = s.transfer(0, &b).unwrap();
        let receiver = r.clone();
        let other = spawn(move || {
            a.send(Letter::new(&[to_r], b"x")).unwrap();
            receiver.take().unwrap();
        });
        let most = [0; 512];
        let sent = b.send(Letter::new(&[to_s], &most));
        assert!(matches!(sent, Ok(()) | Err(EDQUOT)));
        other.join().unwrap();
        s.take_all();
        assert_eq!(b.send(Letter::new(&[to_s], &most)), Ok(()));
        drop((r, s, b));
        world.end();
    });
}

/// Once, who replaced the seed decided too late whether the user had the slice of the one before,
/// and both freed it.
#[test]
fn a_seed_is_replaced_while_the_user_lets_go_of_its_slice() {
    model("seed and slice", DEEP, || {
        let world = World::default();
        let r = world.open(1);
        let plant = |r: &Client, data: &[u8]| {
            let letter = Letter {
                data,
                flags: SEND_FLAG_SEED,
                ..Letter::default()
            };
            r.send(letter)
        };
        plant(&r, b"old").unwrap();
        let old = r.recv_with(RECV_FLAG_SEED, &Hooks::default()).unwrap();
        let other = r.clone();
        let user = spawn(move || other.release_slice(old.offset).unwrap());
        plant(&r, b"new").unwrap();
        user.join().unwrap();
        assert_eq!(r.info().slices, 1);
        drop(r);
        world.end();
    });
}
