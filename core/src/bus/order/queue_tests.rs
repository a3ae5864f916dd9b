// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A queue of plain numbers: when its head is ready, and where entries go when they commit.

use std::{vec, vec::Vec};

use super::*;
use crate::bus::order::test_queue::*;
use crate::bus::order::transaction::Fate;

#[path = "schedule_tests.rs"]
mod schedules;

#[test]
fn entries_without_siblings_come_as_they_were_queued() {
    let mut test = TestQueue::new();
    assert_eq!(test.head(), None);
    let keys: Vec<Key> = (0..5).map(|id| test.push(id)).collect();
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(keys.iter().all(|key| key.timestamp % 4 == 0));
    assert_eq!(test.head(), Some(keys[0]));
    assert_eq!(test.take_all(), [0, 1, 2, 3, 4]);
    assert_eq!(test.count(), count(0, 0));
}

#[test]
fn an_entry_stands_after_its_floor() {
    let mut test = TestQueue::new();
    test.push(0);
    let key = test.push_above(1002, 1);
    assert_eq!((key.timestamp, test.queue.clock()), (1004, 1004));
    // A floor below the clock changes nothing.
    assert_eq!(test.push_above(8, 2).timestamp, 1008);
}

#[test]
fn an_undecided_entry_keeps_nothing_back() {
    let mut test = TestQueue::new();
    let t = transaction(1);
    test.push(0);
    let at = test.stage(&t, 0, 1);
    test.push(2);
    assert_eq!(test.take_all(), [0, 2]);
    assert_eq!(test.count(), count(0, 1));
    // It moved behind 2, however early its maker could have committed it.
    assert!(t.commit(at).unwrap() > 12);
    test.push(4);
    assert_eq!(test.take_all(), [1, 4]);
}

#[test]
fn entries_move_once_for_many_that_are_received() {
    let mut test = TestQueue::new();
    let transactions: Vec<_> = (1..9).map(transaction).collect();
    for (t, id) in transactions.iter().zip(100..) {
        test.stage_some(t, 0, id);
    }
    let mut floors = std::collections::BTreeSet::new();
    for id in 0..1000 {
        test.push(id % 2);
        assert_eq!(test.take(), Some(id % 2));
        let Fate::Undecided { floor } = transactions[0].fate() else {
            panic!("decided");
        };
        floors.insert(floor);
    }
    assert!(floors.len() <= 5, "{floors:?}");
    // The clock goes as fast as without them.
    assert!(test.queue.clock() <= 4 * 1010);
}

#[test]
fn an_entry_moves_to_the_common_timestamp() {
    let mut test = TestQueue::new();
    let t = transaction(1);
    test.stage(&t, 0, 1);
    for id in 2..5 {
        test.push(id);
    }
    // Elsewhere the clock stood at 14.
    assert_eq!(t.commit(16), Some(16));
    test.push(5);
    assert_eq!(test.take_all(), [2, 3, 4, 1, 5]);
}

#[test]
fn a_later_entry_finds_the_clock_at_every_commit() {
    // Whatever enters the queue, and whether anything was received before.
    for step in 0..4 {
        let mut test = TestQueue::new();
        let (t, next) = (transaction(1), transaction(2));
        test.stage_some(&t, 0, 2);
        assert_eq!(t.commit(1000), Some(1000));
        let behind = match step {
            0 => test.push(4).timestamp,
            1 => test.push(5).timestamp,
            2 => test.stage_some(&next, 0, 4),
            _ => {
                test.head();
                test.queue.clock() + 4
            }
        };
        assert!(behind > 1000, "{step}");
    }
}

#[test]
fn a_committed_entry_is_received_though_an_undecided_one_stands_before_it() {
    let mut test = TestQueue::new();
    let (first, second) = (transaction(1), transaction(2));
    let early = test.stage(&first, 0, 1);
    let late = test.stage(&second, 0, 2);
    assert!(early < late);
    assert_eq!(second.commit(late), Some(late));
    assert_eq!(test.take_all(), [2]);
    assert!(first.commit(early).unwrap() > late);
    assert_eq!(test.take_all(), [1]);
}

