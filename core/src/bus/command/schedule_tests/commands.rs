// SPDX-License-Identifier: GPL-2.0-only OR MIT

//! The commands of a schedule: each notes what it is about to do, runs the real command, and notes
//! the result.

use std::collections::BTreeSet;
use std::vec::Vec;

use kernel::error::{code::*, Result};

use super::record::{Fact, Kind, Node, NodeId, PeerId, Record, TxId};
use super::Schedule;
use crate::abi::*;
use crate::bus::testing::{Hooks, Letter};

impl Schedule {
    /// Returns the IDs that a peer may name, with their nodes.
    fn named(&self, me: PeerId) -> Vec<(u64, NodeId)> {
        let record = self.record.lock().unwrap();
        let refs = record.parties[me].refs.iter();
        refs.map(|(&id, refs)| (id, refs.node)).collect()
    }

    /// Notes that a command of a peer begins which names these nodes, or that it ends.
    fn use_nodes(record: &mut Record, me: PeerId, nodes: &[NodeId], begins: bool) {
        for &node in nodes {
            let node = &mut record.nodes[node];
            if node.owner == me {
                node.users = node.users + usize::from(begins) - usize::from(!begins);
            }
        }
        let busy = &mut record.parties[me].busy;
        *busy = *busy + usize::from(begins) - usize::from(!begins);
    }

    pub(super) fn send(&mut self, me: PeerId) {
        let mut all = self.named(me);
        let mut carried = all.clone();
        let n = [1, 1, 2, 2, 3, 5][self.chance.below(6)];
        let to: Vec<_> = (0..n).map_while(|_| self.chance.draw(&mut all)).collect();
        let n = [0, 0, 1, 1, 2][self.chance.below(5)];
        let handles: Vec<_> = (0..n)
            .map_while(|_| self.chance.draw(&mut carried))
            .collect();
        if to.is_empty() {
            return;
        }
        let partial = self.chance.once_in(3);
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        let nodes = |all: &[(u64, NodeId)]| all.iter().map(|&(_, node)| node).collect::<Vec<_>>();
        let (to_nodes, slots) = (nodes(&to), nodes(&handles));
        for &slot in &slots {
            let owner = record.nodes[slot].owner;
            let back = to_nodes.iter().any(|&to| record.nodes[to].owner == owner);
            record.nodes[slot].given_to_owner |= back;
        }
        let used = [&to_nodes[..], &slots].concat();
        Self::use_nodes(record, me, &used, true);
        let tx = record.begin(Kind::Send {
            to: to_nodes.clone(),
            slots,
            partial,
        });
        let (client, acts) = (record.parties[me].client.clone(), record.parties[me].acts);
        let shared = self.record.clone();
        let data = (tx as u32).to_ne_bytes();
        let command = move || {
            let ids = |all: &[(u64, NodeId)]| all.iter().map(|&(id, _)| id).collect::<Vec<_>>();
            let (to, handles) = (ids(&to), ids(&handles));
            let letter = Letter {
                handles: &handles,
                flags: u64::from(partial) * SEND_FLAG_CONTINUE,
                ..Letter::new(&to, &data)
            };
            let (result, errors) = client.send_with(letter, &Hooks::default());
            let record = &mut *shared.lock().unwrap();
            Self::use_nodes(record, me, &used, false);
            let acted = record.parties[me].acts != acts;
            sent(record, tx, &to_nodes, partial, result, &errors, acted);
        };
        drop(guard);
        self.call(true, command);
    }

    pub(super) fn receive(&mut self, me: PeerId) {
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        record.parties[me].receives = true;
        let (look, client) = (record.look(me), record.parties[me].client.clone());
        let shared = self.record.clone();
        let command = move || {
            let taken = client.take();
            let record = &mut *shared.lock().unwrap();
            record.parties[me].receives = false;
            match taken {
                Ok(received) => record.receive(me, look, received),
                Err(error) => {
                    assert_eq!(error, EAGAIN, "RECV");
                    record.found_nothing(me, &look);
                }
            }
        };
        drop(guard);
        self.call(false, command);
    }

    pub(super) fn destroy(&mut self, me: PeerId) {
        let mut own = self.named(me);
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        own.retain(|&(_, node)| record.nodes[node].owner == me);
        let n = 1 + self.chance.below(2);
        let doomed: Vec<_> = (0..n).map_while(|_| self.chance.draw(&mut own)).collect();
        if doomed.is_empty() {
            return;
        }
        let nodes: Vec<NodeId> = doomed.iter().map(|&(_, node)| node).collect();
        // A node that is released while a command is about to name it could be made anew.
        let is_free = |&node: &NodeId| record.nodes[node].users == 0;
        let release = nodes.iter().all(is_free) && self.chance.once_in(2);
        let tx = record.begin(Kind::Destroy(nodes.clone()));
        let mut pins = Vec::new();
        for &(id, node) in &doomed {
            record.nodes[node].dying = true;
            if release {
                pins.push((id, node, record.drop_pin(me, id)));
            }
        }
        Self::use_nodes(record, me, &nodes, true);
        record.parties[me].acting += u64::from(release);
        let (client, acts) = (record.parties[me].client.clone(), record.parties[me].acts);
        let shared = self.record.clone();
        let command = move || {
            let ids: Vec<u64> = doomed.iter().map(|&(id, _)| id).collect();
            let flags = u64::from(release) * NODES_DESTROY_FLAG_RELEASE_HANDLES;
            let result = client.destroy_with(&ids, flags);
            let record = &mut *shared.lock().unwrap();
            Self::use_nodes(record, me, &nodes, false);
            let acted = record.parties[me].acts != acts;
            // The pins were dropped at any time until now.
            record.parties[me].acts += u64::from(release);
            record.parties[me].acting -= u64::from(release);
            if result.is_ok() {
                record.done(tx, BTreeSet::new());
                for &node in &nodes {
                    record.nodes[node].died_released |= release;
                }
                return;
            }
            assert!(result == Err(ESTALE) || acted && result == Err(ENXIO));
            record.refused(tx);
            for (id, node, pin) in pins {
                record.regain_pin(me, id, node, pin);
            }
        };
        drop(guard);
        self.call(true, command);
    }

