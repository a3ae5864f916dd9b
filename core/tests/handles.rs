// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Handles between two commands that run at once: HANDLE_TRANSFER, nodes that are made on the way,
//! and notices.

#![cfg(not(loom))]

mod common;

use std::cell::Cell;

use bus1_core::abi::*;
use common::*;
use kernel::error::code::*;

const RELEASE: u64 = NODES_DESTROY_FLAG_RELEASE_HANDLES;

/// Returns an owner and a holder.
fn pair() -> (World, Client, Client) {
    let world = World::default();
    let (o, p) = (world.open(1), world.open(2));
    (world, o, p)
}

/// Kinds and destinations of all that can be received.
fn notices(client: &Client) -> Vec<(u64, u64)> {
    let all = client.take_all();
    all.iter().map(|one| (one.kind, one.destination)).collect()
}

#[test]
fn a_transfer_that_cannot_be_written_leaves_no_trace() {
    let (world, o, p) = pair();
    let known = o.transfer(0, &p).unwrap();
    let before = world.state();
    for node in [0, 8] {
        for to in [&o, &p] {
            let hooks = Hooks::at_write(|| Err(EFAULT));
            assert_eq!(o.transfer_with(node, to, &hooks), Err(EFAULT));
            assert_eq!(world.state(), before);
        }
    }
    assert_eq!(o.transfer(0, &p), Ok(known));
    drop((o, p));
    world.end();
}

#[test]
fn the_receiver_lets_go_while_it_is_notified() {
    let (world, o, p) = pair();
    let known = o.transfer(0, &p).unwrap();
    let hooks = Hooks::at_write(|| p.release(known));
    let id = o.transfer_with(0, &p, &hooks).unwrap();
    assert_ne!(id, known, "an ID came back");
    assert_eq!(p.release(known), Err(ENXIO));
    assert_eq!(p.release(id), Ok(()));
    assert_eq!(notices(&o), [(MSG_NODE_RELEASE, 0)]);
    drop(hooks);
    drop((o, p));
    world.end();
}

#[test]
fn another_transfer_is_faster() {
    let (world, o, p) = pair();
    let inner = Cell::new(0);
    let hooks = Hooks::at_write(|| o.transfer(0, &p).map(|id| inner.set(id)));
    let id = o.transfer_with(0, &p, &hooks).unwrap();
    assert_eq!(id, inner.get(), "two IDs for one node");
    assert_eq!(p.info().charged[1], 1);
    assert_eq!(p.release(id), Ok(()));
    assert_eq!(p.release(id), Ok(()));
    assert_eq!(p.release(id), Err(ENXIO));
    drop(hooks);
    drop((o, p));
    world.end();
}

#[test]
fn the_node_dies_while_the_receiver_is_notified() {
    for known in [false, true] {
        let (world, o, p) = pair();
        let before = known.then(|| o.transfer(0, &p).unwrap());
        let hooks = Hooks::at_write(|| o.destroy_with(&[0], RELEASE));
        let id = o.transfer_with(0, &p, &hooks).unwrap();
        match before {
            // The receiver has one more reference on the handle that it is notified of.
            Some(before) => {
                assert_eq!(id, before);
                assert_eq!(notices(&p), [(MSG_NODE_DESTROY, id)]);
                assert_eq!((p.release(id), p.release(id)), (Ok(()), Ok(())));
            }
            None => assert_eq!(id, HANDLE_INVALID),
        }
        assert_eq!(p.recv(), Err(EAGAIN));
        assert_eq!(p.info().handles, 0);
        drop(hooks);
        drop((o, p));
        world.end();
    }
}

#[test]
fn a_transfer_never_adds_a_part_that_was_not_promised() {
    let (world, o, p) = pair();
    let first = o.transfer(0, &p).unwrap();
    let hooks = Hooks::at_write(|| {
        o.destroy(&[0, 4])?;
        let received = p.take()?;
        assert_eq!(
            (received.kind, received.destination, received.more),
            (MSG_NODE_DESTROY, first, false)
        );
        Ok(())
    });
    assert_eq!(o.transfer_with(4, &p, &hooks), Ok(HANDLE_INVALID));
    assert_eq!(p.recv(), Err(EAGAIN));
    drop(hooks);
    drop((o, p));
    world.end();
}

