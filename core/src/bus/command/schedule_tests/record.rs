// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The record of a schedule: what was begun, what returned, and what each peer received.
//!
//! Everything here is known from outside: arguments and results of commands. Facts are numbered as
//! they become known, so a call that begins knows the first so many.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use crate::abi::{HANDLE_INVALID, MSG_DATA, MSG_NODE_DESTROY, MSG_NODE_RELEASE};
use crate::bus::testing::{Client, Received};

/// A transaction, a node, a peer, by number.
pub(super) type TxId = usize;
pub(super) type NodeId = usize;
pub(super) type PeerId = usize;
/// A moment: the number of facts that are known.
pub(super) type Moment = usize;

/// Something that is known to all from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// A part was received, or the call returned.
    Happened(TxId),
    Died(NodeId),
}

/// A transaction with what it was asked to do.
#[derive(Debug)]
pub(super) enum Kind {
    Send {
        to: Vec<NodeId>,
        slots: Vec<NodeId>,
        partial: bool,
    },
    Destroy(Vec<NodeId>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Running,
    /// Nothing happened.
    Refused,
    /// The parts that failed, by their numbers; all others happened.
    Done(BTreeSet<usize>),
}

#[derive(Debug)]
pub(super) struct Tx {
    pub(super) kind: Kind,
    pub(super) begin: Moment,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) owner: PeerId,
    pub(super) id: u64,
    /// A call to destroy it has begun.
    pub(super) dying: bool,
    pub(super) death: Option<TxId>,
    /// The owner may have dropped its last reference, so nobody wants what comes to it.
    pub(super) released: bool,
    /// It was destroyed by a call that dropped the owner's reference in the same instant.
    pub(super) died_released: bool,
    /// The owner's seed carries it.
    pub(super) seeded: bool,
    /// The owner may have been given a handle to it.
    pub(super) given_to_owner: bool,
    /// Unfinished commands of the owner that name it.
    pub(super) users: usize,
    /// The owner has its pin.
    pub(super) pinned: bool,
    /// A peer got a reference for good.
    pub(super) given: bool,
    /// Number of references of users, the pin not counted.
    pub(super) refs: u64,
    /// Number of times that `refs` rose from 0.
    pub(super) rises: u64,
    /// The moment when `refs` last fell to 0.
    pub(super) fall: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Data {
        tx: TxId,
        node: NodeId,
        slots: Vec<u64>,
    },
    Destroyed(u64),
    Released(NodeId),
}

/// A receipt.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) what: What,
    pub(super) more: bool,
    /// The moments when the RECV began and returned.
    pub(super) begin: Moment,
    pub(super) end: Moment,
    /// Acts of the peer that were over before it began, and that had begun before it returned,
    /// which may make a part unwanted.
    pub(super) acts: [u64; 2],
    /// For a release: the moment when the last reference that is known fell.
    pub(super) fall: Moment,
}

/// The owner's reference to a node.
#[derive(Clone, Copy)]
pub(super) struct Pin {
    pinned: bool,
    released: bool,
}

/// User references by an ID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refs {
    pub(super) n: u64,
    pub(super) since: Moment,
    pub(super) node: NodeId,
}

pub(super) struct Party {
    pub(super) client: Client,
    pub(super) open: bool,
    /// Unfinished commands of the peer, and those that give it something, except RECV.
    pub(super) busy: usize,
    pub(super) receives: bool,
    /// In a flush or a disconnect.
    pub(super) resets: bool,
    pub(super) refs: BTreeMap<u64, Refs>,
    /// Each ID that it ever knew.
    pub(super) ids: BTreeMap<u64, NodeId>,
    pub(super) acts: u64,
    /// Calls under way that drop references, at any time until they return.
    pub(super) acting: u64,
    /// The end of its last flush.
    pub(super) flushed: Option<Moment>,
    /// The begin of that flush, or of the one under way.
    pub(super) flush_began: Moment,
    pub(super) got: Vec<Got>,
}

