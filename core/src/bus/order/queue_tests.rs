// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A queue of plain numbers: when its head is ready, and where entries go when they commit.

use std::{vec, vec::Vec};

use super::*;
use crate::bus::order::entry::Links;
use crate::bus::order::key::Number;
use crate::bus::order::transaction::Fate;

#[path = "schedule_tests.rs"]
mod schedules;

/// A message that is nothing except its ID.
struct Note {
    id: u64,
    links: Links<Note>,
}

/// A notice that is nothing except its ID; the simplest entry that can be staged.
struct Sign {
    id: u64,
}

impl Queued for Note {
    type Notice = Sign;

    fn links(&self) -> &Links<Self> {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links<Self> {
        &mut self.links
    }
}

/// A queue to take steps on.
struct Bench {
    queue: Queue<Note>,
}

impl Bench {
    fn new() -> Self {
        Self {
            queue: Queue::new(Ring::new(64).unwrap()),
        }
    }

    /// Commits a message after `floor`. Returns its key.
    fn push_above(&mut self, floor: u64, id: u64) -> Key {
        self.queue.push(floor, message(id));
        Key::alone(self.queue.clock())
    }

    /// Commits a message of an even ID, or a notice of an odd one. Returns its key.
    fn push(&mut self, id: u64) -> Key {
        if id & 1 == 0 {
            return self.push_above(0, id);
        }
        self.queue.push_notice(Sign { id }, reservation())
    }

    /// Stages a notice. Returns the timestamp to commit at.
    fn stage(&mut self, transaction: &Arc<Transaction>, part: u32, id: u64) -> u64 {
        let notice = Sign { id };
        self.queue
            .stage_notice(transaction, part, notice, reservation())
    }

    /// Stages a message of an even ID, or a notice of an odd one. Returns the timestamp to commit
    /// at.
    fn stage_some(&mut self, transaction: &Arc<Transaction>, part: u32, id: u64) -> u64 {
        if id & 1 != 0 {
            return self.stage(transaction, part, id);
        }
        self.queue
            .stage_message(transaction, part, part_message(id))
    }

    /// Settles the queue. Returns the key of the entry that can be received.
    fn head(&mut self) -> Option<Key> {
        self.queue.settle();
        Some(self.queue.head()?.key)
    }

    /// Counts the entries that are committed and staged, a few at a time.
    fn count(&self) -> (usize, usize) {
        let (mut cursor, mut n) = (self.queue.cursor(), 0);
        while !matches!(cursor, Cursor::End) {
            n += self.queue.count_from(&mut cursor, 3);
        }
        (n, self.queue.n_staged())
    }

    /// Returns the IDs of the entries behind the head that are of the same transaction.
    fn following(&self, key: &Key) -> Vec<u64> {
        let mut ids = Vec::new();
        self.queue.any_following(key, |entry| {
            ids.push(id_of(&entry));
            false
        });
        ids
    }

    /// Receives the first entry. Returns its ID.
    fn take(&mut self) -> Option<u64> {
        let key = self.head()?;
        Some(id(&self.queue.pop(&key).unwrap()))
    }

