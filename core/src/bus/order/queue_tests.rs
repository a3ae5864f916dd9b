// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! A queue of plain numbers: when its head is ready, and where entries go when they commit.

use std::vec::Vec;

use super::*;
use crate::bus::order::entry::Links;
use crate::bus::order::key::Number;

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

    /// Stages a notice. Returns its place.
    fn stage(&mut self, transaction: &Arc<Transaction>, part: u32, id: u64) -> Key {
        let notice = Sign { id };
        self.queue
            .stage_notice(transaction, part, notice, reservation())
    }

    /// Stages a message of an even ID, or a notice of an odd one. Returns the timestamp to commit
    /// at.
    fn stage_some(&mut self, transaction: &Arc<Transaction>, part: u32, id: u64) -> u64 {
        if id & 1 != 0 {
            return message_after(self.stage(transaction, part, id).timestamp);
        }
        let staged = self
            .queue
            .stage_message(transaction, part, 0, part_message(id));
        assert_eq!(staged.key.number, transaction.number);
        staged.commit_at
    }

    /// Settles the queue. Returns the key of the entry that can be received.
    fn head(&mut self) -> Option<Key> {
        let settled = self.queue.settle();
        Some(self.queue.head().filter(|_| settled)?.key)
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

/// Makes a staged transaction, the `count`-th of peer 1.
fn transaction(count: u64) -> Arc<Transaction> {
    Transaction::new(Number { maker: 1, count }).unwrap()
}

/// Takes all steps after the last part was staged, at one queue.
fn commit(queue: &mut Queue<Note>, transaction: &Transaction, after: u64) -> u64 {
    let timestamp = message_after(after);
    queue.raise(timestamp);
    assert!(transaction.commit(timestamp));
    timestamp
}

fn count(committed: usize, staged: usize) -> Count {
    Count { committed, staged }
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
    assert_eq!(bench.queue.count(), count(0, 0));
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
fn a_staged_entry_keeps_back_only_entries_after_it() {
    let mut bench = Bench::new();
    let t = transaction(1);
    let before = bench.push(0);
    let staged = bench.stage(&t, 0, 1);
    bench.push(2);
    assert!(staged.timestamp % 2 == 1 && staged > before);
    assert_eq!(bench.take(), Some(0));
    assert_eq!(bench.head(), None);
    assert_eq!(bench.queue.count(), count(1, 1));
    // It was overtaken: 2 is at 8, and so is the transaction, which has a number.
    assert_eq!(commit(&mut bench.queue, &t, staged.timestamp), 8);
    assert_eq!(bench.take_all(), [2, 1]);
}

#[test]
fn an_entry_moves_to_the_common_timestamp() {
    let mut bench = Bench::new();
    let t = transaction(1);
    bench.stage(&t, 0, 1);
    for id in 2..5 {
        bench.push(id);
    }
    // Elsewhere the clock stood at 9.
    let timestamp = commit(&mut bench.queue, &t, 9);
    assert_eq!(timestamp, 12);
    bench.push(5);
    assert_eq!(bench.take_all(), [2, 3, 4, 1, 5]);
}

#[test]
fn an_early_commit_waits_for_entries_staged_before() {
    let mut bench = Bench::new();
    let (first, second) = (transaction(1), transaction(2));
    let a = bench.stage(&first, 0, 1);
    let b = bench.stage(&second, 0, 2);
    assert!(a < b);
    commit(&mut bench.queue, &second, b.timestamp);
    assert_eq!(bench.head(), None);
    let clock = bench.queue.clock();
    commit(&mut bench.queue, &first, clock);
    assert_eq!(bench.take_all(), [2, 1]);
}

#[test]
fn an_entry_staged_later_does_not_keep_back() {
    let mut bench = Bench::new();
    let (first, second) = (transaction(1), transaction(2));
    let a = bench.stage(&first, 0, 1);
    commit(&mut bench.queue, &first, a.timestamp);
    bench.stage(&second, 0, 2);
    assert_eq!(bench.take(), Some(1));
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
            bench.queue.raise(8);
            assert!(t.commit(8));
        }
        assert_eq!(bench.take_all(), [1, 2], "{order}");
    }
}