/// The state before a RECV.
pub(super) struct Look {
    begin: Moment,
    acts: u64,
    /// The own nodes that others hold, by the number of times that they came to be held.
    held: BTreeMap<NodeId, u64>,
    falls: BTreeMap<NodeId, Moment>,
}

#[derive(Default)]
pub(super) struct Record {
    pub(super) facts: Vec<Fact>,
    pub(super) txs: Vec<Tx>,
    pub(super) nodes: Vec<Node>,
    pub(super) parties: Vec<Party>,
}

impl Record {
    /// Prints everything, to look for the reason of a failure.
    pub(super) fn print(&self) {
        for (id, node) in self.nodes.iter().enumerate() {
            std::println!("node {id}: {node:?}");
        }
        for (id, tx) in self.txs.iter().enumerate() {
            std::println!("transaction {id}: {tx:?}");
        }
        for (id, party) in self.parties.iter().enumerate() {
            std::println!("peer {id}: {:?} {:?}", party.refs, party.flushed);
            for got in &party.got {
                std::println!("  {got:?}");
            }
        }
        std::println!("facts: {:?}", self.facts);
    }

    pub(super) fn now(&self) -> Moment {
        self.facts.len()
    }

    pub(super) fn learn(&mut self, fact: Fact) {
        self.facts.push(fact);
    }

    pub(super) fn add_party(&mut self, client: Client) {
        self.parties.push(Party {
            client,
            open: true,
            busy: 0,
            receives: false,
            resets: false,
            refs: BTreeMap::new(),
            ids: BTreeMap::new(),
            acts: 0,
            acting: 0,
            flushed: None,
            flush_began: 0,
            got: Vec::new(),
        });
    }

    /// Adds a node, with its pin.
    pub(super) fn add_node(&mut self, owner: PeerId, id: u64) -> NodeId {
        let node = self.nodes.len();
        self.nodes.push(Node {
            owner,
            id,
            dying: false,
            death: None,
            released: false,
            died_released: false,
            seeded: false,
            given_to_owner: false,
            users: 0,
            pinned: true,
            given: false,
            refs: 0,
            rises: 0,
            fall: 0,
        });
        let party = &mut self.parties[owner];
        party.ids.insert(id, node);
        let since = self.facts.len();
        party.refs.insert(id, Refs { n: 1, since, node });
        node
    }

    pub(super) fn begin(&mut self, kind: Kind) -> TxId {
        let begin = self.now();
        self.txs.push(Tx {
            kind,
            begin,
            outcome: Outcome::Running,
        });
        self.txs.len() - 1
    }

    /// Notes that a transaction returned, with the parts that failed.
    pub(super) fn done(&mut self, tx: TxId, failed: BTreeSet<usize>) {
        self.txs[tx].outcome = Outcome::Done(failed);
        self.learn(Fact::Happened(tx));
        if let Kind::Destroy(nodes) = &self.txs[tx].kind {
            for &node in nodes {
                let before = self.nodes[node].death.replace(tx);
                assert_eq!(before, None, "a node died twice");
            }
        }
    }

    pub(super) fn refused(&mut self, tx: TxId) {
        assert!(
            !self.facts.contains(&Fact::Happened(tx)),
            "a refused call was received"
        );
        self.txs[tx].outcome = Outcome::Refused;
    }

    /// Returns the death of a node, as far as it is known.
    pub(super) fn death(&self, node: NodeId) -> Option<TxId> {
        self.nodes[node].death
    }

    /// Notes a reference that a peer has gained.
    pub(super) fn gain(&mut self, peer: PeerId, id: u64, node: NodeId) {
        let now = self.now();
        let party = &mut self.parties[peer];
        let known = party.ids.insert(id, node);
        assert!(
            known.is_none_or(|known| known == node),
            "an ID of two nodes"
        );
        let new = Refs {
            n: 0,
            since: now,
            node,
        };
        party.refs.entry(id).or_insert(new).n += 1;
        let node = &mut self.nodes[node];
        node.given = true;
        node.rises += u64::from(node.refs == 0);
        node.refs += 1;
    }

