// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The queue alone: when its head is ready, where entries go when they commit, and, over random
//! schedules of the steps of transactions, the order as a whole.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::testing::{Client, Test, World};
use super::*;

/// A peer whose nodes the entries are about, and a queue of nobody.
struct Bench {
    _world: World,
    client: Client,
    queue: Queue<Test>,
}

impl Bench {
    fn new() -> Self {
        let world = World::default();
        let client = world.open(1);
        Self {
            _world: world,
            client,
            queue: Queue::new(Fifo::ring(64).unwrap()),
        }
    }

    fn node(&self, id: u64) -> Arc<Node<Test>> {
        Node::new(id, id, &self.client.peer).unwrap()
    }

    /// A notice about a node of this ID; the simplest thing that can be staged.
    fn body(&self, id: u64) -> Body<Test> {
        Body::Release(self.node(id))
    }

    fn message(&self, node: Arc<Node<Test>>) -> KBox<Message<Test>> {
        let mut message = Message::blank().unwrap();
        message.node = Some(node);
        message
    }

    /// Commits a message; its key.
    fn push_above(&mut self, floor: u64, id: u64) -> Key {
        let message = self.message(self.node(id));
        self.queue.push(floor, message);
        Key(self.queue.clock, ALONE, 0)
    }

    /// The same for a notice where the ID is odd.
    fn push(&mut self, id: u64) -> Key {
        if id & 1 == 0 {
            return self.push_above(0, id);
        }
        let node = self.node(id);
        self.queue.push_notice(&node, seat())
    }

    fn stage(&mut self, transaction: &Arc<Transaction>, part: u32, id: u64) -> Key {
        let body = self.body(id);
        self.queue.stage(transaction, part, body, seat())
    }

    /// The same for a message where the ID is even.
    fn stage_some(&mut self, transaction: &Arc<Transaction>, part: u32, id: u64) -> u64 {
        if id & 1 != 0 {
            return message_after(self.stage(transaction, part, id).0);
        }
        let mut message = self.message(self.node(id));
        message.seat = Some(seat());
        self.queue.stage_message(transaction, part, 0, message).1
    }

    /// The key of what can be received.
    fn head(&mut self) -> Option<Key> {
        let settled = self.queue.settle();
        Some(self.queue.head().filter(|_| settled)?.0)
    }

    /// Receives the head; its node's ID.
    fn take(&mut self) -> Option<u64> {
        let key = self.head()?;
        Some(id(&self.queue.pop(&key).unwrap().0))
    }

    fn take_all(&mut self) -> Vec<u64> {
        core::iter::from_fn(|| self.take()).collect()
    }
}

fn seat() -> Seat<Test> {
    Seat::<Test>::new(GFP_KERNEL).unwrap()
}

fn id(body: &Body<Test>) -> u64 {
    match body {
        Body::Release(node) => node.id(),
        Body::Data(message) => message.node.as_ref().unwrap().id(),
        _ => unreachable!(),
    }
}

fn transaction(number: u64) -> Arc<Transaction> {
    Transaction::new(1, number).unwrap()
}

/// All steps from the choice on, at one queue.
fn commit(queue: &mut Queue<Test>, transaction: &Transaction, after: u64) -> u64 {
    let timestamp = message_after(after);
    queue.raise(timestamp);
    assert!(transaction.commit(timestamp));
    timestamp
}

#[test]
fn what_stands_alone_comes_as_it_was_queued() {
    let mut bench = Bench::new();
    assert_eq!(bench.head(), None);
    let keys: Vec<Key> = (0..5).map(|id| bench.push(id)).collect();
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(keys.iter().all(|key| key.0 % 4 == 0));
    assert_eq!(bench.head(), Some(keys[0]));
    assert_eq!(bench.take_all(), [0, 1, 2, 3, 4]);
    assert_eq!(bench.queue.count(), (0, 0));
}

#[test]
fn a_floor_is_stood_above() {
    let mut bench = Bench::new();
    bench.push(0);
    let key = bench.push_above(1002, 1);
    assert_eq!((key.0, bench.queue.clock), (1004, 1004));
    // A floor below the clock changes nothing.
    assert_eq!(bench.push_above(8, 2).0, 1008);
}

