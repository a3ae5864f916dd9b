// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! Compares the record of a whole schedule with the promises of `docs/ordering.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use super::record::*;
use crate::abi::HANDLE_INVALID;

impl Record {
    /// Checks everything that the peers received, after all calls have returned and all queues are
    /// empty.
    pub(super) fn check(&self) {
        let mut first = BTreeMap::new();
        for (moment, fact) in self.facts.iter().enumerate() {
            let tx = match *fact {
                Fact::Happened(tx) => Some(tx),
                Fact::Died(node) => self.death(node),
            };
            if let Some(tx) = tx {
                first.entry(tx).or_insert(moment);
            }
        }
        let mut order = Order::default();
        for peer in 0..self.parties.len() {
            self.check_queue(peer, &first, &mut order);
            self.check_handles(peer);
        }
        self.check_deaths(&first, &mut order);
        order.check();
    }

    /// Checks that the owners were notified, after everything was released.
    pub(super) fn check_releases(&self) {
        for node in &self.nodes {
            self.check_release(node);
        }
    }

    /// Returns the transaction of a receipt.
    fn tx_of(&self, peer: PeerId, got: &Got) -> Option<TxId> {
        match got.what {
            What::Data { tx, .. } => Some(tx),
            What::Destroyed(id) => {
                let node = self.parties[peer].ids.get(&id);
                let node = *node.expect("a notice for an ID that the peer never had");
                Some(
                    self.death(node)
                        .expect("a notice though no call destroyed it"),
                )
            }
            What::Released(_) => None,
        }
    }

    /// Returns the number of the part that a receipt is.
    fn part_of(&self, peer: PeerId, tx: TxId, got: &Got) -> Option<usize> {
        let (node, all) = match (&got.what, &self.txs[tx].kind) {
            (What::Data { node, .. }, Kind::Send { to, .. }) => (*node, to),
            (What::Destroyed(id), Kind::Destroy(nodes)) => (self.parties[peer].ids[id], nodes),
            _ => return None,
        };
        all.iter().position(|&at| at == node)
    }

    fn check_queue(&self, peer: PeerId, first: &BTreeMap<TxId, Moment>, order: &mut Order) {
        let got = &self.parties[peer].got;
        let txs: Vec<Option<TxId>> = got.iter().map(|got| self.tx_of(peer, got)).collect();
        let mut seen = BTreeSet::new();
        let mut last: Option<TxId> = None;
        for at in 0..got.len() {
            let Some(tx) = txs[at] else {
                self.check_causes(peer, &txs[at..], got[at].fall, first);
                continue;
            };
            let part = self
                .part_of(peer, tx, &got[at])
                .expect("a part of another call");
            if at > 0 && txs[at - 1] == Some(tx) {
                let before = self.part_of(peer, tx, &got[at - 1]);
                assert!(before < Some(part), "the parts of {tx} are not in order");
            } else {
                assert!(seen.insert(tx), "the parts of {tx} are not consecutive");
                if let Some(last) = last {
                    order.add(last, tx);
                }
                last = Some(tx);
            }
            self.check_causes(peer, &txs[at..], self.txs[tx].begin, first);
            // The flag.
            let follows = txs.get(at + 1) == Some(&Some(tx));
            let acts = got
                .get(at + 1)
                .map_or(self.parties[peer].acts, |got| got.acts[1]);
            let acted = got[at].acts[0] != acts;
            assert!(got[at].more || !follows, "{tx} continues without a promise");
            assert!(
                follows || !got[at].more || acted,
                "{tx} does not continue as promised"
            );
            if let What::Data { node, .. } = got[at].what {
                self.check_message(&got[..=at], tx, node, first);
                self.check_slots(peer, &got[at], tx, first, order);
            }
        }
    }

    /// Checks that nothing comes behind an entry that began with all of it known.
    fn check_causes(
        &self,
        peer: PeerId,
        rest: &[Option<TxId>],
        begin: Moment,
        first: &BTreeMap<TxId, Moment>,
    ) {
        for later in rest[1..].iter().flatten() {
            let known = first.get(later).is_some_and(|&moment| moment < begin);
            let own = rest[0] == Some(*later);
            assert!(
                own || !known,
                "{later} came behind {:?} at {peer}, which began later",
                rest[0]
            );
        }
    }