    /// Notes a reference that a peer may have gained at any time since `begin`.
    pub(super) fn gain_since(&mut self, peer: PeerId, id: u64, node: NodeId, begin: Moment) {
        self.gain(peer, id, node);
        let node = &mut self.nodes[node];
        // It may have been there while nobody knew of it, and so may its end.
        node.fall = node.fall.min(begin);
    }

    /// Notes that a peer begins to drop the pin of an own node. Returns what it was before.
    pub(super) fn drop_pin(&mut self, peer: PeerId, id: u64) -> Pin {
        let party = &mut self.parties[peer];
        party.acts += 1;
        let refs = party.refs.get_mut(&id).unwrap();
        let node = &mut self.nodes[refs.node];
        let before = Pin {
            pinned: node.pinned,
            released: node.released,
        };
        node.pinned = false;
        refs.n -= 1;
        if refs.n == 0 {
            party.refs.remove(&id);
            node.released = true;
        }
        before
    }

    /// Notes that the pin of an own node was not dropped after all.
    pub(super) fn regain_pin(&mut self, peer: PeerId, id: u64, node: NodeId, pin: Pin) {
        let since = self.now();
        let new = Refs { n: 0, since, node };
        self.parties[peer].refs.entry(id).or_insert(new).n += 1;
        let node = &mut self.nodes[node];
        (node.pinned, node.released) = (pin.pinned, pin.released);
    }

    /// Notes that a peer begins to drop a reference.
    pub(super) fn drop_ref(&mut self, peer: PeerId, id: u64) {
        let now = self.now();
        let party = &mut self.parties[peer];
        party.acts += 1;
        let refs = party.refs.get_mut(&id).unwrap();
        let node = refs.node;
        refs.n -= 1;
        let is_last = refs.n == 0;
        if is_last {
            party.refs.remove(&id);
        }
        let node = &mut self.nodes[node];
        let is_pin = is_last && node.owner == peer && node.pinned;
        node.released |= is_last && node.owner == peer;
        node.pinned &= !is_pin;
        if !is_pin {
            node.refs -= 1;
            if node.refs == 0 {
                node.fall = now;
            }
        }
    }

    /// Notes that a peer begins to drop all its references, except the pins of nodes that `stays`.
    pub(super) fn drop_all_refs(&mut self, peer: PeerId, stays: impl Fn(&Node) -> bool) {
        let ids: Vec<(u64, u64)> = self.parties[peer]
            .refs
            .iter()
            .map(|(&id, refs)| {
                let node = &self.nodes[refs.node];
                (id, refs.n - u64::from(node.owner == peer && stays(node)))
            })
            .collect();
        for (id, n) in ids {
            (0..n).for_each(|_| self.drop_ref(peer, id));
        }
    }

    pub(super) fn look(&self, peer: PeerId) -> Look {
        let own = self.nodes.iter().enumerate();
        let own = own.filter(|(_, node)| node.owner == peer);
        let held = own.clone().filter(|(_, node)| node.refs != 0);
        let fallen = own.filter(|(_, node)| node.refs == 0);
        Look {
            begin: self.now(),
            acts: self.parties[peer].acts - self.parties[peer].acting,
            held: held.map(|(id, node)| (id, node.rises)).collect(),
            falls: fallen.map(|(id, node)| (id, node.fall)).collect(),
        }
    }

