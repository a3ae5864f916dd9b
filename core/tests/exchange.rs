// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! EXCHANGE where others step in: while it writes, and while it sleeps.

#![cfg(not(loom))]

mod common;

use bus1_core::abi::*;
use common::*;
use kernel::error::{code::*, Result};
use kernel::fault;

/// Two peers, each with a handle to the other's node 0.
struct Scene {
    world: World,
    a: Client,
    b: Client,
    to_a: [u64; 1],
    to_b: [u64; 1],
}

impl Scene {
    fn new() -> Self {
        let world = World::default();
        let (a, b) = (world.open(1), world.open(2));
        let (to_a, to_b) = (a.transfer(0, &b).unwrap(), b.transfer(0, &a).unwrap());
        Self {
            world,
            a,
            b,
            to_a: [to_a],
            to_b: [to_b],
        }
    }

    /// Sends from the second to the first.
    fn send(&self, data: &[u8]) {
        self.b.send(Letter::new(&self.to_a, data)).unwrap();
    }

    /// Sends these from the second to the first when that sleeps next, which then wakes like that.
    fn send_at_sleep(&self, texts: &'static [&'static [u8]], end: Result) {
        let (b, to) = (self.b.clone(), self.to_a);
        self.a.at_sleep(move || {
            for text in texts {
                b.send(Letter::new(&to, text)).unwrap();
            }
            end
        });
    }

    fn end(self) {
        drop((self.a, self.b));
        self.world.end();
    }
}

/// Returns an exchange that waits, with room for so many messages.
fn wait(room: usize) -> Exchange<'static> {
    Exchange {
        room,
        deadline: DEADLINE_NEVER,
        ..Exchange::default()
    }
}

/// Makes one call of the first peer, in which no hook steps in.
fn once(scene: &Scene, give: Exchange<'_>) -> (Result, Exchanged) {
    let (results, left) = scene.a.exchange(&give, &[&Hooks::default()]);
    (results[0], left)
}

#[test]
fn it_sleeps_until_there_is_something() {
    let scene = Scene::new();
    // Woken for nothing, twice.
    scene.a.at_sleep(|| Ok(()));
    scene.a.at_sleep(|| Ok(()));
    scene.send_at_sleep(&[b"1"], Ok(()));
    let (result, left) = once(&scene, wait(3));
    assert_eq!((result, left.n), (Ok(()), 1));
    assert_eq!(left.texts[0], b"1");
    scene.end();
}

#[test]
fn a_message_that_is_left_wakes_another() {
    for (room, passed) in [(1, 1), (2, 1), (3, 0), (4, 0)] {
        let scene = Scene::new();
        scene.send_at_sleep(&[b"1", b"2", b"3"], Ok(()));
        let before = scene.a.wakes();
        let (result, _) = once(&scene, wait(room));
        assert_eq!(result, Ok(()));
        assert_eq!(scene.a.wakes() - before, 3 + passed, "with room for {room}");
        scene.end();
    }
}

#[test]
fn a_waiter_that_gives_up_wakes_another() {
    for error in [ETIMEDOUT, ERESTARTSYS] {
        let scene = Scene::new();
        // It was woken for a message, and then the time was up, or there was a signal.
        scene.send_at_sleep(&[b"1"], Err(error));
        let before = scene.a.wakes();
        let (result, left) = once(&scene, wait(2));
        assert_eq!((result, left.n), (Err(error), 2));
        assert_eq!(
            scene.a.wakes() - before,
            2,
            "one for the message, one passed on"
        );
        // With nothing there is nothing to pass on.
        scene.a.take().unwrap();
        let before = scene.a.wakes();
        scene.a.at_sleep(move || Err(error));
        assert_eq!(once(&scene, wait(1)).0, Err(error));
        assert_eq!(scene.a.wakes(), before);
        scene.end();
    }
}

#[test]
fn a_caller_that_never_slept_wakes_nobody() {
    let scene = Scene::new();
    scene.send(b"1");
    scene.send(b"2");
    let before = scene.a.wakes();
    assert_eq!(once(&scene, wait(1)).0, Ok(()));
    assert_eq!(scene.a.wakes(), before);
    scene.end();
}