    fn take_all(&mut self) -> Vec<u64> {
        core::iter::from_fn(|| self.take()).collect()
    }
}

fn reservation() -> EntryReservation<Note> {
    EntryReservation::<Note>::new(GFP_KERNEL).unwrap()
}

fn message(id: u64) -> KBox<Note> {
    let links = Links::NONE;
    KBox::new(Note { id, links }, GFP_KERNEL).unwrap()
}

/// Makes a message that can be one of several parts.
fn part_message(id: u64) -> KBox<Note> {
    let mut message = message(id);
    message.links.reservation = Some(reservation());
    message
}

fn id(removed: &Removed<Note>) -> u64 {
    match removed {
        Removed::Message(message) => message.id,
        Removed::Notice(notice, _) => notice.id,
    }
}

fn id_of(entry: &EntryRef<'_, Note>) -> u64 {
    match entry {
        EntryRef::Message(message) => message.id,
        EntryRef::Notice(notice) => notice.id,
    }
}

/// Makes an undecided transaction, the `count`-th of peer 1.
fn transaction(count: u64) -> Arc<Transaction> {
    transaction_of(1, count)
}

fn transaction_of(maker: u64, count: u64) -> Arc<Transaction> {
    Transaction::new(Number { maker, count }, maker as u32).unwrap()
}

/// Numbers of entries that are committed and staged.
fn count(committed: usize, staged: usize) -> (usize, usize) {
    (committed, staged)
}

#[test]
fn entries_without_siblings_come_as_they_were_queued() {
    let mut bench = Bench::new();
    assert_eq!(bench.head(), None);
    let keys: Vec<Key> = (0..5).map(|id| bench.push(id)).collect();
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(keys.iter().all(|key| key.timestamp % 4 == 0));
    assert_eq!(bench.head(), Some(keys[0]));
    assert_eq!(bench.take_all(), [0, 1, 2, 3, 4]);
    assert_eq!(bench.count(), count(0, 0));
}

#[test]
fn an_entry_stands_after_its_floor() {
    let mut bench = Bench::new();
    bench.push(0);
    let key = bench.push_above(1002, 1);
    assert_eq!((key.timestamp, bench.queue.clock()), (1004, 1004));
    // A floor below the clock changes nothing.
    assert_eq!(bench.push_above(8, 2).timestamp, 1008);
}

#[test]
fn an_undecided_entry_keeps_nothing_back() {
    let mut bench = Bench::new();
    let t = transaction(1);
    bench.push(0);
    let at = bench.stage(&t, 0, 1);
    bench.push(2);
    assert_eq!(bench.take_all(), [0, 2]);
    assert_eq!(bench.count(), count(0, 1));
    // It moved behind 2, however early its maker could have committed it.
    assert!(t.commit(at).unwrap() > 12);
    bench.push(4);
    assert_eq!(bench.take_all(), [1, 4]);
}

#[test]
fn entries_move_once_for_many_that_are_received() {
    let mut bench = Bench::new();
    let transactions: Vec<_> = (1..9).map(transaction).collect();
    for (t, id) in transactions.iter().zip(100..) {
        bench.stage_some(t, 0, id);
    }
    let mut floors = std::collections::BTreeSet::new();
    for id in 0..1000 {
        bench.push(id % 2);
        assert_eq!(bench.take(), Some(id % 2));
        let Fate::Undecided { floor } = transactions[0].fate() else {
            panic!("decided");
        };
        floors.insert(floor);
    }
    assert!(floors.len() <= 5, "{floors:?}");
    // The clock goes as fast as without them.
    assert!(bench.queue.clock() <= 4 * 1010);
}

#[test]
fn an_entry_moves_to_the_common_timestamp() {
    let mut bench = Bench::new();
    let t = transaction(1);
    bench.stage(&t, 0, 1);
    for id in 2..5 {
        bench.push(id);
    }
    // Elsewhere the clock stood at 14.
    assert_eq!(t.commit(16), Some(16));
    bench.push(5);
    assert_eq!(bench.take_all(), [2, 3, 4, 1, 5]);
}

#[test]
fn a_later_entry_finds_the_clock_at_every_commit() {
    // Whatever enters the queue, and whether anything was received before.
    for step in 0..4 {
        let mut bench = Bench::new();
        let (t, next) = (transaction(1), transaction(2));
        bench.stage_some(&t, 0, 2);
        assert_eq!(t.commit(1000), Some(1000));
        let behind = match step {
            0 => bench.push(4).timestamp,
            1 => bench.push(5).timestamp,
            2 => bench.stage_some(&next, 0, 4),
            _ => {
                bench.head();
                bench.queue.clock() + 4
            }
        };
        assert!(behind > 1000, "{step}");
    }
}

#[test]
fn a_committed_entry_is_received_though_an_undecided_one_stands_before_it() {
    let mut bench = Bench::new();
    let (first, second) = (transaction(1), transaction(2));
    let early = bench.stage(&first, 0, 1);
    let late = bench.stage(&second, 0, 2);
    assert!(early < late);
    assert_eq!(second.commit(late), Some(late));
    assert_eq!(bench.take_all(), [2]);
    assert!(first.commit(early).unwrap() > late);
    assert_eq!(bench.take_all(), [1]);
}

#[test]
fn an_entry_staged_later_does_not_move() {
    let mut bench = Bench::new();
    let (first, second) = (transaction(1), transaction(2));
    let at = bench.stage(&first, 0, 1);
    assert!(first.commit(at).is_some());
    bench.stage(&second, 0, 2);
    assert_eq!(bench.take(), Some(1));
    assert_eq!(second.fate(), Fate::Undecided { floor: 0 });
    assert_eq!(bench.take(), None);
}

#[test]
fn one_timestamp_is_ordered_by_number() {
    // Any of the two may be staged first, and any may commit first.
    for order in 0..4 {
        let mut bench = Bench::new();
        let mut both = [transaction(1), transaction(2)];
        both.reverse();
        if order % 2 == 0 {
            both.reverse();
        }
        for t in &both {
            bench.stage(t, 0, t.number.count);
        }
        if order < 2 {
            both.reverse();
        }
        for t in &both {
            assert_eq!(t.commit(8), Some(8));
        }
        assert_eq!(bench.take_all(), [1, 2], "{order}");
    }
}

#[test]
fn one_timestamp_is_ordered_by_peer_first() {
    let mut bench = Bench::new();
    let (later, earlier) = (transaction_of(3, 1), transaction_of(2, 9));
    bench.stage(&later, 0, 3);
    bench.stage(&earlier, 0, 2);
    let pushed = bench.push(1).timestamp;
    for t in [&later, &earlier] {
        assert_eq!(t.commit(pushed), Some(pushed));
    }
    // An entry without other parts has no number, and so comes first.
    assert_eq!(bench.take_all(), [1, 2, 3]);
}

#[test]
fn parts_of_one_transaction_are_together_and_in_order() {
    let mut bench = Bench::new();
    let (t, other) = (transaction(5), transaction(4));
    bench.stage(&t, 2, 12);
    bench.push(0);
    bench.stage(&other, 0, 4);
    bench.stage(&t, 0, 10);
    bench.push(1);
    bench.stage(&t, 7, 17);
    bench.stage(&t, 5, 15);
    let at = bench.queue.clock();
    assert!(t.commit(at) == Some(at) && other.commit(at) == Some(at));
    bench.push(2);

    let mut seen = Vec::new();
    while let Some(key) = bench.head() {
        let following = bench.following(&key);
        let id = bench.take().unwrap();
        seen.push((id, following));
    }
    let none = Vec::new;
    assert_eq!(seen[..2], [(0, none()), (1, none())]);
    assert_eq!(seen[2], (4, none()));
    let parts = [
        (10, vec![12, 15, 17]),
        (12, vec![15, 17]),
        (15, vec![17]),
        (17, none()),
    ];
    assert_eq!(seen[3..7], parts);
    assert_eq!(seen[7..], [(2, none())]);
}

#[test]
fn messages_of_one_transaction_are_together_too() {
    // Settled at the receipt, or before.
    for pull in [false, true] {
        let mut bench = Bench::new();
        let (t, other) = (transaction(5), transaction(4));
        bench.push(0);
        for part in 0..3 {
            bench.stage_some(&t, part, 10 + 2 * u64::from(part));
            bench.push(2);
        }
        let timestamp = bench.stage_some(&other, 0, 4);
        assert!(t.commit(timestamp).is_some() && other.commit(timestamp).is_some());
        bench.push(6);
        if pull {
            bench.queue.pull();
        }
        let mut seen = Vec::new();
        while let Some(key) = bench.head() {
            let following = bench.following(&key);
            seen.push((bench.take().unwrap(), following.len()));
        }
        let whole = [(4, 0), (10, 2), (12, 1), (14, 0), (6, 0)];
        assert_eq!(seen[..4], [(0, 0), (2, 0), (2, 0), (2, 0)]);
        assert_eq!(seen[4..], whole);
    }
}

/// Parts of undecided transactions of two kinds, which move, are taken back one by one.
#[test]
fn staged_parts_can_be_taken_back_in_any_order() {
    for others in 0..2 {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
            for notices in [false, true] {
                let mut bench = Bench::new();
                let (t, other) = (transaction(1), transaction(2));
                if others == 1 {
                    bench.stage_some(&other, 0, 8);
                }
                for part in 0..3 {
                    bench.stage_some(&t, part, 2 * u64::from(part) + u64::from(notices));
                }
                bench.push(6);
                assert_eq!(bench.take_all(), [6]);
                assert!(bench.queue.unstage(&t.place(3)).is_none());
                for part in order {
                    let back = bench.queue.unstage(&t.place(part)).unwrap();
                    assert_eq!(id(&back), 2 * u64::from(part) + u64::from(notices));
                    assert!(back.split().is_some(), "it can be staged again");
                    assert!(bench.queue.unstage(&t.place(part)).is_none());
                }
                assert_eq!(bench.count(), count(0, others));
            }
        }
    }
}