#[test]
fn a_staged_entry_keeps_back_what_is_after_it_alone() {
    let mut bench = Bench::new();
    let t = transaction(1);
    let before = bench.push(0);
    let staged = bench.stage(&t, 0, 1);
    bench.push(2);
    assert!(staged.0 % 2 == 1 && staged > before);
    assert_eq!(bench.take(), Some(0));
    assert_eq!(bench.head(), None);
    assert_eq!(bench.queue.count(), (1, 1));
    // It was overtaken: 2 is at 8, and so is the transaction, which has a number.
    assert_eq!(commit(&mut bench.queue, &t, staged.0), 8);
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
fn an_early_commit_waits_for_what_was_staged_before() {
    let mut bench = Bench::new();
    let (first, second) = (transaction(1), transaction(2));
    let a = bench.stage(&first, 0, 1);
    let b = bench.stage(&second, 0, 2);
    assert!(a < b);
    commit(&mut bench.queue, &second, b.0);
    assert_eq!(bench.head(), None);
    let clock = bench.queue.clock;
    commit(&mut bench.queue, &first, clock);
    assert_eq!(bench.take_all(), [2, 1]);
}

#[test]
fn what_is_staged_later_does_not_keep_back() {
    let mut bench = Bench::new();
    let (first, second) = (transaction(1), transaction(2));
    let a = bench.stage(&first, 0, 1);
    commit(&mut bench.queue, &first, a.0);
    bench.stage(&second, 0, 2);
    assert_eq!(bench.take(), Some(1));
    assert_eq!(bench.take(), None);
}

#[test]
fn one_timestamp_is_ordered_by_number() {
    // Whichever was staged first, and whichever committed first.
    for order in 0..4 {
        let mut bench = Bench::new();
        let mut both = [transaction(1), transaction(2)];
        both.reverse();
        if order % 2 == 0 {
            both.reverse();
        }
        for t in &both {
            bench.stage(t, 0, t.number.1);
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
    let later = Transaction::new(3, 1).unwrap();
    let earlier = Transaction::new(2, 9).unwrap();
    bench.stage(&later, 0, 3);
    bench.stage(&earlier, 0, 2);
    bench.push(1);
    for t in [&later, &earlier] {
        bench.queue.raise(4);
        assert!(t.commit(4));
    }
    // What stands alone has no number, and so comes first.
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
        let body = bench.queue.pop(&key).unwrap().0;
        seen.push((id(&body), follows.is_some()));
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
    assert_eq!((timestamp, bench.queue.clock), (4, 4));
    assert_eq!((bench.head(), bench.queue.count()), (None, (0, 1)));
    assert!(bench.queue.unstage(&Key(1, t.number, 2)).is_none());
    assert_eq!(id(&bench.queue.unstage(&Key(1, t.number, 3)).unwrap().0), 2);
    assert_eq!(bench.queue.count(), (0, 0));
    // Two whose clocks keep pace are committed at what the second was staged for.
    bench.stage_some(&t, 0, 2);
    let behind = message_after(bench.queue.clock);
    assert_eq!(bench.stage_some(&t, 1, 4), behind);
    bench.queue.kill_staged(|node| node.id() == 4);
    assert!(!t.commit(behind));
    assert_eq!(bench.queue.drain()[1].values().count(), 2);
}

#[test]
fn a_killed_entry_keeps_back_until_it_is_taken_back() {
    let mut bench = Bench::new();
    let t = transaction(1);
    let key = bench.stage(&t, 0, 1);
    bench.push(2);
    t.kill();
    assert_eq!(bench.head(), None);
    let (body, _) = bench.queue.unstage(&key).unwrap();
    assert_eq!(id(&body), 1);
    assert!(bench.queue.unstage(&key).is_none());
    assert_eq!(bench.take_all(), [2]);
}

#[test]
fn only_what_is_staged_for_the_doomed_is_killed() {
    let mut bench = Bench::new();
    let doomed = bench.node(1);
    let other = bench.node(2);
    let transactions: Vec<_> = (1..5).map(transaction).collect();
    let [to_doomed, to_other, decided, notice] = &transactions[..] else {
        unreachable!()
    };
    for (t, node) in [(to_doomed, &doomed), (to_other, &other), (decided, &doomed)] {
        let mut message = bench.message(node.clone());
        message.seat = Some(seat());
        bench.queue.stage_message(t, 0, 0, message);
    }
    let body = Body::Release(doomed.clone());
    bench.queue.stage(notice, 0, body, seat());
    commit(&mut bench.queue, decided, 9);
    bench.queue.kill_staged(|node| node.id() == 1);
    // When it was committed, and whether it still can be.
    let fate = |t: &Arc<Transaction>| (t.committed_at(), t.commit(99));
    let fates: Vec<_> = transactions.iter().map(fate).collect();
    let staged = (None, true);
    assert_eq!(fates, [(None, false), staged, (Some(12), false), staged]);
}

#[test]
fn draining_tells_what_is_not_decided() {
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
    let [others, staged] = bench.queue.drain();
    let listed = core::iter::from_fn(|| bench.queue.list.pop()).map(|body| id(&body));
    assert_eq!(listed.collect::<Vec<u64>>(), [0]);
    let others = others.values().flatten().map(|entry| id(&entry.body));
    assert_eq!(others.collect::<Vec<u64>>(), [9, 2, 12]);
    assert_eq!(staged.values().count(), 4);
    assert_eq!(bench.queue.count(), (0, 0));
}

/// A transaction of the random schedules: its queues, and how far it is.
struct Run {
    queues: Vec<usize>,
    transaction: Arc<Transaction>,
    step: usize,
    top: u64,
    /// The time its first step was made, and the time after its last.
    began: usize,
    ended: usize,
}

impl Run {
    /// Makes the next step; false if there is none.
    fn advance(&mut self, benches: &mut [Bench], id: u64, now: usize) -> bool {
        let n = self.queues.len();
        if self.step == 0 {
            self.began = now;
        }
        match self.step {
            step if step < n => {
                let bench = &mut benches[self.queues[step]];
                if n == 1 {
                    bench.push(id);
                    self.step = 2;
                    self.ended = now;
                    return true;
                }
                self.top = self.top.max(bench.stage_some(&self.transaction, 0, id));
            }
            step if step < 2 * n => benches[self.queues[step - n]].queue.raise(self.top),
            step if step == 2 * n => {
                assert!(self.transaction.commit(self.top));
                self.ended = now;
            }
            _ => return false,
        }
        self.step += 1;
        true
    }
}

const QUEUES: usize = 3;

/// The queues of a transaction, in the order in which it stages there.
fn queues() -> impl Strategy<Value = Vec<usize>> {
    let all = Just((0..QUEUES).collect::<Vec<_>>()).prop_shuffle();
    (all, 1..=QUEUES).prop_map(|(mut all, n)| {
        all.truncate(n);
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_is_consistent_and_causal(
        plans in prop::collection::vec(queues(), 1..8),
        // Whose step is next; the last three numbers are receivers.
        schedule in prop::collection::vec(0..11usize, 0..150),
    ) {
        let mut benches: Vec<Bench> = (0..QUEUES).map(|_| Bench::new()).collect();
        let mut runs: Vec<Run> = plans
            .into_iter()
            .enumerate()
            .map(|(i, queues)| Run {
                queues,
                transaction: transaction(100 - i as u64),
                step: 0,
                top: 0,
                began: usize::MAX,
                ended: usize::MAX,
            })
            .collect();
        let mut received = [const { Vec::new() }; QUEUES];
        let mut now = 0;
        for who in schedule {
            now += 1;
            if who >= 8 {
                received[who - 8].extend(benches[who - 8].take());
            } else if let Some(run) = runs.get_mut(who) {
                run.advance(&mut benches, who as u64, now);
            }
        }
        for (id, run) in runs.iter_mut().enumerate() {
            now += 1;
            while run.advance(&mut benches, id as u64, now) {}
        }
        let mut places: Vec<BTreeMap<u64, usize>> = Vec::new();
        for (bench, mut received) in benches.iter_mut().zip(received) {
            received.extend(bench.take_all());
            places.push(received.into_iter().zip(0..).collect());
        }
        for (i, a) in runs.iter().enumerate() {
            for q in &a.queues {
                prop_assert!(places[*q].contains_key(&(i as u64)), "{} is lost", i);
            }
            for (j, b) in runs.iter().enumerate().filter(|(j, _)| *j != i) {
                let common = a.queues.iter().filter(|q| b.queues.contains(q));
                let orders = common.map(|&q| places[q][&(i as u64)] < places[q][&(j as u64)]);
                let orders: Vec<bool> = orders.collect();
                prop_assert!(orders.windows(2).all(|pair| pair[0] == pair[1]), "{} and {}", i, j);
                if a.ended < b.began {
                    prop_assert!(orders.iter().all(|before| *before), "{} before {}", i, j);
                }
            }
        }
    }
}