#[test]
fn a_disconnect_ends_the_sleep() {
    let scene = Scene::new();
    let a = scene.a.clone();
    scene.a.at_sleep(move || a.disconnect());
    assert_eq!(once(&scene, wait(1)).0, Err(ESHUTDOWN));
    scene.end();
}

#[test]
fn the_hint_comes_from_callers_that_are_about_to_sleep() {
    let scene = Scene::new();
    let give = |room, deadline| Exchange {
        letter: Letter::new(&scene.to_b, b""),
        room,
        deadline,
        ..Exchange::default()
    };
    for (room, deadline, hints) in [
        (0, DEADLINE_NEVER, 0),
        (1, DEADLINE_NOW, 0),
        (1, DEADLINE_NEVER, 1),
        (4, 1, 1),
    ] {
        let before = scene.b.yields();
        once(&scene, give(room, deadline)).0.unwrap_or_default();
        assert_eq!(
            scene.b.yields() - before,
            hints,
            "room {room}, until {deadline}"
        );
    }
    scene.end();
}

/// Every kind of message hands over, not only plain bytes to one destination.
#[test]
fn the_hint_goes_with_every_kind_of_message() {
    let world = World::default();
    let (a, b, c) = (world.open(1), world.open(2), world.open(3));
    let to_b = b.transfer(0, &a).unwrap();
    let to_c = c.transfer(0, &a).unwrap();
    let (both, fds) = ([to_b, to_c], [3, 4]);
    let handle = [0];
    let kinds = [
        Letter::new(&both[..1], b"bytes"),
        Letter {
            handles: &handle,
            ..Letter::new(&both[..1], b"a handle")
        },
        Letter {
            fds: &fds,
            ..Letter::new(&both[..1], b"descriptors")
        },
        Letter {
            flags: SEND_FLAG_CONTINUE,
            ..Letter::new(&both[..1], b"partial")
        },
        Letter::new(&both, b"several"),
    ];
    for letter in kinds {
        for (deadline, hints) in [(DEADLINE_NOW, 0), (1, 1)] {
            let before = [&b, &c].map(|client| client.yields());
            let give = Exchange {
                letter,
                room: 1,
                deadline,
                ..Exchange::default()
            };
            let _ = a.exchange(&give, &[&Hooks::default()]);
            for (client, before) in [&b, &c].into_iter().zip(before).take(letter.to.len()) {
                assert_eq!(client.yields() - before, hints, "{letter:?}");
            }
        }
    }
    drop((a, b, c));
    world.end();
}

#[test]
fn another_thread_takes_the_second() {
    let scene = Scene::new();
    scene.send(b"1");
    scene.send(b"2");
    let a = &scene.a;
    // Message, count, message; at the second count the message is gone.
    let mut hooks = Hooks::default();
    for _ in 0..3 {
        hooks.write = hooks.write.then(|| Ok(()));
    }
    hooks.write = hooks.write.then(|| {
        assert_eq!(a.take().unwrap().data, b"2");
        Ok(())
    });
    let (results, left) = a.exchange(&wait(4), &[&hooks]);
    assert_eq!((&results[..], left.n), (&[Ok(())][..], 1));
    assert_eq!(left.texts[0], b"1");
    assert_eq!(a.recv(), Err(EAGAIN));
    drop(hooks);
    scene.end();
}

#[test]
fn a_call_that_has_received_reports_it_whatever_fails_from_then_on() {
    // Two messages take the writes message, count, message, count; each is installed before its
    // count. From write number `at` on all fail, and all installations where `installs` have been.
    for (at, installs) in (0..6).flat_map(|at| (0..=2).map(move |installs| (at, installs))) {
        let scene = Scene::new();
        for text in [b"1", b"2"] {
            let letter = Letter {
                fds: &[7],
                ..Letter::new(&scene.to_a, text)
            };
            scene.b.send(letter).unwrap();
        }
        let mut hooks = Hooks::default();
        for n in 0..12 {
            let result = if n < at { Ok(()) } else { Err(EFAULT) };
            hooks.write = hooks.write.then(move || result);
        }
        for n in 0..4 {
            let result = if n < installs { Ok(()) } else { Err(EMFILE) };
            hooks.install = hooks.install.then(move || result);
        }
        let (results, left) = scene.a.exchange(&wait(4), &[&hooks]);
        let received = installs.min(at / 2);
        let rest = scene.a.take_all().len();
        assert_eq!(rest, 2 - received, "{results:?} with {at}, {installs}");
        if received > 0 {
            assert_eq!((results[0], left.n), (Ok(()), received as u64));
        } else {
            assert!(results[0].is_err());
            assert_eq!(left.n, 4, "there is room for all still");
        }
        scene.end();
    }
}

