// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Tests of `transaction.rs`.

use super::*;

/// What is stored before a commit is there for whoever sees the commit.
///
/// No lock is involved, unlike in the models of whole commands (`tests/loom/`): a lock would order
/// both by itself, and hide a word that is stored or loaded too weakly. So this one runs under loom
/// alone, and fails if `commit` or `committed_at` is made Relaxed.
#[cfg(loom)]
#[test]
fn loom_commit_carries_what_was_before() {
    use kernel::sync::atomic::Relaxed;

    loom::model(|| {
        let transaction = Transaction::new(1, 1).unwrap();
        let before = std::sync::Arc::new(Atomic::new(0_u64));
        let (maker, raised) = (transaction.clone(), before.clone());
        let thread = loom::thread::spawn(move || {
            raised.store(8, Relaxed);
            assert!(maker.commit(8));
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
        let transaction = Transaction::new(1, 1).unwrap();
        let maker = transaction.clone();
        let thread = loom::thread::spawn(move || maker.commit(8));
        transaction.kill();
        let seen = transaction.word.load(Acquire);
        let committed = thread.join().unwrap();
        let fate = match committed {
            true => 8,
            false => KILLED,
        };
        assert_eq!((seen, transaction.word.load(Acquire)), (fate, fate));
    });
}

#[test]
fn timestamps_rise_and_never_tie() {
    for after in 0..64 {
        let (message, destruction) = (message_after(after), destruction_after(after));
        assert!(message > after && message <= after + 4 && message % 4 == 0);
        assert!(destruction > after && destruction <= after + 4 && destruction % 4 == 2);
    }
}

#[test]
fn fate_is_decided_once() {
    let t = Transaction::new(1, 1).unwrap();
    assert_eq!(t.committed_at(), None);
    assert!(t.commit(8));
    t.kill();
    assert_eq!(t.committed_at(), Some(8));

    let t = Transaction::new(1, 2).unwrap();
    t.kill();
    assert!(!t.commit(8));
    assert_eq!(t.committed_at(), None);
    assert_eq!(t.word.load(Acquire), KILLED);
}