#[test]
fn one_of_the_two_leaves() {
    for receiver in [false, true] {
        let (world, o, p) = pair();
        let hooks = Hooks::at_write(|| if receiver { &p } else { &o }.disconnect());
        let result = o.transfer_with(0, &p, &hooks);
        let expected = if receiver {
            Err(ESHUTDOWN)
        } else {
            Ok(HANDLE_INVALID)
        };
        assert_eq!(result, expected);
        assert_eq!(p.info().handles, 0);
        drop(hooks);
        drop((o, p));
        world.end();
    }
}

#[test]
fn calls_that_make_one_node_together() {
    // The outer call fails or not, and so does the one within it.
    for (outer, inner) in [(true, true), (true, false), (false, true), (false, false)] {
        let (world, o, p) = pair();
        let to_p = p.transfer(0, &o).unwrap();
        let letter = Letter {
            to: &[to_p],
            handles: &[8],
            ..Letter::default()
        };
        let hooks = Hooks::at_write(|| {
            let result = if inner { Ok(()) } else { Err(EFAULT) };
            let hooks = Hooks::at_copy(|| result);
            let letter = Letter {
                data: b"x",
                ..letter
            };
            assert_eq!(o.send_with(letter, &hooks).0, result);
            if outer {
                Ok(())
            } else {
                Err(EFAULT)
            }
        });
        let result = o.transfer_with(8, &o, &hooks);
        assert_eq!(result, if outer { Ok(8) } else { Err(EFAULT) });
        let lives = outer || inner;
        assert_eq!(o.info().nodes, u64::from(lives), "{outer} {inner}");
        assert_eq!(p.take_all().len(), usize::from(inner));
        // The outer one gave the owner a reference beside its pin.
        if outer {
            assert_eq!(o.release(8), Ok(()));
        }
        assert_eq!(o.release(8), Err(EBUSY));
        drop(hooks);
        drop((o, p));
        world.end();
    }
}

#[test]
fn a_node_that_another_call_destroyed_stays_destroyed() {
    let (world, o, p) = pair();
    let to_p = p.transfer(0, &o).unwrap();
    let hooks = Hooks::at_copy(|| {
        o.destroy(&[8])?;
        Err(EFAULT)
    });
    let letter = Letter {
        to: &[to_p],
        handles: &[8],
        data: b"x",
        ..Letter::default()
    };
    assert_eq!(o.send_with(letter, &hooks).0, Err(EFAULT));
    drop(hooks);
    assert_eq!(notices(&o), [(MSG_NODE_DESTROY, 8)]);
    assert_eq!(o.destroy(&[8]), Err(ESTALE));
    assert_eq!(o.release(8), Ok(()));
    drop((o, p));
    world.end();
}

#[test]
fn a_flush_takes_a_node_from_the_call_that_makes_it() {
    for fails in [false, true] {
        let (world, o, p) = pair();
        let to_p = p.transfer(0, &o).unwrap();
        let hooks = Hooks::at_copy(|| {
            o.flush(PEER_RESET_FLAG_FLUSH)?;
            if fails {
                Err(EFAULT)
            } else {
                Ok(())
            }
        });
        let letter = Letter {
            to: &[to_p],
            handles: &[8],
            data: b"x",
            ..Letter::default()
        };
        let result = o.send_with(letter, &hooks).0;
        assert_eq!(result, if fails { Err(EFAULT) } else { Ok(()) });
        drop(hooks);
        let all = p.take_all();
        let handles: Vec<_> = all.iter().flat_map(|one| one.handles.clone()).collect();
        assert_eq!(handles, vec![HANDLE_INVALID; usize::from(!fails)]);
        assert_eq!((o.info().nodes, o.info().handles), (0, 0));
        drop((o, p));
        world.end();
    }
}