#[test]
fn a_killed_entry_keeps_nothing_back_and_stays_its_makers() {
    let mut bench = Bench::new();
    let t = transaction(1);
    bench.stage(&t, 0, 1);
    bench.stage(&t, 1, 3);
    bench.push(2);
    t.kill();
    assert_eq!(bench.take_all(), [2]);
    assert_eq!(bench.count(), count(0, 2));
    assert_eq!(id(&bench.queue.unstage(&t.place(1)).unwrap()), 3);
    assert_eq!(id(&bench.queue.unstage(&t.place(0)).unwrap()), 1);
    assert_eq!(bench.count(), count(0, 0));
}

#[test]
fn only_doomed_staged_messages_are_killed() {
    let mut bench = Bench::new();
    let transactions: Vec<_> = (1..6).map(transaction).collect();
    let [to_doomed, to_other, decided, notice, second] = &transactions[..] else {
        unreachable!()
    };
    let (doomed, other) = (2, 4);
    for (t, id) in [(to_doomed, doomed), (to_other, other), (decided, doomed)] {
        bench.stage_some(t, 0, id);
    }
    bench.stage(notice, 0, doomed);
    bench.stage_some(second, 0, other);
    bench.stage_some(second, 1, doomed);
    assert_eq!(decided.commit(100), Some(100));
    bench.queue.kill_staged(|message| message.id == doomed);
    let undecided = Fate::Undecided { floor: 0 };
    let fates: Vec<_> = transactions.iter().map(|t| t.fate()).collect();
    let decided = Fate::Committed(100);
    let killed = Fate::Killed;
    assert_eq!(fates, [killed, undecided, decided, undecided, killed]);
}