#[test]
fn an_entry_staged_later_does_not_move() {
    let mut test = TestQueue::new();
    let (first, second) = (transaction(1), transaction(2));
    let at = test.stage(&first, 0, 1);
    assert!(first.commit(at).is_some());
    test.stage(&second, 0, 2);
    assert_eq!(test.take(), Some(1));
    assert_eq!(second.fate(), Fate::Undecided { floor: 0 });
    assert_eq!(test.take(), None);
}

#[test]
fn one_timestamp_is_ordered_by_number() {
    // Any of the two may be staged first, and any may commit first.
    for order in 0..4 {
        let mut test = TestQueue::new();
        let mut both = [transaction(1), transaction(2)];
        both.reverse();
        if order % 2 == 0 {
            both.reverse();
        }
        for t in &both {
            test.stage(t, 0, t.number.count);
        }
        if order < 2 {
            both.reverse();
        }
        for t in &both {
            assert_eq!(t.commit(8), Some(8));
        }
        assert_eq!(test.take_all(), [1, 2], "{order}");
    }
}

#[test]
fn one_timestamp_is_ordered_by_peer_first() {
    let mut test = TestQueue::new();
    let (later, earlier) = (transaction_of(3, 1), transaction_of(2, 9));
    test.stage(&later, 0, 3);
    test.stage(&earlier, 0, 2);
    let pushed = test.push(1).timestamp;
    for t in [&later, &earlier] {
        assert_eq!(t.commit(pushed), Some(pushed));
    }
    // An entry without other parts has no number, and so comes first.
    assert_eq!(test.take_all(), [1, 2, 3]);
}

#[test]
fn parts_of_one_transaction_are_together_and_in_order() {
    let mut test = TestQueue::new();
    let (t, other) = (transaction(5), transaction(4));
    test.stage(&t, 2, 12);
    test.push(0);
    test.stage(&other, 0, 4);
    test.stage(&t, 0, 10);
    test.push(1);
    test.stage(&t, 7, 17);
    test.stage(&t, 5, 15);
    let at = test.queue.clock();
    assert!(t.commit(at) == Some(at) && other.commit(at) == Some(at));
    test.push(2);

    let mut seen = Vec::new();
    while let Some(key) = test.head() {
        let following = test.following(&key);
        let id = test.take().unwrap();
        seen.push((id, following));
    }
    assert_eq!(seen[..3], [(0, None), (1, None), (4, None)]);
    let parts = [(10, Some(12)), (12, Some(15)), (15, Some(17)), (17, None)];
    assert_eq!(seen[3..7], parts);
    assert_eq!(seen[7..], [(2, None)]);
}

#[test]
fn messages_of_one_transaction_are_together_too() {
    // Settled at the receipt, or before.
    for pull in [false, true] {
        let mut test = TestQueue::new();
        let (t, other) = (transaction(5), transaction(4));
        test.push(0);
        for part in 0..3 {
            test.stage_some(&t, part, 10 + 2 * u64::from(part));
            test.push(2);
        }
        let timestamp = test.stage_some(&other, 0, 4);
        assert!(t.commit(timestamp).is_some() && other.commit(timestamp).is_some());
        test.push(6);
        if pull {
            test.queue.pull();
        }
        let mut seen = Vec::new();
        while let Some(key) = test.head() {
            let following = test.following(&key);
            seen.push((test.take().unwrap(), following));
        }
        let whole = [
            (4, None),
            (10, Some(12)),
            (12, Some(14)),
            (14, None),
            (6, None),
        ];
        assert_eq!(seen[..4], [(0, None), (2, None), (2, None), (2, None)]);
        assert_eq!(seen[4..], whole);
    }
}

/// Parts of undecided transactions of two kinds, which move, are taken back one by one.
#[test]
fn staged_parts_can_be_taken_back_in_any_order() {
    for others in 0..2 {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            for notices in [false, true] {
                let mut test = TestQueue::new();
                let (t, other) = (transaction(1), transaction(2));
                if others == 1 {
                    test.stage_some(&other, 0, 8);
                }
                for part in 0..3 {
                    test.stage_some(&t, part, 2 * u64::from(part) + u64::from(notices));
                }
                test.push(6);
                assert_eq!(test.take_all(), [6]);
                assert!(test.queue.unstage(&t.staged_key(3)).is_none());
                for part in order {
                    let back = test.queue.unstage(&t.staged_key(part)).unwrap();
                    assert_eq!(id(&back), 2 * u64::from(part) + u64::from(notices));
                    assert!(back.split().is_some(), "it can be staged again");
                    assert!(test.queue.unstage(&t.staged_key(part)).is_none());
                }
                assert_eq!(test.count(), count(0, others));
            }
        }
    }
}