#[test]
fn an_old_message_brings_a_handle_to_an_id_in_use() {
    let (world, o, p) = pair();
    let to_o = o.transfer(0, &p).unwrap();
    let own = o.transfer(8, &p).unwrap();
    let letter = Letter {
        to: &[to_o],
        handles: &[own],
        ..Letter::default()
    };
    p.send(letter).unwrap();
    o.destroy_with(&[8], RELEASE).unwrap();
    let again = o.transfer(8, &p).unwrap();
    assert_ne!(own, again);
    // It was sent before the destruction, so it brings the old node, by another ID.
    let received = o.take().unwrap();
    let old = received.handles[0];
    assert_eq!(
        old & (HANDLE_FLAG_MANAGED | HANDLE_FLAG_REMOTE),
        HANDLE_FLAG_MANAGED
    );
    assert_eq!(notices(&o), [(MSG_NODE_DESTROY, old)]);
    assert_eq!(o.release(old), Ok(()));
    assert_eq!(o.info().nodes, 2);
    assert_eq!(p.send(Letter::new(&[again], b"new")), Ok(()));
    assert_eq!(o.take().unwrap().destination, 8);
    drop((o, p));
    world.end();
}

#[test]
fn a_purge_leaves_the_notice_that_a_message_needs() {
    let (world, b, c) = pair();
    let to_b = b.transfer(0, &c).unwrap();
    let letter = Letter {
        to: &[to_b],
        handles: &[8],
        ..Letter::default()
    };
    c.send(letter).unwrap();
    c.destroy(&[8]).unwrap();
    // Nobody holds node 8 yet, but the message will bring it.
    b.destroy_with(&[16], RELEASE).unwrap();
    let id = b.take().unwrap().handles[0];
    assert_ne!(id, HANDLE_INVALID);
    assert_eq!(notices(&b), [(MSG_NODE_DESTROY, id)]);
    drop((b, c));
    world.end();
}

#[test]
fn notices_that_nobody_wants_do_not_pile_up() {
    let (world, o, p) = pair();
    for i in 0..500 {
        let id = o.transfer(4 * i, &p).unwrap();
        // Before it is released, and after.
        if i % 2 == 0 {
            o.destroy_with(&[4 * i], RELEASE).unwrap();
            p.release(id).unwrap();
        } else {
            p.release(id).unwrap();
            o.destroy_with(&[4 * i], RELEASE).unwrap();
        }
    }
    assert_eq!((p.info().queued, p.info().staged), (0, 0));
    assert_eq!((o.info().queued, o.info().handles), (0, 0));
    drop((o, p));
    world.end();
}

#[test]
fn a_node_whose_count_never_rose_causes_no_notice() {
    let world = World::default();
    let (a, x, y) = (world.open(1), world.open(2), world.open(3));
    let to = [&x, &y].map(|client| client.transfer(0, &a).unwrap());
    // Both destinations die after the handle was linked for them, or before.
    let hooks = Hooks {
        write: Script::default()
            .then(|| x.destroy(&[0]))
            .then(|| y.destroy(&[0])),
        ..Hooks::default()
    };
    let letter = Letter {
        to: &to,
        handles: &[8],
        flags: SEND_FLAG_CONTINUE,
        ..Letter::default()
    };
    assert_eq!(a.send_with(letter, &hooks).1, [113, 113]);
    drop(hooks);
    let notices = notices(&a);
    assert!(!notices.contains(&(MSG_NODE_RELEASE, 8)), "{notices:?}");
    drop((a, x, y));
    world.end();
}

#[test]
fn one_rise_is_one_notice() {
    // The wake-up preempts the sender: the receiver runs, then the owner.
    let world = World::default();
    let (o, a, c) = (world.open(1), world.open(2), world.open(3));
    let to_c = c.transfer(0, &a).unwrap();
    let id = o.transfer(8, &a).unwrap();
    let woken = (o.clone(), a.clone(), c.clone());
    c.at_wake(move || {
        let (o, a, c) = woken;
        let received = c.take().unwrap();
        a.release(id).unwrap();
        c.release(received.handles[0]).unwrap();
        assert_eq!(o.take().unwrap().kind, MSG_NODE_RELEASE);
    });
    let letter = Letter {
        to: &[to_c],
        handles: &[id],
        ..Letter::default()
    };
    a.send(letter).unwrap();
    assert_eq!(o.recv(), Err(EAGAIN));
    drop((o, a, c));
    world.end();
}

