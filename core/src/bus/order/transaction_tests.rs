// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The fate of a transaction: it is decided once, and a commit carries the stores before it.

use super::*;

/// Makes a staged transaction, the `count`-th of peer 1.
fn transaction(count: u64) -> Arc<Transaction> {
    Transaction::new(Number { maker: 1, count }).unwrap()
}

/// A task that sees the commit sees all stores before it.
///
/// No lock is involved, unlike in the models of whole commands (`tests/loom/`): a lock would order
/// both by itself, and hide a word that is stored or loaded too weakly. So this model runs only
/// under loom, and fails if `commit` or `committed_at` is made Relaxed.
#[cfg(loom)]
#[test]
fn loom_commit_carries_what_was_before() {
    use kernel::sync::atomic::Relaxed;

    loom::model(|| {
        let transaction = transaction(1);
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
        let transaction = transaction(1);
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
fn fate_is_decided_once() {
    let t = transaction(1);
    assert_eq!(t.committed_at(), None);
    assert!(t.commit(8));
    t.kill();
    assert_eq!(t.committed_at(), Some(8));

    let t = transaction(2);
    t.kill();
    assert!(!t.commit(8));
    assert_eq!(t.committed_at(), None);
    assert_eq!(t.word.load(Acquire), KILLED);
}