#[test]
fn one_timestamp_is_ordered_by_peer_first() {
    let mut bench = Bench::new();
    let later = Transaction::new(Number { maker: 3, count: 1 }).unwrap();
    let earlier = Transaction::new(Number { maker: 2, count: 9 }).unwrap();
    bench.stage(&later, 0, 3);
    bench.stage(&earlier, 0, 2);
    bench.push(1);
    for t in [&later, &earlier] {
        bench.queue.raise(4);
        assert!(t.commit(4));
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
    bench.queue.raise(12);
    assert!(t.commit(12) && other.commit(12));
    bench.push(2);

    let mut seen = Vec::new();
    while let Some(key) = bench.head() {
        let follows = bench.queue.following(&key);
        let removed = bench.queue.pop(&key).unwrap();
        seen.push((id(&removed), follows.is_some()));
        if let Some(next) = follows {
            assert_eq!(bench.head(), Some(next));
        }
    }
    let parts = [(10, true), (12, true), (17, false)];
    assert_eq!(seen[..2], [(0, false), (1, false)]);
    assert_eq!(seen[2], (4, false));
    assert_eq!(seen[3..6], parts);
    assert_eq!(seen[6..], [(2, false)]);
}

#[test]
fn messages_of_one_transaction_are_together_too() {
    // Settled one by one, or before, with all that is there.
    for settle_all in [false, true] {
        let mut bench = Bench::new();
        let (t, other) = (transaction(5), transaction(4));
        bench.push(0);
        for part in 0..3 {
            bench.stage_some(&t, part, 10 + 2 * u64::from(part));
            bench.push(2);
        }
        let timestamp = bench.stage_some(&other, 0, 4);
        assert!(t.commit(timestamp) && other.commit(timestamp));
        bench.push(6);
        if settle_all {
            bench.queue.settle_all();
        }
        let mut seen = Vec::new();
        while let Some(key) = bench.head() {
            let follows = bench.queue.following(&key);
            seen.push((bench.take().unwrap(), follows.is_some()));
            assert!(follows.is_none() || bench.head() == follows);
        }
        let whole = [(4, false), (10, true), (12, true), (14, false), (6, false)];
        assert_eq!(seen[..4], [(0, false), (2, false), (2, false), (2, false)]);
        assert_eq!(seen[4..], whole);
    }
}

#[test]
fn a_lone_message_can_be_taken_back_and_killed() {
    let mut bench = Bench::new();
    let t = transaction(1);
    let timestamp = bench.stage_some(&t, 3, 2);
    assert_eq!((timestamp, bench.queue.clock()), (4, 4));
    assert_eq!((bench.head(), bench.queue.count()), (None, count(0, 1)));
    let staged_at = |part| Key {
        timestamp: 1,
        number: t.number,
        part,
    };
    assert!(bench.queue.unstage(&staged_at(2)).is_none());
    assert_eq!(id(&bench.queue.unstage(&staged_at(3)).unwrap()), 2);
    assert_eq!(bench.queue.count(), count(0, 0));
    // Two whose clocks keep pace are committed at what the second was staged for.
    bench.stage_some(&t, 0, 2);
    let behind = message_after(bench.queue.clock());
    assert_eq!(bench.stage_some(&t, 1, 4), behind);
    bench.queue.kill_staged(|message| message.id == 4);
    assert!(!t.commit(behind));
    assert_eq!(bench.queue.drain().staged.values().count(), 2);
}

#[test]
fn a_killed_entry_keeps_back_until_it_is_taken_back() {
    let mut bench = Bench::new();
    let t = transaction(1);
    let key = bench.stage(&t, 0, 1);
    bench.push(2);
    t.kill();
    assert_eq!(bench.head(), None);
    assert_eq!(id(&bench.queue.unstage(&key).unwrap()), 1);
    assert!(bench.queue.unstage(&key).is_none());
    assert_eq!(bench.take_all(), [2]);
}

#[test]
fn only_doomed_staged_messages_are_killed() {
    let mut bench = Bench::new();
    let transactions: Vec<_> = (1..5).map(transaction).collect();
    let [to_doomed, to_other, decided, notice] = &transactions[..] else {
        unreachable!()
    };
    let (doomed, other) = (2, 4);
    for (t, id) in [(to_doomed, doomed), (to_other, other), (decided, doomed)] {
        bench.stage_some(t, 0, id);
    }
    bench.stage(notice, 0, doomed);
    commit(&mut bench.queue, decided, 9);
    bench.queue.kill_staged(|message| message.id == doomed);
    // When a transaction was committed, and whether it still can be.
    let fate = |t: &Arc<Transaction>| (t.committed_at(), t.commit(99));
    let fates: Vec<_> = transactions.iter().map(fate).collect();
    let staged = (None, true);
    assert_eq!(fates, [(None, false), staged, (Some(12), false), staged]);
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
    // The first stays staged before all, the second is committed, the third killed.
    commit(&mut bench.queue, &transactions[1], 9);
    transactions[2].kill();
    let clock = bench.queue.clock();
    let mut drained = bench.queue.drain();
    assert_eq!(drained.ring.count(), 1);
    assert_eq!(drained.committed.values().count(), 3);
    assert_eq!(drained.staged.values().count(), 4);
    let entries = core::iter::from_fn(|| drained.pop_drained());
    let ids: Vec<u64> = entries.map(|removed| id(&removed)).collect();
    assert_eq!(ids, [0, 9, 2, 12, 1, 11, 3, 13]);
    assert!(clock != 0 && bench.queue.clock() == clock);
    assert_eq!(bench.queue.count(), count(0, 0));
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
        let seen_id = match here.entry {
            EntryRef::Message(message) => message.id,
            EntryRef::Notice(notice) => notice.id,
        };
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