#[test]
fn a_fault_leaves_messages_that_were_not_written() {
    // At each write in turn: message, count, message, count.
    for at in 0..4 {
        let scene = Scene::new();
        scene.send(b"1");
        scene.send(b"2");
        let mut hooks = Hooks::default();
        for _ in 0..at {
            hooks.write = hooks.write.then(|| Ok(()));
        }
        hooks.write = hooks.write.then(|| Err(EFAULT));
        let (results, left) = scene.a.exchange(&wait(2), &[&hooks]);
        let told = at / 2;
        if told == 0 {
            assert_eq!(
                (results[0], left.n),
                (Err(EFAULT), 2),
                "there is room for two still"
            );
        } else {
            assert_eq!((results[0], left.n), (Ok(()), 1));
        }
        let rest = scene.a.take_all();
        assert_eq!(rest.len(), 2 - told);
        scene.end();
    }
}

#[test]
fn every_step_is_done_once_whatever_fails() {
    let scene = Scene::new();
    scene.send(b"held");
    let held = scene.a.recv().unwrap().offset;
    let other = Exchange {
        release: &[held],
        letter: Letter::new(&scene.to_b, b"question"),
        room: 2,
        deadline: DEADLINE_NEVER,
    };
    // A slice, then nobody to write to, then sleep after sleep.
    scene.a.at_sleep(|| Err(ERESTARTSYS));
    scene.a.at_sleep(|| Err(ETIMEDOUT));
    scene.send_at_sleep(&[b"answer"], Ok(()));
    let calls: Vec<Hooks<'_>> = vec![
        Hooks::at_copy(|| Err(EFAULT)),
        Hooks::default(),
        Hooks::default(),
        Hooks::at_write(|| Err(EFAULT)),
        Hooks::default(),
    ];
    let calls: Vec<&Hooks<'_>> = calls.iter().collect();
    let (results, left) = scene.a.exchange(&other, &calls);
    let wanted: [Result; 5] = [
        Err(EFAULT),
        Err(ERESTARTSYS),
        Err(ETIMEDOUT),
        Err(EFAULT),
        Ok(()),
    ];
    assert_eq!(results, wanted);
    assert_eq!((left.sends, left.slices, left.n), (false, 0, 1));
    assert_eq!(left.texts[0], b"answer");
    assert_eq!(scene.a.info().slices, 1, "that of the answer");
    let asked = scene.b.take_all();
    assert_eq!(asked.len(), 1, "it is asked once");
    assert_eq!(asked[0].data, b"question");
    scene.end();
}

#[test]
fn memory_that_runs_out_is_no_half_thing() {
    for n in 1.. {
        let scene = Scene::new();
        scene.send(b"held");
        let held = scene.a.recv().unwrap().offset;
        scene.send(b"answer");
        let give = Exchange {
            release: &[held],
            letter: Letter::new(&scene.to_b, b"question"),
            room: 2,
            deadline: DEADLINE_NEVER,
        };
        // Of the first call; or of the second, when the first has no more.
        fault::fail_after(Some(n));
        let calm = Hooks::default();
        let (results, left) = scene.a.exchange(&give, &[&calm, &calm]);
        fault::fail_after(None);
        if results[0].is_ok() {
            assert!(n > 1, "nothing is allocated");
            scene.end();
            break;
        }
        assert_eq!(results[0], Err(ENOMEM), "allocation {n}");
        assert_eq!(
            (results[1], left.texts[0].as_slice()),
            (Ok(()), &b"answer"[..])
        );
        assert_eq!(scene.b.take_all().len(), 1, "it is asked once");
        scene.end();
    }
}