    /// Notes a receipt that began with `look`.
    pub(super) fn receive(&mut self, peer: PeerId, look: Look, received: Received) {
        let own = |record: &Self, id: u64| {
            let mut all = record.nodes.iter();
            let found = all.position(|node| node.owner == peer && node.id == id);
            found.expect("a message to no node")
        };
        let mut fall = 0;
        let what = match received.kind {
            MSG_DATA => {
                let tx = u32::from_ne_bytes(received.data[..].try_into().unwrap()) as TxId;
                let node = own(self, received.destination);
                let Kind::Send { slots, .. } = &self.txs[tx].kind else {
                    panic!("a message that no call sent");
                };
                let slots = slots.clone();
                let party = &self.parties[peer];
                let known = &self.facts[..party.flush_began];
                assert!(
                    !known.contains(&Fact::Happened(tx)),
                    "{tx} outlived a flush"
                );
                assert!(
                    self.txs[tx].outcome != Outcome::Refused,
                    "a refused message"
                );
                for (&id, node) in received.handles.iter().zip(slots) {
                    if id != HANDLE_INVALID {
                        self.gain(peer, id, node);
                    }
                }
                self.learn(Fact::Happened(tx));
                What::Data {
                    tx,
                    node,
                    slots: received.handles,
                }
            }
            MSG_NODE_DESTROY => {
                if let Some(&node) = self.parties[peer].ids.get(&received.destination) {
                    assert!(self.nodes[node].dying, "a notice though nothing died");
                    self.learn(Fact::Died(node));
                }
                What::Destroyed(received.destination)
            }
            MSG_NODE_RELEASE => {
                let node = own(self, received.destination);
                let rises = look.held.get(&node);
                let is_held = self.nodes[node].refs != 0;
                assert!(
                    !(is_held && rises == Some(&self.nodes[node].rises)),
                    "a release notice though the node is held"
                );
                if !is_held {
                    fall = look.falls.get(&node).copied().unwrap_or_default();
                }
                What::Released(node)
            }
            kind => panic!("an entry of kind {kind}"),
        };
        let end = self.now();
        let party = &mut self.parties[peer];
        party.got.push(Got {
            what,
            more: received.more,
            begin: look.begin,
            end,
            acts: [look.acts, party.acts],
            fall,
        });
    }

    /// Checks that nothing is kept back: a RECV that began with `look` found nothing.
    pub(super) fn found_nothing(&self, peer: PeerId, look: &Look) {
        let party = &self.parties[peer];
        for &fact in &self.facts[..look.begin] {
            if let Fact::Happened(tx) = fact {
                self.is_received(peer, tx);
            }
            let dead: Vec<NodeId> = match fact {
                Fact::Died(node) => Vec::from([node]),
                Fact::Happened(tx) => match &self.txs[tx].kind {
                    Kind::Destroy(nodes) => nodes.clone(),
                    Kind::Send { .. } => Vec::new(),
                },
            };
            for (&id, refs) in &party.refs {
                let held = dead.contains(&refs.node) && refs.since <= look.begin;
                let mut got = party.got.iter();
                let told = got.any(|got| got.what == What::Destroyed(id));
                assert!(!held || told, "the notice for {id:#x} is kept back");
            }
        }
    }

    /// Returns whether it does not matter that a part for this node of a peer is not received.
    fn is_excused(&self, peer: PeerId, tx: TxId, node: NodeId) -> bool {
        let flushed = self.parties[peer].flushed;
        self.nodes[node].released || flushed.is_some_and(|end| end >= self.txs[tx].begin)
    }

    /// Checks that a transaction that happened was received.
    fn is_received(&self, peer: PeerId, id: TxId) {
        let tx = &self.txs[id];
        let Kind::Send { to, partial, .. } = &tx.kind else {
            return;
        };
        let failed = match &tx.outcome {
            Outcome::Done(failed) => failed.clone(),
            Outcome::Running if !partial => BTreeSet::new(),
            Outcome::Running | Outcome::Refused => return,
        };
        for (part, &node) in to.iter().enumerate() {
            let here = self.nodes[node].owner == peer && !failed.contains(&part);
            if !here || self.is_excused(peer, id, node) {
                continue;
            }
            let is_part = |got: &Got| match &got.what {
                What::Data { tx, node: at, .. } => (*tx, *at) == (id, node),
                What::Destroyed(_) | What::Released(_) => false,
            };
            let received = self.parties[peer].got.iter().any(is_part);
            assert!(received, "part {part} of {id} is kept back");
        }
    }
}