    /// Checks a message, the last of these receipts, against the death of its node.
    fn check_message(&self, got: &[Got], tx: TxId, node: NodeId, first: &BTreeMap<TxId, Moment>) {
        let own = &self.nodes[node];
        let Some(death) = own.death else {
            return;
        };
        let dead = first.get(&death).copied().unwrap_or(Moment::MAX);
        if own.died_released && !own.given_to_owner {
            let begin = got[got.len() - 1].begin;
            assert!(begin <= dead, "{tx} came to a node that was released");
        }
        let told = got.iter().any(|got| got.what == What::Destroyed(own.id));
        assert!(!told, "{tx} came behind the death of its node");
    }

    /// Checks the handles of a message against the deaths of their nodes.
    fn check_slots(
        &self,
        peer: PeerId,
        got: &Got,
        tx: TxId,
        first: &BTreeMap<TxId, Moment>,
        order: &mut Order,
    ) {
        let (What::Data { slots, .. }, Kind::Send { slots: nodes, .. }) =
            (&got.what, &self.txs[tx].kind)
        else {
            return;
        };
        for (&id, &node) in slots.iter().zip(nodes) {
            let death = self.death(node);
            match death {
                Some(death) if id == HANDLE_INVALID => {
                    // A flush drops notices with the rest.
                    if self.parties[peer].flushed.is_none() {
                        order.add(death, tx);
                    }
                }
                Some(death) => {
                    let dead = first.get(&death).copied().unwrap_or(Moment::MAX);
                    let begin = self.txs[tx].begin;
                    assert!(dead >= begin, "{tx} brought a handle of a dead node");
                    order.add(tx, death);
                }
                None => assert!(id != HANDLE_INVALID, "{tx} brought INVALID for a live node"),
            }
        }
    }

    /// Checks that no handle died silently, and none twice.
    fn check_handles(&self, peer: PeerId) {
        let party = &self.parties[peer];
        let told = |id: u64| {
            let told = party
                .got
                .iter()
                .filter(|got| got.what == What::Destroyed(id));
            told.count()
        };
        for (&id, &node) in &party.ids {
            let own = &self.nodes[node];
            let n = told(id);
            assert!(n <= 1, "{id:#x} of {peer} died twice");
            let silent = own.death.is_some() && n == 0;
            let held = party.open && party.refs.contains_key(&id);
            assert!(!(held && silent), "{id:#x} of {peer} died silently");
            let is_silent = own.owner == peer && own.died_released && !own.given_to_owner;
            assert!(
                n == 0 || !is_silent,
                "the owner was notified of {id:#x}, which it released"
            );
        }
    }

    /// Adds that messages to a node come before its death.
    fn check_deaths(&self, first: &BTreeMap<TxId, Moment>, order: &mut Order) {
        for (id, tx) in self.txs.iter().enumerate() {
            let (Kind::Send { to, .. }, Outcome::Done(failed)) = (&tx.kind, &tx.outcome) else {
                continue;
            };
            for (part, &node) in to.iter().enumerate() {
                let Some(death) = self.death(node).filter(|_| !failed.contains(&part)) else {
                    continue;
                };
                let dead = first.get(&death).copied().unwrap_or(Moment::MAX);
                assert!(dead >= tx.begin, "{id} was sent to a dead node");
                order.add(id, death);
            }
        }
    }

    /// Checks that the owner was notified when the last reference was gone.
    fn check_release(&self, node: &Node) {
        let party = &self.parties[node.owner];
        if node.death.is_some()
            || node.seeded
            || !party.open
            || party.flushed.is_some()
            || !node.given
        {
            return;
        }
        assert_eq!(node.refs, 0);
        let last = party
            .got
            .iter()
            .rev()
            .find(|got| matches!(got.what, What::Released(of) if self.nodes[of].id == node.id));
        let last = last.expect("no release notice");
        assert!(last.end >= node.fall, "the last release has no notice");
    }
}

/// Transactions of which one is before another.
#[derive(Default)]
struct Order(BTreeMap<TxId, BTreeSet<TxId>>);

impl Order {
    fn add(&mut self, before: TxId, after: TxId) {
        if before != after {
            self.0.entry(before).or_default().insert(after);
            self.0.entry(after).or_default();
        }
    }

    /// Checks that there is one order of all.
    fn check(mut self) {
        while !self.0.is_empty() {
            let behind: BTreeSet<TxId> = self.0.values().flatten().copied().collect();
            let before = self.0.len();
            self.0.retain(|tx, _| behind.contains(tx));
            assert!(self.0.len() < before, "no order of all: {:?}", self.0);
        }
    }
}