    pub(super) fn transfer(&mut self, me: PeerId) {
        let all = self.named(me);
        let Some((id, node)) = self.chance.pick(&all) else {
            return;
        };
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        let to = self.chance.below(record.parties.len());
        let party = &mut record.parties[to];
        if !party.open || party.resets {
            return;
        }
        party.busy += 1;
        let other = party.client.clone();
        record.nodes[node].given_to_owner |= record.nodes[node].owner == to;
        Self::use_nodes(record, me, &[node], true);
        let begin = record.now();
        let (client, acts) = (record.parties[me].client.clone(), record.parties[me].acts);
        let shared = self.record.clone();
        let command = move || {
            let result = client.transfer(id, &other);
            let record = &mut *shared.lock().unwrap();
            record.parties[to].busy -= 1;
            Self::use_nodes(record, me, &[node], false);
            match result {
                Ok(HANDLE_INVALID) => {
                    assert!(record.nodes[node].dying, "INVALID for a live node");
                    record.learn(Fact::Died(node));
                }
                Ok(given) => record.gain_since(to, given, node, begin),
                Err(error) => assert!(error == ENXIO && record.parties[me].acts != acts),
            }
        };
        drop(guard);
        self.call(true, command);
    }

    pub(super) fn release(&mut self, me: PeerId) {
        let mut all = self.named(me);
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        // The pin of a node that may live stays.
        all.retain(|&(id, node)| {
            let own = &record.nodes[node];
            let is_pin = own.owner == me && record.parties[me].refs[&id].n == 1;
            !is_pin || own.death.is_some() && own.users == 0
        });
        let Some((id, node)) = self.chance.pick(&all) else {
            return;
        };
        record.drop_ref(me, id);
        record.parties[me].acting += 1;
        Self::use_nodes(record, me, &[node], true);
        let client = record.parties[me].client.clone();
        let shared = self.record.clone();
        let command = move || {
            let result = client.release(id);
            let record = &mut *shared.lock().unwrap();
            Self::use_nodes(record, me, &[node], false);
            // The reference was dropped at any time until now.
            record.parties[me].acts += 1;
            record.parties[me].acting -= 1;
            assert_eq!(result, Ok(()), "HANDLE_RELEASE");
        };
        drop(guard);
        self.call(true, command);
    }

    /// Flushes or disconnects.
    pub(super) fn reset(&mut self, me: PeerId, leave: bool) {
        let mine = self.record.clone();
        let mut guard = mine.lock().unwrap();
        let record = &mut *guard;
        let now = record.now();
        let party = &mut record.parties[me];
        party.resets = true;
        party.open = !leave;
        party.flush_began = now;
        let client = party.client.clone();
        let stays = move |node: &Node| !leave && node.seeded && node.pinned && node.death.is_none();
        let mut nodes = Vec::new();
        for (id, node) in record.nodes.iter_mut().enumerate() {
            if node.owner == me && node.death.is_none() && !stays(node) {
                node.dying = true;
                nodes.push(id);
            }
        }
        let tx = record.begin(Kind::Destroy(nodes));
        record.drop_all_refs(me, stays);
        let shared = self.record.clone();
        let command = move || {
            let result = match leave {
                true => client.disconnect(),
                false => client.flush(PEER_RESET_FLAG_FLUSH),
            };
            assert_eq!(result, Ok(()));
            let record = &mut *shared.lock().unwrap();
            record.done(tx, BTreeSet::new());
            let now = record.now();
            let party = &mut record.parties[me];
            party.flushed = Some(now);
            party.resets = false;
        };
        drop(guard);
        self.call(true, command);
    }
}

/// Notes the result of a SEND.
fn sent(
    record: &mut Record,
    tx: TxId,
    to: &[NodeId],
    partial: bool,
    result: Result,
    errors: &[i32],
    acted: bool,
) {
    const HOSTUNREACH: i32 = 113;
    const NXIO: i32 = 6;
    let dying = |record: &Record| {
        let dying = to.iter().copied();
        let dying = dying.filter(|&node| record.nodes[node].dying);
        dying.collect::<Vec<_>>()
    };
    match result {
        Ok(()) if partial => {
            let mut failed = BTreeSet::new();
            for (part, &error) in errors.iter().enumerate() {
                match error {
                    0 => continue,
                    HOSTUNREACH => {
                        assert!(record.nodes[to[part]].dying, "refused by a live node");
                        record.learn(Fact::Died(to[part]));
                    }
                    NXIO => assert!(acted, "a handle is gone"),
                    error => panic!("error {error} of a destination"),
                }
                failed.insert(part);
            }
            match failed.len() == to.len() {
                true => record.refused(tx),
                false => record.done(tx, failed),
            }
        }
        Ok(()) => record.done(tx, BTreeSet::new()),
        Err(error) => {
            record.refused(tx);
            match error {
                EHOSTUNREACH => match dying(record)[..] {
                    [] => panic!("refused by a live node"),
                    [only] => record.learn(Fact::Died(only)),
                    _ => (),
                },
                ENXIO => assert!(acted, "a handle is gone"),
                error => panic!("SEND says {error:?}"),
            }
        }
    }
}