#[test]
fn a_killed_entry_keeps_nothing_back_and_stays_its_makers() {
    let mut test = TestQueue::new();
    let t = transaction(1);
    test.stage(&t, 0, 1);
    test.stage(&t, 1, 3);
    test.push(2);
    t.kill();
    assert_eq!(test.take_all(), [2]);
    assert_eq!(test.count(), count(0, 2));
    assert_eq!(id(&test.queue.unstage(&t.staged_key(1)).unwrap()), 3);
    assert_eq!(id(&test.queue.unstage(&t.staged_key(0)).unwrap()), 1);
    assert_eq!(test.count(), count(0, 0));
}

#[test]
fn only_doomed_staged_messages_are_killed() {
    let mut test = TestQueue::new();
    let transactions: Vec<_> = (1..6).map(transaction).collect();
    let [to_doomed, to_other, decided, notice, second] = &transactions[..] else {
        unreachable!()
    };
    let (doomed, other) = (2, 4);
    for (t, id) in [(to_doomed, doomed), (to_other, other), (decided, doomed)] {
        test.stage_some(t, 0, id);
    }
    test.stage(notice, 0, doomed);
    test.stage_some(second, 0, other);
    test.stage_some(second, 1, doomed);
    assert_eq!(decided.commit(100), Some(100));
    test.queue.kill_staged(|message| message.id == doomed);
    let undecided = Fate::Undecided { floor: 0 };
    let fates: Vec<_> = transactions.iter().map(|t| t.fate()).collect();
    let decided = Fate::Committed(100);
    let killed = Fate::Killed;
    assert_eq!(fates, [killed, undecided, decided, undecided, killed]);
}

#[test]
fn undecided_transactions_are_counted_by_user() {
    let mut test = TestQueue::new();
    let makers = [7, 5, 7, 9, 7];
    let all: Vec<_> = (0..5)
        .map(|n| transaction_of(makers[n], n as u64))
        .collect();
    for t in &all {
        test.stage_some(t, 0, 2);
        test.stage_some(t, 1, 4);
    }
    // Notices of a destruction are not counted.
    test.stage(&transaction_of(6, 1), 0, 1);
    let of = |test: &mut TestQueue, uid| {
        let crowd = test.queue.crowd(uid);
        (crowd.of_user, crowd.of_all, crowd.users)
    };
    assert_eq!(of(&mut test, 7), (3, 5, 3));
    assert_eq!(of(&mut test, 8), (0, 5, 3));
    // Those that are decided count no more.
    assert!(all[0].commit(4).is_some() && all[1].commit(4).is_some());
    test.queue.pull();
    assert_eq!(of(&mut test, 7), (2, 3, 2));
    assert_eq!(of(&mut test, 5), (0, 3, 2));
}

#[test]
fn draining_yields_committed_entries_before_staged_ones() {
    let mut test = TestQueue::new();
    let transactions: Vec<_> = (1..4).map(transaction).collect();
    test.push(0);
    for (t, id) in transactions.iter().zip(1..) {
        test.stage(t, 0, id);
        test.stage(t, 1, 10 + id);
    }
    test.push(9);
    // The second is committed, the third killed.
    assert!(transactions[1].commit(9).is_some());
    transactions[2].kill();
    test.queue.pull();
    let clock = test.queue.clock();
    let mut drained = test.queue.drain();
    let entries = core::iter::from_fn(|| drained.pop_drained());
    let ids: Vec<u64> = entries.map(|removed| id(&removed)).collect();
    assert_eq!(ids, [0, 2, 12, 9, 1, 11, 3, 13]);
    assert!(clock != 0 && test.queue.clock() == clock);
    assert_eq!(test.count(), count(0, 0));
}
