// SPDX-License-Identifier: MIT OR Apache-2.0

//! A sender of a history: multicasts to random sets of nodes, unicasts between, and now and
//! then the destruction of nodes of its own that receivers hold.

use bus1_uapi as abi;
use rand::seq::SliceRandom;
use rand::Rng;

use super::actor::{is_full, Stage, Trouble, Voice};
use super::log::{Part, Sent, Target};
use super::shared::Phase;
use crate::host::Errno as E;

/// Number of transactions of which one is a destruction.
const DESTRUCTIONS: u32 = 200;
/// Number of transactions of which one is a unicast.
const UNICASTS: u32 = 8;
/// Number of transactions of which one lets other destinations fail.
const PARTIAL: u32 = 16;
/// Messages between two looks at the own queue.
const LOOK: u32 = 32;

/// Plays sender number `me` to the end.
pub fn play(stage: &Stage, me: usize) -> Result<Vec<Sent>, Trouble> {
    let options = &stage.options;
    let mut voice = Voice::new(stage, me);
    let mut multicasts = options.multicasts / options.senders;
    if me < options.multicasts % options.senders {
        multicasts += 1;
    }
    let wanted = options.deliveries as u64;
    let mut round = 0_u32;
    let is_stopped = options.is_stopped(me);
    loop {
        let is_over = match is_stopped {
            true => stage.shared.has_entered(Phase::Over),
            false if wanted != 0 => stage.shared.deliveries() >= wanted,
            false => multicasts == 0,
        };
        if is_over {
            break;
        }
        round += 1;
        if round.is_multiple_of(LOOK) {
            settle(&voice)?;
        }
        if !is_stopped && voice.random.random_ratio(1, DESTRUCTIONS) {
            destroy(stage, &mut voice)?;
            continue;
        }
        let unicast = voice.random.random_ratio(1, UNICASTS);
        let mut parts = choose(stage, &mut voice, unicast);
        let sent = match deliver(stage, &mut voice, me, &mut parts) {
            Err(_) if is_stopped && stage.shared.has_entered(Phase::Over) => break,
            sent => sent?,
        };
        if multicasts > 0 && sent && voice.sent.last().is_some_and(|sent| sent.parts.len() > 1) {
            multicasts -= 1;
        }
    }
    // Nobody waits for one that was stopped.
    let parted = match is_stopped {
        true => 0,
        false => options.receivers,
    };
    for receiver in 0..parted {
        voice.farewell(receiver)?;
    }
    Ok(voice.sent)
}

/// Returns a random set of nodes, in random order.
fn choose(stage: &Stage, voice: &mut Voice<'_>, unicast: bool) -> Vec<Part> {
    let (receivers, slots) = (stage.options.receivers, stage.options.slots);
    let mut parts = Vec::new();
    if !unicast {
        for receiver in 0..receivers {
            // Half of them get nothing, the others one message, or one to each node.
            let n = voice.random.random_range(0..=slots + 1) % (slots + 1);
            let first = voice.random.random_range(0..slots);
            parts.extend((0..n).map(|i| part(receiver, (first + i) % slots)));
        }
    }
    if parts.is_empty() {
        let receiver = voice.random.random_range(0..receivers);
        parts.push(part(receiver, voice.random.random_range(0..slots)));
    }
    parts.shuffle(&mut voice.random);
    parts
}

fn part(receiver: usize, slot: usize) -> Part {
    Part {
        receiver: receiver as u8,
        target: Target::Slot(slot as u8),
    }
}

/// Sends to these nodes until it succeeds; nodes that are gone for the moment are left out. False
/// if all are.
fn deliver(
    stage: &Stage,
    voice: &mut Voice<'_>,
    me: usize,
    parts: &mut Vec<Part>,
) -> Result<bool, Trouble> {
    let proceed = voice.random.random_ratio(1, PARTIAL);
    loop {
        let to: Vec<u64> = parts.iter().map(|part| handle(stage, me, part)).collect();
        match voice.send(&to, parts, 0, proceed, None) {
            Ok(()) => return Ok(true),
            Err(errno) if is_full(errno) => voice.nap()?,
            // Destroyed; the notice may even have come, and the handle may be released.
            Err(E::HOSTUNREACH | E::NXIO) => {
                let renewed = parts
                    .iter()
                    .zip(&to)
                    .any(|(part, &id)| handle(stage, me, part) != id);
                if !renewed {
                    // The missing receiver will be back; so long the others get no message.
                    parts.truncate(parts.len() / 2);
                    if parts.is_empty() {
                        voice.nap()?;
                        settle(voice)?;
                        return Ok(false);
                    }
                }
            }
            Err(errno) => return Err(format!("SEND says {errno:?}")),
        }
    }
}

fn handle(stage: &Stage, me: usize, part: &Part) -> u64 {
    let Target::Slot(slot) = part.target else {
        unreachable!("messages go to slots")
    };
    stage
        .shared
        .handle(usize::from(part.receiver), usize::from(slot), me)
}

/// Looks into the own queue: notices of nodes that receivers have destroyed.
fn settle(voice: &Voice<'_>) -> Result<(), Trouble> {
    let peer = voice.peer();
    loop {
        match peer.receive().max_offset(0).header() {
            Ok(msg) if msg.kind == abi::MSG_NODE_DESTROY => {
                let released = peer.release(msg.destination);
                released.map_err(|errno| format!("HANDLE_RELEASE says {errno:?}"))?;
            }
            Ok(msg) if msg.kind == abi::MSG_NODE_RELEASE => (),
            Ok(msg) => return Err(format!("a sender received {msg:?}")),
            Err(E::AGAIN) => return Ok(()),
            Err(errno) => return Err(format!("RECV says {errno:?}")),
        }
    }
}

/// Makes one or two nodes, gives handles to some receivers, and destroys the nodes at one point.
fn destroy(stage: &Stage, voice: &mut Voice<'_>) -> Result<(), Trouble> {
    let peer = voice.peer();
    let nodes: Vec<u64> = (0..voice.random.random_range(1..=2))
        .map(|_| peer.new_node())
        .collect();
    let mut parts = Vec::new();
    for &node in &nodes {
        // A node that no peer was given does not exist yet, and is made by its destruction.
        for receiver in 0..stage.options.receivers {
            if !voice.random.random::<bool>() {
                continue;
            }
            match peer.give(&stage.peers[stage.options.senders + receiver], node) {
                Ok(id) => {
                    parts.push(Part {
                        receiver: receiver as u8,
                        target: Target::Handle(id),
                    });
                }
                Err(errno) if is_full(errno) => (),
                Err(errno) => return Err(format!("HANDLE_TRANSFER says {errno:?}")),
            }
        }
    }
    voice.destroy(&nodes, parts)
}
