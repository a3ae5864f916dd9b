// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The fate of a transaction is decided once, above every floor, and a commit carries the stores
//! before it.

use super::*;

/// Makes an undecided transaction, the `count`-th of peer 1.
fn transaction(count: u64) -> Arc<Transaction> {
    Transaction::new(Number { maker: 1, count }, 0).unwrap()
}

/// A task that sees the commit sees all stores before it.
///
/// No lock is involved, unlike in the models of whole commands (`tests/loom/`): a lock would order
/// both by itself, and hide a word that is stored or loaded too weakly. So this model runs only
/// under loom, and fails if `commit` or `fate` is made Relaxed.
#[cfg(loom)]
#[test]
fn loom_commit_carries_what_was_before() {
    loom::model(|| {
        let transaction = transaction(1);
        let before = std::sync::Arc::new(Atomic::new(0_u64));
        let (maker, raised) = (transaction.clone(), before.clone());
        let thread = loom::thread::spawn(move || {
            raised.store(8, Relaxed);
            assert_eq!(maker.commit(8), Some(8));
        });
        if let Some(timestamp) = transaction.committed_at() {
            assert_eq!(before.load(Relaxed), timestamp, "the commit came first");
        }
        thread.join().unwrap();
        assert_eq!(transaction.committed_at(), Some(8));
    });
}

/// Of a commit and a kill that race, one wins, and both sides agree on which.
#[cfg(loom)]
#[test]
fn loom_fate_is_decided_once() {
    loom::model(|| {
        let transaction = transaction(1);
        let maker = transaction.clone();
        let thread = loom::thread::spawn(move || maker.commit(8));
        transaction.kill();
        let seen = transaction.fate();
        let fate = match thread.join().unwrap() {
            Some(at) => Fate::Committed(at),
            None => Fate::Killed,
        };
        assert_eq!((seen, transaction.fate()), (fate, fate));
    });
}

/// Two receivers raise the floor, each above its head, while the maker commits: whatever a receiver
/// was told, it holds for ever.
#[cfg(loom)]
#[test]
fn loom_commit_stands_above_both_floors() {
    loom::model(|| {
        let transaction = transaction(1);
        let receive = |head: u64| {
            let transaction = transaction.clone();
            loom::thread::spawn(move || (head, transaction.raise(head)))
        };
        let receivers = [receive(8), receive(2000)];
        let at = transaction.commit(4).unwrap();
        for receiver in receivers {
            match receiver.join().unwrap() {
                (head, Fate::Undecided { floor }) => assert!(head < floor && floor < at),
                (_, decided) => assert_eq!(decided, Fate::Committed(at)),
            }
        }
        assert_eq!(transaction.fate(), Fate::Committed(at));
    });
}

/// A kill that races with a raised floor and the maker.
#[cfg(loom)]
#[test]
fn loom_a_floor_saves_nobody_from_a_kill() {
    loom::model(|| {
        let transaction = transaction(1);
        let (receiver, maker) = (transaction.clone(), transaction.clone());
        let receiver = loom::thread::spawn(move || receiver.raise(8));
        let maker = loom::thread::spawn(move || maker.commit(4));
        transaction.kill();
        let committed = maker.join().unwrap();
        receiver.join().unwrap();
        assert_eq!(transaction.committed_at(), committed);
        let killed = transaction.fate() == Fate::Killed;
        assert_eq!(killed, committed.is_none());
    });
}

#[test]
fn fate_is_decided_once() {
    let t = transaction(1);
    assert_eq!(t.fate(), Fate::Undecided { floor: 0 });
    assert_eq!(t.commit(8), Some(8));
    t.kill();
    assert_eq!(t.fate(), Fate::Committed(8));
    assert_eq!(t.raise(100), Fate::Committed(8));

    let t = transaction(2);
    t.kill();
    assert_eq!(t.raise(100), Fate::Killed);
    assert_eq!(t.commit(8), None);
    assert_eq!((t.committed_at(), t.fate()), (None, Fate::Killed));
}

#[test]
fn a_commit_stands_above_the_floor_and_keeps_its_kind() {
    for kind in [0, 2] {
        for (n, head) in [3, 4, 5, 6, 4000].into_iter().enumerate() {
            let t = transaction(n as u64);
            let Fate::Undecided { floor } = t.raise(head) else {
                panic!("decided");
            };
            assert!(floor > head && floor % 4 == 0 && floor <= head + SLACK);
            let at = t.commit(4 + kind).unwrap();
            // A part that moved stands just above the floor.
            assert!(at > floor + 1 && at <= floor + 6, "{at} {floor}");
            assert_eq!((at % 4, t.committed_at()), (kind, Some(at)));
        }
    }
}

#[test]
fn a_floor_is_not_raised_for_entries_below_it() {
    let t = transaction(1);
    let first = t.raise(8);
    assert_eq!(first, Fate::Undecided { floor: 8 + SLACK });
    for head in (8..8 + SLACK).step_by(4) {
        assert_eq!(t.raise(head), first);
    }
    let floor = 8 + 2 * SLACK;
    assert_eq!(t.raise(8 + SLACK), Fate::Undecided { floor });
    t.kill();
    assert_eq!(t.commit(4), None);
}