#[test]
fn undecided_transactions_are_counted_by_user() {
    let mut bench = Bench::new();
    let makers = [7, 5, 7, 9, 7];
    let all: Vec<_> = (0..5)
        .map(|n| transaction_of(makers[n], n as u64))
        .collect();
    for t in &all {
        bench.stage(t, 0, 1);
        bench.stage(t, 1, 3);
    }
    let of = |bench: &mut Bench, uid| {
        let crowd = bench.queue.crowd(uid);
        (crowd.of_user, crowd.of_all, crowd.users)
    };
    assert_eq!(of(&mut bench, 7), (3, 5, 3));
    assert_eq!(of(&mut bench, 8), (0, 5, 3));
    // Those that are decided count no more.
    assert!(all[0].commit(4).is_some() && all[1].commit(4).is_some());
    bench.queue.pull();
    assert_eq!(of(&mut bench, 7), (2, 3, 2));
    assert_eq!(of(&mut bench, 5), (0, 3, 2));
}

#[test]
fn draining_yields_committed_entries_before_staged_ones() {
    let mut bench = Bench::new();
    let transactions: Vec<_> = (1..4).map(transaction).collect();
    bench.push(0);
    for (t, id) in transactions.iter().zip(1..) {
        bench.stage(t, 0, id);
        bench.stage(t, 1, 10 + id);
    }
    bench.push(9);
    // The second is committed, the third killed.
    assert!(transactions[1].commit(9).is_some());
    transactions[2].kill();
    bench.queue.pull();
    let clock = bench.queue.clock();
    let mut drained = bench.queue.drain();
    let entries = core::iter::from_fn(|| drained.pop_drained());
    let ids: Vec<u64> = entries.map(|removed| id(&removed)).collect();
    assert_eq!(ids, [0, 2, 12, 9, 1, 11, 3, 13]);
    assert!(clock != 0 && bench.queue.clock() == clock);
    assert_eq!(bench.count(), count(0, 0));
}