#[test]
fn a_first_rise_that_is_over_at_once_causes_a_notice() {
    let (world, o, c) = pair();
    let to_c = c.transfer(0, &o).unwrap();
    let woken = c.clone();
    c.at_wake(move || {
        let received = woken.take().unwrap();
        woken.release(received.handles[0]).unwrap();
    });
    let letter = Letter {
        to: &[to_c],
        handles: &[8],
        ..Letter::default()
    };
    o.send(letter).unwrap();
    assert_eq!(notices(&o), [(MSG_NODE_RELEASE, 8)]);
    drop((o, c));
    world.end();
}

#[test]
fn a_node_is_used_before_the_call_that_made_it_ends() {
    let (world, o, c) = pair();
    let to_c = c.transfer(0, &o).unwrap();
    let woken = (o.clone(), c.clone());
    c.at_wake(move || {
        let (o, c) = woken;
        let id = c.take().unwrap().handles[0];
        c.send(Letter::new(&[id], b"answer")).unwrap();
        assert_eq!(o.take().unwrap().data, b"answer");
        o.destroy_with(&[8], RELEASE).unwrap();
        assert_eq!(notices(&c), [(MSG_NODE_DESTROY, id)]);
    });
    let letter = Letter {
        to: &[to_c],
        handles: &[8],
        ..Letter::default()
    };
    o.send(letter).unwrap();
    assert_eq!(o.info().nodes, 0);
    drop((o, c));
    world.end();
}

#[test]
fn a_message_sent_after_a_death_comes_after_it() {
    let world = World::default();
    let (o, p, s) = (world.open(1), world.open(2), world.open(3));
    let id = o.transfer(0, &p).unwrap();
    let (to_o, to_p) = (o.transfer(4, &s).unwrap(), p.transfer(0, &s).unwrap());
    // The clock of the owner is far ahead of that of the holder.
    for _ in 0..5 {
        s.send(Letter::new(&[to_o], b"x")).unwrap();
    }
    o.destroy(&[0]).unwrap();
    s.send(Letter::new(&[to_p], b"after")).unwrap();
    assert_eq!(notices(&p), [(MSG_NODE_DESTROY, id), (MSG_DATA, 0)]);
    // And the other way round: the holder's clock is ahead.
    let id = o.transfer(8, &p).unwrap();
    for _ in 0..9 {
        s.send(Letter::new(&[to_p], b"before")).unwrap();
    }
    o.destroy(&[8]).unwrap();
    s.send(Letter::new(&[to_o], b"after")).unwrap();
    assert_eq!(p.take_all().last().unwrap().destination, id);
    assert_eq!(o.take_all().last().unwrap().data, b"after");
    drop((o, p, s));
    world.end();
}

#[test]
fn a_rise_of_many_is_one_rise() {
    let world = World::default();
    let [o, c, d] = [1, 2, 3].map(|uid| world.open(uid));
    let to = [&c, &d].map(|client| client.transfer(0, &o).unwrap());
    for client in [&c, &d] {
        let woken = client.clone();
        client.at_wake(move || {
            let id = woken.take().unwrap().handles[0];
            woken.release(id).unwrap();
        });
    }
    let letter = Letter {
        to: &to,
        handles: &[8],
        data: b"x",
        ..Letter::default()
    };
    o.send(letter).unwrap();
    assert_eq!(notices(&o), [(MSG_NODE_RELEASE, 8)]);
    // Everything was written; a failure changes nothing about that.
    let hooks = Hooks::at_write(|| Err(EFAULT));
    assert_eq!(o.transfer_with(8, &c, &hooks), Err(EFAULT));
    assert_eq!(notices(&o), []);
    drop(hooks);
    drop((o, c, d));
    world.end();
}