/// Parts that are alone in this queue go to the ring where they come last there, and to the tree
/// otherwise; holes of a purge change nothing.
#[test]
fn parts_come_at_their_place_among_messages() {
    for hole in [None, Some(4)] {
        let mut bench = Bench::new();
        let transactions: Vec<_> = (1..5).map(transaction).collect();
        for (t, id) in transactions.iter().zip([10, 20, 30, 40]) {
            bench.stage_some(t, 0, id);
        }
        for id in [0, 2, 4] {
            bench.push(id);
        }
        if let Some(hole) = hole {
            let mut cursor = bench.queue.cursor();
            while let Some(at) = bench.queue.advance(&mut cursor) {
                let here = bench.queue.entry_at(&at);
                if here.is_some_and(|head| id_of(&head.entry) == hole) {
                    bench.queue.remove_at(&at);
                }
            }
        }
        // Of the pushed ones 0 is at 20, 2 at 24, 4 at 28.
        for (t, at) in transactions.iter().zip([20, 24, 26, 40]) {
            assert_eq!(t.commit(at), Some(at));
        }
        bench.push(6);
        let all = [0, 10, 2, 20, 30, 4, 40, 6].into_iter();
        let all: Vec<u64> = all.filter(|&id| Some(id) != hole).collect();
        assert_eq!(bench.take_all(), all);
    }
}

/// A cursor passes each committed entry once, where entries before and behind it are taken out and
/// others are committed meanwhile.
#[test]
fn a_cursor_passes_each_entry_once() {
    let mut bench = Bench::new();
    for id in 0..8 {
        bench.push(id);
    }
    let mut cursor = bench.queue.cursor();
    let mut seen = Vec::new();
    while let Some(at) = bench.queue.advance(&mut cursor) {
        let Some(here) = bench.queue.entry_at(&at) else {
            continue;
        };
        let key = here.key;
        let seen_id = id_of(&here.entry);
        seen.push(seen_id);
        match seen_id {
            // The head moves to 2, and the ring passes over the hole at 4.
            0 => assert_eq!(bench.take(), Some(0)),
            2 => {
                let next = bench.queue.advance(&mut { cursor }).unwrap();
                assert_eq!(id(&bench.queue.remove_at(&next).unwrap()), 4);
                assert!(bench.queue.remove_at(&next).is_none());
            }
            // The tree, where an entry is added behind the cursor.
            5 => {
                assert_eq!(id(&bench.queue.remove_at(&at).unwrap()), 5);
                assert!(bench.queue.entry_at(&at).is_none());
                assert!(bench.push(9) > key);
            }
            _ => (),
        }
    }
    assert_eq!(seen, [0, 2, 6, 1, 3, 5, 7, 9]);
    assert!(matches!(cursor, Cursor::End));
    assert!(bench.queue.advance(&mut cursor).is_none());
    assert!(bench.queue.entry_at(&cursor).is_none() && bench.queue.remove_at(&cursor).is_none());
    assert_eq!(bench.take_all(), [1, 2, 3, 6, 7, 9]);
}
